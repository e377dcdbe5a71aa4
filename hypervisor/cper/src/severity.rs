// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPER severities and their order.

use core::fmt;

/// Severity of a record or a section (UEFI 2.10, N.2.1, error severity).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Severity {
    /// Uncorrected; the system can go on if the owner of the data recovers.
    Recoverable,
    /// Uncorrected; the system cannot go on.
    Fatal,
    /// Corrected; nothing was lost.
    Corrected,
    /// Not an error.
    Informational,
    /// A number that the specification does not define. Counts as worse than fatal: what cannot
    /// be understood cannot be survived on purpose.
    Unknown(u32),
}

impl Severity {
    /// Decodes the number of a record.
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Recoverable,
            1 => Self::Fatal,
            2 => Self::Corrected,
            3 => Self::Informational,
            other => Self::Unknown(other),
        }
    }

    /// Returns the number that stands in a record.
    pub const fn raw(self) -> u32 {
        match self {
            Self::Recoverable => 0,
            Self::Fatal => 1,
            Self::Corrected => 2,
            Self::Informational => 3,
            Self::Unknown(other) => other,
        }
    }

    /// Returns how bad it is, 0 (informational) to 4 (unknown). The raw numbers are not in order.
    pub const fn rank(self) -> u8 {
        match self {
            Self::Informational => 0,
            Self::Corrected => 1,
            Self::Recoverable => 2,
            Self::Fatal => 3,
            Self::Unknown(_) => 4,
        }
    }

    /// Returns the worse of two.
    #[must_use]
    pub const fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() {
            other
        } else {
            self
        }
    }

    /// Returns its name, as events and the firmware's text interface spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recoverable => "recoverable",
            Self::Fatal => "fatal",
            Self::Corrected => "corrected",
            Self::Informational => "informational",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
