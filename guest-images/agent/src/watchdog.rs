// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's watchdog, driven by Linux's own driver.
//!
//! Debian builds it as modules (`watchdog.ko`, then `sbsa_gwdt.ko`); the initramfs has them in
//! [`MODULE_DIR`]. Once open, the device expires when it is not written for its timeout: that is
//! how the hypervisor notices a silent Linux.

use crate::sys;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Where the initramfs has kernel modules. Loaded in this order; a missing file is passed over.
pub(crate) const MODULE_DIR: &str = "/lib/modules";
const MODULES: [&str; 2] = ["watchdog.ko", "sbsa_gwdt.ko"];
/// Seconds without a refresh until the watchdog expires, when the command line does not say.
pub(crate) const DEFAULT_TIMEOUT_S: i32 = 4;

/// An open watchdog.
pub(crate) struct Watchdog {
    device: File,
    /// Seconds until it expires, as the driver chose.
    pub(crate) timeout_s: i32,
}

impl Watchdog {
    /// Loads the drivers and opens the device. Errors name what failed; the agent then goes on
    /// without a watchdog.
    pub(crate) fn open(timeout_s: i32) -> io::Result<Self> {
        for name in MODULES {
            let path = Path::new(MODULE_DIR).join(name);
            if let Ok(file) = File::open(&path) {
                sys::load_module(&file)
                    .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
            }
        }
        let device = OpenOptions::new()
            .write(true)
            .open("/dev/watchdog")
            .map_err(|error| io::Error::other(format!("/dev/watchdog: {error}")))?;
        let timeout_s = sys::set_watchdog_timeout(&device, timeout_s)?;
        Ok(Self { device, timeout_s })
    }

    /// Refreshes it.
    pub(crate) fn refresh(&mut self) {
        // A failed refresh is what the watchdog exists for: it will expire, and that is seen.
        let _ = self.device.write_all(b"\n");
    }
}
