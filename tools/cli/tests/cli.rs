// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command as a user or a script meets it.

use std::path::Path;
use std::process::{Command, Output};

fn firebreak(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_firebreak"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/manifest-bad"))
        .env_remove("FIREBREAK_HYPERVISOR")
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A partition file that is right, with its payload beside the corpus.
fn good_file(dir: &Path) -> String {
    let file = dir.join("good.toml");
    let text = "[[partition]]\nname = \"a\"\nvcpus = 1\npes = [0]\nmemory = \"16 MiB\"\nimage = \"raw.bin\"\n";
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn a_mistake_is_shown_on_standard_error_without_colors_and_gives_1() {
    let output = firebreak(&["check", "unknown-key.toml", "--payloads", "payloads"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/corpus/manifest-bad/unknown-key.stderr"),
    );
    assert_eq!(text(&output.stderr), expected.unwrap());
    assert!(output.stdout.is_empty());
    assert!(!text(&output.stderr).contains('\x1b'));
}

#[test]
fn a_mistake_is_shown_as_json_with_its_place() {
    let output = firebreak(&[
        "check",
        "unknown-key.toml",
        "--payloads",
        "payloads",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.is_empty());
    let json = json(&output);
    assert_eq!(json["ok"], false);
    let problem = &json["problems"][0];
    assert_eq!(problem["level"], "error");
    assert_eq!(problem["file"], "unknown-key.toml");
    assert_eq!(
        (&problem["line"], &problem["column"]),
        (&8.into(), &1.into())
    );
    assert_eq!(problem["remedy"], "did you mean `memory`?");
}

#[test]
fn a_good_file_gives_0_and_its_map() {
    let dir = tempfile::tempdir().unwrap();
    let file = good_file(dir.path());
    let output = firebreak(&["check", &file, "--payloads", "payloads"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("no problems found"));
    let json = json(&firebreak(&[
        "check",
        &file,
        "--payloads",
        "payloads",
        "--json",
    ]));
    assert_eq!(json["ok"], true);
    assert_eq!(json["report"]["partitions"][0]["ram_bytes"], 16 << 20);
    assert_eq!(json["report"]["sha256"], serde_json::Value::Null);
}

#[test]
fn build_without_a_hypervisor_says_how_to_name_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = good_file(dir.path());
    let image = dir.path().join("out.img").display().to_string();
    let output = firebreak(&["build", &file, "--payloads", "payloads", "-o", &image]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("FIREBREAK_HYPERVISOR"));
    assert!(!Path::new(&image).exists());
}

#[test]
fn decode_tells_a_syndrome_in_words_and_in_json() {
    let output = firebreak(&["decode", "0xbe000c11"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output.stdout).contains("severity  UER"),
        "{}",
        text(&output.stdout)
    );
    let json = json(&firebreak(&["decode", "811", "--json"]));
    assert_eq!(
        (&json["severity"], &json["iss"]),
        (&"UEO".into(), &"0x811".into())
    );
    assert_eq!(firebreak(&["decode", "twelve"]).status.code(), Some(1));
}

#[test]
fn decode_reads_what_a_crash_left() {
    let dumps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/dumps");
    let memory = dumps.join("exception.bin").display().to_string();
    let dump = json(&firebreak(&["decode", &memory, "--json"]));
    let crash = &dump["crash"];
    assert_eq!((&crash["whole"], &crash["pe"]), (&true.into(), &1.into()));
    assert_eq!(crash["records"][0]["id"], 13);
    assert_eq!(crash["x"].as_array().unwrap().len(), 31);
    let entries = dump["log"]["entries"].as_array().unwrap();
    assert_eq!(entries.first().unwrap()["event"]["ev"], "boot");
    assert_eq!(entries.last().unwrap()["event"]["ev"], "panic");
    let shown = text(&firebreak(&["decode", &memory]).stdout);
    assert!(shown.contains("unexpected exception at EL2"), "{shown}");

    // The same record as bytes, as hexadecimal text in a file, and on the command line.
    let region = std::fs::read(dumps.join("exception.bert")).unwrap();
    let hex: String = region.iter().map(|byte| format!("{byte:02x}")).collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bert.hex").display().to_string();
    std::fs::write(&file, format!("{hex}\n")).unwrap();
    let bytes = dumps.join("exception.bert").display().to_string();
    let records = json(&firebreak(&["decode", &bytes, "--json"]));
    assert_eq!(records["blocks"].as_array().unwrap().len(), 1);
    let own = &records["blocks"][0]["sections"][1]["content"];
    assert_eq!(
        (&own["source"], &own["pc"]),
        (&"hypervisor".into(), &crash["pc"])
    );
    for form in [&file, &hex] {
        assert_eq!(json(&firebreak(&["decode", form, "--json"])), records);
    }

    std::fs::write(&file, "no dump of ours, but long enough to be one").unwrap();
    let refused = firebreak(&["decode", &file]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("neither a crash page, a log nor an error record"));
}

#[test]
fn a_wrong_command_line_gives_2_and_help_gives_examples() {
    for wrong in [
        &["chek"][..],
        &["check"],
        &["build", "x.toml"],
        &["check", "a", "--jsn"],
        &[],
    ] {
        assert_eq!(firebreak(wrong).status.code(), Some(2), "{wrong:?}");
    }
    for command in ["--help", "check", "build", "decode"] {
        let args = if command == "--help" {
            vec![command]
        } else {
            vec![command, "--help"]
        };
        let output = firebreak(&args);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("Examples:"), "{command}");
    }
}

#[test]
fn new_writes_a_partition_file_that_only_wants_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let system = dir.path().join("system");
    let path = system.display().to_string();
    let output = firebreak(&["new", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let file = system.join("firebreak.toml").display().to_string();
    let without = firebreak(&["check", &file]);
    assert!(text(&without.stderr).contains("first.bin"));
    std::fs::write(system.join("first.bin"), [0; 64]).unwrap();
    let with = firebreak(&["check", &file]);
    assert_eq!(with.status.code(), Some(0), "{}", text(&with.stderr));

    let before = std::fs::read(&file).unwrap();
    let again = firebreak(&["new", &path]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is there already"));
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn new_makes_a_board_file_of_a_devicetree() {
    let dir = tempfile::tempdir().unwrap();
    let dtb =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/dtb/xlnx-versal-virt.dtb");
    let system = dir.path().join("system");
    let path = system.display().to_string();
    let output = firebreak(&[
        "new",
        &path,
        "--devicetree",
        &dtb.display().to_string(),
        "--json",
    ]);
    assert_eq!(json(&output)["files"].as_array().unwrap().len(), 2);
    std::fs::write(system.join("first.bin"), [0; 64]).unwrap();
    let file = system.join("firebreak.toml").display().to_string();
    let checked = firebreak(&["check", &file, "--json"]);
    let report = json(&checked);
    assert_eq!(report["report"]["board"], "xlnx-versal-virt");
    assert_eq!(report["report"]["image_base"], "0x200000");
}

#[test]
fn new_refuses_what_is_no_devicetree_or_no_board() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("system").display().to_string();
    let output = firebreak(&["new", &path, "--devicetree", "unknown-key.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("unknown-key.toml"));
    let output = firebreak(&["new", &path, "--board", "none"]);
    assert!(text(&output.stderr).contains("xlnx-versal-virt"));
    assert!(!Path::new(&path).exists());
}

/// With `--json` a refusal is an object on standard output, as everything else is.
#[test]
fn what_is_refused_is_json_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    let socket = format!("{path}/none.sock");
    std::fs::write(dir.path().join("firebreak.toml"), "").unwrap();
    for wrong in [
        &["new", &path, "--json"][..],
        &["new", &path, "--json", "--board", "none"],
        &["decode", "zz", "--json"],
        &["decode", "unknown-key.toml", "--json"],
        &["ps", "--json", "--socket", &socket],
    ] {
        let output = firebreak(wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
        let json = json(&output);
        assert_eq!(json["ok"], false, "{wrong:?}");
        assert!(json["text"].as_str().unwrap().len() > 20, "{json}");
    }
}

#[test]
fn run_refuses_what_is_no_image() {
    for file in ["unknown-key.stderr", "payloads/raw.bin", "none.img"] {
        let output = firebreak(&["run", file, "--plain"]);
        assert_eq!(output.status.code(), Some(1), "{file}");
        assert!(text(&output.stderr).contains(file));
    }
}

#[test]
fn a_number_that_is_none_is_a_wrong_command_line() {
    for wrong in [
        &["inject", "linux", "--iss", "zz"][..],
        &["inject", "linux", "--sea", "data", "--far", "-1"],
        &["inject", "linux", "--iss", "0x811", "--el", "2"],
        &[
            "inject", "linux", "--iss", "0x811", "--el", "0", "--at", "start",
        ],
    ] {
        assert_eq!(firebreak(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn the_hypervisor_beside_the_payloads_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let file = good_file(dir.path());
    let payloads = dir.path().join("payloads");
    std::fs::create_dir(&payloads).unwrap();
    std::fs::write(payloads.join("raw.bin"), [0; 64]).unwrap();
    std::fs::write(payloads.join("hypervisor.bin"), "no hypervisor").unwrap();
    let path = payloads.display().to_string();
    let output = firebreak(&["check", &file, "--payloads", &path]);
    assert!(text(&output.stderr).contains("is not a bare Firebreak hypervisor"));
}

#[test]
fn explain_says_who_dies_and_who_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("two.toml");
    let partition = |name: &str, pe: u8| {
        format!(
            "[[partition]]\nname = \"{name}\"\nvcpus = 1\npes = [{pe}]\nmemory = \"16 MiB\"\n\
             image = \"raw.bin\"\n[partition.on_error]\nuer = \"retire:0xc1{pe}\"\n"
        )
    };
    std::fs::write(&file, partition("a", 0) + &partition("b", 1)).unwrap();
    let file = file.display().to_string();
    let arguments = ["check", &file, "--payloads", "payloads", "--explain"];
    let output = firebreak(&[&arguments[..], &["--json"]].concat());
    let explanation = &json(&output)["explanation"];
    let cell = |region: &str, runs: &str, class: &str| {
        let errors = explanation["errors"].as_array().unwrap();
        let fits = |error: &&serde_json::Value| {
            error["region"] == region && error["interrupts"] == runs && error["class"] == class
        };
        errors.iter().find(fits).unwrap().clone()
    };
    let lost = cell("a's RAM", "b", "uer");
    assert_eq!(lost["told"], serde_json::json!(["a"]));
    assert_eq!(lost["dies"], serde_json::json!([]));
    assert!(lost["verdict"].as_str().unwrap().contains("0xc10"));
    assert_eq!(
        cell("a's RAM", "b", "ueu")["dies"],
        serde_json::json!(["b"])
    );
    assert_eq!(
        cell("the hypervisor's code and data", "no guest", "uer")["dies"],
        serde_json::json!(["the machine"])
    );
    assert_eq!(explanation["pes"][1]["vcpu"], "b vCPU 0");
    assert_eq!(explanation["pes"][2]["vcpu"], serde_json::Value::Null);
    let text = text(&firebreak(&arguments).stdout);
    assert!(text.contains("an error in a's RAM, while b runs"), "{text}");
}
