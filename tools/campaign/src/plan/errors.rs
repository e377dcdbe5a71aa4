// SPDX-License-Identifier: MIT OR Apache-2.0
//! The errors of a plan: by name, by value, by range, by field.

use firebreak_image::Problem;
use firebreak_image::document::{At, Table, nearest};
use firebreak_syndrome::Iss;

use super::{ErrorKind, FirmwareError, Place, What};

/// Syndromes that have a name.
pub(crate) const NAMED: [(&str, u32); 9] = [
    ("ce", 0x1811),
    ("ueo", 0x811),
    ("uer", 0xc11),
    ("ueu", 0x411),
    ("uc", 0x11),
    ("impdef", 0x100_0000),
    ("uncategorized", 0),
    ("reserved-aet", 0x1011),
    ("reserved-dfsc", 0x1802),
];

const KEYS: [&str; 21] = [
    "name",
    "kind",
    "guests",
    "class",
    "iss",
    "iss_range",
    "fields",
    "far",
    "severity",
    "pa",
    "ipa",
    "said",
    "table_of",
    "symbol",
    "offset",
    "count",
    "sync",
    "in_guest",
    "vcpu",
    "pe",
    "behavior",
];
const KINDS: [&str; 3] = ["serror", "sea", "firmware"];
/// Fields of an ISS that `fields` may name: least significant bit and width.
const FIELDS: [(&str, u32, u32); 3] = [("aet", 10, 3), ("dfsc", 0, 6), ("ids", 24, 1)];
/// More than this is a mistake.
const MOST_IN_RANGE: u64 = 1 << 20;

/// Reads one `[[error]]`, which may stand for many.
pub(super) fn read(table: Table<'_, '_>) -> Result<Vec<ErrorKind>, Problem> {
    let mut table = table.knowing(&KEYS);
    let name = table.string("name")?;
    let kind = table.string("kind")?;
    let guests = super::read::names(&mut table, "guests")?;
    let word = kind.as_ref().map_or("serror", |kind| kind.value.as_str());
    let made = match word {
        "serror" => serrors(&mut table, name.as_ref())?,
        "sea" => vec![sea(&mut table, name.as_ref())?],
        "firmware" => vec![firmware(&mut table, name.as_ref())?],
        _ => return Err(unknown(&table, kind.as_ref(), "kind of error", &KINDS)),
    };
    super::read::nothing_unknown(&table)?;
    let made = made.into_iter();
    Ok(made
        .map(|(name, what)| ErrorKind {
            name,
            what,
            guests: guests.clone(),
        })
        .collect())
}

/// Makes the problem of a word that is none of the known ones.
pub(super) fn unknown(
    table: &Table<'_, '_>,
    word: Option<&At<String>>,
    what: &str,
    known: &[&str],
) -> Problem {
    let (text, span) = word.map_or(("", table.span.clone()), |word| {
        (word.value.as_str(), word.span.clone())
    });
    let remedy = match nearest(text, known) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("write one of: {}", known.join(", ")),
    };
    let message = format!("\"{text}\" is no {what}");
    Problem::error(table.source, span, message, "not known", remedy)
}

fn named(table: &Table<'_, '_>, word: &At<String>) -> Result<u32, Problem> {
    let found = NAMED.iter().find(|(name, _)| *name == word.value);
    found.map(|(_, iss)| *iss).ok_or_else(|| {
        unknown(
            table,
            Some(word),
            "class of errors",
            &NAMED.map(|(name, _)| name),
        )
    })
}

fn syndrome(table: &Table<'_, '_>, number: &At<u64>) -> Result<u32, Problem> {
    let iss = u32::try_from(number.value).ok().and_then(Iss::new);
    iss.map(Iss::get).ok_or_else(|| {
        let message = format!(
            "{:#x} does not fit into the 25 bits of an ISS",
            number.value
        );
        let remedy = "write ESR_EL1[24:0], 0x1ffffff at most";
        Problem::error(
            table.source,
            number.span.clone(),
            message,
            "too big",
            remedy,
        )
    })
}

/// The syndrome of an error that has just one.
fn one_syndrome(table: &mut Table<'_, '_>, name: Option<&At<String>>) -> Result<u32, Problem> {
    if let Some(number) = table.integer("iss")? {
        return syndrome(table, &number);
    }
    if let Some(word) = table.string("class")? {
        return named(table, &word);
    }
    match name {
        Some(name) => named(table, name),
        None => Err(table.missing("iss", "iss = 0xc11")),
    }
}

fn serrors(
    table: &mut Table<'_, '_>,
    name: Option<&At<String>>,
) -> Result<Vec<(String, What)>, Problem> {
    let many = |values: Vec<u32>| {
        values
            .into_iter()
            .map(|iss| (format!("{iss:#x}"), What::Serror { iss }))
            .collect()
    };
    if let Some(range) = table.integers("iss_range")? {
        return range_of(table, &range).map(many);
    }
    if let Some(fields) = table.strings("fields")? {
        return every(table, &fields).map(many);
    }
    let iss = one_syndrome(table, name)?;
    let name = name.map_or_else(|| format!("{iss:#x}"), |name| name.value.clone());
    Ok(vec![(name, What::Serror { iss })])
}

