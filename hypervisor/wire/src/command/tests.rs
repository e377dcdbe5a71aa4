// SPDX-License-Identifier: MIT OR Apache-2.0
//! What commands mean, and which are refused.

use super::*;
use proptest::prelude::*;

fn parsed(line: &str) -> Result<Request, Refused> {
    Command::parse(line.as_bytes()).request
}

fn victim() -> Name {
    Name::parse(b"victim").unwrap()
}

fn injected(fault: Fault) -> Result<Request, Refused> {
    Ok(Request::Inject {
        name: victim(),
        vcpu: 1,
        fault,
        at_start: false,
        place: None,
    })
}

#[test]
fn each_command_is_understood() {
    assert_eq!(parsed("ps"), Ok(Request::Ps));
    assert_eq!(parsed("  stats "), Ok(Request::Stats));
    assert_eq!(parsed("log"), Ok(Request::Log));
    for (line, vcpu, before) in [
        ("trace linux", 0, u64::MAX),
        ("trace linux vcpu=1", 1, u64::MAX),
        ("trace linux before=9 vcpu=2", 2, 9),
    ] {
        let Ok(Request::Trace {
            name,
            vcpu: number,
            before: end,
        }) = parsed(line)
        else {
            panic!("{line}");
        };
        assert_eq!((name.as_str(), number, end), ("linux", vcpu, before));
    }
    for (line, refused) in [
        ("trace", Refused::NoPartition),
        ("trace linux vcpu=256", Refused::Number),
        ("trace linux vcpu=x", Refused::Number),
        ("trace linux before=0x1", Refused::Number),
        ("trace linux vcpu=1 vcpu=1", Refused::Word),
        ("trace linux n=1", Refused::Word),
    ] {
        assert_eq!(parsed(line), Err(refused), "{line}");
    }
    assert_eq!(parsed("stop victim"), Ok(Request::Stop(victim())));
    assert_eq!(parsed("start victim"), Ok(Request::Start(victim())));
    assert_eq!(parsed("restart victim"), Ok(Request::Restart(victim())));
    let serror = |iss| injected(Fault::Serror { iss });
    assert_eq!(
        parsed("inject victim vcpu=1 serror iss=0xc11"),
        serror(0xc11)
    );
    assert_eq!(parsed("inject victim iss=C11 serror vcpu=1"), serror(0xc11));
    assert_eq!(
        parsed("inject victim vcpu=1 serror iss=0x1ffffff"),
        serror(0x1ff_ffff)
    );
    // The default is implementation defined, and never all zeros.
    assert_eq!(parsed("inject victim vcpu=1 serror"), serror(1 << 24));
    assert_eq!(parsed("inject victim vcpu=1 serror iss=0"), serror(0));
    let sea = |fetch, far, iss| injected(Fault::Sea { fetch, far, iss });
    assert_eq!(
        parsed("inject victim vcpu=1 sea=data far=0xffffffffffffffff"),
        sea(false, Some(u64::MAX), 0x10)
    );
    assert_eq!(
        parsed("inject victim vcpu=1 sea=fetch far=0 iss=0x17"),
        sea(true, Some(0), 0x17)
    );
    // Without an address the guest is told that there is none.
    assert_eq!(
        parsed("inject victim vcpu=1 sea=data"),
        sea(false, None, 0x410)
    );
}

#[test]
fn a_kernel_comes_in_pieces() {
    let reload = |kernel| {
        let name = victim();
        Ok(Request::Reload { name, kernel })
    };
    assert_eq!(parsed("reload victim"), reload(None));
    assert_eq!(
        parsed("reload victim crc=0xcbf43926 bytes=9"),
        reload(Some((9, 0xcbf4_3926)))
    );
    assert_eq!(parsed("commit"), Ok(Request::Commit));
    assert_eq!(parsed("abort"), Ok(Request::Abort));
    let (crc, text) = crate::encode_piece(0x30, b"foob");
    let text: String = text.collect();
    let data = parsed(&format!("data at=0x30 crc={crc:#x} {text}"));
    let Ok(Request::Data(piece)) = data else {
        panic!("{data:?}")
    };
    assert_eq!((piece.at, piece.bytes()), (0x30, &b"foob"[..]));
    for (line, reason) in [
        (format!("data at=0x31 crc={crc:#x} {text}"), Refused::Piece),
        (format!("data at=0x30 crc={crc:#x}"), Refused::Piece),
        (format!("data at=0x30 {text}"), Refused::Word),
        (format!("data at=0x30 crc={crc:#x} {text} x"), Refused::Word),
        (
            "data at=0x30 crc=0x100000000 Zg".to_owned(),
            Refused::Number,
        ),
        ("reload victim bytes=9".to_owned(), Refused::HalfKernel),
        ("reload victim bytes=x crc=0".to_owned(), Refused::Number),
        ("reload".to_owned(), Refused::NoPartition),
        ("commit now".to_owned(), Refused::Word),
    ] {
        assert_eq!(parsed(&line), Err(reason), "{line}");
    }
}

