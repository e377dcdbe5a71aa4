// SPDX-License-Identifier: MIT OR Apache-2.0
//! One QEMU `virt` machine: how it is described and started.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Item, Running};

/// Where the reference firmware expects the image.
const IMAGE_PA: u64 = 0x4020_0000;
/// Where an image stands for a bootloader to boot it.
pub const BOOTLOADER_IMAGE_PA: u64 = 0x5000_0000;
/// Name of the gdb server's socket.
pub(crate) const DEBUGGER_SOCKET: &str = "gdb";
/// How long QEMU may take to connect its lines.
const CONNECT: Duration = Duration::from_secs(60);
/// What bounds QEMU's turns ([`Machine::turns_us`]).
pub(crate) const TURNS: &str = "turns";
/// How often the lines are looked at while QEMU starts.
const CONNECT_POLL: Duration = Duration::from_millis(5);

/// Why a machine could not be started or talked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error(
        "cannot run {binary}: {source}; install QEMU 10 or newer (`cargo xtask setup`), or name one with QEMU="
    )]
    NoQemu {
        /// What was tried.
        binary: String,
        /// What the system says.
        source: io::Error,
    },
    /// It ended before the machine stood.
    #[error("QEMU ended with {status} before the machine stood; it says:\n{stderr}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its own words.
        stderr: String,
    },
    /// It did not connect its lines.
    #[error("QEMU did not connect its serial lines within {} s", CONNECT.as_secs())]
    NotConnected,
    /// Files or sockets.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

pub(crate) fn io_error(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { what, source }
}

/// Returns the QEMU to run: `QEMU` from the environment, or `qemu-system-aarch64`.
pub fn qemu_binary() -> OsString {
    env::var_os("QEMU").unwrap_or_else(|| "qemu-system-aarch64".into())
}

/// Returns the version of that QEMU, such as `(10, 0, 2)`; `None` when it does not run.
pub fn qemu_version(binary: &OsString) -> Option<(u32, u32, u32)> {
    let output = Command::new(binary).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_once("version ")?.1;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.unwrap_or(0),
    ))
}

/// Returns how long to wait for something: `seconds`, times `FIREBREAK_DEADLINE_SCALE` for a
/// machine that is slower or busier than most.
pub fn deadline(seconds: u64) -> Duration {
    let scale = env::var("FIREBREAK_DEADLINE_SCALE")
        .ok()
        .and_then(|scale| scale.parse().ok());
    Duration::from_secs(seconds) * scale.unwrap_or(1_u32).max(1)
}

/// A listener that sees each item of the shared line as it comes.
pub type Tap = Box<dyn FnMut(&Item) + Send>;

/// A machine that is yet to be started.
pub struct Machine {
    binary: OsString,
    image: PathBuf,
    firmware: Option<PathBuf>,
    bootloader: Option<PathBuf>,
    machine: Option<String>,
    cpu: String,
    smp: u32,
    memory_mib: u32,
    icount: bool,
    turns_us: Option<u32>,
    no_reboot: bool,
    debugger: bool,
    extra: Vec<OsString>,
    tap: Option<Tap>,
}

impl Machine {
    /// Describes a `neoverse-n1` with 4 PEs and 1 GiB that boots `image` without firmware.
    pub fn new(image: impl Into<PathBuf>) -> Self {
        Self {
            binary: qemu_binary(),
            image: image.into(),
            firmware: None,
            bootloader: None,
            machine: None,
            cpu: "neoverse-n1".to_owned(),
            smp: 4,
            memory_mib: 1024,
            icount: false,
            turns_us: None,
            no_reboot: false,
            debugger: false,
            extra: Vec::new(),
            tap: None,
        }
    }

    /// Runs another program than [`qemu_binary`].
    #[must_use]
    pub fn binary(mut self, binary: impl Into<OsString>) -> Self {
        self.binary = binary.into();
        self
    }