fn range_of(table: &Table<'_, '_>, range: &At<Vec<At<u64>>>) -> Result<Vec<u32>, Problem> {
    let wrong = |message: &str| {
        let remedy = "write [first, last, step], such as [0x0, 0x1c11, 0x400]";
        Problem::error(table.source, range.span.clone(), message, "here", remedy)
    };
    let [first, last, step] = range.value.as_slice() else {
        return Err(wrong("a range has three numbers"));
    };
    let (from, to) = (syndrome(table, first)?, syndrome(table, last)?);
    let step = u32::try_from(step.value).unwrap_or(u32::MAX);
    if step == 0 || from > to || u64::from((to - from) / step) >= MOST_IN_RANGE {
        return Err(wrong("this range is empty or endless"));
    }
    Ok((from..=to).step_by(step as usize).collect())
}

/// Each value of each field that is named, all others 0.
fn every(table: &Table<'_, '_>, fields: &[At<String>]) -> Result<Vec<u32>, Problem> {
    let mut values = vec![0_u32];
    for field in fields {
        let known = FIELDS.iter().find(|(name, ..)| *name == field.value);
        let Some((_, low, width)) = known else {
            let names = FIELDS.map(|(name, ..)| name);
            return Err(unknown(table, Some(field), "field of an ISS", &names));
        };
        values = (0..1_u32 << width)
            .flat_map(|value| values.iter().map(move |iss| iss | value << low))
            .collect();
    }
    Ok(values)
}

fn word(
    table: &mut Table<'_, '_>,
    key: &'static str,
    known: &[&str],
) -> Result<Option<String>, Problem> {
    match table.string(key)? {
        Some(word) if known.contains(&word.value.as_str()) => Ok(Some(word.value)),
        Some(word) => Err(unknown(table, Some(&word), key, known)),
        None => Ok(None),
    }
}

fn sea(table: &mut Table<'_, '_>, name: Option<&At<String>>) -> Result<(String, What), Problem> {
    let name = name.ok_or_else(|| table.missing("name", "name = \"sea-data\""))?;
    let met_by = word(table, "sync", &["data", "fetch"])?.unwrap_or_else(|| "data".to_owned());
    let far = table.integer("far")?.map(|far| far.value);
    let iss = match table.integer("iss")? {
        Some(number) => syndrome(table, &number)?,
        None => 0x10,
    };
    Ok((name.value.clone(), What::Sea { met_by, far, iss }))
}

fn firmware(
    table: &mut Table<'_, '_>,
    name: Option<&At<String>>,
) -> Result<(String, What), Problem> {
    let error_name = name.ok_or_else(|| table.missing("name", "name = \"uer\""))?;
    let iss = one_syndrome(table, name)?;
    let words = ["recoverable", "fatal", "corrected", "informational", "none"];
    let severity = word(table, "severity", &words)?;
    let severity = severity.unwrap_or_else(|| severity_of(iss).to_owned());
    let place = place(table)?;
    let small = |number: Option<At<u64>>, or: u32| {
        number.map_or(or, |number| u32::try_from(number.value).unwrap_or(u32::MAX))
    };
    let count = small(table.integer("count")?, 1).max(1);
    let sync = word(table, "sync", &["data", "fetch"])?;
    let in_guest = table.boolean("in_guest")?.is_none_or(|flag| flag.value);
    let vcpu = small(table.integer("vcpu")?, 0) as usize;
    let pe = table.integer("pe")?;
    let pe = pe.map(|pe| u8::try_from(pe.value).unwrap_or(u8::MAX));
    let behavior = word(table, "behavior", &super::read::MODES)?;
    let error = FirmwareError {
        iss,
        severity,
        place,
        count,
        sync,
        in_guest,
        vcpu,
        pe,
        behavior,
    };
    Ok((error_name.value.clone(), What::Firmware(error)))
}

/// What a record of such an error would say.
fn severity_of(iss: u32) -> &'static str {
    match iss {
        0x1811 => "corrected",
        0x811 | 0xc11 | 0x411 | 0x100_0000 => "recoverable",
        _ => "fatal",
    }
}

fn place(table: &mut Table<'_, '_>) -> Result<Place, Problem> {
    let offset = table.integer("offset")?.map_or(0, |offset| offset.value);
    if let Some(pa) = table.integer("pa")? {
        return Ok(Place::Pa(pa.value));
    }
    if let Some(ipa) = table.integer("ipa")? {
        return Ok(Place::Ipa(ipa.value));
    }
    if let Some(said) = table.string("said")? {
        return Ok(Place::Said(said.value));
    }
    if let Some(said) = table.string("table_of")? {
        return Ok(Place::TableOf(said.value));
    }
    if let Some(symbol) = table.string("symbol")? {
        return Ok(Place::Symbol(symbol.value, offset));
    }
    Ok(Place::Nowhere)
}
