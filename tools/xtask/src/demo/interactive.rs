// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine stays: a console per guest, and a prompt to raise errors.
//!
//! Keys go to the focused guest as they are typed. Ctrl-A is the escape key: Ctrl-A and a digit
//! moves the focus, Ctrl-A e opens the prompt, Ctrl-A q ends. The terminal is set by `stty`,
//! which every POSIX system has, so that no code here has to know about terminals.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::{Context, Result};
use firebreak_qemu::{Item, Mark, Raise, Running, Tap, field};

use super::cases::{Case, Layout};
use super::pace::{self, Sign};
use crate::process::step;

const ESCAPE: u8 = 0x01;
const HELP: &str = "\
Keys go to the focused guest. Ctrl-A is the escape key:
  Ctrl-A <digit>   focus on that partition      Ctrl-A Ctrl-A   one Ctrl-A for the guest
  Ctrl-A e         raise an error               Ctrl-A ?        this help
  Ctrl-A q         quit";

/// Whether the tap prints; the scripted part of the demo is quiet.
static SHOWS: AtomicBool = AtomicBool::new(false);
/// The partition whose console is shown.
static FOCUS: Mutex<String> = Mutex::new(String::new());

/// Returns what prints the focused console and all events while the prompt is up, and the pace
/// of the machine that it hears of.
pub(super) fn tap() -> (Tap, Pace) {
    let (sender, receiver) = mpsc::channel();
    let ticks = sender.clone();
    let mut at_line_start = true;
    let tap: Tap = Box::new(move |item| {
        if let Item::Console { name, bytes, .. } = item
            && name == "control"
            && let Some(count) = field(&String::from_utf8_lossy(bytes), "ticks")
        {
            // Without a session nobody listens.
            let _ = ticks.send(Sign::Ticks(count));
        }
        if SHOWS.load(Ordering::Relaxed) {
            at_line_start = show(item, at_line_start);
        }
    });
    (tap, Pace { sender, receiver })
}

/// The way to the pacer.
pub(super) struct Pace {
    sender: Sender<Sign>,
    receiver: Receiver<Sign>,
}

/// Prints an item if it is to be seen; says whether the cursor stands at the start of a line.
fn show(item: &Item, at_line_start: bool) -> bool {
    let mut out = io::stdout().lock();
    let lead = if at_line_start { "" } else { "\n" };
    let (result, starts) = match item {
        Item::Console {
            name,
            bytes,
            newline,
        } => {
            if !FOCUS.lock().is_ok_and(|focus| *focus == *name) {
                return at_line_start;
            }
            let end = if *newline { "\n" } else { "" };
            (write!(out, "{}{end}", printable(bytes)), *newline)
        }
        Item::Event(event) => (writeln!(out, "{lead}* {}", event.value()), true),
        Item::Plain(text) => (writeln!(out, "{lead}{}", printable(text.as_bytes())), true),
    };
    // A terminal that went away ends the session by its keyboard.
    let _ = result.and_then(|()| out.flush());
    starts
}

/// A guest must not steer the terminal of whoever looks at it.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .filter(|c| !c.is_control() || *c == '\t' || *c == '\x08')
        .collect()
}

/// Talks until the user has enough, or input ends.
pub(super) fn run(machine: &mut Running, pace: Pace) -> Result<()> {
    let layout = Layout::read(&machine.since(Mark::START));
    let mut names: Vec<(u64, String)> = layout
        .partitions
        .iter()
        .map(|(name, partition)| (partition.vm, name.clone()))
        .collect();
    names.sort();
    println!("\n{HELP}");
    for (vm, name) in &names {
        println!("  partition {vm}: {name}");
    }
    let Pace { sender, receiver } = pace;
    let clock = machine.clock()?;
    thread::spawn(move || pace::run(clock, &receiver));
    sender.send(Sign::Begin)?;
    let mut session = Session {
        machine,
        names,
        keys: sender,
        next_id: 1000,
    };
    session.focus(0)?;
    SHOWS.store(true, Ordering::Relaxed);
    let terminal = Terminal::set_up();
    let result = session.follow_keys();
    drop(terminal);
    SHOWS.store(false, Ordering::Relaxed);
    step("demo: end of the interactive session");
    result
}