    /// Boots the reference firmware at EL3, which enters the image at EL2.
    #[must_use]
    pub fn firmware(mut self, firmware: impl Into<PathBuf>) -> Self {
        self.firmware = Some(firmware.into());
        self
    }

    /// Boots a bootloader at EL2, with the image in RAM at [`BOOTLOADER_IMAGE_PA`].
    #[must_use]
    pub fn bootloader(mut self, bootloader: impl Into<PathBuf>) -> Self {
        self.bootloader = Some(bootloader.into());
        self
    }

    /// Replaces what stands behind `-M`: another machine than the one that is meant.
    #[must_use]
    pub fn machine(mut self, machine: &str) -> Self {
        self.machine = Some(machine.to_owned());
        self
    }

    /// Chooses the CPU model.
    #[must_use]
    pub fn cpu(mut self, cpu: &str) -> Self {
        self.cpu = cpu.to_owned();
        self
    }

    /// Chooses the number of PEs.
    #[must_use]
    pub fn smp(mut self, pes: u32) -> Self {
        self.smp = pes;
        self
    }

    /// Chooses the size of RAM.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Makes time a count of instructions: one instruction, one nanosecond, one tick.
    #[must_use]
    pub fn icount(mut self, icount: bool) -> Self {
        self.icount = icount;
        self
    }

    /// Bounds how long one PE runs while another one's interrupt waits, where instructions are
    /// counted and there is more than one PE.
    ///
    /// QEMU runs the PEs in turns then, and a turn ends early only where a timer is due. A PE whose
    /// own timer has just fired has none, so another one may run for a tenth of a second before the
    /// interrupt is looked at: time that no machine would lose. A timer of QEMU's own, which no guest
    /// sees, is due this often and ends the turn. The device with the finest one is a packet filter,
    /// here without packets.
    #[must_use]
    pub fn turns_us(mut self, us: u32) -> Self {
        self.turns_us = Some(us);
        self
    }

    /// Lets a reset end QEMU.
    #[must_use]
    pub fn no_reboot(mut self) -> Self {
        self.no_reboot = true;
        self
    }

    /// Lets a [`Debugger`](crate::Debugger) be connected.
    #[must_use]
    pub fn debugger(mut self) -> Self {
        self.debugger = true;
        self
    }

