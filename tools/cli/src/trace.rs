// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak trace`: the last exits of a vCPU, and what each was.

use clap::Args;
use firebreak_syndrome::Esr;
use serde_json::{Value, json};

use crate::Failure;
use crate::client::{Way, answer};

/// Tells why a vCPU was left the last times: each exception and interrupt that came to the hypervisor.
///
/// The system must keep a trace: `trace = "4 KiB"` under `[system]` of its partition file.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak trace linux
  firebreak trace linux --vcpu 1 -n 100 --json | jq '.exits[].esr'")]
pub(crate) struct TraceArgs {
    /// Name of the partition
    name: String,
    /// Number of the vCPU in the partition
    #[arg(long, value_name = "N", default_value_t = 0)]
    vcpu: u8,
    /// How many of the last exits
    #[arg(short = 'n', value_name = "N", default_value_t = 20)]
    lines: usize,
    #[command(flatten)]
    way: Way,
}

pub(crate) fn run(args: &TraceArgs) -> Result<String, Failure> {
    let mut exits: Vec<Value> = Vec::new();
    while exits.len() < args.lines {
        let mut line = format!("trace {} vcpu={}", args.name, args.vcpu);
        if let Some(before) = exits.last().and_then(|exit| exit["n"].as_u64()) {
            line += &format!(" before={before}");
        }
        let told = answer(&args.way, line)?;
        match told["exits"].as_array() {
            Some(rows) if !rows.is_empty() => exits.extend(rows.iter().cloned()),
            _ => break,
        }
    }
    exits.truncate(args.lines);
    exits.reverse();
    if args.way.json {
        return Ok(format!("{}\n", json!({ "ok": true, "exits": exits })));
    }
    Ok(exits.iter().map(|exit| words(exit) + "\n").collect())
}

/// An exit in a line.
pub(crate) fn words(exit: &Value) -> String {
    let text = |key: &str| exit[key].as_str().unwrap_or("-");
    let what = match (exit["intid"].as_u64(), number(&exit["esr"])) {
        (Some(intid), _) => format!("interrupt {intid}"),
        (None, Some(esr)) => {
            let esr = Esr::from_raw(esr);
            let about = match esr.ec().bits() {
                0x20 | 0x24 => "IPA",
                _ => "x0",
            };
            format!("{esr}, {about} {}", text("about"))
        }
        _ => "not understood".to_owned(),
    };
    let number = exit["n"]
        .as_u64()
        .map_or(String::new(), |n| format!("{n:>8}  "));
    format!("{number}{:>12}  pc {}  {what}", exit["at"], text("pc"))
}

fn number(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_told_in_words() {
        let call = json!({"n": 7, "at": 5, "pc": "0x40200000", "esr": "0x5a000000", "about": "0x84000000"});
        let told = words(&call);
        assert!(
            told.contains("HVC") && told.ends_with("x0 0x84000000"),
            "{told}"
        );
        let abort = json!({"at": 5, "pc": "0x40200000", "esr": "0x93810046", "about": "0x9000000"});
        assert!(
            words(&abort).ends_with("IPA 0x9000000"),
            "{}",
            words(&abort)
        );
        let irq = json!({"n": 8, "at": 6, "pc": "0x0", "intid": 27});
        assert!(words(&irq).ends_with("interrupt 27"));
        assert!(words(&json!({})).ends_with("not understood"));
    }
}
