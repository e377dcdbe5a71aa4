// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that has a page to lose: it names the page, and reads it ten times a second. The page is
//! of its heap, or one of its program, which the kernel has in its page cache.
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
/// A page of the program's file that nobody else reads.
#[repr(align(4096))]
struct Filed([u8; PAGE_BYTES as usize]);
static FILED: Filed = Filed([0x5a; PAGE_BYTES as usize]);

/// Where the page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// In the process's heap.
    Heap,
    /// In the page cache.
    Cache,
}

impl Kind {
    /// Argument that makes this program that process.
    const fn argument(self) -> &'static str {
        match self {
            Self::Heap => "touch",
            Self::Cache => "touch-cache",
        }
    }

    /// Says whether this program was started to be that process, and with which page.
    pub(crate) fn wanted() -> Option<Self> {
        let argument = std::env::args().nth(1)?;
        [Self::Heap, Self::Cache]
            .into_iter()
            .find(|kind| kind.argument() == argument)
    }
}

/// Starts the process.
pub(crate) fn start(kind: Kind) -> io::Result<()> {
    Command::new("/proc/self/exe")
        .arg(kind.argument())
        .spawn()
        .map(drop)
}

/// Is the process: returns only when it cannot find out where its page is.
pub(crate) fn run(kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Heap => heap(),
        Kind::Cache => {
            let page = black_box(&FILED.0);
            // Only a page that was read is there.
            black_box(page.first().copied());
            let ipa = frame_of(page.as_ptr().addr() as u64)?;
            touch(page, 0, ipa)
        }
    }
}

fn heap() -> io::Result<()> {
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
    touch(&memory, (page - start) as usize, ipa)
}

fn touch(memory: &[u8], index: usize, ipa: u64) -> ! {
    crate::say(&format!("touch page={ipa:#x}"));
    loop {
        let memory: &[u8] = black_box(memory);
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
