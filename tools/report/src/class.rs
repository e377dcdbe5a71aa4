// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of a guest, in ten words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of the guest that an error was raised for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The error was raised, and never reached the guest.
    NotDelivered,
    /// The guest went on, and said nothing.
    SurvivedSilently,
    /// The guest went on, and said that there was an error.
    RecoveredAndLogged,
    /// One task died, and the rest of the guest went on.
    TaskKilled,
    /// The guest stopped itself, and said so.
    Panicked,
    /// The guest started anew.
    Rebooted,
    /// The guest neither goes on nor stops.
    Hung,
    /// The guest went on with wrong data, and said nothing.
    CorruptedSilently,
    /// Firebreak itself failed.
    HypervisorFault,
    /// What was seen does not tell.
    Inconclusive,
}

impl Class {
    /// All classes, from the mildest to the one that says nothing.
    pub const ALL: [Self; 10] = [
        Self::NotDelivered,
        Self::SurvivedSilently,
        Self::RecoveredAndLogged,
        Self::TaskKilled,
        Self::Panicked,
        Self::Rebooted,
        Self::Hung,
        Self::CorruptedSilently,
        Self::HypervisorFault,
        Self::Inconclusive,
    ];

    /// Returns its name in results, as in `survived-silently`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotDelivered => "not-delivered",
            Self::SurvivedSilently => "survived-silently",
            Self::RecoveredAndLogged => "recovered-and-logged",
            Self::TaskKilled => "task-killed",
            Self::Panicked => "panicked",
            Self::Rebooted => "rebooted",
            Self::Hung => "hung",
            Self::CorruptedSilently => "corrupted-silently",
            Self::HypervisorFault => "hypervisor-fault",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// Returns its name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::NotDelivered => "not delivered",
            Self::SurvivedSilently => "survived silently",
            Self::RecoveredAndLogged => "recovered and logged",
            Self::TaskKilled => "one task killed",
            Self::Panicked => "panicked",
            Self::Rebooted => "rebooted",
            Self::Hung => "hung",
            Self::CorruptedSilently => "corrupted silently",
            Self::HypervisorFault => "hypervisor fault",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// Returns the letter that stands for it where there is no room for its name.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::NotDelivered => 'N',
            Self::SurvivedSilently => 'S',
            Self::RecoveredAndLogged => 'L',
            Self::TaskKilled => 'T',
            Self::Panicked => 'P',
            Self::Rebooted => 'R',
            Self::Hung => 'H',
            Self::CorruptedSilently => 'C',
            Self::HypervisorFault => 'F',
            Self::Inconclusive => '?',
        }
    }

    /// Returns what it takes to be of this class.
    #[must_use]
    pub const fn definition(self) -> &'static str {
        match self {
            Self::NotDelivered => {
                "The error was raised and the guest goes on: the error still waits, or a verdict \
                 kept it away."
            }
            Self::SurvivedSilently => {
                "The guest met the error and goes on, its data intact, and said nothing unusual."
            }
            Self::RecoveredAndLogged => {
                "The guest met the error and goes on, and reported it or said something unusual."
            }
            Self::TaskKilled => {
                "The guest ended the task that met the error; everything else of it goes on."
            }
            Self::Panicked => "The guest stopped itself because of the error, and said so.",
            Self::Rebooted => {
                "The guest or the machine ended or started again, without words of a panic."
            }
            Self::Hung => {
                "The guest gave no sign of life within the time it had, and had not stopped."
            }
            Self::CorruptedSilently => {
                "The guest goes on, its data are not what they were, and it said nothing."
            }
            Self::HypervisorFault => {
                "Firebreak itself failed or broke its contract: a bug, whatever the guest did."
            }
            Self::Inconclusive => {
                "The error was not raised, or what was seen contradicts itself: no result, and \
                 never a pass."
            }
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_those_in_results_and_letters_differ() {
        for class in Class::ALL {
            let json = serde_json::to_string(&class).unwrap();
            assert_eq!(json, format!("\"{class}\""));
            assert_eq!(serde_json::from_str::<Class>(&json).unwrap(), class);
        }
        let letters: BTreeSet<char> = Class::ALL.map(Class::letter).into();
        assert_eq!(letters.len(), Class::ALL.len());
    }
}
