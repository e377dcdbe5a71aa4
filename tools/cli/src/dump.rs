// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dumps: a crash page, a log, both as they stand in memory; status blocks and CPER records.
//!
//! A dump is bytes in a file, hexadecimal text in a file, or hexadecimal digits on the command
//! line. What it is stands in its first bytes. Nothing in it is trusted: what does not make sense is
//! told as such, and the rest is still shown.

use std::fs;
use std::io::Read;
use std::path::Path;

use firebreak_blackbox::crash::{self, Field, Page};
use firebreak_blackbox::log::{self, View};
use firebreak_blackbox::trace::Cause;
use firebreak_blackbox::{CRASH_PAGE_BYTES, CRASH_PAGE_WORDS};
use firebreak_cper::{
    Bert, CperError, CperRecord, FirebreakSection, Section, SectionBody, StatusBlock,
};
use firebreak_syndrome::{CperSeverity, Esr, Iss, Severity};
use serde_json::{Map, Value, json};

/// Digits of the longest number that is a syndrome.
const NUMBER_DIGITS: usize = 16;
/// The largest file that is read: larger ones are no dump of ours.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Returns the bytes that an argument names, or `None` when it is something else.
///
/// # Errors
///
/// Why a file that is there cannot be read.
pub(crate) fn bytes_of(argument: &str) -> Result<Option<Vec<u8>>, String> {
    let bytes = if argument == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin()
            .take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes);
        read.map_err(|error| format!("standard input cannot be read: {error}"))?;
        bytes
    } else if Path::new(argument).is_file() {
        let told = |error| format!("{argument} cannot be read: {error}");
        let length = fs::metadata(argument).map_err(told)?.len();
        if length > MAX_FILE_BYTES {
            return Err(format!(
                "{argument} has {length} bytes; a dump has at most {MAX_FILE_BYTES}"
            ));
        }
        fs::read(argument).map_err(told)?
    } else {
        return Ok(
            from_hex(argument.as_bytes()).filter(|bytes| bytes.len() > NUMBER_DIGITS.div_ceil(2))
        );
    };
    Ok(Some(from_hex(&bytes).unwrap_or(bytes)))
}

/// Reads hexadecimal text, with or without spaces and 0x.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_prefix(b"0x").unwrap_or(text);
    let digits: Option<Vec<u8>> = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace() && **byte != b'_')
        .map(|byte| char::from(*byte).to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len().is_multiple_of(2))?;
    Some(
        digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
            .collect(),
    )
}

/// Decodes a dump.
///
/// # Errors
///
/// Why it is none that is known.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, String> {
    if bytes.starts_with(b"FBCRASH") || at(bytes, CRASH_PAGE_BYTES).starts_with(b"FBLOG") {
        let log = at(bytes, CRASH_PAGE_BYTES);
        return Ok(json!({
            "kind": "persistent",
            "crash": crash_page(bytes)?,
            "log": if log.is_empty() { Value::Null } else { log_of(log) },
        }));
    }
    if bytes.starts_with(b"FBLOG") {
        return Ok(json!({ "kind": "log", "log": log_of(bytes) }));
    }
    if bytes.starts_with(b"CPER") {
        return cper_record(bytes).map_err(|error| error.to_string());
    }
    if bytes.get(56..60) == Some(b"ARM\x64") {
        return Err("this is an arm64 Image, not a dump; `firebreak run` boots it".to_owned());
    }
    status_blocks(bytes)
}

fn at(bytes: &[u8], offset: usize) -> &[u8] {
    bytes.get(offset..).unwrap_or_default()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    bytes.chunks(8).map(word).collect()
}

fn hex(value: u64) -> Value {
    format!("{value:#x}").into()
}

fn severity(iss: Option<u32>, cper: Option<u32>) -> &'static str {
    Severity::of(iss.and_then(Iss::new), cper.map(CperSeverity::from_raw)).name()
}

