// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guests of a plan.

use std::path::Path;

use firebreak_image::Problem;
use firebreak_image::document::{At, Table, parse_size};

use super::{Guest, Like};

const KEYS: [&str; 16] = [
    "name",
    "system",
    "partition",
    "what",
    "like",
    "firmware",
    "cpu",
    "smp",
    "memory",
    "icount",
    "ready",
    "beats",
    "silence_s",
    "bystander",
    "symbols",
    "about",
];
const LIKES: [&str; 4] = ["victim", "linux", "u-boot", "other"];

impl Like {
    fn of(word: &str) -> Option<Self> {
        match word {
            "victim" => Some(Self::Victim),
            "linux" => Some(Self::Linux),
            "u-boot" => Some(Self::UBoot),
            "other" => Some(Self::Other),
            _ => None,
        }
    }

    /// Start of the line that says that such a guest is up.
    fn ready(self) -> &'static str {
        match self {
            Self::Victim => "victim: alive",
            Self::Linux => "agent: ready",
            Self::UBoot => "Net:",
            Self::Other => "",
        }
    }

    /// How long it may be silent: several times as long as between two signs of life.
    fn silence_s(self) -> u64 {
        match self {
            Self::Victim => 3,
            Self::Linux | Self::Other | Self::UBoot => 12,
        }
    }
}

/// Reads one `[[guest]]`; paths are relative to the plan.
pub(super) fn read(table: Table<'_, '_>, dir: &Path) -> Result<Guest, Problem> {
    let mut table = table.knowing(&KEYS);
    let name = table
        .string("name")?
        .ok_or_else(|| table.missing("name", "name = \"linux\""))?;
    let system = table
        .string("system")?
        .ok_or_else(|| table.missing("system", "system = \"linux.toml\""))?;
    let partition = table.string("partition")?;
    let partition = partition.map_or_else(|| name.value.clone(), |named| named.value);
    let like = match table.string("like")? {
        None => Like::Other,
        Some(word) => Like::of(&word.value)
            .ok_or_else(|| super::errors::unknown(&table, Some(&word), "kind of guest", &LIKES))?,
    };
    let text = |found: Option<At<String>>, or: &str| {
        found.map_or_else(|| or.to_owned(), |found| found.value)
    };
    let cpu = text(table.string("cpu")?, "neoverse-n1");
    let ready = table.string("ready")?;
    if like == Like::Other && ready.is_none() {
        return Err(table.missing("ready", "ready = \"login:\""));
    }
    let guest = Guest {
        name: name.value,
        system: dir.join(&system.value),
        partition,
        what: text(table.string("what")?, ""),
        like,
        firmware: table.boolean("firmware")?.is_some_and(|flag| flag.value),
        cpu,
        smp: number(&mut table, "smp", 1, 1..=8)?,
        memory_mib: memory(&mut table)?,
        icount: table.boolean("icount")?.is_some_and(|flag| flag.value),
        ready: text(ready, like.ready()),
        beats: number(&mut table, "beats", 2, 1..=100)?,
        silence_s: u64::from(number(
            &mut table,
            "silence_s",
            u32::try_from(like.silence_s()).unwrap_or(10),
            1..=3600,
        )?),
        bystander: table.string("bystander")?.map(|name| name.value),
        symbols: table.string("symbols")?.map(|path| dir.join(path.value)),
    };
    super::read::nothing_unknown(&table)?;
    Ok(guest)
}

fn number(
    table: &mut Table<'_, '_>,
    key: &'static str,
    or: u32,
    bounds: std::ops::RangeInclusive<u32>,
) -> Result<u32, Problem> {
    let Some(number) = table.integer(key)? else {
        return Ok(or);
    };
    let small = u32::try_from(number.value).ok();
    small.filter(|value| bounds.contains(value)).ok_or_else(|| {
        let message = format!("`{key}` cannot be {}", number.value);
        let remedy = format!("write {} to {}", bounds.start(), bounds.end());
        Problem::error(
            table.source,
            number.span.clone(),
            message,
            "out of bounds",
            remedy,
        )
    })
}

fn memory(table: &mut Table<'_, '_>) -> Result<u32, Problem> {
    const DEFAULT_MIB: u32 = 256;
    let Some(size) = table.string("memory")? else {
        return Ok(DEFAULT_MIB);
    };
    let mib = parse_size(&size.value).map(|bytes| bytes >> 20);
    mib.and_then(|mib| u32::try_from(mib).ok())
        .filter(|mib| *mib > 0)
        .ok_or_else(|| {
            let message = format!("\"{}\" is no size of a machine's memory", size.value);
            let remedy = "write a whole number of MiB or GiB, such as \"512 MiB\"";
            Problem::error(table.source, size.span.clone(), message, "no size", remedy)
        })
}
