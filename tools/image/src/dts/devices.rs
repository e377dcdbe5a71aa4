// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices passed through: three lists of a partition's node, one entry of each for each device.

use std::ops::Range;

use firebreak_manifest::config::property;

use super::domain::pairs;
use super::tree::{Node, Property};
use crate::diagnostic::{Problem, Source};
use crate::document::{At, Entry, Value};

/// The lists.
pub(super) const LISTS: [&str; 3] = [
    property::DEVICES,
    property::DEVICE_DMA,
    property::DEVICE_IPA,
];

/// Turns them into what TOML calls `devices`; none if no device is named.
pub(super) fn entry(node: &Node, source: &Source) -> Result<Option<Entry>, Problem> {
    let wrong = |property: &Property, message: String, label: &str, remedy: &str| {
        Problem::error(source, property.value_span.clone(), message, label, remedy)
    };
    let Some(paths) = node.property(property::DEVICES) else {
        let stray = LISTS.iter().find_map(|name| node.property(name));
        return stray.map_or(Ok(None), |stray| {
            let message = format!("`{}` speaks of devices that are not named", stray.name);
            let remedy = "name them in `firebreak,devices`, or remove this";
            Err(wrong(stray, message, "of which devices", remedy))
        });
    };
    let Some(names) = paths.strings() else {
        let message = "`firebreak,devices` must be a list of texts".to_owned();
        let remedy = "write paths in quotes, or references such as &gpio, with commas between them";
        return Err(wrong(paths, message, "not of this form", remedy));
    };
    let count = names.len();
    let list = |name: &str, form: &str, read: fn(&Property) -> Option<Vec<u64>>| {
        let Some(property) = node.property(name) else {
            return Ok(vec![0; count]);
        };
        let numbers = read(property).filter(|numbers| numbers.len() == count);
        numbers.ok_or_else(|| {
            let message = format!("`{name}` must be {form}, for {count} device(s)");
            let remedy = "give each device in `firebreak,devices` its number, in the same order";
            wrong(property, message, "not of this form", remedy)
        })
    };
    let bits = |property: &Property| {
        let cells = property.cells()?;
        let bits = cells.iter().all(|cell| *cell < 2);
        bits.then(|| cells.into_iter().map(u64::from).collect())
    };
    let dma = list(property::DEVICE_DMA, "<0> or <1>", bits)?;
    let ipas = list(
        property::DEVICE_IPA,
        "an address of two cells, or <0 0>",
        pairs,
    )?;
    let devices = names.into_iter().zip(dma.into_iter().zip(ipas));
    let value = Value::List(
        devices
            .map(|(name, (dma, ipa))| device(name, dma, ipa, &paths.value_span))
            .collect(),
    );
    Ok(Some(Entry {
        key: at("devices".to_owned(), &paths.span),
        value: at(value, &paths.value_span),
    }))
}

fn device(name: String, dma: u64, ipa: u64, span: &Range<usize>) -> At<Value> {
    let mut fields = vec![("path", Value::Text(name))];
    if dma == 1 {
        fields.push(("dma", Value::Text("trusted".to_owned())));
    }
    if ipa != 0 {
        fields.push(("at", Value::Integer(Ok(ipa))));
    }
    let field = |(key, value): (&str, Value)| Entry {
        key: at(key.to_owned(), span),
        value: at(value, span),
    };
    at(Value::Table(fields.into_iter().map(field).collect()), span)
}

fn at<T>(value: T, span: &Range<usize>) -> At<T> {
    At {
        value,
        span: span.clone(),
    }
}