fn crash_page(bytes: &[u8]) -> Result<Value, String> {
    let words = words(bytes);
    if words.len() < CRASH_PAGE_WORDS {
        return Err(format!(
            "a crash page has {CRASH_PAGE_BYTES} bytes, {} are there; dump it again",
            bytes.len()
        ));
    }
    let Some(page) = Page::read(words.as_slice()) else {
        return if bytes.starts_with(b"FBCRASH") {
            Err("the crash page is of another version; use the tool of that hypervisor".to_owned())
        } else {
            Ok(Value::Null)
        };
    };
    let who = page.who();
    let mut object = Map::new();
    let mut add = |key: &str, value: Value| object.insert(key.to_owned(), value);
    add("whole", page.is_whole().into());
    add("kind", who.kind.name().into());
    add("text", page.text(&mut [0; crash::TEXT_BYTES]).into());
    add("boot", page.get(Field::Boot).into());
    add("at", page.get(Field::Ticks).into());
    add("pe", who.pe.into());
    add("vm", who.vcpu.map(|(vm, _)| vm).into());
    add("vcpu", who.vcpu.map(|(_, vcpu)| vcpu).into());
    add("vector", who.vector.into());
    add("pc", who.pc.map(hex).into());
    for (name, field) in crash::SHOWN {
        add(name, hex(page.get(field)));
    }
    add(
        "esr_text",
        Esr::from_raw(page.get(Field::Esr)).to_string().into(),
    );
    add("failures", page.failures().into());
    let calls = page.calls().into_iter().take_while(|call| *call != 0);
    add("calls", calls.map(hex).collect());
    let gprs = page.gprs().unwrap_or_default();
    let shown = gprs.iter().take(if page.gprs().is_some() { 31 } else { 0 });
    add("x", shown.map(|value| hex(*value)).collect());
    let exits = page.exits().map(|exit| {
        let (esr, intid) = match exit.cause {
            Cause::Exception(esr) => (Some(esr), None),
            Cause::Interrupt(intid) => (None, Some(intid)),
        };
        json!({
            "at": exit.ticks, "pc": hex(exit.pc), "esr": esr.map(hex), "intid": intid,
            "about": esr.map(|_| hex(exit.about)),
        })
    });
    add("exits", exits.collect());
    let records = page.records().map(|record| {
        json!({
            "pe": record.pe, "state": record.state.name(), "at": record.ticks,
            "severity": severity(record.iss, record.cper.map(u32::from)),
            "iss": record.iss.map(|iss| hex(iss.into())), "cper": record.cper,
            "pc": record.pc.map(hex), "pa": record.pa.map(hex), "id": record.id,
            "vm": record.vcpu.map(|(vm, _)| vm), "vcpu": record.vcpu.map(|(_, vcpu)| vcpu),
            "verdict": record.verdict_name(),
        })
    });
    add("records", records.collect());
    add("left_out", page.left_out().into());
    Ok(object.into())
}

fn log_of(bytes: &[u8]) -> Value {
    let words = words(bytes);
    let Some(view) = View::read(words.as_slice()) else {
        return json!({ "error": "there is no log, or its header is damaged" });
    };
    let entries = view.entries().map(|entry| {
        let mut buffer = [0; log::TEXT_BYTES];
        let text = view.text(&entry, &mut buffer);
        json!({
            "number": entry.number, "boot": entry.boot, "at": entry.ticks, "pe": entry.pe,
            "cut": entry.cut,
            "event": serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        })
    });
    let entries: Value = entries.collect();
    json!({ "capacity": view.capacity(), "damaged": view.damaged(), "entries": entries })
}

fn status_blocks(bytes: &[u8]) -> Result<Value, String> {
    let mut blocks = Vec::new();
    for block in Bert::new(bytes).records() {
        match block {
            Ok((block, _)) => blocks.push(status_block(&block)),
            Err(error) if blocks.is_empty() => {
                return Err(format!(
                    "neither a crash page, a log nor an error record: {error}"
                ));
            }
            // What is behind the last block may be anything.
            Err(error) => blocks.push(json!({ "error": error.to_string() })),
        }
    }
    if blocks.is_empty() {
        return Err(format!(
            "neither a crash page, a log nor an error record: {}",
            CperError::Empty
        ));
    }
    Ok(json!({ "kind": "status-blocks", "blocks": blocks }))
}

fn status_block(block: &StatusBlock<'_>) -> Value {
    let sections = block
        .entries()
        .map(|entry| entry.and_then(|entry| entry.section()));
    json!({
        "severity": block.severity().name(),
        "status": hex(block.status().into()),
        "bytes": block.len_bytes(),
        "raw_bytes": block.raw_data().len(),
        "sections": sections.map(section).collect::<Vec<_>>(),
    })
}

