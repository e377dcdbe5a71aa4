// SPDX-License-Identifier: MIT OR Apache-2.0
//! An event as a sentence.

use firebreak_qemu::Event;
use serde_json::Value;

use super::text::harmless;

/// How much an event matters to whoever watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weight {
    /// Ordinary life.
    Note,
    /// An error that somebody survived.
    Warning,
    /// Somebody died of it.
    Loss,
}

/// Returns how much an event matters.
pub(crate) fn weight(event: &Event) -> Weight {
    match event.name() {
        "panic" | "halt" | "crash" | "killed" => Weight::Loss,
        "error" => match event.text("verdict") {
            Some("log" | "ignore") => Weight::Note,
            Some("kill" | "restart" | "reset") => Weight::Loss,
            _ => Weight::Warning,
        },
        "answer" if event.flag("ok") == Some(false) => Weight::Warning,
        "boot" | "partition" | "started" | "answer" | "log" | "queue" => Weight::Note,
        _ => Weight::Warning,
    }
}

/// Returns what a member says, as a word.
fn word(event: &Event, key: &str) -> String {
    match event.value().get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => harmless(text),
        Some(other) => other.to_string(),
    }
}

/// Returns `, key word` if the member is there.
fn and(event: &Event, lead: &str, key: &str) -> String {
    match event.value().get(key) {
        None | Some(Value::Null) => String::new(),
        Some(_) => format!("{lead}{}", word(event, key)),
    }
}

/// Returns an event in words, without its name. `name` knows the partitions by number.
pub(crate) fn sentence(event: &Event, name: impl Fn(u64) -> Option<String>) -> String {
    let w = |key| word(event, key);
    let vm = |key: &str| match event.num(key) {
        Some(vm) => name(vm).unwrap_or_else(|| format!("partition {vm}")),
        None => "nobody".to_owned(),
    };
    match event.name() {
        "boot" => boot(event),
        "partition" => format!(
            "{}: {} vCPU(s) on PE {}",
            w("name"),
            w("vcpus"),
            w("pes").trim_matches(['[', ']'])
        ),
        "started" => format!("{}, restarts: {}", w("name"), w("restarts")),
        "error" => error(event, &vm("page_vm")),
        "vserror" => format!(
            "virtual SError {} of {} vCPU {}: {}{}",
            w("inj"),
            vm("vm"),
            w("vcpu"),
            w("state"),
            and(event, ", syndrome ", "syndrome") + &and(event, ", at ", "elr")
        ),
        "vsea" => format!(
            "external abort {} in {} vCPU {}: ESR_EL1 {}{}, at {}",
            w("inj"),
            vm("vm"),
            w("vcpu"),
            w("esr"),
            and(event, ", FAR_EL1 ", "far"),
            w("elr")
        ),
        "retired" => format!(
            "{} lost the page at {} (PA {})",
            vm("vm"),
            w("ipa"),
            w("pa")
        ),
        "spare" => format!(
            "{} has a spare page at {} (PA {}), {} left",
            vm("vm"),
            w("ipa"),
            w("pa"),
            w("left")
        ),
        "abort" => format!(
            "{} vCPU {} touched {} and got an external abort",
            vm("vm"),
            w("vcpu"),
            w("ipa")
        ),
        "undef" => format!(
            "{} vCPU {} got an UNDEF at {} (ESR_EL2 {})",
            vm("vm"),
            w("vcpu"),
            w("pc"),
            w("esr")
        ),
        "killed" | "stopped" => format!("{}: {}", w("name"), w("reason")),
        "restart" => format!("{}, time {}: {}", w("name"), w("count"), w("reason")),
        "watchdog" => format!("{} was silent for too long", w("name")),
        "pvpanic" => format!("{} says that it panics", w("name")),
        "suppressed" => format!("{}: {} were left out", w("what"), w("count")),
        "unclaimed" => format!(
            "PE {} took an error without a record, ISS {}",
            w("pe"),
            w("iss")
        ),
        "unnotified" => format!("PE {} found a record that nobody had told of", w("pe")),
        "panic" => format!("the hypervisor failed on PE {}: {}", w("pe"), w("text")),
        "halt" => w("text"),
        "given-up" => format!(
            "the hypervisor does without its page {} ({})",
            w("pa"),
            w("what")
        ),
        "answer" => format!("{} {}", w("id"), answer(event)),
        "log" => format!(
            "of boot {}, entry {}: {}",
            w("boot"),
            w("number"),
            w("text")
        ),
        _ => rest(event),
    }
}

