// SPDX-License-Identifier: MIT OR Apache-2.0
//! The syndrome of an SEI that did not come with an ESR of its own.

use crate::Iss;

/// Returns the syndrome to go by: the record's, which is of this error for certain; otherwise
/// `word`, what stood in the place of an ESR. Without a record a 0 there says nothing: an SEI that
/// barged in overwrote what there was. `None`: nobody knows, as of any SEI that nothing explains.
pub const fn pulled_syndrome(word: Iss, recorded: Option<Iss>) -> Option<Iss> {
    match recorded {
        Some(recorded) => Some(recorded),
        None if word.get() == 0 => None,
        None => Some(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CperSeverity, Severity};

    #[test]
    fn the_record_comes_first() {
        assert_eq!(pulled_syndrome(Iss::UEU, Some(Iss::UER)), Some(Iss::UER));
        assert_eq!(pulled_syndrome(Iss::UEU, None), Some(Iss::UEU));
    }

    /// The sweep (`sei`, barge-in) found it at two instructions of `guest_serror`: the partition
    /// was stopped for an uncategorized error, whatever its policy for unexplained ones said.
    #[test]
    fn regression_a_syndrome_that_was_overwritten_counts_as_unexplained() {
        let severity = |iss| Severity::of(iss, None::<CperSeverity>);
        let lost = Iss::from_esr(0x3f << 26);
        let found = severity(pulled_syndrome(lost, None));
        assert_eq!(found, Severity::ImplementationDefined);
        assert_ne!(severity(Some(lost)), found);
    }
}
