// SPDX-License-Identifier: MIT OR Apache-2.0
//! The five pages, the ways to touch them, and the translation tables that one of them is.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

use firebreak_guest_rt::write_sysreg;

/// A way to touch memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// LDR.
    Load,
    /// STR.
    Store,
    /// LDADD.
    Atomic,
    /// A branch to the page.
    Fetch,
    /// A load through a translation table that the page is.
    Walk,
}

impl Way {
    /// All of them, in the order of a round.
    pub(crate) const ALL: [Self; 5] = [
        Self::Load,
        Self::Store,
        Self::Atomic,
        Self::Fetch,
        Self::Walk,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Store => "store",
            Self::Atomic => "atomic",
            Self::Fetch => "fetch",
            Self::Walk => "walk",
        }
    }
}

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; 512]>);

// SAFETY: reached by the assembly below, and by `map` before the MMU is on; one vCPU.
unsafe impl Sync for Page {}

static STORE: Page = Page(UnsafeCell::new([0; 512]));
static ATOMIC: Page = Page(UnsafeCell::new([0; 512]));
static LEVEL_1: Page = Page(UnsafeCell::new([0; 512]));
static LEVEL_2: Page = Page(UnsafeCell::new([0; 512]));

// A page of code: it returns at once.
global_asm!(
    ".pushsection .text.touch, \"ax\"",
    ".balign 4096",
    "touch_code:",
    "ret",
    ".balign 4096",
    ".popsection",
);

unsafe extern "C" {
    static touch_code: u8;
}

/// The page that is loaded from: RAM behind the image, so that a guest that is started again
/// without it has lost nothing.
const LOAD: u64 = 0x4080_0000;

/// Returns the address of the page that is touched this way; virtual and IPA are the same.
pub(crate) fn page(way: Way) -> u64 {
    let pointer = match way {
        Way::Load => return LOAD,
        Way::Store => STORE.0.get(),
        Way::Atomic => ATOMIC.0.get(),
        Way::Fetch => return (&raw const touch_code).addr() as u64,
        Way::Walk => LEVEL_2.0.get(),
    };
    pointer.addr() as u64
}

/// First address that level 2 translates: the third GiB.
const WINDOW: u64 = 2 << 30;
/// The block behind it: the one that this guest lies in.
const WINDOW_TARGET: u64 = 0x4020_0000;
const BLOCK: u64 = 1;
const TABLE: u64 = 3;
const NORMAL: u64 = 1 << 2;
const INNER: u64 = 3 << 8;
const ACCESSED: u64 = 1 << 10;
const NEVER_EXECUTE: u64 = 3 << 53;
/// Attribute 0 Device-nGnRnE, attribute 1 Normal write-back.
const MAIR: u64 = 0xff00;
/// 39 bits in the lower half, no upper half, write-back walks, 40 bits of output.
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 0b010 << 32;
/// SCTLR_EL1: RES1 bits, instruction and data caches, MMU.
const SCTLR: u64 = 0x30d0_0800 | 1 << 12 | 1 << 2 | 1;

/// Turns the MMU on: memory where it is, and once more from [`WINDOW`] on.
pub(crate) fn map() {
    let put = |table: &Page, index: usize, descriptor: u64| {
        let word = table.0.get().cast::<u64>().wrapping_add(index & 511);
        // SAFETY: a word of the table, and nothing else runs yet.
        unsafe { word.write_volatile(descriptor) }
    };
    let memory = BLOCK | NORMAL | INNER | ACCESSED;
    put(&LEVEL_1, 0, BLOCK | ACCESSED | NEVER_EXECUTE);
    put(&LEVEL_1, 1, 1 << 30 | memory);
    put(&LEVEL_1, 2, page(Way::Walk) | TABLE);
    put(&LEVEL_2, 0, WINDOW_TARGET | memory | NEVER_EXECUTE);
    write_sysreg!("mair_el1", MAIR);
    write_sysreg!("tcr_el1", TCR);
    write_sysreg!("ttbr0_el1", LEVEL_1.0.get().addr() as u64);
    // SAFETY: there is nothing in the TLBs that is still needed.
    unsafe { asm!("dsb sy", "tlbi vmalle1", "dsb sy", "isb", options(nostack)) };
    // Everything that is in use keeps its address.
    write_sysreg!("sctlr_el1", SCTLR);
}

/// Touches memory in one way. When the access aborts, the handler goes on behind it, and after a
/// fetch where the code would have returned to.
pub(crate) fn touch(way: Way) {
    let address = page(way);
    match way {
        // SAFETY: an aligned word of RAM that is nobody's.
        Way::Load => unsafe {
            asm!("ldr {word}, [{address}, #8]", word = out(reg) _, address = in(reg) address,
                options(nostack, preserves_flags));
        },
        // SAFETY: an aligned word of `STORE`.
        Way::Store => unsafe {
            asm!("str {address}, [{address}, #16]", address = in(reg) address,
                options(nostack, preserves_flags));
        },
        // SAFETY: an aligned word of `ATOMIC`.
        Way::Atomic => unsafe {
            asm!(".arch_extension lse", "ldadd {word}, {old}, [{address}]",
                word = in(reg) 1_u64, old = out(reg) _, address = in(reg) address,
                options(nostack, preserves_flags));
        },
        // SAFETY: the page holds one RET.
        Way::Fetch => unsafe {
            asm!("blr {address}", address = in(reg) address, out("x30") _,
                options(nostack, preserves_flags));
        },
        // SAFETY: an aligned word of this guest's image, behind a translation that is looked up.
        Way::Walk => unsafe {
            asm!("dsb ish", "tlbi vmalle1", "dsb ish", "isb", "ldr {word}, [{address}]",
                word = out(reg) _, address = in(reg) WINDOW,
                options(nostack, preserves_flags));
        },
    }
}
