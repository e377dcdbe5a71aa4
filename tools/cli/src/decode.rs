// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak decode`: what a syndrome, a rule of triage, an error record or a dump says.

use clap::Args;
use firebreak_abi::VmId;
use firebreak_syndrome::{AbortFsc, DataAbort, Ec, Esr, Iss};
use firebreak_triage::{Owner, Rule};
use serde::Serialize;

use crate::{Failure, dump};

/// Decodes a syndrome (a whole ESR_ELx, or the 25 bits of its ISS), or explains a rule or an owner
/// class of an `error` event, or shows what a dump holds: crash page, log, error records.
///
/// A number below 0x2000000 is an SError's ISS, as in VSESR_EL2 or a policy; any other number is an
/// ESR; a word is the name of a rule or an owner class; `rules` lists them all. A file (`-` is
/// standard input) holds bytes or hexadecimal text; so do more than 16 digits.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak decode 0xbe000c11       an ESR_EL2 from a log
  firebreak decode 0x811            the syndrome of a policy
  firebreak decode foreign-page     the rule of an event
  firebreak decode rules            all rules and owner classes
  firebreak decode 0xc11 --json | jq -r .severity
  firebreak decode memory.bin       a dump of `firebreak,persistent`: crash page and log
  firebreak decode bert.hex         a boot error record region
  firebreak decode memory.bin --json | jq '.log.entries[].event'")]
pub(crate) struct DecodeArgs {
    /// The number, hexadecimal, with or without 0x; a word of an event; a file; or hexadecimal bytes
    #[arg(value_name = "WHAT")]
    syndrome: String,
    /// Writes one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Decoded {
    esr: Option<String>,
    exception_class: String,
    iss: String,
    severity: Option<&'static str>,
    text: String,
}

#[derive(Serialize)]
struct Explained {
    kind: &'static str,
    name: &'static str,
    text: &'static str,
}

/// Returns the rules and owner classes that a word names.
fn explain(word: &str) -> Vec<Explained> {
    let rules = Rule::ALL.into_iter().map(|rule| Explained {
        kind: "rule",
        name: rule.name(),
        text: rule.sentence(),
    });
    let owners = Owner::all(VmId(0)).into_iter().map(|owner| Explained {
        kind: "owner",
        name: owner.name(),
        text: owner.consequence(),
    });
    rules
        .chain(owners)
        .filter(|one| word == "rules" || one.name == word)
        .collect()
}

pub(crate) fn run(args: &DecodeArgs) -> Result<String, Failure> {
    let explained = explain(&args.syndrome);
    if !explained.is_empty() {
        if args.json {
            return Ok(format!("{:#}\n", serde_json::json!(explained)));
        }
        let line = |one: &Explained| format!("{:<5}  {}: {}\n", one.kind, one.name, one.text);
        return Ok(explained.iter().map(line).collect());
    }
    let refuse = |why: String| Failure::told(why, args.json);
    if let Some(bytes) = dump::bytes_of(&args.syndrome).map_err(refuse)? {
        let value = dump::decode(&bytes).map_err(refuse)?;
        return Ok(if args.json {
            format!("{value:#}\n")
        } else {
            dump::to_text(&value)
        });
    }
    let decoded = decode(&args.syndrome).map_err(refuse)?;
    if args.json {
        return Ok(format!("{:#}\n", serde_json::json!(decoded)));
    }
    let mut text = String::new();
    if let Some(esr) = &decoded.esr {
        text += &format!("esr       {esr}: {}\n", decoded.exception_class);
    }
    let words = match decoded.text.as_str() {
        "" => String::new(),
        words => format!(": {words}"),
    };
    text += &format!("iss       {}{words}\n", decoded.iss);
    if let Some(severity) = decoded.severity {
        text += &format!("severity  {severity}\n");
    }
    Ok(text)
}

fn decode(number: &str) -> Result<Decoded, String> {
    let digits = number
        .strip_prefix("0x")
        .or(number.strip_prefix("0X"))
        .unwrap_or(number);
    let digits = digits.replace('_', "");
    let raw = u64::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .ok_or(format!(
            "\"{number}\" is neither a hexadecimal number of at most 64 bits nor the name of a rule, \
             nor a file that is there; write 0xc11, or `rules` for all names"
        ))?;
    let bare = u32::try_from(raw).ok().and_then(Iss::new);
    let esr = match bare {
        Some(iss) => Esr::serror(iss),
        None => Esr::from_raw(raw),
    };
    let iss = esr.iss();
    let is_serror = esr.ec() == Ec::SERROR;
    Ok(Decoded {
        esr: bare.is_none().then(|| format!("{raw:#x}")),
        exception_class: esr.ec().to_string(),
        iss: format!("{:#x}", iss.get()),
        severity: is_serror.then(|| iss.severity().name()),
        text: match esr.ec() {
            Ec::SERROR => iss.decode().to_string(),
            Ec::DABT_LOWER | Ec::DABT_SAME => abort(esr, true),
            Ec::IABT_LOWER | Ec::IABT_SAME => abort(esr, false),
            // What its bits mean depends on the class, and few of them are of use here.
            _ => String::new(),
        },
    })
}

