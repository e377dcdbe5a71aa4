// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a running system's lines come from: QEMU, or a serial port of this machine.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;

use firebreak_qemu::{Ended, Machine, Opened};
use rustix::fs::OFlags;
use rustix::termios::{self, OptionalActions, SpecialCodeIndex};

/// One line: bytes from the machine, and bytes to it.
pub(crate) struct Wire {
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) writer: Box<dyn Write + Send>,
}

/// A running system.
pub(crate) trait Link {
    /// Takes the line that hypervisor and guests share. It can be taken once.
    fn shared(&mut self) -> io::Result<Wire>;
    /// Takes the reference firmware's line, if there is one.
    fn firmware(&mut self) -> io::Result<Option<Wire>>;
    /// Whether the system may have run before anybody listened.
    fn was_running(&self) -> bool;
    /// Ends it, as far as it is ours to end; returns how it ended.
    fn end(self: Box<Self>) -> Ended;
}

/// A machine in QEMU.
pub(crate) struct QemuLink(Opened);

impl QemuLink {
    /// Starts it.
    pub(crate) fn start(machine: Machine) -> Result<Self, String> {
        machine.open().map(Self).map_err(|error| error.to_string())
    }
}

impl Link for QemuLink {
    fn shared(&mut self) -> io::Result<Wire> {
        Ok(Wire {
            reader: Box::new(self.0.shared.try_clone()?),
            writer: Box::new(self.0.shared.try_clone()?),
        })
    }

    fn firmware(&mut self) -> io::Result<Option<Wire>> {
        let Some(secure) = &self.0.secure else {
            return Ok(None);
        };
        Ok(Some(Wire {
            reader: Box::new(secure.try_clone()?),
            writer: Box::new(secure.try_clone()?),
        }))
    }

    fn was_running(&self) -> bool {
        false
    }

    fn end(self: Box<Self>) -> Ended {
        self.0.end()
    }
}

/// A serial port, with the firmware's beside it if the board has a second one.
pub(crate) struct SerialLink {
    shared: File,
    firmware: Option<File>,
}

const DEFAULT_BAUD: u32 = 115_200;

impl SerialLink {
    /// Opens `PATH[:BAUD]`, and a second one for the firmware.
    pub(crate) fn open(shared: &str, firmware: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            shared: open_port(shared)?,
            firmware: firmware.map(open_port).transpose()?,
        })
    }
}

/// Splits `PATH[:BAUD]`.
fn port(argument: &str) -> Result<(&str, u32), String> {
    match argument.rsplit_once(':') {
        None => Ok((argument, DEFAULT_BAUD)),
        Some((path, baud)) => match baud.parse() {
            Ok(baud) if baud > 0 => Ok((path, baud)),
            _ => Err(format!(
                "\"{baud}\" is no speed: write {path}:115200, or {path} alone"
            )),
        },
    }
}

fn open_port(argument: &str) -> Result<File, String> {
    let (path, baud) = port(argument)?;
    let told = |what: &str, error: io::Error| {
        format!("{path}: {what}: {error}; is it a serial port, and is it yours to use?")
    };
    // Without O_NONBLOCK, opening waits for a modem's carrier.
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.cast_signed())
        .open(path)
        .map_err(|error| told("it cannot be opened", error))?;
    let set = |error: rustix::io::Errno| told("it cannot be set up", error.into());
    let mut settings = termios::tcgetattr(&file).map_err(set)?;
    settings.make_raw();
    settings.control_modes |= termios::ControlModes::CLOCAL | termios::ControlModes::CREAD;
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    settings.set_speed(baud).map_err(set)?;
    termios::tcsetattr(&file, OptionalActions::Now, &settings).map_err(set)?;
    let flags = rustix::fs::fcntl_getfl(&file).map_err(set)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK).map_err(set)?;
    Ok(file)
}

fn wire(file: &File) -> io::Result<Wire> {
    Ok(Wire {
        reader: Box::new(file.try_clone()?),
        writer: Box::new(file.try_clone()?),
    })
}

impl Link for SerialLink {
    fn shared(&mut self) -> io::Result<Wire> {
        wire(&self.shared)
    }

    fn firmware(&mut self) -> io::Result<Option<Wire>> {
        self.firmware.as_ref().map(wire).transpose()
    }

    fn was_running(&self) -> bool {
        true
    }

    fn end(self: Box<Self>) -> Ended {
        Ended::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_a_speed_or_the_usual_one() {
        assert_eq!(port("/dev/ttyUSB0"), Ok(("/dev/ttyUSB0", 115_200)));
        assert_eq!(port("/dev/ttyUSB0:9600"), Ok(("/dev/ttyUSB0", 9600)));
        assert!(port("/dev/ttyUSB0:fast").unwrap_err().contains("fast"));
        assert!(port("/dev/ttyUSB0:0").is_err());
    }

    #[test]
    fn what_is_no_serial_port_is_refused_by_name() {
        for path in ["/nowhere/tty", "/dev/null"] {
            let error = SerialLink::open(path, None).err().unwrap();
            assert!(error.starts_with(path), "{error}");
        }
    }
}
