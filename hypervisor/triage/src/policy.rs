// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a partition's owner wants done about each class of error.

use core::fmt;

use firebreak_syndrome::{Iss, Severity};

/// What to do about an error that concerns a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// Go on as with [`Log`](Self::Log); it is counted, and not told by itself.
    Ignore,
    /// Report it and go on.
    Log,
    /// Tell the guest with a virtual SError. `None`: with the syndrome that
    /// [`Class::default_syndrome`] gives.
    Inject(Option<Iss>),
    /// Take the page away for good and tell the guest, as with [`Inject`](Self::Inject).
    Retire(Option<Iss>),
    /// Stop the partition for good.
    Kill,
    /// Stop the partition and start it afresh.
    Restart,
}

/// A class of error that a policy tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// CE.
    Corrected,
    /// UEO.
    Ueo,
    /// UER.
    Uer,
    /// UEU.
    Ueu,
    /// IDS=1, or an SEI without a record.
    Impdef,
    /// A RAS error without a state.
    Uncategorized,
}

impl Class {
    /// All classes, in the order in which a policy is written down.
    pub const ALL: [Self; 6] = [
        Self::Corrected,
        Self::Ueo,
        Self::Uer,
        Self::Ueu,
        Self::Impdef,
        Self::Uncategorized,
    ];

    /// Returns the word that stands for the class in a partition file (`ueo`) and, behind
    /// `firebreak,on-`, in the devicetree.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Corrected => "corrected",
            Self::Ueo => "ueo",
            Self::Uer => "uer",
            Self::Ueu => "ueu",
            Self::Impdef => "impdef",
            Self::Uncategorized => "uncategorized",
        }
    }

    /// Returns the class of a severity, or `None` for UC: no partition has a say in that.
    pub const fn of(severity: Severity) -> Option<Self> {
        match severity {
            Severity::Corrected => Some(Self::Corrected),
            Severity::Restartable => Some(Self::Ueo),
            Severity::Recoverable => Some(Self::Uer),
            Severity::Unrecoverable => Some(Self::Ueu),
            Severity::ImplementationDefined => Some(Self::Impdef),
            Severity::Uncategorized => Some(Self::Uncategorized),
            Severity::Uncontainable => None,
        }
    }

    /// Returns the syndrome of an injection that names none.
    ///
    /// The state itself, without the bits that describe this very machine; never all zeros: an
    /// uncategorized error is told as an implementation defined one.
    pub const fn default_syndrome(self) -> Iss {
        match self {
            Self::Corrected => Iss::CE,
            Self::Ueo => Iss::UEO,
            Self::Uer => Iss::UER,
            Self::Ueu => Iss::UEU,
            Self::Impdef | Self::Uncategorized => Iss::IMPDEF,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A reaction for each class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// For [`Class::Corrected`].
    pub corrected: Reaction,
    /// For [`Class::Ueo`].
    pub ueo: Reaction,
    /// For [`Class::Uer`].
    pub uer: Reaction,
    /// For [`Class::Ueu`].
    pub ueu: Reaction,
    /// For [`Class::Impdef`].
    pub impdef: Reaction,
    /// For [`Class::Uncategorized`].
    pub uncategorized: Reaction,
    /// Corrected errors on one page, inside [`corrected_window_s`](Self::corrected_window_s),
    /// that retire it early; 0 for never.
    pub corrected_limit: u16,
    /// Length of the window of time in which corrected errors of a page are counted, in
    /// seconds. It begins with the first one; the first one behind its end begins the next.
    pub corrected_window_s: u32,
}

impl Policy {
    /// Corrected errors and UEO are logged, UER retires the page and tells the guest, the rest
    /// kills the partition; the 16th corrected error in a day retires a page.
    pub const DEFAULT: Self = Self {
        corrected: Reaction::Log,
        ueo: Reaction::Log,
        uer: Reaction::Retire(None),
        ueu: Reaction::Kill,
        impdef: Reaction::Kill,
        uncategorized: Reaction::Kill,
        corrected_limit: 16,
        corrected_window_s: 86_400,
    };

    /// Longest window of time, in seconds: a year.
    pub const MAX_CORRECTED_WINDOW_S: u32 = 365 * 86_400;

    /// Returns the reaction to a class.
    #[inline]
    pub const fn reaction(&self, class: Class) -> Reaction {
        match class {
            Class::Corrected => self.corrected,
            Class::Ueo => self.ueo,
            Class::Uer => self.uer,
            Class::Ueu => self.ueu,
            Class::Impdef => self.impdef,
            Class::Uncategorized => self.uncategorized,
        }
    }

    /// Changes the reaction to a class.
    pub const fn set(&mut self, class: Class, reaction: Reaction) {
        match class {
            Class::Corrected => self.corrected = reaction,
            Class::Ueo => self.ueo = reaction,
            Class::Uer => self.uer = reaction,
            Class::Ueu => self.ueu = reaction,
            Class::Impdef => self.impdef = reaction,
            Class::Uncategorized => self.uncategorized = reaction,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a reaction cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReactionError {
    /// The word is none that there is.
    UnknownWord,
    /// The word takes no syndrome (`kill:0x11`).
    NoSyndromeAllowed,
    /// Behind the colon stands no number.
    NotANumber,
    /// The number has more than the 25 bits of a syndrome.
    SyndromeTooWide,
    /// A corrected error cannot kill or restart: nothing was lost.
    TooStrong,
    /// After a UER somebody has to deal with the error: the guest must at least be told.
    TooWeak,
    /// After a UEU the interrupted context is lost, so the guest cannot go on at all.
    MustNotResume,
}

impl fmt::Display for ReactionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownWord => {
                "unknown reaction: write ignore, log, inject, inject:0x<syndrome>, retire, \
                 retire:0x<syndrome>, kill or restart"
            }
            Self::NoSyndromeAllowed => {
                "only inject and retire take a syndrome: remove the colon and what follows"
            }
            Self::NotANumber => "the syndrome is not a number: write it as 0xc11 or 3089",
            Self::SyndromeTooWide => "a syndrome has 25 bits: write at most 0x1ffffff",
            Self::TooStrong => {
                "a corrected error has hurt nobody: write log, inject or retire instead"
            }
            Self::TooWeak => {
                "the guest must at least be told of this error: write inject, retire, kill or \
                 restart instead"
            }
            Self::MustNotResume => {
                "this error destroys what the guest was doing: write kill or restart instead"
            }
        })
    }
}