/// Returns what the syndrome of an abort says: the fault, and what the access was.
fn abort(esr: Esr, data: bool) -> String {
    let bits = DataAbort::new(esr.raw());
    let mut words = vec![fault(bits.fsc())];
    if data {
        words.push(if bits.is_write() { "write" } else { "read" }.to_owned());
    }
    if data && bits.is_cache_maintenance() {
        words.push("by cache maintenance".to_owned());
    }
    if bits.on_stage1_walk() {
        words.push("stage 2 fault of a stage 1 table walk".to_owned());
    }
    if bits.far_not_valid() {
        words.push("FAR is not valid".to_owned());
    }
    words.join(", ")
}

/// Returns the name of a fault status (Arm ARM, D24.2, "DFSC" and "IFSC").
fn fault(status: AbortFsc) -> String {
    let at = |what: &str, level: i8| format!("{what}, level {level}");
    match status {
        AbortFsc::AddressSize(level) => at("address size fault", level),
        AbortFsc::Translation(level) => at("translation fault", level),
        AbortFsc::AccessFlag(level) => at("access flag fault", level),
        AbortFsc::Permission(level) => at("permission fault", level),
        AbortFsc::External => "synchronous external abort".to_owned(),
        AbortFsc::ExternalOnWalk(level) => at("synchronous external abort on a table walk", level),
        AbortFsc::Alignment => "alignment fault".to_owned(),
        AbortFsc::TlbConflict => "TLB conflict".to_owned(),
        AbortFsc::Other(0x18) => "synchronous parity or ECC error".to_owned(),
        AbortFsc::Other(bits @ 0x1b..=0x1f) => at(
            "synchronous parity or ECC error on a table walk",
            bits.cast_signed() - 0x1c,
        ),
        AbortFsc::Other(bits) => format!("fault status {bits:#04x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_esr_and_its_iss_say_the_same() {
        let (esr, iss) = (decode("0xbe000c11").unwrap(), decode("c11").unwrap());
        assert_eq!((&esr.iss, &esr.text), (&iss.iss, &iss.text));
        assert_eq!(esr.severity, Some("UER"));
        assert_eq!(esr.esr.as_deref(), Some("0xbe000c11"));
        assert_eq!(iss.esr, None);
    }

    #[test]
    fn a_rule_and_an_owner_are_explained_by_name() {
        let [rule] = explain("own-page").try_into().ok().unwrap();
        assert_eq!((rule.kind, rule.text), ("rule", Rule::OwnPage.sentence()));
        // A word that is both is explained as both.
        let both: Vec<_> = explain("payload").iter().map(|one| one.kind).collect();
        assert_eq!(both, ["rule", "owner"]);
        assert_eq!(explain("rules").len(), Rule::ALL.len() + 15);
        for number in ["0xc11", "c11", "", "own"] {
            assert!(explain(number).is_empty());
        }
    }

    #[test]
    fn an_abort_has_no_severity() {
        let abort = decode("0x96000010").unwrap();
        assert_eq!(abort.severity, None);
        assert_eq!(abort.iss, "0x10");
    }

    #[test]
    fn an_abort_is_told_by_its_fault_and_its_access() {
        for (esr, text) in [
            ("0x96000050", "synchronous external abort, write"),
            ("0x86000010", "synchronous external abort"),
            ("0x92000007", "translation fault, level 3, read"),
            (
                "0x920005c4",
                "translation fault, level 0, write, by cache maintenance, \
                 stage 2 fault of a stage 1 table walk, FAR is not valid",
            ),
            ("0x96000018", "synchronous parity or ECC error, read"),
            (
                "0x8600001b",
                "synchronous parity or ECC error on a table walk, level -1",
            ),
            ("0x96000035", "fault status 0x35, read"),
            ("0x5a000000", ""),
        ] {
            assert_eq!(decode(esr).unwrap().text, text, "{esr}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused_by_name() {
        for wrong in ["", "0x", "xyz", "+11", "0x-1", "10000000000000000"] {
            assert!(
                decode(wrong)
                    .err()
                    .unwrap()
                    .contains(&format!("\"{wrong}\"")),
                "{wrong}"
            );
        }
    }
}
