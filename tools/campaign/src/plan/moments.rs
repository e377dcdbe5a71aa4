// SPDX-License-Identifier: MIT OR Apache-2.0
//! The moments of a plan.

use firebreak_image::Problem;
use firebreak_image::document::Table;

use super::{Address, Moment, Steps, Typed};

const KEYS: [&str; 16] = [
    "name",
    "guests",
    "type",
    "until",
    "el",
    "near",
    "masked",
    "at_start",
    "at",
    "address",
    "symbol",
    "steps",
    "random_steps",
    "then_type",
    "then_until",
    "then_after_ms",
];
/// What the hypervisor can wait for, besides an exception level.
const SPOTS: [&str; 2] = ["masked", "unmasked"];
/// Instructions are stepped over one by one: more would take minutes.
const MOST_STEPS: u64 = 100_000;

/// Reads one `[[moment]]`.
pub(super) fn read(table: Table<'_, '_>) -> Result<Moment, Problem> {
    let mut table = table.knowing(&KEYS);
    let name = table
        .string("name")?
        .ok_or_else(|| table.missing("name", "name = \"user-space\""))?;
    let guests = super::read::names(&mut table, "guests")?;
    let prepare = typed(&mut table, "type", "until")?;
    let then = typed(&mut table, "then_type", "then_until")?;
    let then_after_ms = table.integer("then_after_ms")?;
    let el = match table.integer("el")? {
        Some(el) if el.value <= 1 => Some(u8::try_from(el.value).unwrap_or(1)),
        Some(el) => {
            let message = format!("a guest never runs at EL{}", el.value);
            let remedy = "write 0 or 1";
            return Err(Problem::error(
                table.source,
                el.span,
                message,
                "no such level",
                remedy,
            ));
        }
        None => None,
    };
    let near = table.string("near")?.map(|text| text.value);
    let masked = table.boolean("masked")?.map(|flag| flag.value);
    let spot = match table.string("at")? {
        Some(word) if SPOTS.contains(&word.value.as_str()) => Some(word.value),
        Some(word) => {
            let what = "place to wait for";
            return Err(super::errors::unknown(&table, Some(&word), what, &SPOTS));
        }
        None => None,
    };
    let at_start = table.boolean("at_start")?.is_some_and(|flag| flag.value);
    let address = table
        .integer("address")?
        .map(|at| Address::Virtual(at.value));
    let symbol = table.string("symbol")?.map(|at| Address::Symbol(at.value));
    let steps = steps(&mut table)?;
    super::read::nothing_unknown(&table)?;
    Ok(Moment {
        name: name.value,
        guests,
        prepare,
        el,
        near,
        masked,
        spot,
        at_start,
        at: address.or(symbol),
        steps,
        then,
        then_after_ns: then_after_ms.map_or(0, |ms| ms.value.saturating_mul(1_000_000)),
    })
}

fn typed(
    table: &mut Table<'_, '_>,
    text: &'static str,
    until: &'static str,
) -> Result<Vec<Typed>, Problem> {
    let texts = table.strings(text)?.unwrap_or_default();
    let untils = table.strings(until)?.unwrap_or_default();
    if untils.len() > texts.len() {
        let span = untils.last().map_or(0..0, |last| last.span.clone());
        let message = format!("`{until}` has more lines than `{text}` has texts");
        let remedy = format!("give each line of `{until}` the text in `{text}` that it answers");
        return Err(Problem::error(
            table.source,
            span,
            message,
            "one too many",
            remedy,
        ));
    }
    let mut untils = untils.into_iter();
    let texts = texts.into_iter();
    Ok(texts
        .map(|text| Typed {
            text: text.value,
            until: untils.next().map_or_else(String::new, |until| until.value),
        })
        .collect())
}

fn steps(table: &mut Table<'_, '_>) -> Result<Steps, Problem> {
    let exactly = table.integer("steps")?;
    let random = table.integers("random_steps")?;
    let source = table.source;
    let bound = |at: &firebreak_image::document::At<u64>| {
        u32::try_from(at.value)
            .ok()
            .filter(|_| at.value <= MOST_STEPS)
            .ok_or_else(|| {
                let message = format!("{} instructions are too many to step over", at.value);
                let remedy = format!("write {MOST_STEPS} at most, or wait for a later line");
                Problem::error(source, at.span.clone(), message, "too many", remedy)
            })
    };
    if let Some(steps) = &exactly {
        return bound(steps).map(Steps::Exactly);
    }
    let Some(range) = random else {
        return Ok(Steps::Exactly(0));
    };
    match range.value.as_slice() {
        [from, to] if from.value <= to.value => Ok(Steps::Random(bound(from)?, bound(to)?)),
        _ => {
            let message = "`random_steps` must be the least and the greatest number";
            let remedy = "write such as [0, 1000]";
            Err(Problem::error(source, range.span, message, "here", remedy))
        }
    }
}
