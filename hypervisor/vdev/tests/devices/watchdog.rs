// SPDX-License-Identifier: MIT OR Apache-2.0
//! SBSA watchdog: timelines, registers, and a driver that works as Linux's does.

use firebreak_vdev::watchdog::reg;
use firebreak_vdev::{Frame, IrqLevel, Signal, Watchdog};
use proptest::prelude::*;

use Frame::{Control, Refresh};

fn set(dog: &mut Watchdog, offset: u64, value: u32, now: u64) -> Option<IrqLevel> {
    dog.write(Control, offset, 4, u64::from(value), now).irq
}

fn get(dog: &Watchdog, offset: u64) -> u64 {
    dog.read(Control, offset, 4).value
}

fn armed(period: u32, now: u64) -> Watchdog {
    let mut dog = Watchdog::new();
    set(&mut dog, reg::WOR_LOW, period, now);
    set(&mut dog, reg::WCS, 1, now);
    dog
}

#[test]
fn a_disabled_watchdog_never_expires() {
    let mut dog = Watchdog::new();
    set(&mut dog, reg::WOR_LOW, 1, 0);
    assert_eq!(dog.next_deadline_ticks(), None);
    assert_eq!(dog.expired(u64::MAX), Signal::None);
    let mut dog = armed(10, 0);
    set(&mut dog, reg::WCS, 0, 5);
    assert_eq!(dog.expired(u64::MAX), Signal::None);
}

#[test]
fn two_periods_without_refresh_are_an_interrupt_and_then_silence() {
    let mut dog = armed(100, 1000);
    assert_eq!(get(&dog, reg::WCV_LOW), 1100);
    assert_eq!(
        dog.next_deadline_ticks(),
        Some(1101),
        "greater than, not equal"
    );
    assert_eq!(dog.expired(1100), Signal::None);
    assert_eq!(dog.expired(1101), Signal::Ws0);
    assert!(dog.irq_is_high());
    assert_eq!(get(&dog, reg::WCS), 0b011);
    assert_eq!(dog.next_deadline_ticks(), Some(1202));
    assert_eq!(dog.expired(1201), Signal::None);
    assert_eq!(dog.expired(1202), Signal::Ws1);
    assert_eq!(get(&dog, reg::WCS), 0b111);
    assert_eq!(dog.expired(u64::MAX), Signal::None, "silence is told once");
    assert_eq!(dog.next_deadline_ticks(), None);
}

#[test]
fn a_late_look_does_not_stretch_the_second_period() {
    let mut dog = armed(100, 0);
    assert_eq!(dog.expired(190), Signal::Ws0);
    assert_eq!(dog.expired(202), Signal::Ws1);
    let mut dog = armed(100, 0);
    assert_eq!(dog.expired(5000), Signal::Ws1, "both periods passed unseen");
    assert_eq!(get(&dog, reg::WCS), 0b111);
}

#[test]
fn any_refresh_lowers_the_line_and_starts_again() {
    for (frame, offset, value) in [
        (Refresh, reg::WRR, 0),
        (Control, reg::WCS, 1),
        (Control, reg::WOR_LOW, 100),
        (Control, reg::WOR_HIGH, 0),
    ] {
        let mut dog = armed(100, 0);
        assert_eq!(dog.expired(101), Signal::Ws0);
        let effects = dog.write(frame, offset, 4, value, 150);
        assert_eq!(
            effects.irq,
            Some(IrqLevel::Lowered),
            "{frame:?} {offset:#x}"
        );
        assert_eq!(get(&dog, reg::WCS), 1);
        assert_eq!(dog.next_deadline_ticks(), Some(251));
    }
    // Silence ends too, for a partition that is left alone.
    let mut dog = armed(100, 0);
    dog.expired(1000);
    let _ = dog.write(Refresh, reg::WRR, 4, 0, 1000);
    assert_eq!(
        (get(&dog, reg::WCS), dog.next_deadline_ticks()),
        (1, Some(1101))
    );
}

#[test]
fn the_compare_value_can_be_set() {
    let mut dog = armed(100, 0);
    set(&mut dog, reg::WCV_LOW, 7, 0);
    set(&mut dog, reg::WCV_HIGH, 1, 0);
    assert_eq!(dog.next_deadline_ticks(), Some(0x1_0000_0008));
    let _ = dog.write(Control, reg::WCV_LOW, 8, 0x2_0000_0001, 0);
    assert_eq!(dog.read(Control, reg::WCV_LOW, 8).value, 0x2_0000_0001);
    assert_eq!(get(&dog, reg::WCV_HIGH), 2);
}

#[test]
fn the_offset_has_48_bits_and_identification_says_so() {
    let mut dog = Watchdog::new();
    let _ = dog.write(Control, reg::WOR_LOW, 8, u64::MAX, 0);
    assert_eq!(dog.read(Control, reg::WOR_LOW, 8).value, 0xffff_ffff_ffff);
    for frame in [Refresh, Control] {
        assert_eq!(dog.read(frame, reg::W_IIDR, 4).value, 0x1_043b);
    }
    assert_eq!(dog.read(Refresh, reg::WRR, 4).value, 0);
}

