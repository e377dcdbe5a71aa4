// SPDX-License-Identifier: MIT OR Apache-2.0
//! The demo itself: all of it is as told, and each case fails when its error is not raised.

use std::env;
use std::fs;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::harness::{Outcome, failed, trial};

const CASES: [&str; 6] = [
    "ce-linux",
    "uer-victim",
    "ueo-linux",
    "impdef-linux",
    "ueu-victim",
    "uc-machine",
];

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("demo::goes_as_told", as_told));
    trials.push(trial(
        "demo::each_case_fails_when_its_error_is_not_raised",
        not_raised,
    ));
}

/// Runs the demo, and returns its exit code and its JSON.
fn demo(arguments: &[&str]) -> Result<(Option<i32>, Value, String), Failed> {
    let program = env::var_os("FIREBREAK_XTASK")
        .ok_or("FIREBREAK_XTASK does not name the xtask program: run `cargo xtask test qemu`")?;
    let dir = tempfile::tempdir().map_err(failed)?;
    let json = dir.path().join("demo.json");
    let output = Command::new(program)
        .args(["demo", "--no-build", "--json"])
        .arg(&json)
        .args(arguments)
        .output()
        .map_err(failed)?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    let text = fs::read_to_string(&json).map_err(|error| failed(format!("{error}\n{said}")))?;
    Ok((
        output.status.code(),
        serde_json::from_str(&text).map_err(failed)?,
        said,
    ))
}

fn case<'a>(json: &'a Value, name: &str) -> Option<&'a Value> {
    json.get("cases")?
        .as_array()?
        .iter()
        .find(|case| case.get("name") == Some(&name.into()))
}

fn as_told() -> Outcome {
    let (code, json, said) = demo(&[])?;
    for name in CASES {
        let ok = case(&json, name)
            .and_then(|case| case.get("ok"))
            .and_then(Value::as_bool);
        if ok != Some(true) {
            return Err(failed(format!("{name} is not ok:\n{said}")));
        }
    }
    if json.get("control_missed_ticks") != Some(&0.into()) || code != Some(0) {
        return Err(failed(format!("exit code {code:?}:\n{said}")));
    }
    Ok(())
}

fn not_raised() -> Outcome {
    let (code, json, said) = demo(&["--skip-raise", "all"])?;
    for name in CASES {
        let ok = case(&json, name)
            .and_then(|case| case.get("ok"))
            .and_then(Value::as_bool);
        if ok != Some(false) {
            return Err(failed(format!("{name} passed without its error:\n{said}")));
        }
    }
    if code != Some(1) {
        return Err(failed(format!("exit code {code:?}:\n{said}")));
    }
    Ok(())
}
