// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine that runs: what it says, what is said to it, and its end.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use crate::log::{Failure, Log, Mark, Record};
use crate::machine::{DEBUGGER_SOCKET, Error, TURNS, Tap, deadline, io_error};
use crate::qmp::Qmp;
use crate::reader::{read_secure, read_shared, spawn};
use crate::{Debugger, Raise};

/// A machine that runs. QEMU ends when this is dropped.
pub struct Running {
    child: Child,
    shared: UnixStream,
    secure: Option<UnixStream>,
    qmp: Qmp,
    log: Arc<Log>,
    dir: tempfile::TempDir,
    has_turns: bool,
}

impl Running {
    pub(crate) fn new(
        mut child: Child,
        streams: Vec<UnixStream>,
        tap: Option<Tap>,
        dir: tempfile::TempDir,
        has_turns: bool,
    ) -> Result<Self, Error> {
        let log = Arc::new(Log::default());
        if let Some(pipe) = child.stderr.take() {
            let log = Arc::clone(&log);
            spawn("qemu-stderr", move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    log.push_stderr(line);
                }
            })?;
        }
        let mut streams = streams.into_iter();
        let (Some(shared), Some(second)) = (streams.next(), streams.next()) else {
            return Err(Error::NotConnected);
        };
        let (secure, monitor) = match streams.next() {
            Some(monitor) => (Some(second), monitor),
            None => (None, second),
        };
        let reader = shared.try_clone().map_err(io_error("preparing a socket"))?;
        read_shared(reader, Arc::clone(&log), tap)?;
        if let Some(secure) = &secure {
            let reader = secure.try_clone().map_err(io_error("preparing a socket"))?;
            read_secure(reader, Arc::clone(&log))?;
        }
        let qmp = Qmp::start(monitor, Arc::clone(&log)).map_err(io_error("starting QMP"))?;
        Ok(Self {
            child,
            shared,
            secure,
            qmp,
            log,
            dir,
            has_turns,
        })
    }

    /// Returns the place behind all that was said so far.
    pub fn mark(&self) -> Mark {
        self.log.mark()
    }

    /// Returns all that was said since `mark`.
    pub fn since(&self, mark: Mark) -> Vec<Record> {
        self.log.since(mark)
    }

    /// Waits for the first record since `mark` that `wanted` accepts.
    ///
    /// # Errors
    ///
    /// When there is none within `deadline`, or the machine ends before.
    pub fn wait_for(
        &self,
        what: &str,
        mark: Mark,
        deadline: Duration,
        mut wanted: impl FnMut(&Record) -> bool,
    ) -> Result<Record, Failure> {
        let mut seen = 0;
        self.log.wait(what, mark, deadline, |records| {
            let fresh = records.get(seen..).unwrap_or(&[]);
            seen = records.len();
            fresh.iter().find(|record| wanted(record)).cloned()
        })
    }

    /// Waits until `look` finds what it wants in all records since `mark`.
    ///
    /// # Errors
    ///
    /// When it does not within `deadline`, or the machine ends before.
    pub fn wait_until<T>(
        &self,
        what: &str,
        mark: Mark,
        deadline: Duration,
        look: impl FnMut(&[Record]) -> Option<T>,
    ) -> Result<T, Failure> {
        self.log.wait(what, mark, deadline, look)
    }

    /// Returns what was said behind `mark`, which moves on; waits for it if there is nothing yet.
    /// Returns nothing when there is nothing within `deadline`.
    ///
    /// # Errors
    ///
    /// When the machine ended, and all that it said was returned before.
    pub fn fresh(&self, mark: &mut Mark, deadline: Duration) -> Result<Vec<Record>, Failure> {
        match self.log.fresh(mark, deadline) {
            (records, true) if records.is_empty() => {
                Err(self.log.explain("more of the machine", "it ended"))
            }
            (records, _) => Ok(records),
        }
    }

    /// Returns a failure that shows what the machine said last.
    pub fn explain(&self, what: &str, why: &str) -> Failure {
        self.log.explain(what, why)
    }

    /// Asks the firmware to raise an error.
    ///
    /// # Errors
    ///
    /// When there is no firmware, or QEMU is gone.
    pub fn send_raise(&mut self, raise: &Raise) -> Result<(), Error> {
        self.send_firmware(&raise.to_string())
    }

    /// Sends the firmware a line.
    ///
    /// # Errors
    ///
    /// When there is no firmware, or QEMU is gone.
    pub fn send_firmware(&mut self, line: &str) -> Result<(), Error> {
        self.send_firmware_raw(format!("{line}\n").as_bytes())
    }

    /// Sends the firmware bytes as they are.
    ///
    /// # Errors
    ///
    /// When there is no firmware, or QEMU is gone.
    pub fn send_firmware_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let what = "writing to the firmware";
        let secure = self.secure.as_mut().ok_or_else(|| {
            let source =
                io::Error::new(io::ErrorKind::NotConnected, "this machine has no firmware");
            Error::Io { what, source }
        })?;
        secure.write_all(bytes).map_err(io_error(what))
    }

    /// Types `text` on the console of partition number `partition`.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn type_into(&mut self, partition: u8, text: &str) -> Result<(), Error> {
        let mut bytes = vec![firebreak_wire::ESCAPE, b'0' + partition % 10];
        for byte in text.bytes() {
            if byte == firebreak_wire::ESCAPE {
                bytes.push(byte);
            }
            bytes.push(byte);
        }
        self.type_raw(&bytes)
    }

    /// Sends the hypervisor a command; its `answer` event carries `id`.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn send_command(&mut self, id: u64, command: &str) -> Result<(), Error> {
        let mut bytes = vec![firebreak_wire::ESCAPE, firebreak_wire::COMMAND];
        bytes.extend(format!("{command} id={id}\n").bytes());
        self.type_raw(&bytes)
    }

    /// Types bytes as they are, Ctrl-A sequences included.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn type_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.shared
            .write_all(bytes)
            .map_err(io_error("typing on the shared serial line"))
    }

    /// Resets the machine from outside.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn system_reset(&mut self) -> Result<(), Error> {
        self.qmp
            .execute("system_reset")
            .map_err(io_error("asking QEMU for a reset"))
    }

    /// Types a line on QEMU's human monitor. What it answers is not looked at.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn monitor(&mut self, line: &str) -> Result<(), Error> {
        self.qmp
            .monitor(line)
            .map_err(io_error("typing on QEMU's monitor"))
    }

    /// Types a line on QEMU's human monitor, and returns what it says when it is done.
    ///
    /// # Errors
    ///
    /// When QEMU is gone or does not answer.
    pub fn ask_monitor(&mut self, line: &str) -> Result<String, Error> {
        self.qmp
            .ask_monitor(line)
            .map_err(io_error("typing on QEMU's monitor"))
    }

    /// Stops the machine's time, and returns when it stands: no PE runs, no timer fires.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.qmp
            .ask("stop", &serde_json::Value::Null)
            .map(drop)
            .map_err(io_error("asking QEMU to stop"))
    }

    /// Lets the machine's time go on.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn go_on(&mut self) -> Result<(), Error> {
        self.qmp
            .ask("cont", &serde_json::Value::Null)
            .map(drop)
            .map_err(io_error("asking QEMU to go on"))
    }

    /// Keeps the state of a machine that stands in the writable image that it was started with.
    ///
    /// # Errors
    ///
    /// When QEMU has no such image, the disk is full, or it is gone.
    pub fn save_snapshot(&mut self, name: &str) -> Result<(), Error> {
        self.snapshot("savevm", name)
    }

    /// Restores a state that was kept. What its guests had printed of a line is forgotten.
    ///
    /// # Errors
    ///
    /// When there is no such state, or QEMU is gone.
    pub fn load_snapshot(&mut self, name: &str) -> Result<(), Error> {
        self.snapshot("loadvm", name)?;
        self.log.forget_unfinished();
        self.restart_turns()
    }

    /// Time went back, and QEMU's own timers do not go with it: what bounds the turns would be due
    /// only when the machine is as old again.
    fn restart_turns(&mut self) -> Result<(), Error> {
        for status in ["off", "on"].into_iter().filter(|_| self.has_turns) {
            let path = format!("/objects/{TURNS}");
            let what = serde_json::json!({ "path": path, "property": "status", "value": status });
            self.qmp
                .ask("qom-set", &what)
                .map_err(io_error("bounding QEMU's turns"))?;
        }
        Ok(())
    }

    fn snapshot(&mut self, command: &str, name: &str) -> Result<(), Error> {
        // Both are silent when they are done.
        let said = self.ask_monitor(&format!("{command} {name}"))?;
        if said.is_empty() {
            return Ok(());
        }
        let what = "keeping or restoring the machine's state";
        Err(io_error(what)(io::Error::other(said)))
    }

    /// Returns the process that runs the machine.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Connects to a machine that was started with [`Machine::debugger`](crate::Machine::debugger),
    /// and stops it until the connection is dropped.
    ///
    /// # Errors
    ///
    /// When the machine has no gdb server, or QEMU is gone.
    pub fn debugger(&self) -> Result<Debugger, Error> {
        Debugger::connect(&self.dir.path().join(DEBUGGER_SOCKET))
            .map_err(io_error("connecting to QEMU's gdb server"))
    }

    /// Returns what stops and continues the machine's time, from any thread.
    ///
    /// # Errors
    ///
    /// When the connection to QEMU cannot be shared.
    pub fn clock(&self) -> Result<Clock, Error> {
        let qmp = self
            .qmp
            .share()
            .map_err(io_error("sharing the connection to QEMU"))?;
        Ok(Clock { qmp })
    }

    /// Waits until QEMU ends by itself (`-no-reboot`, SYSTEM_OFF).
    ///
    /// # Errors
    ///
    /// When it does not within `deadline`.
    pub fn wait_end(&mut self, deadline: Duration) -> Result<ExitStatus, Failure> {
        self.log.wait_end(deadline)?;
        self.child
            .wait()
            .map_err(|error| self.log.explain("QEMU's end", &error.to_string()))
    }

    /// Ends QEMU, and returns all that was said.
    pub fn quit(mut self) -> Vec<Record> {
        let _ = self.qmp.execute("quit");
        if self.log.wait_end(deadline(10)).is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        self.log.since(Mark::START)
    }
}

/// Stops and continues the time of a machine.
pub struct Clock {
    qmp: Qmp,
}

impl Clock {
    /// Stops it: no PE runs, no timer fires.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.qmp
            .execute("stop")
            .map_err(io_error("asking QEMU to stop"))
    }

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn go_on(&mut self) -> Result<(), Error> {
        self.qmp
            .execute("cont")
            .map_err(io_error("asking QEMU to go on"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
