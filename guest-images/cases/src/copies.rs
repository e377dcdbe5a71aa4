// SPDX-License-Identifier: MIT OR Apache-2.0
//! EL2's own `memcpy`, `memmove` and `memset`, tried where the MMU is off: an access that is not
//! aligned to its size is a fault here, as it is at EL2 before its map stands.

use core::arch::global_asm;
use core::hint::black_box;
use firebreak_guest_rt::println;

// Takes the place of the compiler's in this whole guest.
global_asm!(include_str!("../../../hypervisor/arch/src/mem.S"));

unsafe extern "C" {
    fn memcpy(target: *mut u8, source: *const u8, len: usize) -> *mut u8;
    fn memmove(target: *mut u8, source: *const u8, len: usize) -> *mut u8;
    fn memset(target: *mut u8, byte: i32, len: usize) -> *mut u8;
}

const ROOM: usize = 256;
const OFFSETS: usize = 16;
const LONGEST: usize = 100;
/// The same for more than one turn of the loops that move 64 bytes.
const LONGER: [usize; 8] = [127, 128, 129, 191, 192, 193, 200, 239];

fn pattern(index: usize) -> u8 {
    (index * 7 + 3) as u8
}

/// Fills the buffer byte by byte; `black_box` keeps the compiler from calling `memset`.
fn fill(buffer: &mut [u8; ROOM], byte: impl Fn(usize) -> u8) {
    for (index, slot) in buffer.iter_mut().enumerate() {
        *slot = black_box(byte(index));
    }
}

/// Counts bytes that are not as wanted.
fn wrong(buffer: &[u8; ROOM], wanted: impl Fn(usize) -> u8) -> usize {
    let bytes = buffer.iter().enumerate();
    bytes.filter(|(at, byte)| **byte != wanted(*at)).count()
}

fn copy_once(target: usize, source: usize, len: usize) -> usize {
    let (mut from, mut to) = ([0; ROOM], [0; ROOM]);
    fill(&mut from, pattern);
    fill(&mut to, |_| 0xee);
    let start = to.as_mut_ptr().wrapping_add(target);
    // SAFETY: offsets and length together stay inside of both buffers.
    let result = unsafe { memcpy(start, from.as_ptr().wrapping_add(source), len) };
    let inside = |at: usize| (target..target + len).contains(&at);
    wrong(&to, |at| {
        if inside(at) {
            pattern(at - target + source)
        } else {
            0xee
        }
    }) + usize::from(result != start)
}

fn move_once(target: usize, source: usize, len: usize) -> usize {
    let mut room = [0; ROOM];
    fill(&mut room, pattern);
    let start = room.as_mut_ptr();
    // SAFETY: both ranges lie inside of the buffer; that they overlap is the point.
    let result = unsafe { memmove(start.wrapping_add(target), start.wrapping_add(source), len) };
    let returned_target = result == start.wrapping_add(target);
    wrong(&room, |at| {
        if (target..target + len).contains(&at) {
            pattern(at - target + source)
        } else {
            pattern(at)
        }
    }) + usize::from(!returned_target)
}

fn set_once(target: usize, len: usize) -> usize {
    let mut room = [0; ROOM];
    fill(&mut room, pattern);
    let start = room.as_mut_ptr().wrapping_add(target);
    // SAFETY: the range lies inside of the buffer. Only the byte's low eight bits count.
    let result = unsafe { memset(start, 0x1a5, len) };
    wrong(&room, |at| {
        if (target..target + len).contains(&at) {
            0xa5
        } else {
            pattern(at)
        }
    }) + usize::from(result != start)
}

/// Tries every pair of alignments with every length.
pub(crate) fn run() {
    let (mut tried, mut bad) = (0, 0);
    for len in (0..=LONGEST).chain(LONGER) {
        for target in 0..OFFSETS {
            for source in 0..OFFSETS {
                bad += copy_once(target, source, len) + move_once(target, source, len);
                tried += 2;
            }
            bad += set_once(target, len);
            tried += 1;
        }
    }
    println!("cases: copies tried={tried} bad={bad}");
}
