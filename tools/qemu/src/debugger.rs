// SPDX-License-Identifier: MIT OR Apache-2.0
//! As much of QEMU's gdb server as is needed to read and write the machine's memory, and to stop
//! it at a chosen instruction.
//!
//! While a debugger is connected the machine stands still, so what is written here is there between
//! two instructions of every PE.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one transfer: QEMU's packets hold twice as many characters.
const CHUNK_BYTES: usize = 1024;
/// Numbers of registers in QEMU's description of the CPU.
const REGISTER_PC: u64 = 32;
const REGISTER_CPSR: u64 = 33;
/// The part of that description that names the system registers.
const SYSTEM_REGISTERS: &str = "system-registers.xml";
/// What a debugger sends to stop the machine.
const INTERRUPT: u8 = 3;
/// How long QEMU may take to answer.
const ANSWER: Duration = Duration::from_secs(60);

/// A connection to the gdb server. The machine goes on when this is dropped.
pub struct Debugger {
    stream: UnixStream,
}

impl Debugger {
    /// Connects, which stops the machine. From now on addresses are physical.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut debugger = Self { stream };
        // Without this, addresses would go through the tables of whatever runs.
        debugger.expect_ok("Qqemu.PhyMemMode:1")?;
        Ok(debugger)
    }

    /// Reads memory at a physical address.
    ///
    /// # Errors
    ///
    /// When there is no memory, or QEMU is gone.
    pub fn read(&mut self, pa: u64, len_bytes: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len_bytes);
        while bytes.len() < len_bytes {
            let count = CHUNK_BYTES.min(len_bytes - bytes.len());
            let at = pa + bytes.len() as u64;
            let answer = self.ask(&format!("m{at:x},{count:x}"))?;
            let chunk = decode_hex(&answer)
                .filter(|chunk| chunk.len() == count)
                .ok_or_else(|| refused(&format!("reading {count} bytes at {at:#x}"), &answer))?;
            bytes.extend(chunk);
        }
        Ok(bytes)
    }

    /// Writes memory at a physical address.
    ///
    /// # Errors
    ///
    /// When there is no memory, or QEMU is gone.
    pub fn write(&mut self, pa: u64, bytes: &[u8]) -> io::Result<()> {
        for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            let at = pa + (index * CHUNK_BYTES) as u64;
            let hex: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            self.expect_ok(&format!("M{at:x},{:x}:{hex}", chunk.len()))?;
        }
        Ok(())
    }

    /// Lets the machine run until a PE is about to execute the instruction at a virtual address at
    /// EL0 or EL1, and stops it there.
    ///
    /// # Errors
    ///
    /// When it does not get there within `deadline`, or QEMU is gone.
    pub fn run_to(&mut self, address: u64, deadline: Duration) -> io::Result<()> {
        let end = Instant::now() + deadline;
        loop {
            self.expect_ok(&format!("Z0,{address:x},4"))?;
            let stopped = self.resume("c", end);
            if stopped.is_err() {
                // Whatever it does, it must stand still to be talked to.
                self.stream.write_all(&[INTERRUPT])?;
                self.stop_reply()?;
            }
            self.expect_ok(&format!("z0,{address:x},4"))?;
            stopped?;
            // EL2 may have code at the same address, in its own address space.
            if self.exception_level()? <= 1 {
                return Ok(());
            }
            self.step()?;
        }
    }

    /// Lets the PE that stopped last execute one instruction; no interrupt is taken meanwhile.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn step(&mut self) -> io::Result<()> {
        self.resume("s", Instant::now() + ANSWER)
    }

    /// Returns the program counter of the PE that stopped last.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn program_counter(&mut self) -> io::Result<u64> {
        self.register(REGISTER_PC)
    }

    /// Returns the exception level of the PE that stopped last.
    ///
    /// # Errors
    ///
    /// When QEMU is gone.
    pub fn exception_level(&mut self) -> io::Result<u8> {
        let spsr = self.register(REGISTER_CPSR)?;
        Ok(u8::try_from(spsr >> 2 & 3).unwrap_or(3))
    }

    /// Returns a system register of a PE by its name in the Arm ARM, such as `TTBR1_EL1`.
    ///
    /// # Errors
    ///
    /// When QEMU does not describe such a register, or is gone.
    pub fn system_register(&mut self, pe: u8, name: &str) -> io::Result<u64> {
        // QEMU's threads are its PEs, counted from 1.
        self.expect_ok(&format!("Hg{:x}", u64::from(pe) + 1))?;
        let known = self.description(SYSTEM_REGISTERS)?;
        let number = number_of(&known, name);
        let number = number.ok_or_else(|| refused("reading a register", name))?;
        self.register(number)
    }

    /// Fetches a file of QEMU's description of the CPU, piece by piece.
    fn description(&mut self, file: &str) -> io::Result<String> {
        let mut text = String::new();
        loop {
            let at = text.len();
            let question = format!("qXfer:features:read:{file}:{at:x},{CHUNK_BYTES:x}");
            let answer = self.ask(&question)?;
            // `m`: there is more; `l`: that was the last one.
            match answer.split_at_checked(1) {
                Some(("m", piece)) if !piece.is_empty() => text += piece,
                Some(("l", piece)) => return Ok(text + piece),
                _ => return Err(refused(&question, &answer)),
            }
        }
    }

    fn register(&mut self, number: u64) -> io::Result<u64> {
        let answer = self.ask(&format!("p{number:x}"))?;
        let bytes = decode_hex(&answer).filter(|bytes| (1..=8).contains(&bytes.len()));
        let bytes = bytes.ok_or_else(|| refused("reading a register", &answer))?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Sends a command that lets the machine go on, and waits until it stands again.
    fn resume(&mut self, command: &str, end: Instant) -> io::Result<()> {
        self.send(command)?;
        let left = end.saturating_duration_since(Instant::now());
        self.stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let stopped = self.stop_reply();
        self.stream.set_read_timeout(Some(ANSWER))?;
        stopped
    }

    fn stop_reply(&mut self) -> io::Result<()> {
        while !self.packet()?.starts_with(['T', 'S']) {}
        Ok(())
    }

    fn send(&mut self, command: &str) -> io::Result<()> {
        let sum = command.bytes().fold(0_u8, u8::wrapping_add);
        self.stream
            .write_all(format!("${command}#{sum:02x}").as_bytes())
    }

    fn expect_ok(&mut self, command: &str) -> io::Result<()> {
        match self.ask(command)?.as_str() {
            "OK" => Ok(()),
            answer => Err(refused(command, answer)),
        }
    }

    /// Sends a packet and returns the answer. What QEMU says by itself meanwhile is passed over.
    fn ask(&mut self, command: &str) -> io::Result<String> {
        self.send(command)?;
        loop {
            let answer = self.packet()?;
            // A stop reply: the machine stopped because we came.
            if !answer.starts_with('T') && !answer.starts_with('S') {
                return Ok(answer);
            }
        }
    }

    fn packet(&mut self) -> io::Result<String> {
        while self.byte()? != b'$' {}
        let mut text = String::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => text.push(char::from(byte)),
            }
        }
        // The sum: the line is a socket, which does not garble.
        self.byte()?;
        self.byte()?;
        self.stream.write_all(b"+")?;
        Ok(text)
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        // Detaching lets the machine go on; if QEMU is gone there is nothing to let go.
        let _ = self.ask("D");
    }
}

