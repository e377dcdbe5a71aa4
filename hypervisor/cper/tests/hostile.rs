// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records that break off, lie, change while they are read, or are noise.

use firebreak_abi::{Mpidr, Pa};
use firebreak_cper::{
    Bert, CperError, CperRecord, FirebreakInfo, HEADER_LEN_BYTES, MAX_BLOCK_LEN_BYTES,
    MAX_ERROR_INFOS, MAX_SECTIONS, MemoryError, ProcessorError, Record, SectionBody, Severity,
    StatusBlock, Writer, header_len, summary, write_cper, write_record,
};
use proptest::prelude::*;

fn full_record() -> Record {
    Record {
        severity: Severity::Recoverable,
        pa: Some(Pa::new(0x4500_1000)),
        mpidr: Some(Mpidr::from_raw(2)),
        iss: 0xc11,
        simulated: true,
        info: Some(FirebreakInfo {
            pc: Some(0x4020_1234),
            ..FirebreakInfo::default()
        }),
    }
}

fn block() -> Vec<u8> {
    let mut buf = vec![0; 1024];
    let len = write_record(&mut buf, &full_record()).unwrap();
    buf.truncate(len);
    buf
}

/// Reads everything that can be read: this must end, and must not panic.
fn read_all(bytes: &[u8]) -> usize {
    let mut steps = 0;
    let mut section = |body: SectionBody<'_>| {
        steps += 1;
        if let SectionBody::ArmProcessor(arm) = body {
            steps += arm.infos().count() + arm.contexts().count();
            assert!(arm.infos().count() <= MAX_ERROR_INFOS + 1);
        }
    };
    if let Ok(block) = StatusBlock::parse(bytes) {
        assert!(block.len_bytes() <= bytes.len() && block.len_bytes() <= MAX_BLOCK_LEN_BYTES);
        assert!(block.entries().count() <= MAX_SECTIONS + 1);
        for entry in block.entries().flatten() {
            entry
                .section()
                .map(|read| section(read.body))
                .unwrap_or_default();
        }
    }
    if let Ok(record) = CperRecord::parse(bytes) {
        record
            .sections()
            .flatten()
            .for_each(|read| section(read.body));
    }
    let read = summary(bytes);
    assert!(usize::from(read.sections) <= MAX_SECTIONS);
    if let Some(error) = read.malformed {
        assert!(!error.to_string().is_empty() && !error.field().is_empty());
    }
    steps + Bert::new(bytes).records().count()
}

#[test]
fn a_block_cut_anywhere_is_malformed_and_keeps_its_severity() {
    let whole = block();
    for len in 0..whole.len() {
        let read = summary(&whole[..len]);
        assert!(read.malformed.is_some(), "{len} of {} bytes", whole.len());
        let expected = (len >= HEADER_LEN_BYTES).then_some(Severity::Recoverable);
        assert_eq!(read.severity, expected);
        assert_eq!(read.pa, None, "no address out of a block whose length lies");
        read_all(&whole[..len]);
    }
    assert_eq!(summary(&whole).malformed, None);
}

#[test]
fn a_section_cut_anywhere_is_malformed() {
    // The block's length is right for what is there; the last entry is cut.
    let whole = block();
    for data_len in 0..whole.len() - HEADER_LEN_BYTES {
        let mut bytes = whole[..HEADER_LEN_BYTES + data_len].to_vec();
        bytes[12..16].copy_from_slice(&(data_len as u32).to_le_bytes());
        let read = summary(&bytes);
        let ends = [0, 152, 296];
        assert_eq!(
            read.malformed.is_none(),
            ends.contains(&data_len),
            "data length {data_len}"
        );
        assert_eq!(read.severity, Some(Severity::Recoverable));
        assert_eq!(
            read.pa.is_some(),
            data_len >= 152,
            "what stands before the cut counts"
        );
    }
}