struct Session<'a> {
    machine: &'a mut Running,
    names: Vec<(u64, String)>,
    keys: Sender<Sign>,
    next_id: u64,
}

impl Session<'_> {
    fn focus(&mut self, vm: u64) -> Result<()> {
        let Some((_, name)) = self.names.iter().find(|(number, _)| *number == vm) else {
            println!("[there is no partition {vm}]");
            return Ok(());
        };
        println!("[console of {name}]");
        if let Ok(mut focus) = FOCUS.lock() {
            focus.clone_from(name);
        }
        let digit = u8::try_from(vm % 10).unwrap_or(0) + b'0';
        Ok(self.machine.type_raw(&[ESCAPE, digit])?)
    }

    fn follow_keys(&mut self) -> Result<()> {
        let mut escaped = false;
        while let Some(key) = next_key()? {
            // Without a pacer nothing is stopped.
            let _ = self.keys.send(Sign::Key);
            match (std::mem::take(&mut escaped), key) {
                (false, ESCAPE) => escaped = true,
                (false, _) => self.machine.type_raw(&[key])?,
                (true, ESCAPE) => self.machine.type_raw(&[ESCAPE, ESCAPE])?,
                (true, b'0'..=b'9') => self.focus(u64::from(key - b'0'))?,
                (true, b'e') => self.prompt()?,
                (true, b'q') => return Ok(()),
                (true, _) => println!("{HELP}"),
            }
        }
        Ok(())
    }

    /// Asks for an error and raises it.
    fn prompt(&mut self) -> Result<()> {
        let names: Vec<&str> = Case::ALL.iter().map(|case| case.name()).collect();
        println!(
            "\n[raise one of {}, or `pe=<n> iss=<hex> sev=<word> [pa=<hex>]`]",
            names.join(" ")
        );
        let cooked = Terminal::cooked();
        print!("raise> ");
        io::stdout().flush()?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        drop(cooked);
        let layout = Layout::read(&self.machine.since(Mark::START));
        self.next_id += 1;
        match request(line.trim(), &layout, self.next_id) {
            Some(text) => Ok(self.machine.send_firmware(&text)?),
            None => {
                println!("[nothing raised]");
                Ok(())
            }
        }
    }
}

/// Turns what was typed into the firmware's request.
fn request(line: &str, layout: &Layout, id: u64) -> Option<String> {
    if let Some(case) = Case::ALL.into_iter().find(|case| case.name() == line) {
        let raise = case.raise(layout)?;
        return Some(Raise { id, ..raise }.to_string());
    }
    line.contains('=').then(|| format!("raise id={id} {line}"))
}

fn next_key() -> Result<Option<u8>> {
    let mut key = [0];
    let count = io::stdin()
        .lock()
        .read(&mut key)
        .context("reading the keyboard")?;
    Ok((count != 0).then_some(key[0]))
}

/// The terminal without line editing and echo, until this is dropped.
struct Terminal {
    restore: Option<String>,
}

impl Terminal {
    fn set_up() -> Self {
        Self::with(&["-icanon", "-echo", "-isig", "min", "1"])
    }

    fn cooked() -> Self {
        Self::with(&["icanon", "echo", "isig"])
    }

    fn with(settings: &[&str]) -> Self {
        if !io::stdin().is_terminal() {
            return Self { restore: None };
        }
        let restore = stty(&["-g"]).map(|text| text.trim().to_owned());
        stty(settings);
        Self { restore }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.restore {
            stty(&[settings]);
        }
    }
}

fn stty(args: &[&str]) -> Option<String> {
    let output = Command::new("stty")
        .args(args)
        .stdin(Stdio::inherit())
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