#[test]
fn narrow_and_misaligned_writes_are_ignored() {
    let mut dog = armed(100, 0);
    for (offset, width) in [(reg::WCS, 1), (reg::WCS, 2), (2, 4), (4, 8)] {
        let _ = dog.write(Control, offset, width, 0, 50);
    }
    let _ = dog.write(Refresh, reg::WRR, 1, 0, 50);
    assert_eq!(dog.next_deadline_ticks(), Some(101));
}

#[test]
fn the_end_of_time_does_not_wrap() {
    let mut dog = Watchdog::new();
    let _ = dog.write(Control, reg::WOR_LOW, 8, u64::MAX, 0);
    set(&mut dog, reg::WCS, 1, u64::MAX - 5);
    assert_eq!(dog.next_deadline_ticks(), None);
    assert_eq!(dog.expired(u64::MAX), Signal::None);
    // A first period that does end, and a second one that would end behind the end.
    let near = u64::MAX - 0xffff_ffff;
    let _ = dog.write(Control, reg::WCV_LOW, 8, near, 0);
    assert_eq!(dog.expired(u64::MAX), Signal::Ws0);
    assert_eq!(dog.next_deadline_ticks(), None);
}

#[test]
fn reset_disables() {
    let mut dog = armed(100, 0);
    dog.expired(101);
    assert_eq!(dog.reset().irq, Some(IrqLevel::Lowered));
    assert_eq!((get(&dog, reg::WCS), dog.next_deadline_ticks()), (0, None));
}

/// Linux's `sbsa_gwdt` with `action=0`: half of the timeout for each signal; probe, start,
/// keepalive, get_timeleft.
#[test]
fn a_driver_that_keeps_alive_is_left_alone_and_one_that_stops_is_noticed_in_time() {
    const HZ: u64 = 1_000_000_000;
    const TIMEOUT_S: u64 = 10;
    let mut dog = Watchdog::new();
    assert_eq!(
        get(&dog, reg::W_IIDR) >> 16 & 0xf,
        1,
        "version 1: WOR has 48 bits"
    );
    assert_eq!(
        get(&dog, reg::WCS) & 0b101,
        0,
        "not a restart by watchdog, not running"
    );
    let mut now = 77;
    let _ = dog.write(Control, reg::WOR_LOW, 8, HZ / 2 * TIMEOUT_S, now);
    set(&mut dog, reg::WCS, 1, now);
    for _ in 0..20 {
        now += 4 * HZ;
        assert_eq!(dog.expired(now), Signal::None);
        let _ = dog.write(Refresh, reg::WRR, 4, 0, now);
        let left = dog.read(Control, reg::WOR_LOW, 8).value
            + dog.read(Control, reg::WCV_LOW, 8).value
            - now;
        assert_eq!(left / HZ, TIMEOUT_S);
    }
    assert_eq!(dog.expired(now + TIMEOUT_S * HZ + 1), Signal::Ws0);
    assert_eq!(dog.expired(now + TIMEOUT_S * HZ + 2), Signal::Ws1);
}

proptest! {
    /// Looking often or seldom makes no difference to what was seen in the end.
    #[test]
    fn looks_in_between_change_nothing(
        period in 0..1000u32,
        looks in prop::collection::vec(0..3000u64, 0..20),
        end in 0..3000u64,
    ) {
        let mut often = armed(period, 0);
        let mut seldom = often;
        let mut looks = looks;
        looks.retain(|&at| at <= end);
        looks.sort_unstable();
        for at in looks {
            let due = often.next_deadline_ticks().is_some_and(|deadline| at >= deadline);
            prop_assert_eq!(often.expired(at) != Signal::None, due);
        }
        often.expired(end);
        seldom.expired(end);
        for offset in [reg::WCS, reg::WCV_LOW] {
            prop_assert_eq!(get(&often, offset), get(&seldom, offset));
        }
        let expected = u64::from(end > u64::from(period)) << 1
            | u64::from(end > 2 * u64::from(period) + 1) << 2 | 1;
        prop_assert_eq!(get(&often, reg::WCS), expected);
    }

    #[test]
    fn every_access_is_answered(
        accesses in prop::collection::vec(
            (any::<bool>(), 0..0x1000u64, prop::sample::select(vec![1u8, 2, 4, 8]), any::<u64>(), any::<u64>()),
            0..50,
        ),
    ) {
        let mut dog = Watchdog::new();
        for (refresh, offset, width, value, now) in accesses {
            let frame = if refresh { Refresh } else { Control };
            let _ = dog.write(frame, offset, width, value, now);
            dog.expired(now);
            let value = dog.read(frame, offset, width).value;
            prop_assert!(width == 8 || value >> (8 * width) == 0);
        }
    }
}