fn cper_record(bytes: &[u8]) -> Result<Value, CperError> {
    let record = CperRecord::parse(bytes)?;
    let sections: Vec<Value> = record.sections().map(section).collect();
    Ok(json!({
        "kind": "cper",
        "severity": record.header.severity.name(),
        "id": record.header.record_id,
        "simulated": record.simulated(),
        "notification": record.header.notification.to_string(),
        "sections": sections,
    }))
}

fn section(section: Result<Section<'_>, CperError>) -> Value {
    let section = match section {
        Ok(section) => section,
        Err(error) => return json!({ "error": error.to_string() }),
    };
    let body = match section.body {
        SectionBody::Memory(memory) => json!({ "type": "memory",
            "pa": memory.pa.map(|pa| hex(pa.get())), "pa_mask": memory.pa_mask.map(hex),
            "status": memory.status.map(hex), "error_type": memory.error_type }),
        SectionBody::ArmProcessor(arm) => {
            let infos = arm.infos().map(|info| match info {
                Ok(info) => json!({ "kind": info.kind, "flags": info.flags,
                    "pa": info.pa.map(|pa| hex(pa.get())) }),
                Err(error) => json!({ "error": error.to_string() }),
            });
            json!({ "type": "arm-processor",
                "mpidr": arm.fields.mpidr.map(|mpidr| hex(mpidr.get())),
                "midr": hex(arm.fields.midr), "running": arm.fields.running,
                "errors": infos.collect::<Vec<_>>() })
        }
        SectionBody::Firebreak(own) => firebreak_section(&own, section.severity.raw()),
        SectionBody::Other {
            section_type,
            payload,
        } => json!({ "type": section_type.to_string(), "bytes": payload.len() }),
    };
    json!({ "severity": section.severity.name(), "flags": section.flags, "content": body })
}

fn firebreak_section(own: &FirebreakSection, cper: u32) -> Value {
    let info = own.info;
    let iss = own.iss.and_then(Iss::new);
    json!({
        "type": "firebreak", "source": info.source.name(), "id": info.id,
        "pe": info.pe.map(|pe| pe.0), "vm": info.partition.map(|vm| vm.0), "vcpu": info.vcpu,
        "pc": info.pc.map(hex), "el": info.el, "at": info.ticks,
        "iss": own.iss.map(|iss| hex(iss.into())),
        "iss_text": iss.map(|iss| iss.decode().to_string()),
        "class": severity(own.iss, Some(cper)), "simulated": own.simulated,
    })
}

/// Writes a value for people: a line for each member, what is inside of it further to the right.
pub(crate) fn to_text(value: &Value) -> String {
    let mut text = String::new();
    write_members(&mut text, value, 0);
    text
}

