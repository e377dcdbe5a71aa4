// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::ConsoleEncoder;
use proptest::prelude::*;

const fn divisor(integer: u16, fraction: u8) -> Divisor {
    Divisor { integer, fraction }
}

#[test]
fn the_speed_is_that_of_the_tree_or_of_the_divisor_or_the_default() {
    let of = LineSpeed::find;
    let wire = LineSpeed::BitsPerSecond;
    assert_eq!(of(Some(9600), Some(24_000_000), divisor(13, 1)), wire(9600));
    // What U-Boot sets for 115,200 baud, by a clock of 24 MHz; and the manual's own example.
    assert_eq!(of(None, Some(24_000_000), divisor(13, 1)), wire(115_246));
    assert_eq!(of(None, Some(4_000_000), divisor(1, 5)), wire(231_884));
    assert_eq!(of(None, None, divisor(13, 1)), wire(115_200));
    assert_eq!(of(Some(0), Some(0), divisor(13, 1)), wire(115_200));
    assert_eq!(
        of(None, Some(24_000_000), divisor(0, 5)),
        LineSpeed::Emulated
    );
    assert_eq!(of(None, None, divisor(0, 0)), LineSpeed::Emulated);
    assert_eq!(of(None, Some(1), divisor(0xffff, 0x3f)), wire(1));
}

