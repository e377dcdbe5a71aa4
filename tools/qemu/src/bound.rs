// SPDX-License-Identifier: MIT OR Apache-2.0
//! A QEMU ends with the program that started it, however that ends.
//!
//! Linux sends a process the signal that it asked for when the *thread* that started it ends. So one
//! thread starts them all, and lives as long as the program.
#![expect(
    unsafe_code,
    reason = "what a child does before its exec can be said in no other way"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// The thread that starts them.
enum Starter {
    /// Nothing was started yet.
    None,
    Runs(mpsc::Sender<Order>),
    Ended,
}

fn starter() -> MutexGuard<'static, Starter> {
    static STARTER: Mutex<Starter> = Mutex::new(Starter::None);
    STARTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills each QEMU that this program has started; it starts none any more. Who waits for one of them is
/// told that it ended.
pub fn end_all() {
    // With the last sender the thread ends, and with it what it started.
    *starter() = Starter::Ended;
}

/// Starts a program that is killed when this one ends, by whatever signal that is.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the thread that starts QEMU is gone");
    let parent = getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() == Some(parent) {
            Ok(())
        } else {
            // It ended before it was asked for the signal. This allocates nothing.
            Err(io::Error::from_raw_os_error(
                rustix::io::Errno::SRCH.raw_os_error(),
            ))
        }
    };
    // SAFETY: between fork and exec it makes two system calls, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(ask) };
    let (answer, child) = mpsc::channel();
    let mut starter = starter();
    if let Starter::None = *starter {
        *starter = start().map_or(Starter::Ended, Starter::Runs);
    }
    let Starter::Runs(orders) = &*starter else {
        return Err(gone());
    };
    orders.send((command, answer)).map_err(|_| gone())?;
    drop(starter);
    child.recv().map_err(|_| gone())?
}

fn start() -> Option<mpsc::Sender<Order>> {
    let (sender, orders) = mpsc::channel::<Order>();
    let starter = move || {
        for (mut command, answer) in orders {
            // Who does not wait for it any more drops it, and with it the machine.
            let _ = answer.send(command.spawn());
        }
    };
    let thread = thread::Builder::new().name("qemu-starter".to_owned());
    thread.spawn(starter).ok().map(|_| sender)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

    use super::*;

    /// Set in the process that the test kills.
    const ROLE: &str = "FIREBREAK_TEST_STARTS_AND_WAITS";

    /// A pipe stays open as long as anybody has its other end: here, what the killed program started.
    #[test]
    fn what_a_killed_program_started_ends_with_it() {
        if env::var_os(ROLE).is_some() {
            let mut later = Command::new("sh");
            later.args(["-c", "sleep 5 2>/dev/null; echo it outlived that >&2"]);
            // From a thread that ends: that is not to be the end of what it started.
            let started = thread::spawn(|| spawn(later)).join().unwrap();
            let mut child = started.unwrap();
            eprintln!("started");
            child.wait().unwrap();
            eprintln!("it ended by itself");
            return;
        }
        // Not INT: a shell starts what runs behind it with that ignored.
        for signal in [Signal::KILL, Signal::TERM, Signal::USR1] {
            let mut program = Command::new(env::current_exe().unwrap())
                .args([
                    "--exact",
                    "bound::tests::what_a_killed_program_started_ends_with_it",
                    "--nocapture",
                ])
                .env(ROLE, "1")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = BufReader::new(program.stderr.take().unwrap());
            let mut line = String::new();
            while !line.contains("started") {
                line.clear();
                assert_ne!(said.read_line(&mut line).unwrap(), 0, "it did not start");
            }
            let id = rustix::process::Pid::from_child(&program);
            rustix::process::kill_process(id, signal).unwrap();
            program.wait().unwrap();
            let mut rest = String::new();
            // Ends when the pipe does.
            said.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "");
        }
    }

    /// Once for this process: it starts nothing any more.
    #[test]
    fn all_end_and_none_is_started_any_more() {
        if env::var_os(ROLE).is_none() {
            let again = Command::new(env::current_exe().unwrap())
                .args([
                    "--exact",
                    "bound::tests::all_end_and_none_is_started_any_more",
                ])
                .env(ROLE, "1")
                .output()
                .unwrap();
            assert!(again.status.success(), "{again:?}");
            return;
        }
        let mut long = Command::new("sleep");
        long.arg("1000");
        let mut child = spawn(long).unwrap();
        end_all();
        assert!(!child.wait().unwrap().success());
        assert!(spawn(Command::new("true")).is_err());
    }

    #[test]
    fn a_program_that_is_missing_is_said_to_be() {
        let error = spawn(Command::new("/nowhere/qemu")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
