// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot error record region: what a machine that goes down leaves for the next boot.

use firebreak_abi::{Mpidr, PeId};
use firebreak_cper::{
    Bert, CperError, FirebreakInfo, Record, Severity, StatusBlock, append_record,
};

use crate::errors::Error;

/// Says whether the region holds a record, and only whole ones. If not, it is memory after
/// power-on and has to be cleared.
pub fn is_valid(region: &[u8]) -> bool {
    let mut records = Bert::new(region).records().peekable();
    records.peek().is_some() && records.all(|record| record.is_ok())
}

/// Where an error struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Number of the PE.
    pub pe: u8,
    /// Its affinity.
    pub mpidr: Mpidr,
    /// Interrupted instruction and exception level, unless the PE was off.
    pub pc_and_el: Option<(u64, u8)>,
    /// CNTPCT.
    pub ticks: u64,
}

/// Builds the record of an error, for a source's block and for the boot error record alike.
pub fn record(error: &Error, severity: Severity, place: &Place) -> Record {
    Record {
        pa: error.pa,
        mpidr: Some(place.mpidr),
        iss: error.iss.get(),
        simulated: !error.real,
        info: Some(FirebreakInfo {
            id: Some(error.id),
            pe: Some(PeId(place.pe)),
            pc: place.pc_and_el.map(|(pc, _)| pc),
            el: place.pc_and_el.map(|(_, el)| el),
            ticks: Some(place.ticks),
            ..FirebreakInfo::default()
        }),
        ..Record::new(severity)
    }
}

/// Builds the record of a fault of the firmware itself.
pub fn own_fault(place: &Place) -> Record {
    Record {
        mpidr: Some(place.mpidr),
        info: Some(FirebreakInfo {
            pe: Some(PeId(place.pe)),
            pc: place.pc_and_el.map(|(pc, _)| pc),
            el: place.pc_and_el.map(|(_, el)| el),
            ticks: Some(place.ticks),
            ..FirebreakInfo::default()
        }),
        ..Record::new(Severity::Fatal)
    }
}

/// Appends a status block that EL2 handed over. What does not parse is replaced by a plain fatal
/// record, so that the next boot learns at least that there was one.
///
/// # Errors
///
/// [`CperError::NoRoom`] when the region is full; the older records, the nearer ones to the
/// cause, stay.
pub fn append_block(region: &mut [u8], block: &[u8], place: &Place) -> Result<(), CperError> {
    let Ok(length) = StatusBlock::parse(block).map(|block| block.len_bytes()) else {
        return append_record(region, &own_fault(place)).map(|_| ());
    };
    let start = Bert::new(region)
        .records()
        .map_while(Result::ok)
        .fold(0_usize, |end, (block, _)| {
            end.saturating_add(block.len_bytes())
        });
    let end = start.saturating_add(length);
    let no_room = CperError::NoRoom {
        need_bytes: end,
        have_bytes: region.len(),
    };
    let source = block.get(..length).ok_or(no_room)?;
    region
        .get_mut(start..end)
        .ok_or(no_room)?
        .copy_from_slice(source);
    if let Some(rest) = region.get_mut(end..) {
        let tail = rest.len().min(firebreak_cper::HEADER_LEN_BYTES);
        rest.get_mut(..tail).unwrap_or_default().fill(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use firebreak_abi::Pa;
    use firebreak_syndrome::Iss;

    const PLACE: Place = Place {
        pe: 2,
        mpidr: Mpidr::from_raw(2),
        pc_and_el: Some((0x4020_1000, 1)),
        ticks: 99,
    };
    const ERROR: Error = Error {
        id: 7,
        iss: Iss::UC,
        pa: Some(Pa::new(0x4500_0000)),
        record: None,
        abort: None,
        real: false,
        modes: None,
        in_storm: false,
    };

    fn count(region: &[u8]) -> usize {
        Bert::new(region).records().filter(Result::is_ok).count()
    }

    #[test]
    fn memory_after_power_on_is_not_a_record_and_a_record_is() {
        let mut region = [0_u8; 4096];
        assert!(!is_valid(&region));
        assert!(!is_valid(&[0xff; 4096]));
        append_record(&mut region, &record(&ERROR, Severity::Fatal, &PLACE)).unwrap();
        assert!(is_valid(&region));
    }

    #[test]
    fn a_block_of_el2_comes_behind_the_records_that_are_there() {
        let mut region = [0_u8; 4096];
        append_record(&mut region, &own_fault(&PLACE)).unwrap();
        let mut block = [0_u8; 0x700];
        firebreak_cper::write_record(&mut block, &record(&ERROR, Severity::Fatal, &PLACE)).unwrap();
        append_block(&mut region, &block, &PLACE).unwrap();
        assert_eq!(count(&region), 2);
        assert!(is_valid(&region));
    }

    #[test]
    fn a_block_that_does_not_parse_leaves_a_plain_record() {
        let mut region = [0_u8; 4096];
        append_block(&mut region, &[0xff; 0x700], &PLACE).unwrap();
        append_block(&mut region, &[], &PLACE).unwrap();
        assert_eq!(count(&region), 2);
    }

    #[test]
    fn a_full_region_keeps_its_first_records() {
        let mut region = [0_u8; 1024];
        let mut block = [0_u8; 0x700];
        firebreak_cper::write_record(&mut block, &record(&ERROR, Severity::Fatal, &PLACE)).unwrap();
        let mut fitted = 0;
        while append_block(&mut region, &block, &PLACE).is_ok() {
            fitted += 1;
        }
        assert!(fitted > 0);
        assert_eq!(count(&region), fitted);
    }
}
