// SPDX-License-Identifier: MIT OR Apache-2.0
//! Static agent for Linux guests: beats, and watches a memory pattern.
//!
//! It is the `/init` of an initramfs that holds nothing else but kernel modules. It mounts the
//! pseudo file systems, keeps the watchdog refreshed, prints one `agent: beat` line a second
//! with the state of 16 MiB of known memory, and reaps orphans. Typed commands (`help`) make it
//! reboot, power off, panic the kernel or fall silent: the ways in which a Linux guest can end.
//! `touch` and `touch cache` start a process with a page to lose, and tell the signal that ends it.
//! `spin`, `kspin` and `calls` start a child that keeps the CPU in user space, in the kernel or on
//! the way between them, for an error to hit; `nap` starts one that leaves it to the kernel's idle
//! loop, and `first` has the first process stay in the kernel. No beats are printed meanwhile, until `rest`.
//! `oops` makes the kernel panic when it finds a bug in itself, `symbol` tells where it has one,
//! and `page` where in memory that is.
//! `disk` works on a passed-through disk and tells how often that was done before.
//!
//! Command line options of the kernel that it reads: `agent.watchdog_s=<n>` (0: leave the
//! watchdog closed).

mod disk;
mod kernel;
mod load;
mod pattern;
mod sys;
mod touch;
mod watchdog;

use pattern::Pattern;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use watchdog::Watchdog;

const BEAT: Duration = Duration::from_secs(1);
/// The loop turns twice a beat, so that a watchdog of one second is refreshed in time.
const TURN: Duration = Duration::from_millis(500);

/// A typed command.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Command {
    Help,
    Reboot,
    PowerOff,
    Panic,
    Silence,
    Touch(touch::Kind),
    Load(load::Kind),
    Rest,
    PanicOnOops,
    Symbol(String),
    Disk,
    Page(String),
    SecondCpu(bool),
}

impl Command {
    fn parse(line: &str) -> Option<Self> {
        match line.trim() {
            "help" => Some(Self::Help),
            "reboot" => Some(Self::Reboot),
            "poweroff" => Some(Self::PowerOff),
            "panic" => Some(Self::Panic),
            "silence" => Some(Self::Silence),
            "touch" => Some(Self::Touch(touch::Kind::Heap)),
            "touch cache" => Some(Self::Touch(touch::Kind::Cache)),
            "spin" => Some(Self::Load(load::Kind::User)),
            "kspin" => Some(Self::Load(load::Kind::Kernel)),
            "calls" => Some(Self::Load(load::Kind::Calls)),
            "nap" => Some(Self::Load(load::Kind::Idle)),
            "first" => Some(Self::Load(load::Kind::First)),
            "oops" => Some(Self::PanicOnOops),
            "rest" => Some(Self::Rest),
            "disk" => Some(Self::Disk),
            "cpu1 off" => Some(Self::SecondCpu(false)),
            "cpu1 on" => Some(Self::SecondCpu(true)),
            other => match other.split_once(' ')? {
                ("symbol", name) => Some(Self::Symbol(name.to_owned())),
                ("page", name) => Some(Self::Page(name.to_owned())),
                _ => None,
            },
        }
    }
}

/// Writes one line in one write, so that kernel messages cannot cut it.
fn say(text: &str) {
    // There is nobody to tell that the console is gone.
    let _ = io::stdout().write_all(format!("agent: {text}\n").as_bytes());
}

/// Finds `agent.watchdog_s=` in the kernel's command line.
fn watchdog_timeout_s(cmdline: &str) -> i32 {
    cmdline
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("agent.watchdog_s="))
        .and_then(|number| number.parse().ok())
        .unwrap_or(watchdog::DEFAULT_TIMEOUT_S)
}

/// Makes the file systems and the console that a process expects.
fn set_up() -> io::Result<()> {
    for (kind, target) in [
        (c"devtmpfs", c"/dev"),
        (c"proc", c"/proc"),
        (c"sysfs", c"/sys"),
    ] {
        let path = target.to_string_lossy();
        fs::create_dir_all(path.as_ref())?;
        sys::mount(kind, target)?;
    }
    let console = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/console")?;
    sys::become_stdio(&console)
}

fn open_watchdog() -> Option<Watchdog> {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let wanted_s = watchdog_timeout_s(&cmdline);
    if wanted_s <= 0 {
        say("watchdog left closed, as the command line says");
        return None;
    }
    match Watchdog::open(wanted_s) {
        Ok(watchdog) => {
            say(&format!("watchdog timeout_s={}", watchdog.timeout_s));
            Some(watchdog)
        }
        Err(error) => {
            say(&format!("no watchdog: {error}"));
            None
        }
    }
}

/// Tells where the kernel has symbols of that name, separated by commas.
fn tell_symbol(name: &str) {
    let all = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let found: Vec<String> = kernel::addresses(&all, name)
        .map(|address| format!("{address:#018x}"))
        .collect();
    say(&format!("symbol {name}={}", found.join(",")));
}

/// Tells the physical address of a symbol of the kernel's image.
fn tell_page(name: &str) {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let memory = fs::read_to_string("/proc/iomem").unwrap_or_default();
    match kernel::physical(&symbols, &memory, name) {
        Some(ipa) => say(&format!("page {name}={ipa:#x}")),
        None => say(&format!("the kernel's image has no {name}")),
    }
}

