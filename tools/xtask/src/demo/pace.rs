// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lets a second of the machine last a second of the person who looks at it.
//!
//! With `-icount sleep=off` an idle machine's time runs ahead of the host's. Letting QEMU sleep
//! instead would make the control guest miss ticks for which nobody in the machine is to blame.
//! So the machine runs as it does, and its time is stopped whenever it is ahead.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use firebreak_qemu::{Clock, Error};

/// What the pacer hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    /// The control guest reported so many ticks of a millisecond.
    Ticks(u64),
    /// Somebody typed: the machine must not be asleep over it.
    Key,
    /// The interactive session begins: from now on time is watched.
    Begin,
}

/// How far machine and host have come since both were last compared.
#[derive(Clone, Copy, Debug)]
struct Origin {
    ticks: u64,
    at: Instant,
}

impl Origin {
    /// Returns how far the machine is ahead, or `None` when it started to count anew.
    fn ahead(self, ticks: u64, now: Instant) -> Option<Duration> {
        let machine = Duration::from_millis(ticks.checked_sub(self.ticks)?);
        Some(machine.saturating_sub(now.duration_since(self.at)))
    }
}

/// Stops and continues the clock until nobody sends any more.
pub(super) fn run(mut clock: Clock, signs: &Receiver<Sign>) -> Result<(), Error> {
    let mut origin: Option<Origin> = None;
    let mut watching = false;
    while let Ok(sign) = signs.recv() {
        let ticks = match sign {
            Sign::Ticks(ticks) if watching => ticks,
            Sign::Begin => {
                watching = true;
                continue;
            }
            Sign::Ticks(_) | Sign::Key => continue,
        };
        let now = Instant::now();
        let Some(ahead) = origin.and_then(|origin| origin.ahead(ticks, now)) else {
            origin = Some(Origin { ticks, at: now });
            continue;
        };
        if ahead.is_zero() {
            continue;
        }
        clock.stop()?;
        let ended = rest(signs, ahead);
        clock.go_on()?;
        if ended {
            break;
        }
    }
    Ok(())
}

/// Waits that long, or until a key is typed; says whether nobody sends any more.
fn rest(signs: &Receiver<Sign>, ahead: Duration) -> bool {
    let end = Instant::now() + ahead;
    loop {
        match signs.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Sign::Key) | Err(RecvTimeoutError::Timeout) => return false,
            Err(RecvTimeoutError::Disconnected) => return true,
            // What was on its way when the clock was stopped.
            Ok(Sign::Ticks(_) | Sign::Begin) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_ahead_by_its_ticks_less_the_hosts_time() {
        let origin = Origin {
            ticks: 1000,
            at: Instant::now(),
        };
        let later = origin.at + Duration::from_millis(300);
        assert_eq!(origin.ahead(2000, later), Some(Duration::from_millis(700)));
        assert_eq!(origin.ahead(1100, later), Some(Duration::ZERO));
        assert_eq!(origin.ahead(500, later), None);
    }
}
