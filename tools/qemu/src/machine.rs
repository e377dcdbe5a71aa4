// SPDX-License-Identifier: MIT OR Apache-2.0
//! One QEMU `virt` machine: how it is described, started, talked to and ended.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::log::{Failure, Log, Mark, Record};
use crate::qmp::Qmp;
use crate::{Demux, FirmwareLine, Item, Raise};

/// Where the reference firmware expects the image.
const IMAGE_PA: u64 = 0x4020_0000;
/// How long QEMU may take to connect its lines.
const CONNECT: Duration = Duration::from_secs(60);
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

fn io_error(what: &'static str) -> impl Fn(io::Error) -> Error {
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
    image: PathBuf,
    firmware: Option<PathBuf>,
    machine: Option<String>,
    cpu: String,
    smp: u32,
    memory_mib: u32,
    icount: bool,
    no_reboot: bool,
    extra: Vec<OsString>,
    tap: Option<Tap>,
}

impl Machine {
    /// Describes a `neoverse-n1` with 4 PEs and 1 GiB that boots `image` without firmware.
    pub fn new(image: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            firmware: None,
            machine: None,
            cpu: "neoverse-n1".to_owned(),
            smp: 4,
            memory_mib: 1024,
            icount: false,
            no_reboot: false,
            extra: Vec::new(),
            tap: None,
        }
    }

    /// Boots the reference firmware at EL3, which enters the image at EL2.
    #[must_use]
    pub fn firmware(mut self, firmware: impl Into<PathBuf>) -> Self {
        self.firmware = Some(firmware.into());
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

    /// Lets a reset end QEMU.
    #[must_use]
    pub fn no_reboot(mut self) -> Self {
        self.no_reboot = true;
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
        match &self.firmware {
            Some(firmware) => {
                args.push("-bios".into());
                args.push(firmware.into());
                let mut loader = OsString::from("loader,file=");
                loader.push(&self.image);
                loader.push(format!(",addr={IMAGE_PA:#x},force-raw=on"));
                args.push("-device".into());
                args.push(loader);
            }
            None => {
                args.push("-kernel".into());
                args.push((&self.image).into());
            }
        }
        if self.icount {
            args.extend(["-icount", "shift=0,sleep=off"].map(OsString::from));
        }
        if self.no_reboot {
            args.push("-no-reboot".into());
        }
        args.extend(self.extra.iter().cloned());
        args
    }

    /// Starts the machine.
    ///
    /// # Errors
    ///
    /// When QEMU is missing, refuses its arguments, or does not connect.
    pub fn start(mut self) -> Result<Running, Error> {
        let dir = tempfile::Builder::new()
            .prefix("fb-")
            .tempdir()
            .map_err(io_error("making a directory for QEMU's sockets"))?;
        let mut command = Command::new(qemu_binary());
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
        let path = dir.path().join("qmp");
        listeners.push(UnixListener::bind(&path).map_err(io_error("making a socket"))?);
        command.arg("-chardev").arg(socket_argument("qmp", &path));
        command.args(["-mon", "chardev=qmp,mode=control"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| Error::NoQemu {
            binary: qemu_binary().to_string_lossy().into_owned(),
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
        Running::new(child, streams, self.tap.take(), dir)
    }
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

/// A machine that runs. QEMU ends when this is dropped.
pub struct Running {
    child: Child,
    shared: UnixStream,
    secure: Option<UnixStream>,
    qmp: Qmp,
    log: Arc<Log>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn new(
        mut child: Child,
        streams: Vec<UnixStream>,
        tap: Option<Tap>,
        dir: tempfile::TempDir,
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
            _dir: dir,
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
        let what = "writing to the firmware";
        let secure = self.secure.as_mut().ok_or_else(|| {
            let source =
                io::Error::new(io::ErrorKind::NotConnected, "this machine has no firmware");
            Error::Io { what, source }
        })?;
        secure
            .write_all(format!("{line}\n").as_bytes())
            .map_err(io_error(what))
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

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder
        .spawn(work)
        .map(drop)
        .map_err(io_error("starting a reader"))
}

fn read_shared(mut stream: UnixStream, log: Arc<Log>, mut tap: Option<Tap>) -> Result<(), Error> {
    log.opened();
    spawn("shared-serial", move || {
        let mut demux = Demux::new();
        let mut buffer = [0; 4096];
        let mut items = Vec::new();
        loop {
            let len = match stream.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                len => len.unwrap_or(0),
            };
            demux.push(buffer.get(..len).unwrap_or(&[]), &mut items);
            if len == 0 {
                demux.finish(&mut items);
            }
            for item in items.drain(..) {
                if let Some(tap) = &mut tap {
                    tap(&item);
                }
                log.push_item(&item);
            }
            if len == 0 {
                break;
            }
        }
        log.closed();
    })
}

fn read_secure(stream: UnixStream, log: Arc<Log>) -> Result<(), Error> {
    log.opened();
    spawn("secure-serial", move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|len| len != 0)
        {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            log.push(match FirmwareLine::parse(text) {
                Some(line) => Record::Firmware(line),
                None => Record::SecurePlain(text.to_owned()),
            });
            line.clear();
        }
        log.closed();
    })
}
