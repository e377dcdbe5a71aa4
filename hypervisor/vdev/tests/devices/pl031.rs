// SPDX-License-Identifier: MIT OR Apache-2.0
//! PL031: the time, setting it, and the alarm.

use firebreak_vdev::pl031::reg;
use firebreak_vdev::{IrqLevel, Pl031};

fn get(rtc: &mut Pl031, offset: u64, now_s: u64) -> u64 {
    rtc.read(offset, 4, now_s).value
}

#[test]
fn identification_is_that_of_an_arm_pl031() {
    let mut rtc = Pl031::new(0);
    let bytes: Vec<u64> = (0..8).map(|n| get(&mut rtc, 0xfe0 + 4 * n, 0)).collect();
    assert_eq!(bytes, [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn time_runs_from_the_epoch_and_from_where_it_is_set() {
    let mut rtc = Pl031::new(1_000_000);
    assert_eq!(get(&mut rtc, reg::DR, 0), 1_000_000);
    assert_eq!(get(&mut rtc, reg::DR, 25), 1_000_025);
    assert_eq!(get(&mut rtc, reg::CR, 25), 1);
    let _ = rtc.write(reg::LR, 4, 5, 30);
    assert_eq!(get(&mut rtc, reg::LR, 40), 5);
    assert_eq!(get(&mut rtc, reg::DR, 40), 15);
    let _ = rtc.write(reg::LR, 4, 0xffff_ffff, 50);
    assert_eq!(get(&mut rtc, reg::DR, 51), 0, "32 bits wrap");
}

#[test]
fn the_alarm_goes_off_at_its_second_and_is_cleared_by_hand() {
    let mut rtc = Pl031::new(100);
    let _ = rtc.write(reg::MR, 4, 110, 0);
    assert_eq!(rtc.next_alarm_s(), None, "masked");
    let _ = rtc.write(reg::IMSC, 4, 1, 0);
    assert_eq!(rtc.next_alarm_s(), Some(10));
    assert_eq!(rtc.advance(9), None);
    assert_eq!(rtc.advance(10), Some(IrqLevel::Raised));
    assert_eq!(rtc.advance(11), None);
    assert_eq!(rtc.next_alarm_s(), None);
    assert_eq!(
        (get(&mut rtc, reg::RIS, 11), get(&mut rtc, reg::MIS, 11)),
        (1, 1)
    );
    assert_eq!(rtc.write(reg::ICR, 4, 1, 12).irq, Some(IrqLevel::Lowered));
    assert_eq!(get(&mut rtc, reg::RIS, 12), 0);
}

#[test]
fn a_read_notices_an_alarm_that_went_off_meanwhile() {
    let mut rtc = Pl031::new(0);
    let _ = rtc.write(reg::IMSC, 4, 1, 1);
    assert_eq!(rtc.write(reg::MR, 4, 7, 1).irq, None);
    let read = rtc.read(reg::MIS, 4, 8);
    assert_eq!((read.value, read.irq), (1, Some(IrqLevel::Raised)));
}

#[test]
fn a_masked_alarm_is_seen_when_it_is_unmasked() {
    let mut rtc = Pl031::new(0);
    let _ = rtc.write(reg::MR, 4, 5, 0);
    assert_eq!(rtc.advance(6), None);
    assert_eq!(
        (get(&mut rtc, reg::RIS, 6), get(&mut rtc, reg::MIS, 6)),
        (1, 0)
    );
    assert_eq!(rtc.write(reg::IMSC, 4, 1, 7).irq, Some(IrqLevel::Raised));
    assert_eq!(rtc.write(reg::IMSC, 4, 0, 7).irq, Some(IrqLevel::Lowered));
}

#[test]
fn an_alarm_in_the_past_waits_for_the_clock_to_come_round() {
    let mut rtc = Pl031::new(10);
    let _ = rtc.write(reg::IMSC, 4, 1, 0);
    assert_eq!(
        rtc.write(reg::MR, 4, 10, 0).irq,
        Some(IrqLevel::Raised),
        "now is not the past"
    );
    let _ = rtc.write(reg::ICR, 4, 1, 0);
    let _ = rtc.write(reg::MR, 4, 9, 0);
    assert_eq!(rtc.next_alarm_s(), Some(0xffff_ffff));
}

#[test]
fn raised_and_cleared_by_one_write_is_no_change() {
    let mut rtc = Pl031::new(0);
    let _ = rtc.write(reg::IMSC, 4, 1, 0);
    let _ = rtc.write(reg::MR, 4, 5, 0);
    assert_eq!(rtc.write(reg::ICR, 4, 1, 9).irq, None);
    assert_eq!(get(&mut rtc, reg::MIS, 9), 0);
}

#[test]
fn reset_takes_the_alarm_back_and_keeps_the_time() {
    let mut rtc = Pl031::new(0);
    let _ = rtc.write(reg::LR, 4, 1000, 0);
    let _ = rtc.write(reg::IMSC, 4, 1, 0);
    let _ = rtc.write(reg::MR, 4, 1000, 0);
    assert_eq!(rtc.reset().irq, Some(IrqLevel::Lowered));
    assert_eq!(
        (get(&mut rtc, reg::IMSC, 5), get(&mut rtc, reg::RIS, 5)),
        (0, 0)
    );
    assert_eq!(
        (get(&mut rtc, reg::DR, 5), rtc.next_alarm_s()),
        (1005, None)
    );
}

#[test]
fn every_offset_and_width_is_answered() {
    let mut rtc = Pl031::new(0);
    for offset in 0..0x1000 {
        for width in [1, 2, 4, 8] {
            let _ = rtc.write(offset, width, u64::MAX, offset);
            let value = rtc.read(offset, width, u64::MAX).value;
            assert!(
                width == 8 || value >> (8 * width) == 0,
                "{offset:#x}/{width}: {value:#x}"
            );
        }
    }
}
