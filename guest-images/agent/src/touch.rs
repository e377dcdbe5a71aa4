// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that has a page to lose: it names the page, and reads it ten times a second.
//!
//! Its address is what the kernel believes to be physical, from `/proc/self/pagemap`.

use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

const PAGE_BYTES: u64 = 4096;
/// Pages to choose from.
const PAGES: usize = 2048;
const TURN: Duration = Duration::from_millis(100);
/// Page frame number in an entry of the page map; it is 0 for who may not know.
const PFN: u64 = (1 << 55) - 1;
/// Argument that makes this program that process.
const ARGUMENT: &str = "touch";

/// Says whether this program was started to be that process.
pub(crate) fn is_wanted() -> bool {
    std::env::args().nth(1).as_deref() == Some(ARGUMENT)
}

/// Starts the process.
pub(crate) fn start() -> io::Result<()> {
    Command::new("/proc/self/exe")
        .arg(ARGUMENT)
        .spawn()
        .map(drop)
}

/// Is the process: returns only when it cannot find out where its page is.
pub(crate) fn run() -> io::Result<()> {
    let memory = vec![0x5a_u8; PAGES * PAGE_BYTES as usize];
    let start = memory.as_ptr().addr() as u64;
    let first = start.next_multiple_of(PAGE_BYTES);
    let pages = (1..PAGES as u64).map(|page| first + (page - 1) * PAGE_BYTES);
    let frames = pages.map(|page| frame_of(page).map(|ipa| (ipa, page)));
    let mut frames = frames.collect::<io::Result<Vec<_>>>()?;
    // The middle one: what the kernel was loaded to, and gave back, is at the ends of memory, and
    // a machine that has lost such a page cannot be loaded again.
    frames.sort_unstable();
    let Some(&(ipa, page)) = frames.get(frames.len() / 2) else {
        return Err(io::Error::other("no page"));
    };
    crate::say(&format!("touch page={ipa:#x}"));
    let index = (page - start) as usize;
    loop {
        let memory: &[u8] = black_box(&memory);
        black_box(memory.get(index).copied());
        std::thread::sleep(TURN);
    }
}

fn frame_of(address: u64) -> io::Result<u64> {
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, address / PAGE_BYTES * 8)?;
    let frame = u64::from_le_bytes(entry) & PFN;
    if frame == 0 {
        return Err(io::Error::other("the kernel does not name the page"));
    }
    Ok(frame * PAGE_BYTES)
}
