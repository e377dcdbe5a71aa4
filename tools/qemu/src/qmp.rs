// SPDX-License-Identifier: MIT OR Apache-2.0
//! As much of QMP as is needed to reset and to quit, and to hear that the machine did so itself.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::log::{Log, Record};

/// How long QEMU may take to carry out what it was asked: restoring a big guest is the longest.
const ANSWER: Duration = Duration::from_secs(120);

/// Answers that came and were not fetched yet, by the number of their question.
#[derive(Default)]
struct Answers {
    state: Mutex<(BTreeMap<u64, Value>, bool)>,
    grown: Condvar,
}

impl Answers {
    fn put(&self, id: u64, answer: Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.insert(id, answer);
        self.grown.notify_all();
    }

    fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = true;
        self.grown.notify_all();
    }

    fn take(&self, id: u64, deadline: Duration) -> io::Result<Value> {
        let end = Instant::now() + deadline;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = state.0.remove(&id) {
                return Ok(answer);
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.1 {
                return Err(io::Error::other("QEMU ended"));
            }
            if left.is_zero() {
                return Err(io::Error::other("QEMU does not answer"));
            }
            let (next, _) = self
                .grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }
}

/// The writing half of a monitor connection.
pub(crate) struct Qmp {
    stream: UnixStream,
    answers: Arc<Answers>,
    asked: u64,
}

impl Qmp {
    /// Leaves negotiation mode, and logs QEMU's events from then on.
    pub(crate) fn start(stream: UnixStream, log: Arc<Log>) -> io::Result<Self> {
        let reader = BufReader::new(stream.try_clone()?);
        let answers = Arc::new(Answers::default());
        let mut qmp = Self {
            stream,
            answers: Arc::clone(&answers),
            asked: 0,
        };
        qmp.execute("qmp_capabilities")?;
        log.opened();
        std::thread::Builder::new()
            .name("qmp".to_owned())
            .spawn(move || {
                for line in reader.lines() {
                    let Ok(line) = line else { break };
                    let Ok(message) = serde_json::from_str::<Value>(&line) else {
                        continue;
                    };
                    if let Some(event) = message.get("event").and_then(Value::as_str) {
                        log.push(Record::Qemu(event.to_owned()));
                    } else if let Some(id) = message.get("id").and_then(Value::as_u64) {
                        answers.put(id, message);
                    }
                }
                answers.close();
                log.closed();
            })?;
        Ok(qmp)
    }

    /// Makes a second writing half.
    pub(crate) fn share(&self) -> io::Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            answers: Arc::clone(&self.answers),
            // Questions are asked by the first half alone.
            asked: 0,
        })
    }

    /// Sends a command without arguments.
    pub(crate) fn execute(&mut self, command: &str) -> io::Result<()> {
        // In one piece, as two threads may write.
        self.stream
            .write_all(format!("{}\n", json!({ "execute": command })).as_bytes())
    }

    /// Sends a line to the human monitor.
    pub(crate) fn monitor(&mut self, line: &str) -> io::Result<()> {
        let command = json!({
            "execute": "human-monitor-command",
            "arguments": { "command-line": line },
        });
        self.stream.write_all(format!("{command}\n").as_bytes())
    }

    /// Sends a command and waits until QEMU has carried it out.
    pub(crate) fn ask(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        self.asked += 1;
        let id = self.asked;
        let mut question = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            question["arguments"] = arguments.clone();
        }
        self.stream.write_all(format!("{question}\n").as_bytes())?;
        let mut answer = self.answers.take(id, ANSWER)?;
        match answer.get("error").and_then(|error| error["desc"].as_str()) {
            Some(why) => Err(io::Error::other(format!("QEMU refuses {command}: {why}"))),
            None => Ok(answer["return"].take()),
        }
    }

    /// Types a line on the human monitor and returns what it says.
    pub(crate) fn ask_monitor(&mut self, line: &str) -> io::Result<String> {
        let answer = self.ask("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or("").trim().to_owned())
    }
}
