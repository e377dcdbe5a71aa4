// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest can see of itself: its registers before a round and after it.

use firebreak_guest_rt::{println, read_sysreg, write_sysreg};

/// General registers and flags, as `rounds.S` loads and stores them.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Registers {
    /// x0 to x30.
    pub(crate) x: [u64; 31],
    /// SP while the round runs; found, never given. Another one than before, and the round could
    /// not return.
    pub(crate) sp: u64,
    /// NZCV, in bits 31 to 28.
    pub(crate) nzcv: u64,
    /// PSTATE.DAIF, in bits 9 to 6; found, never given.
    pub(crate) daif: u64,
}

// `rounds.S` counts on it.
const _: () = assert!(size_of::<Registers>() == 272);

/// All DAIF bits: a guest of this image never unmasks but to take a virtual SError.
const DAIF_MASKED: u64 = 0xf << 6;
/// `round_end` counts here how often it was reached.
const COUNTER: usize = 28;

/// Returns a word that differs for each register and each round.
pub(crate) fn pattern(round: u64, index: u64) -> u64 {
    let seed = (round << 8 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    seed ^ seed >> 29
}

impl Registers {
    /// Makes the patterns of a round.
    pub(crate) fn of(round: u64) -> Self {
        let mut x = [0; 31];
        for (index, register) in x.iter_mut().enumerate() {
            *register = pattern(round, index as u64);
        }
        Self {
            x,
            sp: 0,
            nzcv: (pattern(round, 40) & 0xf) << 28,
            daif: DAIF_MASKED,
        }
    }

    /// Compares what was found with what was given; registers in `outputs` (bit n: xn) may
    /// differ. Says each difference. Returns how many there are.
    pub(crate) fn compare(&self, given: &Self, outputs: u64, round: u64) -> u64 {
        let mut bad = 0;
        for (index, (found, given)) in self.x.iter().zip(&given.x).enumerate() {
            let wanted = if index == COUNTER {
                given.wrapping_add(1)
            } else {
                *given
            };
            if outputs >> index & 1 == 0 && *found != wanted {
                println!("sweep: bad round={round} x{index}={found:#x} wanted={wanted:#x}");
                bad += 1;
            }
        }
        for (name, found, wanted) in [
            ("nzcv", self.nzcv, given.nzcv),
            ("daif", self.daif, given.daif),
        ] {
            if found != wanted {
                println!("sweep: bad round={round} {name}={found:#x} wanted={wanted:#x}");
                bad += 1;
            }
        }
        bad
    }
}

macro_rules! system_registers {
    (free: $($free:literal)*, fixed: $($fixed:literal)*) => {
        const NAMES: &[&str] = &[$($free,)* $($fixed,)*];
        /// How many of them stand first that take any value.
        const FREE: usize = [$($free,)*].len();

        /// Reads them all.
        fn read_all(values: &mut [u64; NAMES.len()]) {
            for (slot, value) in values.iter_mut().zip([$(read_sysreg!($free),)* $(read_sysreg!($fixed),)*]) {
                *slot = value;
            }
        }

        /// Writes patterns to those in which any value may stand: with the MMU off, no exception
        /// under way and EL0 unused, nothing of this program depends on them.
        fn write_free(round: u64) {
            let mut index = 64;
            $(
                index += 1;
                write_sysreg!($free, pattern(round, index));
            )*
        }
    };
}

// The last of `fixed` are ICC_PMR_EL1, ICC_BPR1_EL1, ICC_CTLR_EL1 and ICC_IGRPEN1_EL1.
system_registers! {
    free: "tpidr_el0" "tpidr_el1" "tpidrro_el0" "contextidr_el1" "par_el1" "elr_el1" "spsr_el1"
        "esr_el1" "far_el1" "mair_el1" "ttbr0_el1" "ttbr1_el1" "sp_el0" "cntp_cval_el0",
    fixed: "amair_el1" "vbar_el1" "sctlr_el1" "tcr_el1" "cpacr_el1" "afsr0_el1" "afsr1_el1"
        "csselr_el1" "cntkctl_el1" "mdscr_el1" "cntp_ctl_el0" "SPSel" "CurrentEL"
        "s3_0_c4_c6_0" "s3_0_c12_c12_3" "s3_0_c12_c12_4" "s3_0_c12_c12_7"
}

/// Values of the system registers.
#[derive(Clone, Copy)]
pub(crate) struct System([u64; NAMES.len()]);

impl System {
    /// Writes patterns, and returns what is in the registers then.
    pub(crate) fn scramble(round: u64) -> Self {
        write_free(round);
        Self::read()
    }

    /// Reads the registers.
    pub(crate) fn read() -> Self {
        let mut values = [0; NAMES.len()];
        read_all(&mut values);
        Self(values)
    }

    /// Returns the same behind an exception that was taken, of which `found` has the registers.
    pub(crate) fn after_exception(mut self, found: &Self) -> Self {
        for (index, name) in NAMES.iter().enumerate() {
            if matches!(*name, "elr_el1" | "spsr_el1" | "esr_el1" | "far_el1") {
                self.0[index] = found.0[index];
            }
        }
        self
    }

    /// Says which registers of those that take any value do not hold what a new life of a vCPU
    /// begins with, 0. Returns how many there are.
    pub(crate) fn compare_with_reset(&self, round: u64) -> u64 {
        let mut bad = 0;
        for (name, found) in NAMES.iter().zip(&self.0).take(FREE) {
            if *found != 0 {
                println!("sweep: bad round={round} at-reset {name}={found:#x} wanted=0x0");
                bad += 1;
            }
        }
        bad
    }

    /// Compares, says each difference, and returns how many there are.
    pub(crate) fn compare(&self, given: &Self, round: u64) -> u64 {
        let mut bad = 0;
        for ((name, found), wanted) in NAMES.iter().zip(&self.0).zip(&given.0) {
            if found != wanted {
                println!("sweep: bad round={round} {name}={found:#x} wanted={wanted:#x}");
                bad += 1;
            }
        }
        bad
    }
}
