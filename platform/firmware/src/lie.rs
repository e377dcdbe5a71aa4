// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records that contradict themselves, made out of true ones.
//!
//! Works on the bytes of a status block that `firebreak-cper` has just written: its writer refuses
//! to lie. Offsets are those of ACPI 6.5, 18.3.2.7.1, and UEFI 2.10, N.2.5.

use firebreak_cper::{ENTRY_V3_LEN_BYTES, Guid, HEADER_LEN_BYTES, Severity};

use crate::behavior::{Mode, Modes};

/// Header: data length, error severity.
const DATA_LENGTH: usize = 12;
const SEVERITY: usize = 16;
/// Data entry: length of the section.
const SECTION_LENGTH: usize = 24;
/// Memory section: physical address.
const MEMORY_PA: usize = 16;
/// What a section that lies claims to have more than it has, in bytes: the most that the block of a
/// source can hold.
const TOO_LONG_BYTES: u32 = 0x700;
/// An address where no machine of today has anything, inside of the architecture's 52 bits.
pub const NOWHERE: u64 = 0x000f_dead_beef_f000;

/// Makes a whole status block lie as the modes say. Bytes that are no such block stay.
pub fn lie(modes: Modes, block: &mut [u8]) {
    if modes.has(Mode::LyingSeverities) {
        put_u32(block, SEVERITY, Severity::Corrected.raw());
    }
    let end = u32_at(block, DATA_LENGTH).map_or(0, |len| HEADER_LEN_BYTES + len as usize);
    let mut entry = HEADER_LEN_BYTES;
    // Bounded: each turn moves on by an entry's fixed part at least, and the block ends.
    while let Some(length) = u32_at(block, entry + SECTION_LENGTH)
        && entry < end
    {
        let section = entry + ENTRY_V3_LEN_BYTES;
        let is_memory = block.get(entry..entry + 16) == Some(&Guid::MEMORY.0);
        if is_memory && modes.has(Mode::LyingAddresses) {
            put(block, section + MEMORY_PA, &NOWHERE.to_le_bytes());
        }
        let next = section + length as usize;
        if next >= end && modes.has(Mode::LyingLengths) {
            put_u32(
                block,
                entry + SECTION_LENGTH,
                length.wrapping_add(TOO_LONG_BYTES),
            );
        }
        entry = next;
    }
}

fn u32_at(block: &[u8], offset: usize) -> Option<u32> {
    let bytes = block.get(offset..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn put_u32(block: &mut [u8], offset: usize, value: u32) {
    put(block, offset, &value.to_le_bytes());
}

fn put(block: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(place) = block.get_mut(offset..offset + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebreak_abi::{Mpidr, Pa};
    use firebreak_cper::{Record, StatusBlock, Summary, summary, write_record};
    use proptest::prelude::*;

    const PA: Pa = Pa::new(0x4500_0000);

    fn told(modes: &str) -> Summary {
        let mut block = [0; 512];
        let record = Record {
            pa: Some(PA),
            mpidr: Some(Mpidr::from_raw(1)),
            iss: 0x1811,
            ..Record::new(Severity::Recoverable)
        };
        let len = write_record(&mut block, &record).unwrap();
        lie(Modes::parse(modes).unwrap(), &mut block[..len]);
        summary(&block[..len])
    }

    #[test]
    fn the_truth_stays_as_it_is() {
        let truth = told("conforming");
        assert_eq!(
            (truth.pa, truth.sections, truth.malformed),
            (Some(PA), 3, None)
        );
        assert_eq!(told("barge-in"), truth);
    }

    #[test]
    fn a_severity_that_is_too_low_does_not_hide_the_sections() {
        let mut block = [0; 512];
        let len = write_record(&mut block, &Record::new(Severity::Recoverable)).unwrap();
        lie(Modes::parse("lying-severities").unwrap(), &mut block[..len]);
        let block = StatusBlock::parse(&block[..len]).unwrap();
        assert_eq!(block.severity(), Severity::Corrected);
        assert_eq!(
            told("lying-severities").severity,
            Some(Severity::Recoverable)
        );
    }

    #[test]
    fn an_address_contradicts_another_section() {
        let lied = told("lying-addresses");
        assert_eq!(lied.pa, Some(Pa::new(NOWHERE)));
        assert!(lied.more_addresses);
    }

    #[test]
    fn a_section_that_is_too_long_is_noticed_and_the_others_are_read() {
        let lied = told("lying-lengths");
        assert!(lied.malformed.is_some());
        assert_eq!((lied.sections, lied.pa, lied.iss), (2, Some(PA), None));
    }

    #[test]
    fn all_at_once() {
        let lied = told("lying-record");
        assert!(lied.malformed.is_some());
        assert_eq!(lied.severity, Some(Severity::Recoverable));
        assert_eq!(lied.pa, Some(Pa::new(NOWHERE)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_run_on(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            lie(Modes::LYING_RECORD, &mut bytes);
        }
    }
}
