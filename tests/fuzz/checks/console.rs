// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes that are typed on the shared line: they reach a partition that is
//! there, or are a command that is understood in one way only, or are refused.
//!
//! The first byte is the number of partitions; then bytes of the line, where those above 0x7f stand
//! for whole words, so that commands come together more often than by chance.

use firebreak_wire::{
    COMMAND, COMMAND_BYTES, Command, ESCAPE, Fault, Input, InputDecoder, Place, Refused, Request,
    encode_piece,
};

/// Words that commands are made of.
const WORDS: [&[u8]; 32] = [
    b"\x01:",
    b"\n",
    b"\r",
    b"ps",
    b"stop ",
    b"start ",
    b"restart ",
    b"inject ",
    b"stats",
    b"log",
    b"victim ",
    b"linux ",
    b"a-name-of-15-by ",
    b"a-name-of-16-byt ",
    b"id=7 ",
    b"id=",
    b"vcpu=0 ",
    b"vcpu=255 ",
    b"vcpu=256 ",
    b"vcpu=",
    b"serror ",
    b"sea=data ",
    b"sea=fetch ",
    b"iss=0x1ffffff ",
    b"iss=0x2000000 ",
    b"iss=0x10 ",
    b"iss=0x0 ",
    b"iss=0x",
    b"far=0x40000000 ",
    b"far=0xffffffffffffffff ",
    b"\x01\x01",
    b"18446744073709551616 ",
];

/// Types an input.
pub(crate) fn check_console(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let partitions = first % 9;
    let mut typed = InputDecoder::new(partitions);
    let mut line: Option<Vec<u8>> = None;
    let mut escaped = false;
    for byte in rest {
        let word: &[u8] = match byte {
            0x80.. => WORDS[usize::from(byte & 31)],
            plain => &[*plain],
        };
        for byte in word {
            check_byte(&mut typed, partitions, &mut line, &mut escaped, *byte);
        }
    }
}

/// Types one byte; `line` and `escaped` are what a reader of the rules would remember.
fn check_byte(
    typed: &mut InputDecoder,
    partitions: u8,
    line: &mut Option<Vec<u8>>,
    escaped: &mut bool,
    byte: u8,
) {
    let focus = typed.focus();
    let got = typed.push(byte);
    let to_guest = (focus < partitions).then_some(Input::Byte {
        partition: focus,
        byte,
    });
    let expected = if std::mem::take(escaped) {
        match byte {
            ESCAPE => to_guest,
            COMMAND => {
                *line = Some(vec![]);
                None
            }
            b'0'..=b'9' if byte - b'0' < partitions => Some(Input::Focus(byte - b'0')),
            b'0'..=b'9' => Some(Input::NoSuchPartition(byte - b'0')),
            _ => None,
        }
    } else if byte == ESCAPE {
        *escaped = true;
        *line = None;
        None
    } else if let Some(bytes) = line {
        if matches!(byte, b'\n' | b'\r') {
            let bytes = line.take().unwrap_or_default();
            let Some(Input::Command(command)) = got else {
                panic!("a line that ended is no command: {bytes:?}");
            };
            return check_command(&bytes, &command);
        }
        bytes.push(byte);
        None
    } else {
        to_guest
    };
    assert_eq!(got, expected, "byte {byte:#x}");
}

/// Holds a command against its line.
fn check_command(line: &[u8], command: &Command) {
    if line.len() > COMMAND_BYTES {
        assert_eq!(command.request, Err(Refused::TooLong));
        return;
    }
    assert_eq!(*command, Command::parse(line));
    match &command.request {
        Err(refused) => assert!(!refused.as_str().is_empty()),
        Ok(request) => {
            assert!(line.iter().all(|byte| (0x20..0x7f).contains(byte)));
            let again = Command::parse(spoken(command.id, request).as_bytes());
            assert_eq!(again, *command, "{}", String::from_utf8_lossy(line));
        }
    }
}

/// Says a command as the documentation writes it.
fn spoken(id: Option<u64>, request: &Request) -> String {
    let text = match request {
        Request::Ps => "ps".to_owned(),
        Request::Stats => "stats".to_owned(),
        Request::Log => "log".to_owned(),
        Request::Trace { name, vcpu, before } => {
            format!("trace {} vcpu={vcpu} before={before}", name.as_str())
        }
        Request::Stop(name) => format!("stop {}", name.as_str()),
        Request::Start(name) => format!("start {}", name.as_str()),
        Request::Restart(name) => format!("restart {}", name.as_str()),
        Request::Reload { name, kernel } => {
            let name = name.as_str();
            match kernel {
                Some((bytes, crc)) => format!("reload {name} bytes={bytes} crc={crc:#x}"),
                None => format!("reload {name}"),
            }
        }
        Request::Data(piece) => {
            let (crc, text) = encode_piece(piece.at, piece.bytes());
            let text: String = text.collect();
            format!("data at={:#x} crc={crc:#x} {text}", piece.at)
        }
        Request::Commit => "commit".to_owned(),
        Request::Abort => "abort".to_owned(),
        Request::Inject {
            name,
            vcpu,
            fault,
            at_start,
            place,
        } => {
            let fault = match fault {
                Fault::Serror { iss } => {
                    assert!(*iss < 1 << 25, "more than 25 bits");
                    format!("serror iss={iss:#x}")
                }
                Fault::Sea { fetch, far, iss } => {
                    assert!(*iss < 1 << 25, "more than 25 bits");
                    let which = if *fetch { "fetch" } else { "data" };
                    let far = far.map_or_else(String::new, |far| format!(" far={far:#x}"));
                    format!("sea={which} iss={iss:#x}{far}")
                }
            };
            let start = if *at_start { " at=start" } else { "" };
            let place = match place {
                Some(Place::El0) => " el=0",
                Some(Place::El1) => " el=1",
                Some(Place::Masked) => " at=masked",
                Some(Place::Unmasked) => " at=unmasked",
                None => "",
            };
            format!("inject {} vcpu={vcpu} {fault}{start}{place}", name.as_str())
        }
    };
    match id {
        Some(id) => format!("id={id} {text}"),
        None => text,
    }
}