impl core::error::Error for ReactionError {}

impl Reaction {
    /// Parses a policy word: `ignore`, `log`, `inject`, `inject:0x811`, `retire`, `retire:0xc11`, `kill`
    /// or `restart`. A syndrome is hexadecimal with `0x`, otherwise decimal.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the word; nothing is guessed.
    pub fn parse(word: &str) -> Result<Self, ReactionError> {
        let (name, syndrome) = match word.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (word, None),
        };
        match (name, syndrome) {
            ("ignore", None) => Ok(Self::Ignore),
            ("log", None) => Ok(Self::Log),
            ("kill", None) => Ok(Self::Kill),
            ("restart", None) => Ok(Self::Restart),
            ("inject", number) => Ok(Self::Inject(number.map(parse_iss).transpose()?)),
            ("retire", number) => Ok(Self::Retire(number.map(parse_iss).transpose()?)),
            ("ignore" | "log" | "kill" | "restart", Some(_)) => {
                Err(ReactionError::NoSyndromeAllowed)
            }
            _ => Err(ReactionError::UnknownWord),
        }
    }

    /// Says whether triage follows this reaction for this class, or puts another in its place.
    ///
    /// # Errors
    ///
    /// [`ReactionError::TooStrong`]: a corrected error never costs a partition its life; it is
    /// logged. [`ReactionError::TooWeak`]: after UER the guest must at least be told; triage
    /// injects. [`ReactionError::MustNotResume`]: after UEU the guest must not run again, its
    /// SError handler included; triage kills.
    pub const fn check(self, class: Class) -> Result<(), ReactionError> {
        match (class, self) {
            (Class::Corrected, Self::Kill | Self::Restart) => Err(ReactionError::TooStrong),
            (Class::Uer, Self::Ignore | Self::Log) => Err(ReactionError::TooWeak),
            (Class::Ueu, Self::Ignore | Self::Log | Self::Inject(_) | Self::Retire(_)) => {
                Err(ReactionError::MustNotResume)
            }
            _ => Ok(()),
        }
    }

    /// Returns what triage does: this reaction, or the nearest that the class allows.
    #[must_use]
    pub const fn clamped(self, class: Class) -> Self {
        match (class, self.check(class)) {
            (Class::Corrected, Err(_)) => Self::Log,
            (Class::Ueu, Err(_)) => Self::Kill,
            (_, Err(_)) => Self::Inject(None),
            (_, Ok(())) => self,
        }
    }
}

