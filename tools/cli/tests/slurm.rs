// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scripts for Slurm, with a command in the place of `sbatch` that runs each job at once, and
//! one in the place of `firebreak` that has its cases' results already. What merges and reports is
//! the real one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SHARDS: usize = 3;
const CASES: usize = 8;

/// Runs the tasks of an array one after the other; a job that depends on another finds it done.
const SBATCH: &str = r#"#!/bin/sh
while :; do
    case $1 in
    --array=*) last=${1##*-} ;;
    --dependency=afterany:7) ;;
    --dependency=*) exit 9 ;;
    --*) ;;
    *) break ;;
    esac
    shift
done
if [ -n "$last" ]; then
    task=1
    while [ $task -le "$last" ]; do
        SLURM_ARRAY_TASK_ID=$task SLURM_CPUS_PER_TASK=2 "$@" >&2
        task=$((task + 1))
    done
    echo "7;cluster"
else
    "$@" >&2 || exit 1
    echo 8
fi
"#;

/// Has the results of each shard; fails as one does that has an unexpected case.
const FIREBREAK: &str = r#"#!/bin/sh
case $2 in
merge | report) exec "$REAL" "$@" ;;
esac
echo "$@" >>"$WORK/calls"
while [ $# -gt 0 ]; do
    case $1 in
    --shard) shard=${2%/*} ;;
    --output) output=$2 ;;
    esac
    shift
done
cp "$WORK/made-$shard.jsonl" "$output"
exit 1
"#;

fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn case(number: usize) -> String {
    let name = format!("e{number}/m/g/0");
    serde_json::json!({
        "kind": "case", "name": name, "guest": "g", "error": format!("e{number}"), "moment": "m",
        "policy": "default", "firmware": "conforming", "ras_visible": true, "repetition": 0,
        "class": "panicked", "expected": null, "ok": null, "reason": "it said so",
        "evidence": [], "timeline": [], "console": [], "syndrome": null, "syndrome_words": [],
        "record": null, "command": "x", "reset": "cold", "wall_ms": 5
    })
    .to_string()
}

fn results(numbers: &[usize], shard: Option<usize>) -> String {
    let command = shard.map_or("firebreak campaign p.toml".to_owned(), |index| {
        format!("firebreak campaign p.toml --shard {index}/{SHARDS}")
    });
    let shard = shard.map(|index| serde_json::json!({"index": index, "count": SHARDS}));
    let run = serde_json::json!({
        "kind": "run", "v": 1, "plan": "p", "plan_sha256": "00", "firebreak": "0.1.0",
        "commit": null, "qemu": "10.0.2", "cpu": "neoverse-n1",
        "guests": [{"name": "g", "what": "G", "sha256": "00"}], "seed": 1, "shard": shard,
        "cases": numbers.len(), "started": "2026-01-01T00:00:00Z", "command": command
    });
    let end = serde_json::json!({
        "kind": "end", "done": numbers.len(), "interrupted": false, "wall_s": 1.0,
        "budget_hit": null
    });
    let mut text = format!("{run}\n");
    for number in numbers {
        text += &format!("{}\n", case(*number));
    }
    text + &format!("{end}\n")
}

fn submit(dir: &Path, shards: &str) -> Output {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../campaign/slurm");
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    Command::new(scripts.join("submit.sh"))
        .current_dir(dir)
        .env("PATH", path)
        .env("WORK", dir)
        .env("REAL", env!("CARGO_BIN_EXE_firebreak"))
        .env("FIREBREAK", dir.join("fake"))
        .args(["p.toml", shards, "out", "--payloads", "here"])
        .output()
        .unwrap()
}

fn prepared(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    program(&dir.join("sbatch"), SBATCH);
    program(&dir.join("fake"), FIREBREAK);
    fs::write(dir.join("p.toml"), "").unwrap();
    for shard in 1..=SHARDS {
        let numbers: Vec<usize> = (shard - 1..CASES).step_by(SHARDS).collect();
        let text = results(&numbers, Some(shard));
        fs::write(dir.join(format!("made-{shard}.jsonl")), text).unwrap();
    }
    dir
}

fn cases(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines
        .filter(|line| line.contains("\"kind\":\"case\""))
        .collect()
}

#[test]
fn shards_that_slurm_runs_become_the_run_of_one_machine() {
    let dir = prepared("slurm-all");
    let output = submit(&dir, "3");
    assert!(output.status.success(), "{output:?}");
    let calls = fs::read_to_string(dir.join("calls")).unwrap();
    for shard in 1..=SHARDS {
        let options = format!("campaign p.toml --shard {shard}/{SHARDS} --jobs 2 --output ");
        assert!(calls.contains(&options), "{calls}");
    }
    assert_eq!(calls.matches("--payloads here").count(), SHARDS);
    assert!(!calls.contains("--resume"));

    let numbers: Vec<usize> = (0..CASES).collect();
    fs::write(dir.join("alone.jsonl"), results(&numbers, None)).unwrap();
    let merged = Command::new(env!("CARGO_BIN_EXE_firebreak"))
        .current_dir(&dir)
        .args(["campaign", "merge", "alone.jsonl", "-o", "one.jsonl"])
        .output()
        .unwrap();
    assert!(merged.status.success(), "{merged:?}");
    let one = fs::read_to_string(dir.join("one.jsonl")).unwrap();
    let all = fs::read_to_string(dir.join("out/p.jsonl")).unwrap();
    assert_eq!(cases(&one).len(), CASES);
    assert_eq!(cases(&one), cases(&all));
    assert!(dir.join("out/p.html").exists() && dir.join("out/p.xml").exists());

    // Slurm starts a task again: it goes on with what is there.
    submit(&dir, "3");
    let calls = fs::read_to_string(dir.join("calls")).unwrap();
    assert_eq!(calls.matches("--resume").count(), SHARDS);
}

#[test]
fn a_shard_without_results_and_a_wrong_number_are_told() {
    let dir = prepared("slurm-missing");
    fs::remove_file(dir.join("made-2.jsonl")).unwrap();
    let output = submit(&dir, "3");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("shard-2.jsonl"), "{text}");
    for wrong in ["0", "x", ""] {
        assert_eq!(submit(&dir, wrong).status.code(), Some(2));
    }
}
