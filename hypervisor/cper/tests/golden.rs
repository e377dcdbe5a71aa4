// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records laid out by hand from the byte offsets of ACPI 6.5 (tables 18.13, 18.14) and UEFI 2.10
//! (appendix N): neither the writer nor any constant of the crate has a part in them.

use firebreak_abi::{Mpidr, Pa, PeId, VmId};
use firebreak_cper::{
    Bert, CperError, CperRecord, FirebreakInfo, Guid, MemoryError, ProcessorError, Record,
    SectionBody, Severity, Source, StatusBlock, header_len, summary, write_cper,
    write_memory_error, write_processor_error, write_record,
};

/// Bytes at offsets, all else zero.
fn blob(len: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    for (offset, part) in parts {
        bytes[*offset..offset + part.len()].copy_from_slice(part);
    }
    bytes
}

const MEMORY_GUID: [u8; 16] = [
    0x14, 0x11, 0xbc, 0xa5, 0x64, 0x6f, 0xde, 0x4e, 0xb8, 0x63, 0x3e, 0x83, 0xed, 0x7c, 0x83, 0xb1,
];
const ARM_GUID: [u8; 16] = [
    0x16, 0x3d, 0x9e, 0xe1, 0x11, 0xbc, 0xe4, 0x11, 0x9c, 0xaa, 0xc2, 0x05, 0x1d, 0x5d, 0x46, 0xb0,
];
const OWN_GUID: [u8; 16] = [
    0xd4, 0x15, 0xb0, 0x13, 0xa2, 0xc5, 0xae, 0x4d, 0x8c, 0x4b, 0x40, 0xd2, 0x80, 0xb3, 0x8a, 0x1c,
];

