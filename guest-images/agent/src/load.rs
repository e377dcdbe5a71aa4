// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child that keeps the CPU where an error is to hit it.

use crate::{say, sys};
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicI32, Ordering};

/// What one read asks the kernel to clear: long enough that entering it hardly counts.
const READ_BYTES: usize = 8 << 20;

/// The child, or 0.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// Where the child spends its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// In user space: EL0.
    User,
    /// In the kernel on the child's behalf: EL1.
    Kernel,
}

/// Starts a child of that kind, in the place of one that runs.
pub(crate) fn start(kind: Kind) -> io::Result<()> {
    stop();
    let child = sys::spawn(match kind {
        Kind::User => spin,
        Kind::Kernel => read,
    })?;
    CHILD.store(child, Ordering::Relaxed);
    Ok(())
}

/// Ends the child, if there is one.
pub(crate) fn stop() {
    let child = CHILD.swap(0, Ordering::Relaxed);
    if child > 0 {
        sys::kill(child);
    }
}

fn spin() -> ! {
    say("child spins in user space");
    loop {
        std::hint::spin_loop();
    }
}

fn read() -> ! {
    let mut bytes = vec![0; READ_BYTES];
    let mut zeros = match File::open("/dev/zero") {
        Ok(file) => file,
        Err(_) => std::process::exit(1),
    };
    say("child spins in the kernel");
    while zeros.read_exact(&mut bytes).is_ok() {}
    std::process::exit(2)
}