    /// Adds arguments of QEMU.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.extra.extend(args.into_iter().map(Into::into));
        self
    }

    /// Shows each item of the shared line to `tap` as it comes.
    #[must_use]
    pub fn tap(mut self, tap: Tap) -> Self {
        self.tap = Some(tap);
        self
    }

    /// Returns QEMU's arguments without its lines: what a person would type to get this machine.
    pub fn arguments(&self) -> Vec<OsString> {
        let secure = if self.firmware.is_some() {
            "secure=on,"
        } else {
            ""
        };
        let machine = format!("virt,{secure}virtualization=on,gic-version=3");
        let clock = if self.icount {
            ",cntfrq=1000000000"
        } else {
            ""
        };
        let mut args: Vec<OsString> = [
            "-M".to_owned(),
            self.machine.clone().unwrap_or(machine),
            "-cpu".to_owned(),
            format!("{}{clock}", self.cpu),
            "-smp".to_owned(),
            self.smp.to_string(),
            "-m".to_owned(),
            self.memory_mib.to_string(),
            "-nic".to_owned(),
            "none".to_owned(),
        ]
        .map(OsString::from)
        .to_vec();
        let first = match (&self.firmware, &self.bootloader) {
            (Some(firmware), _) => Some((firmware, IMAGE_PA)),
            (None, Some(bootloader)) => Some((bootloader, BOOTLOADER_IMAGE_PA)),
            (None, None) => None,
        };
        match first {
            Some((bios, image_pa)) => {
                args.push("-bios".into());
                args.push(bios.into());
                args.push("-device".into());
                args.push(loader(&self.image, image_pa));
            }
            None => {
                args.push("-kernel".into());
                args.push((&self.image).into());
            }
        }
        if self.icount {
            args.extend(["-icount", "shift=0,sleep=off"].map(OsString::from));
        }
        if let Some(us) = self.turns() {
            let filter = format!("filter-buffer,id={TURNS},netdev=nobody,interval={us}");
            let netdev = "hubport,id=nobody,hubid=0".to_owned();
            args.extend(
                ["-netdev".to_owned(), netdev, "-object".to_owned(), filter].map(OsString::from),
            );
        }
        if self.no_reboot {
            args.push("-no-reboot".into());
        }
        args.extend(self.extra.iter().cloned());
        args
    }

    fn turns(&self) -> Option<u32> {
        self.turns_us.filter(|_| self.icount && self.smp > 1)
    }

    /// Starts the machine.
    ///
    /// # Errors
    ///
    /// When QEMU is missing, refuses its arguments, or does not connect.
    pub fn start(mut self) -> Result<Running, Error> {
        let tap = self.tap.take();
        let has_turns = self.turns().is_some();
        let (child, streams, dir) = self.launch()?;
        Running::new(child, streams, tap, dir, has_turns)
    }

    /// Starts the machine, and leaves its serial lines as they are: nobody reads them yet.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn open(self) -> Result<Opened, Error> {
        let has_firmware = self.firmware.is_some();
        let (child, streams, dir) = self.launch()?;
        let mut streams = streams.into_iter();
        let shared = streams.next().ok_or(Error::NotConnected)?;
        let secure = if has_firmware { streams.next() } else { None };
        Ok(Opened {
            child,
            shared,
            secure,
            _monitor: streams.next(),
            _dir: dir,
        })
    }

    fn launch(self) -> Result<(Child, Vec<UnixStream>, tempfile::TempDir), Error> {
        let dir = tempfile::Builder::new()
            .prefix("fb-")
            .tempdir()
            .map_err(io_error("making a directory for QEMU's sockets"))?;
        let mut command = Command::new(&self.binary);
        command
            .args(self.arguments())
            .args(["-display", "none", "-parallel", "none"]);
        let mut lines = vec!["shared"];
        if self.firmware.is_some() {
            lines.push("secure");
        }
        let mut listeners = Vec::new();
        for line in &lines {
            let path = dir.path().join(line);
            listeners.push(UnixListener::bind(&path).map_err(io_error("making a socket"))?);
            command.arg("-chardev").arg(socket_argument(line, &path));
            command.args(["-serial", &format!("chardev:{line}")]);
        }
        if self.debugger {
            // Here QEMU is the server: a debugger comes and goes, and stops the machine meanwhile.
            let mut argument = OsString::from("socket,id=gdb,server=on,wait=off,path=");
            argument.push(dir.path().join(DEBUGGER_SOCKET));
            command.arg("-chardev").arg(argument);
            command.args(["-gdb", "chardev:gdb"]);
        }
        let path = dir.path().join("qmp");
        listeners.push(UnixListener::bind(&path).map_err(io_error("making a socket"))?);
        command.arg("-chardev").arg(socket_argument("qmp", &path));
        command.args(["-mon", "chardev=qmp,mode=control"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = crate::bound::spawn(command).map_err(|source| Error::NoQemu {
            binary: self.binary.to_string_lossy().into_owned(),
            source,
        })?;
        let streams = match connect(&listeners, &mut child) {
            Ok(streams) => streams,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok((child, streams, dir))
    }
}

/// A machine that runs, with its serial lines as streams of bytes. QEMU ends when this is dropped.
pub struct Opened {
    child: Child,
    /// The line that hypervisor and guests share.
    pub shared: UnixStream,
    /// The firmware's line, if there is firmware.
    pub secure: Option<UnixStream>,
    _monitor: Option<UnixStream>,
    _dir: tempfile::TempDir,
}

impl Opened {
    /// Ends QEMU, and returns what it said on standard error.
    pub fn end(mut self) -> Ended {
        let _ = self.child.kill();
        let mut said = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            let _ = pipe.read_to_string(&mut said);
        }
        // A QEMU that ends by itself keeps its status, which our signal then comes too late for.
        let code = self.child.wait().ok().and_then(|status| status.code());
        Ended {
            said,
            failed: code.is_some_and(|code| code != 0),
        }
    }
}

/// How a machine ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// What QEMU said on standard error.
    pub said: String,
    /// QEMU ended by itself and said by its exit status that it had failed.
    pub failed: bool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the device that has `file` in RAM at `pa` when the machine starts.
pub fn loader(file: &Path, pa: u64) -> OsString {
    let mut argument = OsString::from("loader,file=");
    argument.push(file);
    argument.push(format!(",addr={pa:#x},force-raw=on"));
    argument
}

/// QEMU is the client of our sockets, so that nobody has to guess when it is ready.
fn socket_argument(id: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(format!("socket,id={id},server=off,path="));
    argument.push(path);
    argument
}

fn connect(listeners: &[UnixListener], child: &mut Child) -> Result<Vec<UnixStream>, Error> {
    let end = Instant::now() + CONNECT;
    let mut streams = Vec::new();
    for listener in listeners {
        listener
            .set_nonblocking(true)
            .map_err(io_error("preparing a socket"))?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => {
                    return Err(Error::Io {
                        what: "accepting QEMU",
                        source,
                    });
                }
            }
            if let Some(status) = child.try_wait().map_err(io_error("watching QEMU"))? {
                let mut stderr = String::new();
                if let Some(mut pipe) = child.stderr.take() {
                    let _ = pipe.read_to_string(&mut stderr);
                }
                return Err(Error::Ended { status, stderr });
            }
            if Instant::now() >= end {
                return Err(Error::NotConnected);
            }
            thread::sleep(CONNECT_POLL);
        };
        stream
            .set_nonblocking(false)
            .map_err(io_error("preparing a socket"))?;
        streams.push(stream);
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(machine: &Machine) -> String {
        let words: Vec<String> = machine
            .arguments()
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn the_arguments_are_what_a_person_would_type() {
        assert_eq!(
            arguments(&Machine::new("a.img").smp(2)),
            "-M virt,virtualization=on,gic-version=3 -cpu neoverse-n1 -smp 2 -m 1024 -nic none \
             -kernel a.img"
        );
        assert_eq!(
            arguments(
                &Machine::new("a.img")
                    .firmware("fw.bin")
                    .icount(true)
                    .no_reboot()
            ),
            "-M virt,secure=on,virtualization=on,gic-version=3 -cpu \
             neoverse-n1,cntfrq=1000000000 -smp 4 -m 1024 -nic none -bios fw.bin -device \
             loader,file=a.img,addr=0x40200000,force-raw=on -icount shift=0,sleep=off -no-reboot"
        );
    }

    #[test]
    fn turns_are_bounded_where_there_are_any() {
        let machine = || Machine::new("a.img").smp(2).turns_us(20);
        let bound = "-netdev hubport,id=nobody,hubid=0 -object \
                     filter-buffer,id=turns,netdev=nobody,interval=20";
        assert!(arguments(&machine().icount(true)).ends_with(bound));
        assert!(!arguments(&machine()).contains("turns"));
        assert!(!arguments(&machine().icount(true).smp(1)).contains("turns"));
    }

    #[test]
    fn a_qemu_that_is_missing_is_named_with_the_remedy() {
        let error = Machine::new("a.img")
            .binary("/nowhere/qemu")
            .start()
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(
            text.contains("/nowhere/qemu") && text.contains("cargo xtask setup"),
            "{text}"
        );
    }

    #[test]
    fn a_qemu_that_ends_at_once_is_not_waited_for() {
        let error = Machine::new("a.img").binary("false").start().err().unwrap();
        assert!(matches!(error, Error::Ended { .. }), "{error}");
    }
}