/// Runs a command. Returns whether the agent falls silent.
fn obey(command: Option<Command>) -> bool {
    match command {
        Some(Command::Help) | None => say(
            "commands: help reboot poweroff panic silence touch spin kspin calls nap first rest oops disk, \
             touch cache, symbol NAME, page NAME, cpu1 off, cpu1 on",
        ),
        Some(Command::Reboot) => sys::leave(sys::Exit::Reboot),
        Some(Command::PowerOff) => sys::leave(sys::Exit::PowerOff),
        Some(Command::Panic) => {
            if let Err(error) = fs::write("/proc/sysrq-trigger", "c") {
                say(&format!("no panic: {error}"));
            }
        }
        Some(Command::Touch(kind)) => {
            if let Err(error) = touch::start(kind) {
                say(&format!("no process: {error}"));
            }
        }
        Some(Command::Load(kind)) => {
            if let Err(error) = load::start(kind) {
                say(&format!("no child: {error}"));
            }
        }
        Some(Command::Rest) => {
            load::stop();
            say("rests");
        }
        Some(Command::PanicOnOops) => match fs::write("/proc/sys/kernel/panic_on_oops", "1") {
            Ok(()) => say("panics on oops"),
            Err(error) => say(&format!("no panic on oops: {error}")),
        },
        Some(Command::Symbol(name)) => tell_symbol(&name),
        Some(Command::Disk) => match disk::work() {
            Ok(disk::Found {
                lives,
                intact,
                irqs,
            }) => say(&format!("disk lives={lives} intact={intact} irqs={irqs}")),
            Err(error) => say(&format!("no disk: {error}")),
        },
        Some(Command::Page(name)) => tell_page(&name),
        Some(Command::SecondCpu(online)) => {
            let state = if online { "1" } else { "0" };
            match fs::write("/sys/devices/system/cpu/cpu1/online", state) {
                Ok(()) => say(&format!("cpu1 online={state}")),
                Err(error) => say(&format!("cpu1 stays as it is: {error}")),
            }
        }
        Some(Command::Silence) => {
            say("silent from now on");
            return true;
        }
    }
    false
}

/// Reads what was typed and runs the whole lines in it. Returns whether the agent falls silent.
fn read_commands(input: &mut impl Read, typed: &mut String) -> bool {
    let mut bytes = [0; 64];
    let count = input.read(&mut bytes).unwrap_or(0);
    typed.push_str(&String::from_utf8_lossy(
        bytes.get(..count).unwrap_or_default(),
    ));
    let mut silent = false;
    while let Some(end) = typed.find(['\n', '\r']) {
        let line: String = typed.drain(..=end).collect();
        if !line.trim().is_empty() {
            silent |= obey(Command::parse(&line));
        }
    }
    silent
}

/// Waits until `deadline`, running typed commands meanwhile. Returns whether to fall silent.
fn wait_until(deadline: Instant, console: &mut Option<File>, typed: &mut String) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        match console {
            Some(input) if sys::wait_for_input(input.as_fd(), left) => {
                if read_commands(input, typed) {
                    return true;
                }
            }
            Some(_) => {}
            None => std::thread::sleep(left),
        }
    }
}

fn main() {
    if let Some(kind) = touch::Kind::wanted() {
        if let Err(error) = touch::run(kind) {
            say(&format!("no page: {error}"));
        }
        return;
    }
    if let Err(error) = set_up() {
        say(&format!("set-up failed, going on: {error}"));
    }
    let mut watchdog = open_watchdog();
    let mut memory = Pattern::new();
    let mut console = File::open("/dev/console").ok();
    let mut typed = String::new();
    say(&format!("ready kernel={}", sys::kernel_release()));

    let mut turns = 0_u64;
    let mut next = Instant::now();
    loop {
        if let Some(watchdog) = &mut watchdog {
            watchdog.refresh();
        }
        while let Some((child, signal)) = sys::reap_child() {
            load::ended(child);
            say(&format!("child ended signal={signal}"));
        }
        if turns.is_multiple_of(2) && !load::is_quiet() {
            let state = if memory.check_next_slice() {
                "ok"
            } else {
                "bad"
            };
            say(&format!("beat n={} pattern={state}", turns / 2));
        }
        turns += 1;
        next += TURN;
        if wait_until(next, &mut console, &mut typed) {
            break;
        }
        // After a long stop (a debugger, a slow machine) beats are not made up for.
        if next + BEAT < Instant::now() {
            next = Instant::now();
        }
    }
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_timeout_comes_from_the_command_line() {
        assert_eq!(
            watchdog_timeout_s("console=ttyAMA0 agent.watchdog_s=2 quiet"),
            2
        );
        assert_eq!(watchdog_timeout_s("agent.watchdog_s=0"), 0);
        assert_eq!(
            watchdog_timeout_s("agent.watchdog_s=soon"),
            watchdog::DEFAULT_TIMEOUT_S
        );
        assert_eq!(watchdog_timeout_s(""), watchdog::DEFAULT_TIMEOUT_S);
    }

    #[test]
    fn commands_are_whole_lines_and_partial_ones_wait() {
        let mut typed = String::new();
        assert!(!read_commands(&mut &b"sile"[..], &mut typed));
        assert_eq!(typed, "sile");
        assert!(read_commands(&mut &b"nce\r\nhe"[..], &mut typed));
        assert_eq!(typed, "he");
        assert_eq!(Command::parse(" reboot\r"), Some(Command::Reboot));
        assert_eq!(Command::parse("rebooot"), None);
        assert_eq!(
            Command::parse("cpu1 off\r"),
            Some(Command::SecondCpu(false))
        );
    }
}