fn boot(event: &Event) -> String {
    let ras = match event.flag("ras") {
        Some(true) => "FEAT_RAS",
        _ => "no FEAT_RAS",
    };
    format!(
        "Firebreak {} on {}: {} PEs, {ras}, {} partition(s){}{}",
        word(event, "version"),
        word(event, "board"),
        word(event, "pes"),
        word(event, "partitions"),
        and(event, ", errors by ", "firmware"),
        and(event, ", bits a second of the line: ", "line")
    )
}

fn error(event: &Event, owner: &str) -> String {
    let place = match event.text("pa") {
        Some(pa) if event.num("page_vm").is_some() => format!(" in memory of {owner} ({pa})"),
        Some(pa) => format!(" in memory of {} ({pa})", word(event, "owner")),
        None => String::new(),
    };
    let hit = match event.text("name") {
        Some(name) => format!("{} at {}", harmless(name), word(event, "from")),
        None => word(event, "context"),
    };
    format!(
        "#{} {}{place}, met by PE {} ({hit}): {} (rule {})",
        word(event, "id"),
        word(event, "severity"),
        word(event, "pe"),
        word(event, "verdict"),
        word(event, "rule")
    )
}

/// The answer to a command, in one line.
pub(crate) fn answer(event: &Event) -> String {
    let text = word(event, "text");
    let head = match event.flag("ok") {
        Some(true) if text.is_empty() => "done".to_owned(),
        Some(true) => format!("done: {text}"),
        _ => format!("refused: {text}"),
    };
    head + &and(event, ", injection ", "inj")
}

fn rest(event: &Event) -> String {
    let members = event.value().as_object().into_iter().flatten();
    let known = |key: &str| matches!(key, "v" | "t" | "ev");
    members
        .filter(|(key, value)| !known(key) && !value.is_null())
        .map(|(key, _)| format!("{key}={}", word(event, key)))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(value: Value) -> String {
        let event = Event::new(value).unwrap();
        sentence(&event, |vm| (vm == 1).then(|| "victim".to_owned()))
    }

    #[test]
    fn an_error_says_whose_memory_and_what_was_decided() {
        let error = json!({"v":1,"t":5,"ev":"error","id":7,"pe":1,"vm":0,"name":"linux",
            "from":"el0","severity":"UER","pa":"0x48001000","owner":"partition","page_vm":1,
            "verdict":"retire","rule":"own-page","context":"guest"});
        assert_eq!(
            said(error),
            "#7 UER in memory of victim (0x48001000), met by PE 1 (linux at el0): retire \
             (rule own-page)"
        );
    }

    #[test]
    fn an_answer_says_why_not() {
        let no = json!({"v":1,"t":5,"ev":"answer","id":3,"ok":false,"text":"no such vCPU"});
        assert_eq!(said(no), "3 refused: no such vCPU");
        let yes = json!({"v":1,"t":5,"ev":"answer","id":3,"ok":true,"text":"","inj":9});
        assert_eq!(said(yes), "3 done, injection 9");
    }

    #[test]
    fn an_event_that_is_not_known_here_is_shown_by_its_members() {
        let new = json!({"v":1,"t":5,"ev":"brand-new","b":1,"a":"x\u{1b}[2J","c":null});
        assert_eq!(said(new), "a=x b=1");
        let short = json!({"v":1,"t":5,"ev":"error"});
        assert!(said(short).contains("#-"));
    }
}
