// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a partition file says about restarts and errors.

use firebreak_manifest::config::{MAX_RESTART_LIMIT, default_policy};
use firebreak_manifest::{Policy, RestartPolicy};
use firebreak_triage::{Class, Reaction};

use crate::diagnostic::{Problem, Source};
use crate::document::{At, Table};
use crate::fields;

pub(super) fn read_restart(
    table: &mut Table<'_, '_>,
    watchdog: Option<&At<bool>>,
    problems: &mut Vec<Problem>,
) -> Result<RestartPolicy, Problem> {
    let mut policy = RestartPolicy::default();
    let Some(restart) = table.table("restart", "`restart`")? else {
        return Ok(policy);
    };
    let mut restart = restart.of(&fields::RESTART);
    if let Some(flag) = restart.boolean("on_reset")? {
        policy.on_reset = flag.value;
    }
    if let Some(flag) = restart.boolean("on_silence")? {
        policy.on_silence = flag.value;
        if flag.value && watchdog.is_some_and(|watchdog| !watchdog.value) {
            let message = "silence cannot be noticed without a watchdog";
            let remedy = table.source.say(
                "set watchdog = true, or on_silence = false",
                "set firebreak,watchdog or firebreak,restart-on-silence to the other value",
            );
            problems.push(Problem::error(
                table.source,
                flag.span,
                message,
                "never happens",
                remedy,
            ));
        }
    }
    if let Some(flag) = restart.boolean("on_kill")? {
        policy.on_kill = flag.value;
    }
    let mut number = |key, what: &str, most: u32, into: &mut u32| {
        let Some(wanted) = restart.integer(key)? else {
            return Ok(());
        };
        match u32::try_from(wanted.value) {
            Ok(value) if value <= most => *into = value,
            _ => {
                let message = format!("a restart {what} of {} is too high", wanted.value);
                let remedy = format!("use 0 to {most}");
                let label = "too high";
                let problem = Problem::error(table.source, wanted.span, message, label, remedy);
                problems.push(problem);
            }
        }
        Ok(())
    };
    number("limit", "limit", MAX_RESTART_LIMIT, &mut policy.limit)?;
    let most_ms = RestartPolicy::MAX_BACKOFF_MS;
    number("backoff_ms", "back-off", most_ms, &mut policy.backoff_ms)?;
    problems.extend(restart.unknown_keys());
    Ok(policy)
}

pub(super) fn read_policy(
    table: &mut Table<'_, '_>,
    ras_visible: bool,
    chosen_syndromes: &mut Vec<At<String>>,
    problems: &mut Vec<Problem>,
) -> Result<Policy, Problem> {
    let mut policy = default_policy(ras_visible);
    let Some(on_error) = table.table("on_error", "`on_error`")? else {
        return Ok(policy);
    };
    let mut on_error = on_error.of(&fields::ON_ERROR);
    for class in Class::ALL {
        let Some(word) = on_error.string(class.name())? else {
            continue;
        };
        let reaction = Reaction::parse(&word.value)
            .and_then(|reaction| reaction.check(class).map(|()| reaction));
        match reaction {
            Ok(reaction) => {
                problems.extend(check_decimal(table.source, &word));
                if word.value.contains(':') {
                    chosen_syndromes.push(word.clone());
                }
                problems.extend(check_visible(
                    table.source,
                    class,
                    &word,
                    reaction,
                    ras_visible,
                ));
                policy.set(class, reaction);
            }
            Err(error) => {
                let message = format!("\"{}\" cannot be done about {class}", word.value);
                problems.push(Problem::error(
                    table.source,
                    word.span,
                    message,
                    "this reaction",
                    error.to_string(),
                ));
            }
        }
    }
    read_corrected(&mut on_error, &mut policy, problems)?;
    problems.extend(on_error.unknown_keys());
    Ok(policy)
}

/// When corrected errors on one page are too many.
fn read_corrected(
    on_error: &mut Table<'_, '_>,
    policy: &mut Policy,
    problems: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let source = on_error.source;
    if let Some(limit) = on_error.integer("corrected_limit")? {
        match u16::try_from(limit.value) {
            Ok(value) => policy.corrected_limit = value,
            Err(_) => {
                let message = format!("a limit of {} corrected errors is too high", limit.value);
                let remedy = "use 1 to 65535, or 0 for never";
                problems.push(Problem::error(
                    source, limit.span, message, "too high", remedy,
                ));
            }
        }
    }
    if let Some(window) = on_error.integer("corrected_window_s")? {
        const MOST: u32 = Policy::MAX_CORRECTED_WINDOW_S;
        match u32::try_from(window.value) {
            Ok(value @ 1..=MOST) => policy.corrected_window_s = value,
            _ => {
                let message = format!("corrected errors cannot be counted for {} s", window.value);
                let remedy = format!("use 1 to {MOST} (a year)");
                problems.push(Problem::error(
                    source,
                    window.span,
                    message,
                    "this window of time",
                    remedy,
                ));
            }
        }
    }
    Ok(())
}

/// A syndrome is known by its hexadecimal digits, and they may stand there without their 0x.
fn check_decimal(source: &Source, word: &At<String>) -> Option<Problem> {
    /// DFSC of an asynchronous SError.
    const DFSC: u32 = 0x11;
    let (reaction, digits) = word.value.split_once(':')?;
    let (decimal, hex): (u32, _) = (digits.parse().ok()?, u32::from_str_radix(digits, 16).ok()?);
    if decimal & 0x3f == DFSC || hex & 0x3f != DFSC {
        return None;
    }
    let message =
        format!("syndrome {digits} is a decimal number: the guest would be told {decimal:#x}");
    let remedy = format!("write \"{reaction}:0x{digits}\"");
    let span = word.span.clone();
    Some(Problem::error(source, span, message, "without 0x", remedy))
}

/// A guest that does not see FEAT_RAS takes every SError for an implementation-defined one: a
/// syndrome that says otherwise would be a lie.
fn check_visible(
    source: &Source,
    class: Class,
    word: &At<String>,
    reaction: Reaction,
    ras_visible: bool,
) -> Option<Problem> {
    let syndrome = match reaction {
        Reaction::Inject(chosen) | Reaction::Retire(chosen) => {
            chosen.unwrap_or(class.default_syndrome())
        }
        _ => return None,
    };
    const IDS: u32 = 1 << 24;
    if ras_visible || syndrome.get() & IDS != 0 {
        return None;
    }
    let message = format!(
        "syndrome {:#x} means nothing to a guest that does not see the RAS extension",
        syndrome.get()
    );
    let name = if matches!(reaction, Reaction::Inject(_)) {
        "inject"
    } else {
        "retire"
    };
    let set = source.say("ras_visible = true", "firebreak,ras-visible to <1>");
    let remedy = format!("set {set}, or write \"{name}:0x1000000\" (implementation defined)");
    let label = source.say(
        "contradicts ras_visible = false",
        "contradicts firebreak,ras-visible = <0>",
    );
    Some(Problem::error(
        source,
        word.span.clone(),
        message,
        label,
        remedy,
    ))
}
