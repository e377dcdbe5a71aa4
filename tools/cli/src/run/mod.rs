// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak run`: a system in QEMU or on a serial port, shown, and open for commands.

pub(crate) mod hub;
mod link;
pub(crate) mod model;
mod plain;
pub(crate) mod socket;
mod text;
pub(crate) mod words;

use std::ffi::OsStr;
use std::fs;
use std::io::{IsTerminal as _, Read as _, stdin, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use firebreak_qemu::Machine;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::hub::Hub;
use self::link::{Link, QemuLink, SerialLink};
use crate::{Failure, options};

/// Runs a system in QEMU, or attaches to one on a serial port, and shows what it says.
///
/// In a terminal each guest gets a pane, elsewhere everything comes as lines. While it runs,
/// `firebreak ps`, `stop`, `inject` and the other commands reach it by a socket.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak run guest-images/demo/firebreak.toml --payloads target/firebreak
  firebreak run demo.img --firmware target/firebreak/firmware.bin
  firebreak run system.img --plain | tee system.log
  firebreak run --serial /dev/ttyUSB0:115200

Lines of standard input are commands with --plain: help, ps, stop NAME, raise ..., type NAME TEXT, quit.
Exit status: 0 it was ended or ended by itself, 1 it could not run or failed, 2 wrong command line.")]
pub(crate) struct RunArgs {
    /// A partition file (*.toml, *.dts, *.dtb), which is built first, or a built image
    #[arg(value_name = "FILE|IMAGE", required_unless_present = "serial")]
    system: Option<PathBuf>,
    /// Directory that images and RAM disks are relative to [default: the partition file's]
    #[arg(long, value_name = "DIR")]
    payloads: Option<PathBuf>,
    /// The bare hypervisor, to build a partition file with [default: hypervisor.bin of --payloads]
    #[arg(long, value_name = "BIN", env = "FIREBREAK_HYPERVISOR")]
    hypervisor: Option<PathBuf>,
    /// Firmware for EL3: errors can be raised then
    #[arg(long, value_name = "FW.bin", conflicts_with = "serial")]
    firmware: Option<PathBuf>,
    /// QEMU's CPU model
    #[arg(long, default_value = "neoverse-n1", conflicts_with = "serial")]
    cpu: String,
    /// Number of PEs
    #[arg(long, default_value_t = 4, conflicts_with = "serial")]
    smp: u32,
    /// RAM in MiB
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = 1024,
        conflicts_with = "serial"
    )]
    memory: u32,
    /// A serial port of this machine instead of QEMU
    #[arg(long, value_name = "PORT[:BAUD]", conflicts_with = "system")]
    serial: Option<String>,
    /// The port of the firmware, if the board has a second one
    #[arg(long, value_name = "PORT[:BAUD]", requires = "serial")]
    firmware_serial: Option<String>,
    /// Lines instead of panes (so it is when standard output is no terminal)
    #[arg(long)]
    plain: bool,
    /// Lines that are JSON objects
    #[arg(long)]
    json: bool,
    /// Where single commands find this system
    #[arg(long, value_name = "PATH", env = "FIREBREAK_SOCKET")]
    socket: Option<PathBuf>,
    /// How long an answer may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<String, Failure> {
    // What is built must stay until QEMU has read it.
    let dir = tempfile::tempdir()
        .map_err(|error| Failure::text(format!("no temporary directory: {error}")))?;
    let mut link = open(args, dir.path())?;
    let wired = link
        .shared()
        .and_then(|shared| Ok((shared, link.firmware()?)));
    let (shared, firmware) = wired.map_err(|error| Failure::text(format!("the lines: {error}")))?;
    let hub = Hub::start(shared, firmware, first_number());
    let heard = hub.listen();
    let path = args.socket.clone().unwrap_or_else(socket::default_path);
    let socket = socket::serve(&path, &hub).map_err(Failure::text)?;
    end_on_signals(&hub)?;
    let patience = Duration::from_secs(args.timeout);
    if link.was_running() {
        look_around(&hub, patience);
    }
    let panes = !args.plain && !args.json && stdout().is_terminal() && stdin().is_terminal();
    let why = if panes {
        crate::tui::run(&hub, &heard, patience).map_err(Failure::text)?
    } else {
        plain::run(&hub, &heard, args.json, patience)
    };
    drop(socket);
    let ended = link.end();
    let bad = ended.failed || hub.with(|model| model.halted.is_some() || model.failed);
    let text = format!("{why}\n{}", ended.said);
    if bad {
        return Err(Failure::text(text.trim_end().to_owned()));
    }
    eprintln!("firebreak: {}", text.trim_end());
    Ok(String::new())
}

/// Answers of a session before this one must not be taken for ours.
fn first_number() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() % 1000 * 1000)
}

/// A system that was there already has told its partitions long ago.
fn look_around(hub: &Arc<Hub>, patience: Duration) {
    let hub = Arc::clone(hub);
    std::thread::spawn(move || {
        if let Err(why) = hub.command("ps", patience) {
            eprintln!("firebreak: {why}");
        }
    });
}

fn end_on_signals(hub: &Arc<Hub>) -> Result<(), Failure> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::text(format!("signals: {error}")))?;
    let hub = Arc::clone(hub);
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            hub.end("ended by a signal");
        }
    });
    Ok(())
}

fn open(args: &RunArgs, dir: &Path) -> Result<Box<dyn Link>, Failure> {
    if let Some(port) = &args.serial {
        let link = SerialLink::open(port, args.firmware_serial.as_deref());
        return Ok(Box::new(link.map_err(Failure::text)?));
    }
    let Some(system) = &args.system else {
        return Err(Failure::text(
            "name a partition file or an image".to_owned(),
        ));
    };
    let extension = system.extension().and_then(OsStr::to_str);
    let image = if matches!(extension, Some("toml" | "dts" | "dtb")) {
        build(args, system, dir)?
    } else {
        built(system)?
    };
    let mut machine = Machine::new(image)
        .cpu(&args.cpu)
        .smp(args.smp)
        .memory_mib(args.memory);
    if let Some(firmware) = &args.firmware {
        machine = machine.firmware(there(firmware)?);
    }
    Ok(Box::new(QemuLink::start(machine).map_err(Failure::text)?))
}

/// Recognizes an arm64 `Image`: QEMU would boot anything else as well, and nothing would ever be said.
fn built(path: &Path) -> Result<PathBuf, Failure> {
    let path = there(path)?;
    let mut header = [0; 60];
    let read = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut header));
    if read.is_ok() && header.ends_with(b"ARM\x64") {
        return Ok(path);
    }
    Err(Failure::text(format!(
        "{} is no image; name a partition file (.toml, .dts or .dtb), or what `firebreak build` made of one",
        path.display()
    )))
}

fn there(path: &Path) -> Result<PathBuf, Failure> {
    match fs::File::open(path) {
        Ok(_) => Ok(path.to_owned()),
        Err(error) => Err(Failure::text(format!(
            "{} cannot be read: {error}; check the path",
            path.display()
        ))),
    }
}

fn build(args: &RunArgs, file: &Path, dir: &Path) -> Result<PathBuf, Failure> {
    let options = options(args.payloads.as_deref(), args.hypervisor.as_deref());
    let built = firebreak_image::build(file, &options)
        .map_err(|problems| Failure::diagnostics(&problems, args.json))?;
    let path = dir.join("system.img");
    fs::write(&path, &built.bytes)
        .map_err(|error| Failure::text(format!("{}: {error}", path.display())))?;
    Ok(path)
}