fn write_members(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let members: Vec<(String, &Value)> = match value {
        Value::Object(object) => object
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect(),
        Value::Array(items) => (1..).map(|n: u32| n.to_string()).zip(items).collect(),
        _ => Vec::new(),
    };
    for (key, value) in members {
        match value {
            Value::Null => {}
            // An entry of a log is one line, like the event that it was.
            Value::Object(entry) if entry.contains_key("event") => {
                let part = |key: &str| entry.get(key).map(plain).unwrap_or_default();
                *text += &format!(
                    "{indent}{} boot={} pe={} at={} {}\n",
                    part("number"),
                    part("boot"),
                    part("pe"),
                    part("at"),
                    part("event")
                );
            }
            Value::Object(_) => {
                *text += &format!("{indent}{key}:\n");
                write_members(text, value, depth + 1);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                *text += &format!("{indent}{key}:\n");
                write_members(text, value, depth + 1);
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(plain).collect();
                *text += &format!("{indent}{key:<9} {}\n", items.join(" "));
            }
            _ => *text += &format!("{indent}{key:<9} {}\n", plain(value)),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::sync::atomic::{AtomicU64, Ordering};

    use firebreak_blackbox::crash::{Kind, State, Waiting, Who, Writer};

    /// A whole dump: a crash page with a record, and a log with two entries.
    fn dump() -> Vec<u8> {
        let memory: Vec<AtomicU64> = (0..0x5000 / 8).map(|_| AtomicU64::new(0)).collect();
        let (page, rest) = memory.split_at(CRASH_PAGE_WORDS);
        let who = Who {
            pe: 1,
            kind: Kind::Exception,
            vector: 4,
            pc: Some(0x4020_1000),
            vcpu: Some((2, 0)),
        };
        let mut writer = Writer::begin(page, &who);
        writer.set(Field::Esr, 0x9600_0010);
        writer.text("why");
        writer.record(&Waiting {
            iss: Some(0xc11),
            cper: Some(0),
            ..Waiting::unknown(1, State::Waiting, 5)
        });
        writer.finish();
        let (log, _) = log::Log::adopt(rest, 0).unwrap();
        for text in ["{\"ev\":\"boot\"}", "not JSON"] {
            let mut entry = log.entry(0, 7);
            entry.write_str(text).unwrap();
            entry.finish();
        }
        let bytes = |word: &AtomicU64| word.load(Ordering::Relaxed).to_le_bytes();
        memory.iter().flat_map(bytes).collect()
    }

    #[test]
    fn a_whole_dump_has_a_page_and_a_log() {
        let value = decode(&dump()).unwrap();
        let crash = &value["crash"];
        assert_eq!((&crash["whole"], &crash["pe"]), (&true.into(), &1.into()));
        assert_eq!(
            (&crash["pc"], &crash["text"]),
            (&"0x40201000".into(), &"why".into())
        );
        assert_eq!(crash["records"][0]["severity"], "UER");
        assert_eq!(value["log"]["entries"][0]["event"]["ev"], "boot");
        assert_eq!(value["log"]["entries"][1]["event"], "not JSON");
        let text = to_text(&value);
        assert!(text.contains("    2 boot=1 pe=0 at=7 not JSON\n"), "{text}");
        assert!(
            text.contains("    pc        0x40201000\n")
                || text.contains("  pc        0x40201000\n"),
            "{text}"
        );
    }

    #[test]
    fn parts_of_a_dump_are_known_by_themselves() {
        let bytes = dump();
        assert_eq!(
            decode(&bytes[..CRASH_PAGE_BYTES]).unwrap()["log"],
            Value::Null
        );
        let log = decode(&bytes[CRASH_PAGE_BYTES..]).unwrap();
        assert_eq!(log["log"]["entries"].as_array().unwrap().len(), 2);
        let mut cleared = bytes.clone();
        cleared[..8].fill(0);
        assert_eq!(decode(&cleared).unwrap()["crash"], Value::Null);
        assert!(decode(&bytes[..100]).unwrap_err().contains("4096"));
        let mut other = bytes;
        other[7] = b'9';
        assert!(decode(&other).unwrap_err().contains("another version"));
    }

    #[test]
    fn every_record_of_the_corpus_is_decoded_or_refused_in_words() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus/cper");
        let mut decoded = 0;
        for file in fs::read_dir(corpus).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            match decode(&bytes) {
                Ok(value) => {
                    decoded += 1;
                    assert!(!to_text(&value).is_empty());
                }
                Err(error) => assert!(error.len() > 20, "{error}"),
            }
        }
        assert!(decoded > 10, "{decoded}");
    }

    #[test]
    fn truncated_and_changed_dumps_never_fail() {
        let bytes = dump();
        for length in (0..bytes.len()).step_by(37) {
            let _ = decode(&bytes[..length]);
        }
        for index in (0..bytes.len()).step_by(11) {
            let mut changed = bytes.clone();
            changed[index] ^= 0xff;
            let _ = decode(&changed).map(|value| to_text(&value));
        }
    }

    #[test]
    fn an_image_is_not_taken_for_error_records() {
        // Its first words would pass for a status block: an uncorrectable error without sections.
        let mut image = [0; 64];
        image[0] = 1;
        image[56..60].copy_from_slice(b"ARM\x64");
        assert!(decode(&image).unwrap_err().contains("firebreak run"));
    }

    #[test]
    fn hexadecimal_text_is_bytes() {
        assert_eq!(from_hex(b"0x00 ff\n7_a"), Some(vec![0, 0xff, 0x7a]));
        for wrong in ["", "0", "0x", "xyz", "00g0"] {
            assert_eq!(from_hex(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(bytes_of("0xbe000c11").unwrap(), None);
        assert_eq!(bytes_of(&"00".repeat(9)).unwrap().unwrap().len(), 9);
    }
}
