// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak run` as a person or a script has it, and the single commands beside it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use libtest_mimic::{Failed, Trial};

use crate::harness::{Case, Outcome, failed, image, out, trial, workspace};

pub(crate) fn add(trials: &mut Vec<Trial>) {
    trials.push(trial("run_command::single_commands", single_commands));
    trials.push(trial("run_command::refusal_of_the_system", refusal));
    trials.push(trial("run_command::a_qemu_that_fails", failing_qemu));
}

/// Builds the command that is tested, once.
pub(crate) fn program() -> Result<PathBuf, Failed> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = &*built {
        return Ok(path.clone());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args(["build", "--locked", "-p", "firebreak-cli"])
        .args(["--message-format", "json"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(failed)?;
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .find(|path| path.ends_with("firebreak"))
        .ok_or("cargo built no `firebreak`")?;
    *built = Some(path.clone());
    Ok(path)
}

/// A `firebreak run --plain`.
struct Session {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    dir: tempfile::TempDir,
}

impl Session {
    fn start(system: &str) -> Result<Self, Failed> {
        let dir = tempfile::tempdir().map_err(failed)?;
        let mut child = Command::new(program()?)
            .args(["run", "--plain", "--smp", "3", "--timeout", "90"])
            .arg(image(system)?)
            .arg("--firmware")
            .arg(out().join("firmware.bin"))
            .arg("--socket")
            .arg(dir.path().join("s"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            seen: Vec::new(),
            dir,
        })
    }

    /// Waits for a line that has `part` in it.
    fn line(&mut self, part: &str) -> Outcome {
        let end = Instant::now() + Case::patience();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = line.contains(part);
                    self.seen.push(line);
                    if found {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let seen = self.seen.join("\n");
                    return Err(failed(format!("no line with `{part}` in\n{seen}")));
                }
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Runs a command beside it.
    fn ask(&self, words: &str) -> Result<Output, Failed> {
        Command::new(program()?)
            .args(words.split(' '))
            .args(["--timeout", "90", "--socket"])
            .arg(self.socket())
            .stdin(Stdio::null())
            .output()
            .map_err(failed)
    }

    /// Holds how a command ends, and that it says `part`.
    fn holds(&self, words: &str, status: i32, part: &str) -> Outcome {
        let output = self.ask(words)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(status) && said.contains(part) {
            return Ok(());
        }
        Err(failed(format!(
            "`{words}`: expected {status} and `{part}`, but {} and\n{said}",
            output.status
        )))
    }

    /// Ends it by its standard input, and holds that it leaves nothing.
    fn quit(mut self) -> Outcome {
        let mut stdin = self.child.stdin.take().ok_or("no input")?;
        std::io::Write::write_all(&mut stdin, b"quit\n").map_err(failed)?;
        let status = self.child.wait().map_err(failed)?;
        if !status.success() {
            return Err(failed(format!("`firebreak run` ended with {status}")));
        }
        if Path::exists(&self.socket()) {
            return Err(failed("the socket is still there"));
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A QEMU that ends with a status of its own is a run that failed, and what it said is passed on.
fn failing_qemu() -> Outcome {
    let dir = tempfile::tempdir().map_err(failed)?;
    let output = Command::new(program()?)
        .args(["run", "--plain", "--cpu", "no-such-cpu"])
        .arg(image("control")?)
        .arg("--socket")
        .arg(dir.path().join("s"))
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(1) && said.contains("no-such-cpu") {
        return Ok(());
    }
    Err(failed(format!("{} and\n{said}", output.status)))
}

fn single_commands() -> Outcome {
    let mut session = Session::start("control")?;
    session.line("victim| victim: alive")?;
    session.line("control| control: ticks=")?;
    session.holds("ps", 0, "victim          running")?;
    session.holds("stop victim", 0, "done")?;
    session.line("stopped    victim: asked to stop")?;
    session.holds("ps --json", 0, "\"state\":\"stopped\"")?;
    let image = out().join("guests/control.bin");
    let image = image.to_str().ok_or("a path that is no text")?;
    session.holds(&format!("reload control {image}"), 1, "reload_room")?;
    session.holds("reload victim /dev/null", 1, "empty")?;
    session.holds(&format!("reload victim {image}"), 0, "done")?;
    session.line("victim| control: ready")?;
    session.holds("stop victim", 0, "done")?;
    session.holds("ps --json", 0, "\"kernel\":\"reloaded\"")?;
    session.holds("reload victim", 0, "done")?;
    session.line("victim| victim: alive")?;
    session.holds("stop victim", 0, "done")?;
    session.line("stopped    victim: asked to stop")?;
    session.holds("inject victim --iss 0x811", 1, "stopped")?;
    session.holds("stop nobody --json", 1, "\"ok\":false")?;
    session.holds("inject victim", 2, "--iss")?;
    session.holds("start victim", 0, "done")?;
    session.line("started    victim")?;
    session.line("victim| victim: alive")?;
    session.holds("inject victim --iss 0xc11", 0, "injection 1")?;
    session.line("victim| victim: serror n=1 esr=0xbe000c11")?;
    session.holds("inject victim --iss 0x2000000", 1, "25 bits")?;
    session.holds(
        "raise pe=1 iss=0xc11 sev=recoverable in=guest",
        0,
        "fw: raised",
    )?;
    session.line("met by PE 1")?;
    session.line("victim| victim: serror n=2")?;
    session.holds(
        "raise pe=9 iss=0xc11 sev=recoverable",
        1,
        "firmware refused",
    )?;
    session.holds("inject victim --iss 0x811 --at unmasked", 0, "injection 3")?;
    session.line("victim| victim: serror n=3 esr=0xbe000811")?;
    session.holds("inject victim --iss 0x811 --el 0", 1, "")?;
    session.holds("stats", 0, "PE 1  errors handed over: 1")?;
    session.holds("log -n 1000", 0, "victim| victim: serror n=2")?;
    session.holds("console nobody", 1, "no partition")?;
    session.quit()
}

/// A system that takes no commands says so, and goes on.
fn refusal() -> Outcome {
    let mut session = Session::start("two")?;
    session.line("victim| victim: alive")?;
    session.holds("stop victim", 1, "does not say control = true")?;
    session.holds("ps", 1, "does not say control = true")?;
    session.line("victim| victim: alive")?;
    session.quit()
}
