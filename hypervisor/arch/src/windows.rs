// SPDX-License-Identifier: MIT OR Apache-2.0
//! The declared windows of `vectors.S`, by address.

/// A stretch of EL2 code: from its first instruction up to, not including, `end`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Name as in the linker symbols `firebreak_window_NAME_start` and `_end`.
    pub name: &'static str,
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

impl Window {
    /// Says whether `address` lies inside.
    #[inline]
    pub fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end
    }
}

macro_rules! window {
    ($(#[$doc:meta])* $function:ident, $name:literal, $start:ident, $end:ident) => {
        $(#[$doc])*
        #[inline]
        pub fn $function() -> Window {
            unsafe extern "C" {
                static $start: u8;
                static $end: u8;
            }
            Window {
                name: $name,
                start: (&raw const $start).addr() as u64,
                end: (&raw const $end).addr() as u64,
            }
        }
    };
}

window!(
    /// Guest entry: restartable, unmasked through ERET.
    exit, "exit", firebreak_window_exit_start, firebreak_window_exit_end
);
window!(
    /// Entry by a synchronous exception of a guest.
    entry_sync, "entry_sync", firebreak_window_entry_sync_start, firebreak_window_entry_sync_end
);
window!(
    /// Entry by a physical interrupt.
    entry_irq, "entry_irq", firebreak_window_entry_irq_start, firebreak_window_entry_irq_end
);
window!(
    /// Entry by an SEI that interrupted a guest, up to where its handler is done.
    entry_serror, "entry_serror", firebreak_window_entry_serror_start,
    firebreak_window_entry_serror_end
);
window!(
    /// The SEI path from EL2 itself.
    sei, "sei", firebreak_window_sei_start, firebreak_window_sei_end
);
window!(
    /// A write to a guest's memory, which an SEA ends: see [`guest_write_failed`].
    guest_write, "guest_write", firebreak_guest_write_start, firebreak_guest_write_end
);

/// Where EL2 goes on after an SEA in [`guest_write`]: it returns to the caller, with the news.
pub fn guest_write_failed() -> u64 {
    unsafe extern "C" {
        static firebreak_guest_write_failed: u8;
    }
    (&raw const firebreak_guest_write_failed).addr() as u64
}

window!(
    /// A PE's wait for work: restartable like the exit.
    idle, "idle", firebreak_window_idle_start, firebreak_window_idle_end
);