fn refused(what: &str, answer: &str) -> io::Error {
    io::Error::other(format!("QEMU's gdb server refuses {what}: \"{answer}\""))
}

/// Finds the number of a register in `<reg name="..." ... regnum="..."/>`.
fn number_of(description: &str, name: &str) -> Option<u64> {
    let (_, behind) = description.split_once(&format!("<reg name=\"{name}\""))?;
    let (element, _) = behind.split_once('>')?;
    let (_, number) = element.split_once("regnum=\"")?;
    number.split('"').next()?.parse().ok()
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<Vec<u8>>>()
        .filter(|_| digits.len().is_multiple_of(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn hex_is_read_and_everything_else_is_refused() {
        assert_eq!(decode_hex("00ff7A"), Some(vec![0, 255, 0x7a]));
        for wrong in ["0", "E01", "zz", "0x", "é"] {
            assert_eq!(decode_hex(wrong), None, "{wrong}");
        }
    }

    /// A server that has its answers ready.
    fn against(answers: &'static str, test: impl FnOnce(io::Result<Debugger>)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gdb");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answers.as_bytes()).unwrap();
            let mut heard = String::new();
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_string(&mut heard);
            heard
        });
        test(Debugger::connect(&path));
        assert!(server.join().unwrap().starts_with("$Qqemu.PhyMemMode:1#"));
    }

    #[test]
    fn stop_replies_are_passed_over_and_memory_is_read() {
        against("+$T05thread:01;#07+$OK#9a+$0102#c3+$OK#9a", |debugger| {
            assert_eq!(debugger.unwrap().read(0x4000_0000, 2).unwrap(), [1, 2]);
        });
    }

    #[test]
    fn registers_are_found_by_their_names() {
        let known = "<feature><reg name=\"TCR_EL12\" bitsize=\"64\" regnum=\"7\"/>\
                     <reg name=\"TCR_EL1\" bitsize=\"64\" regnum=\"76\" type=\"int\"/></feature>";
        assert_eq!(number_of(known, "TCR_EL1"), Some(76));
        assert_eq!(number_of(known, "TCR_EL12"), Some(7));
        assert_eq!(number_of(known, "TTBR0_EL1"), None);
        // In pieces, each with its own length.
        against(
            "+$OK#9a+$OK#9a+$m<reg name=\"TC#00+$lR_EL1\" regnum=\"76\"/>#00+$7856000000000000#00+$OK#9a",
            |debugger| {
                let value = debugger.unwrap().system_register(0, "TCR_EL1").unwrap();
                assert_eq!(value, 0x5678);
            },
        );
    }

    #[test]
    fn a_refusal_names_what_was_asked() {
        against("+$OK#9a+$E14#aa+$OK#9a", |debugger| {
            let error = debugger.unwrap().read(0x10, 4).err().unwrap();
            assert!(error.to_string().contains("0x10"), "{error}");
        });
        against("+$E01#a6", |debugger| {
            let error = debugger.err().unwrap();
            assert!(error.to_string().contains("PhyMemMode"), "{error}");
        });
    }
}