fn parse_iss(number: &str) -> Result<Iss, ReactionError> {
    let (digits, radix) = match number.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    // `from_str_radix` would take a sign.
    if digits.is_empty() || !digits.bytes().all(|b| char::from(b).is_digit(radix)) {
        return Err(ReactionError::NotANumber);
    }
    let raw = u32::from_str_radix(digits, radix).map_err(|_| ReactionError::SyndromeTooWide)?;
    Iss::new(raw).ok_or(ReactionError::SyndromeTooWide)
}

impl fmt::Display for Reaction {
    /// Prints the word that [`Reaction::parse`] reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignore => f.write_str("ignore"),
            Self::Log => f.write_str("log"),
            Self::Inject(None) => f.write_str("inject"),
            Self::Inject(Some(iss)) => write!(f, "inject:{iss:#x}"),
            Self::Retire(None) => f.write_str("retire"),
            Self::Retire(Some(iss)) => write!(f, "retire:{iss:#x}"),
            Self::Kill => f.write_str("kill"),
            Self::Restart => f.write_str("restart"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_and_printed_back() {
        for (word, reaction) in [
            ("ignore", Reaction::Ignore),
            ("log", Reaction::Log),
            ("inject", Reaction::Inject(None)),
            ("inject:0x811", Reaction::Inject(Some(Iss::UEO))),
            ("inject:0x0", Reaction::Inject(Some(Iss::UNCATEGORIZED))),
            ("inject:0x1ffffff", Reaction::Inject(Iss::new(Iss::MASK))),
            ("retire", Reaction::Retire(None)),
            ("retire:0xc11", Reaction::Retire(Some(Iss::UER))),
            ("kill", Reaction::Kill),
            ("restart", Reaction::Restart),
        ] {
            assert_eq!(Reaction::parse(word), Ok(reaction));
            assert_eq!(reaction.to_string(), word);
        }
        assert_eq!(
            Reaction::parse("inject:2065"),
            Ok(Reaction::Inject(Some(Iss::UEO)))
        );
    }

    #[test]
    fn a_wrong_word_is_refused_for_what_is_wrong_with_it() {
        for (word, error) in [
            ("", ReactionError::UnknownWord),
            ("Log", ReactionError::UnknownWord),
            (" log", ReactionError::UnknownWord),
            ("ignroe", ReactionError::UnknownWord),
            ("ignore:0x11", ReactionError::NoSyndromeAllowed),
            (":0x11", ReactionError::UnknownWord),
            ("kill:0x11", ReactionError::NoSyndromeAllowed),
            ("log:", ReactionError::NoSyndromeAllowed),
            ("inject:", ReactionError::NotANumber),
            ("inject:0x", ReactionError::NotANumber),
            ("inject:+1", ReactionError::NotANumber),
            ("inject:0x-1", ReactionError::NotANumber),
            ("retire:c11", ReactionError::NotANumber),
            ("retire:0xc11:1", ReactionError::NotANumber),
            ("inject:0x2000000", ReactionError::SyndromeTooWide),
            ("inject:0xfffffffffffffffff", ReactionError::SyndromeTooWide),
        ] {
            assert_eq!(Reaction::parse(word), Err(error), "{word:?}");
        }
    }

    #[test]
    fn the_default_policy_needs_no_clamping_and_each_class_has_its_field() {
        for class in Class::ALL {
            assert_eq!(Policy::DEFAULT.reaction(class).check(class), Ok(()));
            let mut policy = Policy::DEFAULT;
            policy.set(class, Reaction::Restart);
            for other in Class::ALL {
                let expected = if other == class {
                    Reaction::Restart
                } else {
                    Policy::DEFAULT.reaction(other)
                };
                assert_eq!(policy.reaction(other), expected);
            }
        }
    }

    #[test]
    fn what_clamping_gives_is_allowed() {
        let reactions = [
            Reaction::Log,
            Reaction::Inject(None),
            Reaction::Retire(None),
            Reaction::Kill,
            Reaction::Restart,
        ];
        for class in Class::ALL {
            for reaction in reactions {
                let clamped = reaction.clamped(class);
                assert_eq!(clamped.check(class), Ok(()));
                assert_eq!(clamped == reaction, reaction.check(class).is_ok());
            }
        }
    }

    #[test]
    fn no_default_syndrome_is_all_zeros() {
        for class in Class::ALL {
            assert_ne!(class.default_syndrome(), Iss::UNCATEGORIZED);
        }
    }
}
