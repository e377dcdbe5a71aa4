// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a partition that stopped comes back.

use core::fmt;

/// Why a partition stopped running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopCause {
    /// It asked to be turned off (SYSTEM_OFF), or its last vCPU turned itself off.
    Off,
    /// It asked for a reset (SYSTEM_RESET, SYSTEM_RESET2).
    Reset,
    /// It stopped refreshing its watchdog.
    Silence,
    /// An error, or a context that was lost, killed it.
    Killed,
    /// An error killed it, and its policy for that class of error says to restart it.
    KilledForRestart,
    /// A person or a program asked for it.
    Asked,
    /// A person or a program asked for a restart.
    AskedForRestart,
}

impl StopCause {
    /// Returns the word that events carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Reset => "reset",
            Self::Silence => "silence",
            Self::Killed | Self::KilledForRestart => "killed",
            Self::Asked | Self::AskedForRestart => "asked",
        }
    }

    /// Says whether this cause, named while a partition stops for an `earlier` one, takes its
    /// place: who keeps it down has a better claim than who starts it again, an error a better one
    /// than the guest, and a person the best.
    pub const fn outranks(self, earlier: Self) -> bool {
        self.rank() > earlier.rank()
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Reset | Self::Silence | Self::KilledForRestart | Self::AskedForRestart => 0,
            Self::Off => 1,
            Self::Killed => 2,
            Self::Asked => 3,
        }
    }
}

/// What an integrator wants to happen when a partition stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestartPolicy {
    /// The most restarts while the machine runs.
    pub limit: u32,
    /// How long it stays down before its first restart, in milliseconds; see
    /// [`delay_ms`](Self::delay_ms).
    pub backoff_ms: u32,
    /// Restart when it asks for a reset.
    pub on_reset: bool,
    /// Restart when it falls silent.
    pub on_silence: bool,
    /// Restart when it was killed.
    pub on_kill: bool,
}

impl Default for RestartPolicy {
    /// Restarts what reset itself or fell silent, five times; what was killed stays down.
    fn default() -> Self {
        Self {
            limit: 5,
            backoff_ms: 0,
            on_reset: true,
            on_silence: true,
            on_kill: false,
        }
    }
}

/// Why a partition stays down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// It turned itself off.
    TurnedOff,
    /// Somebody asked for it.
    Asked,
    /// Its policy does not restart it after this.
    NotByPolicy(StopCause),
    /// It was restarted as often as its policy allows.
    LimitReached {
        /// What stopped it this time.
        cause: StopCause,
        /// The limit.
        limit: u32,
    },
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TurnedOff => write!(f, "turned itself off"),
            Self::Asked => write!(f, "asked to stop"),
            Self::NotByPolicy(cause) => {
                write!(f, "{}, and its policy does not restart it", cause.as_str())
            }
            Self::LimitReached { cause, limit } => {
                write!(f, "{}, after {limit} restart(s), the limit", cause.as_str())
            }
        }
    }
}

/// What happens to a stopped partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It starts again from its images.
    Restart,
    /// It stays down.
    Stop(StopReason),
}

impl RestartPolicy {
    /// The longest time that a partition stays down before a restart, in milliseconds.
    pub const MAX_BACKOFF_MS: u32 = 60_000;

    /// Returns how long the partition stays down before a restart that was decided, in
    /// milliseconds: twice as long each time, up to [`MAX_BACKOFF_MS`](Self::MAX_BACKOFF_MS).
    /// What somebody asked for is done at once. `count` is how often it was restarted already.
    pub const fn delay_ms(&self, cause: StopCause, count: u32) -> u32 {
        if matches!(cause, StopCause::AskedForRestart) || self.backoff_ms == 0 {
            return 0;
        }
        // 2^16 milliseconds are beyond the longest.
        let doublings = if count < 16 { count } else { 16 };
        let delay_ms = self.backoff_ms as u64 * (1 << doublings);
        if delay_ms < Self::MAX_BACKOFF_MS as u64 {
            delay_ms as u32
        } else {
            Self::MAX_BACKOFF_MS
        }
    }

    /// Decides; `count` is how often the partition was restarted already.
    pub const fn decide(&self, cause: StopCause, count: u32) -> Next {
        let wanted = match cause {
            StopCause::Off => return Next::Stop(StopReason::TurnedOff),
            StopCause::Asked => return Next::Stop(StopReason::Asked),
            // The limit is there for what nobody watches.
            StopCause::AskedForRestart => return Next::Restart,
            StopCause::Reset => self.on_reset,
            StopCause::Silence => self.on_silence,
            StopCause::Killed => self.on_kill,
            StopCause::KilledForRestart => true,
        };
        if !wanted {
            Next::Stop(StopReason::NotByPolicy(cause))
        } else if count >= self.limit {
            Next::Stop(StopReason::LimitReached {
                cause,
                limit: self.limit,
            })
        } else {
            Next::Restart
        }
    }
}
