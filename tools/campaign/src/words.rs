// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the lines and events of a machine say: numbers in them, and what is known of the lines of each
//! kind of guest.

use firebreak_qemu::Event;

use crate::plan::{Like, Meaning, Pattern};

/// An event in few words: its name and members.
pub(crate) fn sentence(event: &Event) -> String {
    let members = event.value().as_object().into_iter().flatten();
    let members = members.filter(|(key, value)| {
        !matches!(key.as_str(), "v" | "t" | "ev" | "vm") && !value.is_null()
    });
    let mut text = event.name().to_owned();
    for (key, value) in members {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        text += &format!(" {key}={value}");
    }
    text
}

/// Returns how many ticks a line of `guest-images/control` says were missed.
pub(crate) fn missed_ticks(line: &str) -> Option<u64> {
    let (_, behind) = line
        .strip_prefix("control: ticks=")?
        .split_once("missed=")?;
    behind.split(' ').next()?.parse().ok()
}

/// Returns how late the latest tick was since the report before, in nanoseconds.
pub(crate) fn latest_tick(line: &str) -> Option<u64> {
    let (_, behind) = line.split_once("late_max_ns=")?;
    behind.split(' ').next()?.parse().ok()
}

/// Returns the ESR that a line tells: as it is, or put together from DISR_EL1.
pub(crate) fn reported_esr(pattern: &Pattern, line: &str) -> Option<u64> {
    if let Some(before) = &pattern.esr_after {
        return hex_after(line, before);
    }
    let disr = hex_after(line, pattern.disr_after.as_ref()?)?;
    Some(0xbe00_0000 | disr & 0x1ff_ffff)
}

/// Returns the hexadecimal number behind a text.
pub(crate) fn hex_after(line: &str, before: &str) -> Option<u64> {
    let (_, behind) = line.split_once(before)?;
    let digits = behind.trim_start().strip_prefix("0x").unwrap_or(behind);
    let end = digits
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(digits.len());
    u64::from_str_radix(digits.get(..end)?, 16).ok()
}

/// Returns what is known of the lines of a kind of guest.
pub(crate) fn shipped(like: Like) -> Vec<Pattern> {
    let pattern = |line: &str, means: Meaning, esr_after: Option<&str>| Pattern {
        guests: Vec::new(),
        line: line.to_owned(),
        means,
        esr_after: esr_after.map(str::to_owned),
        disr_after: None,
    };
    match like {
        Like::Victim => vec![
            pattern("victim: alive *", Meaning::Alive, None),
            pattern("victim: serror *", Meaning::Reported, Some("esr=")),
            pattern("victim: abort *", Meaning::Reported, Some("esr=")),
            pattern("victim: page content lost *", Meaning::Corrupted, None),
            pattern("victim: esb disr=0x0", Meaning::Usual, None),
            Pattern {
                disr_after: Some("disr=".to_owned()),
                ..pattern("victim: esb disr=*", Meaning::Reported, None)
            },
            pattern(
                "victim: masked|victim: unmasked|victim: ready *",
                Meaning::Usual,
                None,
            ),
        ],
        Like::Linux => vec![
            pattern("agent: beat * pattern=ok", Meaning::Alive, None),
            pattern("agent: beat * pattern=bad", Meaning::Corrupted, None),
            pattern("agent: child ended signal=*", Meaning::TaskKilled, None),
            pattern("agent: *", Meaning::Usual, None),
            pattern(
                "*SError Interrupt on CPU*",
                Meaning::Reported,
                Some("code "),
            ),
            pattern("*Kernel panic - not syncing*", Meaning::Panicked, None),
            pattern(
                "*Internal error: *|*Hardware Error*",
                Meaning::Reported,
                None,
            ),
            pattern("*Memory failure: *", Meaning::Reported, None),
        ],
        Like::UBoot => vec![
            pattern("\"Error\" handler, esr *", Meaning::Reported, Some("esr ")),
            pattern(
                "\"Synchronous Abort\" handler, esr *",
                Meaning::Reported,
                Some("esr "),
            ),
            pattern("*### ERROR ### Please RESET*", Meaning::Panicked, None),
        ],
        Like::Other => Vec::new(),
    }
}
