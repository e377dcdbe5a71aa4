// SPDX-License-Identifier: MIT OR Apache-2.0
//! A session as lines: for pipes, logs and CI.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use firebreak_qemu::Record;

use super::hub::{Hub, Message};
use super::socket;

const HELP: &str = "ps, stop NAME, start NAME, restart NAME, inject NAME vcpu=N serror|sea=..., \
                    stats, log, raise pe=N iss=0x... sev=WORD, type NAME TEXT, quit";

/// Returns a record as one line, `None` for what is not to be shown.
pub(crate) fn line(hub: &Hub, record: &Record) -> String {
    match record {
        Record::Event(event) => {
            let words = hub.with(|model| model.sentence(event));
            let mut text = format!("{:<10} {words}", event.name());
            for row in event.value()["partitions"].as_array().into_iter().flatten() {
                text += "\n           ";
                text += &crate::client::row(row);
            }
            text
        }
        other => other.to_string(),
    }
}

/// Shows all that comes until the session ends, and takes commands from standard input.
pub(crate) fn run(
    hub: &Arc<Hub>,
    heard: &Receiver<Message>,
    json: bool,
    patience: Duration,
) -> String {
    let typing = Arc::clone(hub);
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if let Err(why) = obey(&typing, line.trim(), patience) {
                eprintln!("firebreak: {why}");
            }
        }
    });
    for message in heard {
        let text = match message {
            Message::Record(record) if json => socket::record(hub, &record).to_string(),
            Message::Record(record) => line(hub, &record),
            Message::Bytes { .. } => continue,
            Message::Ended(why) => return why,
        };
        let mut out = io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            return "nobody reads the output any more".to_owned();
        }
        // The configuration cannot be used: nothing more will come.
        if let Some(why) = hub.with(|model| model.halted.clone()) {
            return format!("the hypervisor halted: {why}");
        }
    }
    "the session ended".to_owned()
}

/// Does what a line of standard input says; the answer comes as an event.
fn obey(hub: &Hub, line: &str, patience: Duration) -> Result<(), String> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match verb {
        "" => Ok(()),
        "help" | "?" => Err(HELP.to_owned()),
        "quit" => {
            hub.end("asked to quit");
            Ok(())
        }
        "raise" => hub.raise(rest, patience).map(drop),
        "type" => {
            let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
            hub.type_into(name, format!("{text}\r").as_bytes())
        }
        _ => hub.command(line, patience).map(drop),
    }
}