#[test]
fn every_length_field_that_lies_is_named() {
    type Lie = (usize, u32, &'static str);
    let lies: [Lie; 9] = [
        (12, u32::MAX, "status block: data length"),
        (12, 63, "status block: data length"),
        (12, 441, "status block: data length"),
        (44, u32::MAX, "data entry: error data length"),
        (44, 400, "data entry: error data length"),
        (44, 72, "memory section"),
        (40, 0x0100, "data entry: revision"),
        (252, 41, "Arm processor section: error info number"),
        (252, 73, "Arm processor section: section length"),
    ];
    for (offset, value, field) in lies {
        let mut bytes = block();
        bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        let read = summary(&bytes);
        assert_eq!(
            read.malformed.map(CperError::field),
            Some(field),
            "{value} at {offset}"
        );
        assert_eq!(read.severity, Some(Severity::Recoverable));
    }
}

#[test]
fn a_raw_data_length_that_wraps_around_is_refused() {
    for (offset, len) in [
        (u32::MAX, 1),
        (460, u32::MAX),
        (u32::MAX, u32::MAX),
        (461, 1),
    ] {
        let mut bytes = block();
        bytes[4..8].copy_from_slice(&u32::to_le_bytes(offset));
        bytes[8..12].copy_from_slice(&u32::to_le_bytes(len));
        let error = StatusBlock::parse(&bytes).unwrap_err();
        assert!(
            error.field().starts_with("status block: raw data"),
            "{error}"
        );
    }
}

#[test]
fn more_sections_than_the_bound_are_not_read() {
    let mut bytes = vec![0; 8192];
    let mut writer = Writer::new(&mut bytes, Severity::Corrected).unwrap();
    for _ in 0..MAX_SECTIONS {
        writer
            .memory(&MemoryError::at(Severity::Corrected, Pa::new(0x1000)))
            .unwrap();
    }
    let len = writer.finish().unwrap();
    let extra = bytes[20..172].to_vec();
    bytes.truncate(len);
    bytes.extend(&extra);
    let data_len = (bytes.len() - HEADER_LEN_BYTES) as u32;
    bytes[12..16].copy_from_slice(&data_len.to_le_bytes());
    let read = summary(&bytes);
    assert_eq!(usize::from(read.sections), MAX_SECTIONS);
    assert!(matches!(
        read.malformed,
        Some(CperError::TooMany {
            max: MAX_SECTIONS,
            ..
        })
    ));
}

#[test]
fn more_error_infos_than_the_bound_are_not_read() {
    let mut payload = vec![0; 40 + 32 * 20];
    payload[4] = 20;
    let len = payload.len() as u32;
    payload[8..12].copy_from_slice(&len.to_le_bytes());
    payload
        .chunks_mut(8)
        .skip(5)
        .step_by(4)
        .for_each(|info| info[1] = 32);
    let mut bytes = vec![0; 1024];
    let mut writer = Writer::new(&mut bytes, Severity::Fatal).unwrap();
    writer
        .section(
            firebreak_cper::Guid::ARM_PROCESSOR,
            Severity::Fatal,
            0,
            [&payload, &[]],
        )
        .unwrap();
    let len = writer.finish().unwrap();
    let read = summary(&bytes[..len]);
    assert!(matches!(
        read.malformed,
        Some(CperError::TooMany {
            max: MAX_ERROR_INFOS,
            ..
        })
    ));
}

#[test]
fn an_unknown_severity_is_the_worst_and_an_unknown_section_is_counted() {
    let mut bytes = block();
    bytes[16] = 9;
    assert_eq!(summary(&bytes).severity, Some(Severity::Unknown(9)));
    bytes[20] ^= 0xff;
    let read = summary(&bytes);
    assert_eq!((read.sections, read.unknown_sections), (3, 1));
    assert_eq!(read.malformed, None);
}

#[test]
fn an_empty_block_is_no_record_and_no_error() {
    let mut bytes = block();
    bytes[0..4].fill(0);
    let read = summary(&bytes);
    assert!(read.is_empty() && read.severity.is_none() && read.malformed.is_none());
    assert_eq!(StatusBlock::parse(&bytes), Err(CperError::Empty));
    assert_eq!(
        header_len(bytes.first_chunk().unwrap(), 0x700),
        Err(CperError::Empty)
    );
    assert!(
        !summary(&[]).is_empty(),
        "no header at all is an error, not an empty block"
    );
}

#[test]
fn requirement_6_a_record_that_grows_after_its_length_was_read_is_not_followed() {
    // The firmware's memory, and the reader's protocol: header once, then that many bytes.
    let mut shared = vec![0xff; 0x700];
    let len = write_record(&mut shared, &full_record()).unwrap();
    let mut private = [0xaa; 0x700];
    private[..HEADER_LEN_BYTES].copy_from_slice(&shared[..HEADER_LEN_BYTES]);
    let copied = header_len(private.first_chunk().unwrap(), 0x700).unwrap();
    assert_eq!(copied, len);
    // Now the firmware rewrites the header and a section's length.
    shared[12..16].copy_from_slice(&0x6ff_u32.to_le_bytes());
    shared[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
    private[HEADER_LEN_BYTES..copied].copy_from_slice(&shared[HEADER_LEN_BYTES..copied]);
    let read = summary(&private[..copied]);
    assert_eq!(
        read.malformed.map(CperError::field),
        Some("data entry: error data length"),
        "the section's lie is found in the private copy, the header's never arrives"
    );
    assert_eq!(
        StatusBlock::parse(&private[..copied]).unwrap().len_bytes(),
        copied
    );
}

#[test]
fn a_length_beyond_what_the_source_declares_is_refused_before_the_copy() {
    let bytes = block();
    let header: [u8; HEADER_LEN_BYTES] = *bytes.first_chunk().unwrap();
    assert_eq!(header_len(&header, bytes.len()), Ok(bytes.len()));
    for max in 0..bytes.len() {
        assert!(header_len(&header, max).is_err(), "{max}");
    }
    let mut header = header;
    header[12..16].copy_from_slice(&0x1_0000_u32.to_le_bytes());
    assert!(
        header_len(&header, usize::MAX).is_err(),
        "64 KiB at most, whatever the source says"
    );
}

/// Offsets where one byte decides about lengths, counts or types.
fn mutation() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let interesting = prop_oneof![
        Just(0),
        Just(1),
        Just(0x7f),
        Just(0x80),
        Just(0xff),
        any::<u8>()
    ];
    prop::collection::vec((0..640_usize, interesting), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_block_never_panics(mutations in mutation()) {
        let mut bytes = block();
        for (offset, value) in mutations {
            let len = bytes.len();
            bytes[offset % len] = value;
        }
        read_all(&bytes);
    }

    #[test]
    fn a_mutated_cper_record_never_panics(mutations in mutation()) {
        let mut bytes = vec![0; 700];
        let len = write_cper(&mut bytes, 1, &full_record()).unwrap();
        bytes.truncate(len);
        for (offset, value) in mutations {
            bytes[offset % len] = value;
        }
        read_all(&bytes);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        read_all(&bytes);
    }

    #[test]
    fn the_length_of_a_header_agrees_with_the_parser(
        header in any::<[u8; HEADER_LEN_BYTES]>(),
        max in 0..2048_usize,
    ) {
        if let Ok(len) = header_len(&header, max) {
            prop_assert!((HEADER_LEN_BYTES..=max).contains(&len));
            let mut bytes = vec![0; len];
            bytes[..HEADER_LEN_BYTES].copy_from_slice(&header);
            prop_assert_eq!(StatusBlock::parse(&bytes).map(|block| block.len_bytes()), Ok(len));
        }
    }
}

#[test]
fn the_order_of_severities_is_not_that_of_their_numbers() {
    let order = [
        Severity::Informational,
        Severity::Corrected,
        Severity::Recoverable,
        Severity::Fatal,
        Severity::Unknown(4),
    ];
    for (low, mild) in order.iter().enumerate() {
        for bad in &order[low..] {
            assert_eq!((mild.worse(*bad), bad.worse(*mild)), (*bad, *bad));
        }
    }
    let raw = order.map(Severity::raw);
    assert_eq!(raw, [3, 2, 0, 1, 4]);
    assert_eq!(raw.map(Severity::from_raw), order);
}

#[test]
fn a_memory_sections_address_comes_before_an_arm_sections_wherever_they_stand() {
    let mut bytes = [0; 1024];
    let mut writer = Writer::new(&mut bytes, Severity::Recoverable).unwrap();
    let processor = ProcessorError {
        pa: Some(Pa::new(0x9000)),
        ..ProcessorError::at(Severity::Recoverable, Mpidr::from_raw(1))
    };
    writer.processor(&processor).unwrap();
    writer
        .memory(&MemoryError::at(
            Severity::Recoverable,
            Pa::new(0x4500_1000),
        ))
        .unwrap();
    let len = writer.finish().unwrap();
    let read = summary(&bytes[..len]);
    assert_eq!(read.pa, Some(Pa::new(0x4500_1000)));
    assert!(read.more_addresses);
}

#[test]
fn lengths_inside_of_sections_that_lie_are_named() {
    // Offsets in `block`: the Arm info's length at 285, the Firebreak section at 388.
    let lies: [(usize, u8, &str); 5] = [
        (285, 31, "Arm error info: length"),
        (388, 0, "Firebreak section: version"),
        (390, 63, "Firebreak section: length"),
        (390, 65, "Firebreak section: length"),
        (388 + 44, 2, "Firebreak section: source"),
    ];
    for (offset, value, field) in lies {
        let mut bytes = block();
        bytes[offset] = value;
        assert_eq!(
            summary(&bytes).malformed.map(CperError::field),
            Some(field),
            "{value}"
        );
    }
}

#[test]
fn a_cper_section_may_not_lie_over_the_headers_or_behind_the_record() {
    let mut whole = vec![0; 700];
    let len = write_cper(&mut whole, 1, &full_record()).unwrap();
    whole.truncate(len);
    let first = |offset: u32, length: u32| {
        let mut bytes = whole.clone();
        bytes[128..132].copy_from_slice(&offset.to_le_bytes());
        bytes[132..136].copy_from_slice(&length.to_le_bytes());
        let record = CperRecord::parse(&bytes).unwrap();
        let fields: Vec<_> = record
            .sections()
            .map(|read| read.err().map(CperError::field))
            .collect();
        assert_eq!(fields.len(), 3, "the sections behind it are still read");
        fields[0]
    };
    assert_eq!(first(128 + 3 * 72, 80), None);
    assert_eq!(
        first(128 + 3 * 72 - 1, 80),
        Some("CPER section descriptor: offset")
    );
    assert_eq!(
        first(len as u32 - 79, 80),
        Some("CPER section descriptor: length")
    );
    assert_eq!(
        first(u32::MAX, u32::MAX),
        Some("CPER section descriptor: length")
    );
}