/// Recoverable, one memory section of revision 3.0: 20 + 72 + 80 bytes.
fn memory_block() -> Vec<u8> {
    blob(
        172,
        &[
            (0, &[0x11, 0, 0, 0]), // uncorrected, one entry
            (12, &[152, 0, 0, 0]), // data length
            (20, &MEMORY_GUID),
            (40, &[0x00, 0x03]),                       // revision 3.0
            (44, &[80, 0, 0, 0]),                      // error data length
            (92, &[0x06, 0x40, 0, 0, 0, 0, 0, 0]),     // PA, PA mask and type are valid
            (108, &[0x40, 0x10, 0, 0x45, 0, 0, 0, 0]), // 0x4500_1040
            (116, &[0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (164, &[3]), // multi-bit
        ],
    )
}

/// What an Arm server's tooling emits for a cache error at 0xdead_beef, and what Linux prints of
/// it: MIDR 0xf0510, MPIDR 0x8000_0000, 2 errors, cache error, level 2.
fn arm_block() -> Vec<u8> {
    blob(
        164,
        &[
            (0, &[1, 0, 0, 0]),
            (12, &[144, 0, 0, 0]),
            (20, &ARM_GUID),
            (40, &[0x00, 0x03]),
            (44, &[72, 0, 0, 0]),
            (92, &[0x05, 0, 0, 0]),     // MPIDR and running state are valid
            (96, &[1, 0]),              // one info
            (100, &[72, 0, 0, 0]),      // section length
            (108, &[0, 0, 0, 0x80]),    // MPIDR
            (116, &[0x10, 0x05, 0x0f]), // MIDR
            (132, &[0, 32, 0x14, 0, 2, 1, 0, 3]), // info and PA valid, cache, multiple, flags
            (140, &[0x0f, 0, 0x91]),
            (148, &[0xef, 0xbe, 0xad, 0xde]),
            (156, &[0xef, 0xbe, 0xad, 0xde]),
        ],
    )
}

#[test]
fn a_memory_block_reads_as_its_bytes_say() {
    let bytes = memory_block();
    assert_eq!(header_len(bytes.first_chunk().unwrap(), 0x700), Ok(172));
    let block = StatusBlock::parse(&bytes).unwrap();
    assert_eq!(block.severity(), Severity::Recoverable);
    assert_eq!(block.declared_entries(), 1);
    let entry = block.entries().next().unwrap().unwrap();
    assert_eq!((entry.section_type, entry.revision), (Guid::MEMORY, 0x0300));
    let SectionBody::Memory(memory) = entry.section().unwrap().body else {
        panic!("{entry:?}")
    };
    assert_eq!(memory.pa, Some(Pa::new(0x4500_1040)));
    assert_eq!(memory.pa_mask, Some(!0xfff));
    assert_eq!(memory.error_type, Some(3));
    assert_eq!(
        (memory.status, memory.node, memory.rank),
        (None, None, None)
    );
    assert_eq!(block.entries().count(), 1);
}

#[test]
fn an_old_entry_has_64_bytes_and_an_old_memory_section_73() {
    let mut bytes = blob(
        157,
        &[
            (0, &[0x12, 0, 0, 0]),
            (12, &[137, 0, 0, 0]),
            (16, &[2, 0, 0, 0]),
            (20, &MEMORY_GUID),
            (36, &[2, 0, 0, 0]),
            (40, &[0x01, 0x02]), // revision 2.1: no time stamp
            (44, &[73, 0, 0, 0]),
            (84, &[0x02, 0x80]), // PA valid; rank, which is not there
            (100, &[0, 0x20, 0, 0x45]),
        ],
    );
    let read = summary(&bytes);
    assert_eq!(read.severity, Some(Severity::Corrected));
    assert_eq!(
        (read.pa, read.malformed),
        (Some(Pa::new(0x4500_2000)), None)
    );
    bytes[41] = 4;
    assert_eq!(
        summary(&bytes).malformed,
        Some(CperError::Invalid {
            field: "data entry: revision",
            value: 0x0401
        })
    );
}

#[test]
fn an_arm_block_reads_as_linux_reads_it() {
    let bytes = arm_block();
    let block = StatusBlock::parse(&bytes).unwrap();
    let entry = block.entries().next().unwrap().unwrap();
    let SectionBody::ArmProcessor(arm) = entry.section().unwrap().body else {
        panic!("{entry:?}")
    };
    assert_eq!(arm.fields.midr, 0xf_0510);
    assert_eq!(arm.fields.mpidr, Some(Mpidr::from_raw(0x8000_0000)));
    assert_eq!(
        (arm.fields.running, arm.fields.affinity_level),
        (Some(false), None)
    );
    let infos: Vec<_> = arm.infos().map(Result::unwrap).collect();
    let [info] = infos[..] else {
        panic!("{infos:?}")
    };
    assert_eq!((info.kind, info.error_info), (1 << 1, Some(0x91_000f)));
    assert_eq!((info.pa, info.va), (Some(Pa::new(0xdead_beef)), None));
    assert_eq!(
        (info.multiple, info.flags),
        (None, None),
        "their validation bits are clear"
    );
    assert_eq!(arm.contexts().count(), 0);
    let read = summary(&bytes);
    assert_eq!(
        (read.pa, read.mpidr),
        (Some(Pa::new(0xdead_beef)), Some(Mpidr::default()))
    );
}

#[test]
fn contexts_stand_behind_the_infos() {
    let mut bytes = arm_block();
    let context = blob(24, &[(2, &[6, 0]), (4, &[16, 0, 0, 0]), (8, &[0xaa; 16])]);
    bytes.extend(&context);
    for (offset, add) in [(12, 24), (44, 24), (100, 24)] {
        bytes[offset] += add;
    }
    bytes[98] = 1;
    let block = StatusBlock::parse(&bytes).unwrap();
    let section = block.entries().next().unwrap().unwrap().section().unwrap();
    let SectionBody::ArmProcessor(arm) = section.body else {
        panic!("{section:?}")
    };
    let contexts: Vec<_> = arm.contexts().map(Result::unwrap).collect();
    assert_eq!(
        (contexts[0].register_type, contexts[0].registers),
        (6, &[0xaa; 16][..])
    );
    assert_eq!(contexts.len(), 1);
}

#[test]
fn the_writer_sets_the_bytes_of_a_memory_section() {
    let mut buf = [0xff; 256];
    let error = MemoryError {
        pa_mask: Some(!0xfff),
        error_type: Some(3),
        ..MemoryError::at(Severity::Recoverable, Pa::new(0x4500_1040))
    };
    let len = write_memory_error(&mut buf, &error).unwrap();
    assert_eq!(buf[..len], memory_block());
}

#[test]
fn the_writer_sets_the_bytes_of_an_arm_section() {
    let mut buf = [0xff; 256];
    let error = ProcessorError {
        pa: Some(Pa::new(0xdead_beef)),
        midr: 0x414f_d0c1,
        ..ProcessorError::at(Severity::Fatal, Mpidr::from_raw(0x1_0000_0302))
    };
    let len = write_processor_error(&mut buf, &error).unwrap();
    let expected = blob(
        164,
        &[
            (0, &[0x11, 0, 0, 0]),
            (12, &[144, 0, 0, 0]),
            (16, &[1, 0, 0, 0]),
            (20, &ARM_GUID),
            (36, &[1, 0, 0, 0]),
            (40, &[0x00, 0x03]),
            (44, &[72, 0, 0, 0]),
            (92, &[0x05, 0, 0, 0]),
            (96, &[1, 0]),
            (100, &[72, 0, 0, 0]),
            (108, &[2, 3, 0, 0x80, 1, 0, 0, 0]), // MPIDR with its bit 31, which is RES1
            (116, &[0xc1, 0xd0, 0x4f, 0x41]),
            (124, &[1, 0, 0, 0]),        // running
            (132, &[0, 32, 0x10, 0, 8]), // PA valid, bus error
            (156, &[0xef, 0xbe, 0xad, 0xde]),
        ],
    );
    assert_eq!(buf[..len], expected);
}

const RECORD: Record = Record {
    severity: Severity::Fatal,
    pa: None,
    mpidr: None,
    iss: 0x11,
    simulated: true,
    info: Some(FirebreakInfo {
        source: Source::Hypervisor,
        id: Some(7),
        pe: Some(PeId(2)),
        partition: Some(VmId(1)),
        vcpu: Some(3),
        pc: Some(0xffff_8000_1020_3040),
        el: Some(1),
        ticks: None,
    }),
};

/// The Firebreak section of [`RECORD`], from the table in its module.
fn own_section() -> Vec<u8> {
    blob(
        64,
        &[
            (0, &[1, 0, 64, 0]),
            (4, &[0x7f, 0, 0, 0]),
            (8, &[1, 0, 0, 0]),
            (12, &[0x11, 0, 0, 0]),
            (16, &[0x40, 0x30, 0x20, 0x10, 0x00, 0x80, 0xff, 0xff]),
            (32, &[7]),
            (40, &[2, 1, 3, 1, 1]),
        ],
    )
}

#[test]
fn the_writer_sets_the_bytes_of_a_firebreak_section() {
    let mut buf = [0xff; 256];
    let len = write_record(&mut buf, &RECORD).unwrap();
    let expected = blob(
        156,
        &[
            (0, &[0x11, 0, 0, 0]),
            (12, &[136, 0, 0, 0]),
            (16, &[1, 0, 0, 0]),
            (20, &OWN_GUID),
            (36, &[1, 0, 0, 0]),
            (40, &[0x00, 0x03]),
            (44, &[64, 0, 0, 0]),
            (92, &own_section()),
        ],
    );
    assert_eq!(buf[..len], expected);
}

#[test]
fn the_writer_sets_the_bytes_of_a_cper_record() {
    let mut buf = [0xff; 512];
    let len = write_cper(&mut buf, 0x1122_3344, &RECORD).unwrap();
    let expected = blob(
        264,
        &[
            (0, b"CPER"),
            (4, &[0, 1, 0xff, 0xff, 0xff, 0xff]),
            (10, &[1, 0]),
            (12, &[1, 0, 0, 0]),
            (20, &[8, 1, 0, 0]),
            // 5c284c81-b0ae-4e87-a322-b04c85624323, SEI
            (
                80,
                &[
                    0x81, 0x4c, 0x28, 0x5c, 0xae, 0xb0, 0x87, 0x4e, 0xa3, 0x22, 0xb0, 0x4c, 0x85,
                ],
            ),
            (93, &[0x62, 0x43, 0x23]),
            (96, &[0x44, 0x33, 0x22, 0x11]),
            (104, &[4]),                         // simulated
            (128, &[200, 0, 0, 0, 64, 0, 0, 0]), // offset and length of the section
            (136, &[0, 3]),
            (140, &[1]), // primary
            (144, &OWN_GUID),
            (176, &[1, 0, 0, 0]),
            (200, &own_section()),
        ],
    );
    assert_eq!(buf[..len], expected);
    assert_eq!(CperRecord::parse(&expected).unwrap().sections().count(), 1);
}

#[test]
fn raw_data_counts_to_the_length_and_stands_where_it_says() {
    let mut bytes = memory_block();
    bytes.extend([0xee; 12]);
    bytes[4] = 176; // raw data offset
    bytes[8] = 8; // raw data length
    assert_eq!(header_len(bytes.first_chunk().unwrap(), 0x700), Ok(184));
    let block = StatusBlock::parse(&bytes).unwrap();
    assert_eq!((block.raw_data(), block.len_bytes()), (&[0xee; 8][..], 184));
    bytes[4] = 171;
    assert_eq!(
        StatusBlock::parse(&bytes),
        Err(CperError::Invalid {
            field: "status block: raw data offset",
            value: 171
        })
    );
}

#[test]
fn a_boot_error_region_ends_at_the_first_empty_block() {
    let mut region = [memory_block(), arm_block(), vec![0; 20], memory_block()].concat();
    assert_eq!(
        Bert::new(&region).records().filter(Result::is_ok).count(),
        2
    );
    // The third lies about its length instead of being empty.
    region[172 + 164] = 1;
    region[172 + 164 + 12] = 9;
    let read: Vec<_> = Bert::new(&region).records().collect();
    assert_eq!(read.len(), 3);
    assert_eq!(
        read[2],
        Err(CperError::Invalid {
            field: "status block: data length",
            value: 9
        })
    );
}
