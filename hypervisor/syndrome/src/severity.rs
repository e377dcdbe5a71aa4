// SPDX-License-Identifier: MIT OR Apache-2.0
//! How bad an error is: the PE's word, the record's word, and the two together.

use core::fmt;

use crate::Iss;

/// How bad an error is, mildest first.
///
/// The order is the architecture's (Arm RAS supplement: CE, UEO, UER, UEU, UC). The two classes
/// that say nothing rank between UEU and UC: they are worse than anything known to be
/// contained, and only a known loss of containment is worse than they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// CE: corrected, nothing was lost.
    Corrected,
    /// UEO: not corrected, but the interrupted context can go on as it is.
    Restartable,
    /// UER: the interrupted context can go on once software has dealt with the error.
    Recoverable,
    /// UEU: the interrupted context is lost, everything else is sound.
    Unrecoverable,
    /// IDS=1, or an SEI that nobody can explain.
    ImplementationDefined,
    /// A RAS error without a state.
    Uncategorized,
    /// UC: the error may be anywhere.
    Uncontainable,
}

impl Severity {
    /// All of them, mildest first.
    pub const ALL: [Self; 7] = [
        Self::Corrected,
        Self::Restartable,
        Self::Recoverable,
        Self::Unrecoverable,
        Self::ImplementationDefined,
        Self::Uncategorized,
        Self::Uncontainable,
    ];

    /// Returns the place in the order, 0 for the mildest.
    #[inline]
    pub const fn rank(self) -> u8 {
        match self {
            Self::Corrected => 0,
            Self::Restartable => 1,
            Self::Recoverable => 2,
            Self::Unrecoverable => 3,
            Self::ImplementationDefined => 4,
            Self::Uncategorized => 5,
            Self::Uncontainable => 6,
        }
    }

    /// Says whether the syndrome says nothing about the state of the PE.
    #[inline]
    pub const fn is_unclassified(self) -> bool {
        matches!(self, Self::ImplementationDefined | Self::Uncategorized)
    }

    /// Returns the worse of the two.
    #[inline]
    #[must_use]
    pub const fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() {
            other
        } else {
            self
        }
    }

    /// Returns the name that events and tables use: `UC`, `UEU`, `UER`, `UEO`, `CE`, `IMPDEF`
    /// or `uncategorized`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Corrected => "CE",
            Self::Restartable => "UEO",
            Self::Recoverable => "UER",
            Self::Unrecoverable => "UEU",
            Self::ImplementationDefined => "IMPDEF",
            Self::Uncategorized => "uncategorized",
            Self::Uncontainable => "UC",
        }
    }

    /// Merges what the PE says with what the firmware's record says; the worse one wins.
    ///
    /// `iss` is `None` on a PE without FEAT_RAS, whose syndrome says nothing; `record` is
    /// `None` when the notification came without a record.
    ///
    /// A record knows four severities only. `Recoverable` there means "uncorrected, and
    /// software can deal with it", which is UEO or UER: a syndrome that says one of the two,
    /// or worse, decides; without one, or beside "corrected", it counts as UER. Without a
    /// record nobody can explain the error: it is implementation defined, whatever the
    /// syndrome claims, unless that claims even worse.
    #[inline]
    pub const fn of(iss: Option<Iss>, record: Option<CperSeverity>) -> Self {
        let state = match iss {
            Some(iss) => Some(iss.severity()),
            None => None,
        };
        match (state, record) {
            (None, None) => Self::ImplementationDefined,
            (Some(state), None) => state.worse(Self::ImplementationDefined),
            (None, Some(record)) => record.alone(),
            (Some(Self::Restartable), Some(CperSeverity::Recoverable)) => Self::Restartable,
            (Some(state), Some(record)) => state.worse(record.alone()),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Severity in a status block or a CPER section (ACPI 18.3.2.7.1, UEFI N.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CperSeverity {
    /// 0: not corrected, software may be able to deal with it.
    Recoverable,
    /// 1: the machine cannot go on.
    Fatal,
    /// 2: corrected.
    Corrected,
    /// 3: for information only.
    Informational,
    /// Anything else. A record that does not make sense is not to be trusted with less than
    /// the worst.
    Unknown(u32),
}

impl CperSeverity {
    /// Decodes the 32-bit field. Total.
    #[inline]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Recoverable,
            1 => Self::Fatal,
            2 => Self::Corrected,
            3 => Self::Informational,
            other => Self::Unknown(other),
        }
    }

    /// Encodes into the 32-bit field.
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Recoverable => 0,
            Self::Fatal => 1,
            Self::Corrected => 2,
            Self::Informational => 3,
            Self::Unknown(other) => other,
        }
    }

    /// Returns the severity when there is nothing but the record to go by.
    #[inline]
    pub const fn alone(self) -> Severity {
        match self {
            Self::Corrected | Self::Informational => Severity::Corrected,
            Self::Recoverable => Severity::Recoverable,
            Self::Fatal | Self::Unknown(_) => Severity::Uncontainable,
        }
    }

    /// Returns the name that events use; a value without a meaning is `fatal` there too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recoverable => "recoverable",
            Self::Fatal | Self::Unknown(_) => "fatal",
            Self::Corrected => "corrected",
            Self::Informational => "informational",
        }
    }

    /// Parses a name of [`name`](Self::name); anything else is `None`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "recoverable" => Some(Self::Recoverable),
            "fatal" => Some(Self::Fatal),
            "corrected" => Some(Self::Corrected),
            "informational" => Some(Self::Informational),
            _ => None,
        }
    }
}

impl fmt::Display for CperSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