#[test]
fn the_shares_of_115200_baud_are_those_of_the_document() {
    let shown: Vec<_> = [1, 2, 4, 8]
        .map(|partitions| {
            let shares = LineShares::of(LineSpeed::BitsPerSecond(115_200), partitions, 8);
            let hold_up_ms = shares.hold_up_bytes(partitions) * 1000 / 11_520;
            (
                shares.console_bytes_per_second,
                shares.console_burst_bytes,
                shares.events_per_second,
                shares.event_burst,
                hold_up_ms,
            )
        })
        .into();
    // docs/running.md, "A slow line".
    let expected = [
        (5760, 2880, 5, 5, 361),
        (2880, 1440, 2, 2, 338),
        (1440, 720, 1, 2, 427),
        (720, 640, 1, 2, 800),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn an_emulated_line_is_not_divided() {
    let one = LineShares::of(LineSpeed::Emulated, 1, 1);
    assert_eq!(one, LineShares::of(LineSpeed::Emulated, 8, 8));
    assert_eq!(one.console_bytes_per_second, 128 * 1024);
}

/// A guest that prints a byte at each tick that it may; says how much of it reached the line by when,
/// how many bytes were lost, and how often that was told.
fn pour(
    shares: &LineShares,
    looks: bool,
    text: impl Fn(u64) -> u8,
    (until_ticks, hz): (u64, u64),
) -> (Vec<(u64, u64)>, u64, u64) {
    let mut budget = ConsoleBudget::new(shares, hz, 0);
    let mut encoder = ConsoleEncoder::new();
    let (mut sent, mut lost, mut told, mut closed_until) = (Vec::new(), 0, 0, None);
    for now in 0..until_ticks {
        if looks && closed_until.is_some_and(|at| now < at) {
            continue;
        }
        closed_until = None;
        if !budget.admits(now) {
            continue;
        }
        let suppressed = budget.take_suppressed();
        let mut frame = String::new();
        if suppressed != 0 {
            told += 1;
            lost += suppressed;
            sent.push((now, TOLD_BYTES));
        }
        encoder.push(text(now), "vm", &mut frame).unwrap();
        budget.spend(frame.len() as u64);
        if !frame.is_empty() {
            sent.push((now, frame.len() as u64));
        }
        if budget.is_full(now) {
            closed_until = budget.opens_at(now);
        }
    }
    (sent, lost + budget.take_suppressed(), told)
}

#[test]
fn a_guest_that_looks_before_it_writes_loses_nothing_and_gets_its_share() {
    let hz = 100_000;
    let shares = LineShares::of(LineSpeed::BitsPerSecond(115_200), 2, 2);
    let (sent, lost, _) = pour(&shares, true, |_| b'x', (10 * hz, hz));
    assert_eq!(lost, 0);
    let sum: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
    let share = shares.console_bytes_per_second * 10 + shares.console_burst_bytes;
    assert!(
        (share - 5 * FRAME_BYTES..=share).contains(&sum),
        "{sum} of {share}"
    );
}

#[test]
fn a_guest_that_does_not_look_loses_what_is_counted_and_is_not_told_at_each_byte() {
    let hz = 100_000;
    let shares = LineShares::of(LineSpeed::BitsPerSecond(115_200), 2, 2);
    let (_, lost, told) = pour(&shares, false, |_| b'x', (10 * hz, hz));
    assert!(lost > 900_000, "{lost}");
    assert!((1..=150).contains(&told), "{told}");
}

#[test]
fn what_is_paid_for_the_telling_is_no_less_than_it_takes() {
    let mut line = String::new();
    let event = crate::Event::Suppressed {
        what: "a23456789012345",
        count: u64::MAX,
    };
    crate::write_event(&mut line, u64::MAX, &event).unwrap();
    assert!(line.len() as u64 <= TOLD_BYTES, "{}", line.len());
}

#[test]
fn events_that_a_guest_causes_are_no_longer_than_is_counted() {
    let (vm, vcpu, all) = (7, 7, u64::MAX);
    let events = [
        crate::Event::Abort {
            vm,
            vcpu,
            ipa: all,
            far: all,
            pc: all,
            write: false,
            retired: false,
        },
        crate::Event::Undef {
            vm,
            vcpu,
            esr: all,
            pc: all,
        },
    ];
    for event in events {
        let mut line = String::new();
        crate::write_event(&mut line, all, &event).unwrap();
        assert!(line.len() as u64 <= GUEST_EVENT_BYTES, "{}", line.len());
    }
}

/// What Linux's driver does after a transmit interrupt: half a FIFO without a look.
#[test]
fn a_driver_that_writes_half_a_fifo_without_a_look_loses_nothing() {
    for partitions in 1..=8 {
        for byte in [b'x', b'\n', 0] {
            let shares = LineShares::of(LineSpeed::BitsPerSecond(115_200), partitions, 8);
            let mut budget = ConsoleBudget::new(&shares, 1_000_000, 0);
            let mut encoder = ConsoleEncoder::new();
            let mut now = 0;
            for round in 0..4_000 {
                let mut push = |byte, now, budget: &mut ConsoleBudget| {
                    assert!(budget.admits(now), "{partitions} partitions, {byte:#x}");
                    let mut frame = String::new();
                    encoder.push(byte, "a23456789012345", &mut frame).unwrap();
                    budget.spend(frame.len() as u64);
                };
                // Lines, the last one nearly whole, by a driver that looks.
                for _ in 0..round % 400 {
                    push(b'x', now, &mut budget);
                    if budget.is_full(now) {
                        now = budget.opens_at(now).unwrap_or(now);
                    }
                }
                for _ in 0..16 {
                    push(byte, now, &mut budget);
                }
                if budget.is_full(now) {
                    now = budget.opens_at(now).unwrap_or(now);
                }
            }
            assert_eq!(budget.take_suppressed(), 0);
        }
    }
}

#[test]
fn a_console_that_is_full_opens_when_it_says_so() {
    let shares = LineShares::of(LineSpeed::BitsPerSecond(9600), 8, 8);
    let mut budget = ConsoleBudget::new(&shares, 62_500_000, 0);
    budget.spend(shares.console_burst_bytes);
    assert!(budget.is_full(0));
    let opens = budget.opens_at(0).unwrap();
    assert!(budget.is_full(opens / 2));
    assert!(budget.opens_at(opens - 1).is_some());
    assert_eq!(budget.opens_at(opens), None);
    assert!(!budget.is_full(opens));
}

proptest! {
    /// The bound: whoever has something to say finds no more before it on the line than
    /// [`LineShares::hold_up_bytes`], whatever the guests print and however fast.
    #[test]
    fn nobody_stands_behind_more_than_the_hold_up(
        bits in 9600..2_000_000_u32,
        partitions in 1..=8_usize,
        looks in any::<bool>(),
        byte in prop_oneof![Just(b'x'), Just(b'\n'), Just(0_u8), Just(b'\r')],
    ) {
        let hz = 20_000;
        let shares = LineShares::of(LineSpeed::BitsPerSecond(bits), partitions, 8);
        let (sent, ..) = pour(&shares, looks, |_| byte, (hz, hz));
        // All partitions do the same at the same time; the line takes it at its speed.
        let (mut behind, mut last) = (0_u64, 0);
        for (now, bytes) in sent {
            let gone = (now - last) * u64::from(bits) / 10 / hz;
            behind = behind.saturating_sub(gone) + bytes * partitions as u64;
            last = now;
            prop_assert!(behind <= shares.hold_up_bytes(partitions), "{behind} at {now}");
        }
    }
}
