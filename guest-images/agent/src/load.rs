// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody who keeps the CPU where an error is to hit it: a child, or the first process itself.
//! Nothing is printed meanwhile: an error that hits the console's driver would leave nobody to
//! tell of it. Each is in user space now and then, which shows that it is done with printing.

use crate::{say, sys};
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// What one read asks the kernel to clear: long enough that entering it hardly counts.
const READ_BYTES: usize = 8 << 20;

/// How long the first process stays in the kernel.
const FIRST_STAYS: Duration = Duration::from_secs(10);

/// Turns of a loop: a fraction of what one read takes, and of a nap. Enough of them for who looks
/// every 50 us for a guest in user space to come by.
const BETWEEN_READS: u32 = 50_000;
const BETWEEN_NAPS: u32 = 5_000;
/// How long the kernel is left idle, each time.
const NAP: Duration = Duration::from_millis(20);

/// The child, or 0.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// Where the time is spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// In user space: EL0.
    User,
    /// In the kernel on the child's behalf: EL1.
    Kernel,
    /// On the way into the kernel and out again, where SError is masked.
    Calls,
    /// In the kernel's idle loop.
    Idle,
    /// In the kernel on behalf of the first process, which is this one.
    First,
}

/// Starts a child of that kind, in the place of one that runs.
pub(crate) fn start(kind: Kind) -> io::Result<()> {
    stop();
    let child = match kind {
        Kind::User => sys::spawn(spin)?,
        Kind::Kernel => sys::spawn(read)?,
        Kind::Calls => sys::spawn(call)?,
        Kind::Idle => sys::spawn(nap)?,
        Kind::First => return first(),
    };
    CHILD.store(child, Ordering::Relaxed);
    Ok(())
}

/// Says whether beats are to wait.
pub(crate) fn is_quiet() -> bool {
    CHILD.load(Ordering::Relaxed) != 0
}

/// A child has ended by itself: beats go on, if it was this one.
pub(crate) fn ended(child: i32) {
    let _ = CHILD.compare_exchange(child, 0, Ordering::Relaxed, Ordering::Relaxed);
}

/// Ends the child, if there is one.
pub(crate) fn stop() {
    let child = CHILD.swap(0, Ordering::Relaxed);
    if child > 0 {
        sys::kill(child);
    }
}

/// Says where it spins, so that the tables that lead there can be found.
fn spin() -> ! {
    let at = (spin as fn() -> !) as usize;
    say(&format!("child spins in user space at={at:#x}"));
    loop {
        std::hint::spin_loop();
    }
}

fn read() -> ! {
    let failed = read_while("child spins in the kernel", || true).is_err();
    std::process::exit(i32::from(failed))
}

/// Makes the kernel clear memory, after saying so, as long as `wanted`.
fn read_while(saying: &str, wanted: impl Fn() -> bool) -> io::Result<()> {
    let mut bytes = vec![0; READ_BYTES];
    let mut zeros = File::open("/dev/zero")?;
    // The memory is there from now on: there are no page faults on the way.
    zeros.read_exact(&mut bytes)?;
    say(saying);
    while wanted() {
        spin_shortly(BETWEEN_READS);
        zeros.read_exact(&mut bytes)?;
    }
    Ok(())
}

fn spin_shortly(turns: u32) {
    for _ in 0..turns {
        std::hint::spin_loop();
    }
}

fn nap() -> ! {
    say("child naps");
    loop {
        spin_shortly(BETWEEN_NAPS);
        std::thread::sleep(NAP);
    }
}

fn call() -> ! {
    say("child calls the kernel");
    loop {
        std::hint::black_box(std::os::unix::process::parent_id());
    }
}

/// Everything else waits until it is over.
fn first() -> io::Result<()> {
    let end = Instant::now() + FIRST_STAYS;
    read_while("init spins in the kernel", || Instant::now() < end)?;
    say("init rests");
    Ok(())
}
