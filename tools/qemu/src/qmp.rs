// SPDX-License-Identifier: MIT OR Apache-2.0
//! As much of QMP as is needed to reset and to quit, and to hear that the machine did so itself.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::log::{Log, Record};

/// The writing half of a monitor connection.
pub(crate) struct Qmp {
    stream: UnixStream,
}

impl Qmp {
    /// Leaves negotiation mode, and logs QEMU's events from then on.
    pub(crate) fn start(stream: UnixStream, log: Arc<Log>) -> io::Result<Self> {
        let reader = BufReader::new(stream.try_clone()?);
        let mut qmp = Self { stream };
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
                    }
                }
                log.closed();
            })?;
        Ok(qmp)
    }

    /// Makes a second writing half.
    pub(crate) fn share(&self) -> io::Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
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
}