#[test]
fn an_injection_can_wait_for_the_start() {
    assert_eq!(
        parsed("inject victim vcpu=1 at=start serror iss=0x811"),
        Ok(Request::Inject {
            name: victim(),
            vcpu: 1,
            fault: Fault::Serror { iss: 0x811 },
            at_start: true,
            place: None,
        })
    );
    for (word, place) in [
        ("el=0", Place::El0),
        ("el=1", Place::El1),
        ("at=masked", Place::Masked),
        ("at=unmasked", Place::Unmasked),
    ] {
        assert_eq!(
            parsed(&format!("inject victim vcpu=1 {word} serror iss=0x811")),
            Ok(Request::Inject {
                name: victim(),
                vcpu: 1,
                fault: Fault::Serror { iss: 0x811 },
                at_start: false,
                place: Some(place),
            })
        );
    }
    assert_eq!(
        parsed("inject victim vcpu=1 el=2 serror"),
        Err(Refused::Word)
    );
    for twice in ["at=start at=start", "at=masked el=1", "at=masked at=masked"] {
        let twice = parsed(&format!("inject victim vcpu=1 {twice} serror"));
        assert_eq!(twice, Err(Refused::Word));
    }
}

#[test]
fn a_place_is_a_level_and_the_mask_of_serror() {
    // EL0t, EL1t, EL1h, AArch32 User; with D, A, I, F clear and set.
    for (mode, el1) in [
        (0b0000, false),
        (0b0100, true),
        (0b0101, true),
        (0b1_0000, false),
    ] {
        for (daif, masked) in [(0, false), (0b0100, true), (0b1011, false), (0b1111, true)] {
            let pstate = mode | daif << 6;
            assert_eq!(Place::El0.holds(pstate), !el1);
            assert_eq!(Place::El1.holds(pstate), el1);
            assert_eq!(Place::Masked.holds(pstate), el1 && masked);
            assert_eq!(Place::Unmasked.holds(pstate), el1 && !masked);
        }
    }
}

#[test]
fn what_cannot_be_meant_is_refused_for_its_reason() {
    let cases = [
        ("", Refused::Unknown),
        ("reboot", Refused::Unknown),
        ("PS", Refused::Unknown),
        ("ps all", Refused::Word),
        ("ps id=1 id=2", Refused::Word),
        ("ps id=x", Refused::Number),
        ("ps id=18446744073709551616", Refused::Number),
        ("stop", Refused::NoPartition),
        ("stop a-name-of-16-chr", Refused::NoPartition),
        ("stop victim now", Refused::Word),
        ("inject", Refused::NoPartition),
        ("inject victim serror", Refused::NoVcpu),
        ("inject victim vcpu=256 serror", Refused::Number),
        ("inject victim vcpu=0x1 serror", Refused::Number),
        ("inject victim vcpu=1", Refused::NoFault),
        ("inject victim vcpu=1 serror sea=data", Refused::NoFault),
        ("inject victim vcpu=1 serror far=0x10", Refused::Word),
        ("inject victim vcpu=1 serror serror", Refused::Word),
        ("inject victim vcpu=1 vcpu=1 serror", Refused::Word),
        ("inject victim vcpu=1 sea=walk", Refused::Word),
        ("inject victim vcpu=1 serror iss=", Refused::Number),
        ("inject victim vcpu=1 serror iss=0xg", Refused::Number),
        ("inject victim vcpu=1 serror iss=-1", Refused::Number),
        (
            "inject victim vcpu=1 serror iss=0x2000000",
            Refused::TooManyBits,
        ),
        (
            "inject victim vcpu=1 serror iss=0xffffffffffffffff",
            Refused::TooManyBits,
        ),
        (
            "inject victim vcpu=1 sea=data iss=0x2000010",
            Refused::TooManyBits,
        ),
        (
            "inject victim vcpu=1 sea=data iss=0x7",
            Refused::NotExternal,
        ),
        ("p\u{7f}s", Refused::Damaged),
        ("ps\t", Refused::Damaged),
    ];
    for (line, reason) in cases {
        assert_eq!(parsed(line), Err(reason), "{line:?}");
        assert!(!reason.as_str().is_empty());
    }
}

#[test]
fn the_callers_number_comes_back_even_with_a_refusal() {
    for line in ["id=7 ps", "ps id=7", "no id=7 such command", "id=7"] {
        assert_eq!(Command::parse(line.as_bytes()).id, Some(7), "{line}");
    }
    assert_eq!(Command::parse(b"ps").id, None);
    assert_eq!(Command::parse(b"ps id=seven").id, None);
    assert_eq!(parsed("id=7 ps"), Ok(Request::Ps));
}

proptest! {
    #[test]
    fn no_line_asks_for_a_syndrome_that_does_not_fit(
        line in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let _ = Command::parse(&line);
    }

    #[test]
    fn all_25_bits_can_be_chosen_and_no_other(iss: u64, shift in 0..64_u32) {
        let iss = iss >> shift;
        let line = format!("inject victim vcpu=1 serror iss={iss:#x}");
        let expected = match u32::try_from(iss) {
            Ok(iss) if iss < 1 << 25 => injected(Fault::Serror { iss }),
            _ => Err(Refused::TooManyBits),
        };
        prop_assert_eq!(parsed(&line), expected);
    }

    #[test]
    fn a_syndrome_of_an_abort_is_one_of_an_external_abort(iss in 0_u64..1 << 25) {
        let line = format!("inject victim vcpu=1 sea=data far=1 iss={iss:#x}");
        let external = [0x10, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f];
        prop_assert_eq!(parsed(&line).is_ok(), external.contains(&(iss & 0x3f)));
    }
}
