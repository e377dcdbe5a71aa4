// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lateness of the last few ticks, for whoever wants to know it phase by phase.

use firebreak_guest_rt::cell::Cell64;
use firebreak_guest_rt::{mmio, println};

/// The longest window, in ticks.
const MOST: usize = 64;
/// What stands on the command line.
const WORD: &[u8] = b"window=";
/// Offset of the length in a devicetree's header, and the most of it that is searched.
const TOTAL_SIZE: u64 = 4;
const MOST_BYTES: u32 = 0x1_0000;

/// Ticks of a window; 0 if none is wanted.
static LENGTH: Cell64 = Cell64::new(0);
/// Ticks that are in it: the handler writes them, `report` empties it.
static COUNT: Cell64 = Cell64::new(0);
static LATE: [Cell64; MOST] = [const { Cell64::new(0) }; MOST];

fn byte(ipa: u64) -> u8 {
    let word = mmio::read32(ipa & !3);
    (word >> (8 * (ipa & 3))) as u8
}

/// Looks for the length in the devicetree: the word stands in `bootargs` alone.
pub(crate) fn choose(dtb_ipa: u64) {
    let len = u32::from_be(mmio::read32(dtb_ipa + TOTAL_SIZE)).min(MOST_BYTES);
    let end = dtb_ipa + u64::from(len);
    let found = (dtb_ipa..end).find(|at| {
        let mut word = WORD.iter().zip(*at..end);
        word.all(|(wanted, at)| byte(at) == *wanted)
    });
    let Some(at) = found else { return };
    let digits = (at + WORD.len() as u64..end).map(byte);
    let number = digits
        .take_while(u8::is_ascii_digit)
        .fold(0, |number: u64, digit| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        });
    LENGTH.set(number.min(MOST as u64));
}

/// Notes a tick; those behind a full window are left out. By the handler.
pub(crate) fn note(late_ticks: u64) {
    if !is_full()
        && let Some(slot) = LATE.get(COUNT.get() as usize)
    {
        slot.set(late_ticks);
        COUNT.add(1);
    }
}

/// Says whether there is something to report.
pub(crate) fn is_full() -> bool {
    LENGTH.get() != 0 && COUNT.get() >= LENGTH.get()
}

/// Sums a full window up, and begins the next.
pub(crate) fn report() {
    if !is_full() {
        return;
    }
    let len = (COUNT.get() as usize).min(MOST);
    let mut late = [0; MOST];
    for (to, from) in late.iter_mut().zip(&LATE) {
        *to = from.get();
    }
    let Some(late) = late.get_mut(..len) else {
        return;
    };
    COUNT.set(0);
    late.sort_unstable();
    if let (Some(min), Some(median), Some(max)) = (late.first(), late.get(len / 2), late.last()) {
        println!("control: window n={len} min={min} median={median} max={max}");
    }
}
