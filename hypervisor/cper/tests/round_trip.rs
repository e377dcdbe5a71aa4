// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the writer writes, the reader reads back: all fields, all sizes of buffer.

use firebreak_abi::{Mpidr, Pa, PeId, VmId};
use firebreak_cper::{
    Bert, CperError, CperRecord, FirebreakInfo, HEADER_LEN_BYTES, MAX_BLOCK_LEN_BYTES, MemoryError,
    ProcessorError, Record, SectionBody, Severity, Source, StatusBlock, Writer, append_record,
    header_len, summary, write_cper, write_memory_error, write_processor_error, write_record,
};
use proptest::option;
use proptest::prelude::*;

fn severity() -> impl Strategy<Value = Severity> {
    prop_oneof![
        Just(Severity::Recoverable),
        Just(Severity::Fatal),
        Just(Severity::Corrected),
        Just(Severity::Informational),
        (4..=u32::MAX).prop_map(Severity::Unknown),
    ]
}

prop_compose! {
    fn info()(
        hypervisor in any::<bool>(),
        id in option::of(any::<u64>()),
        pe in option::of(any::<u8>().prop_map(PeId)),
        partition in option::of(any::<u8>().prop_map(VmId)),
        vcpu in option::of(any::<u8>()),
        pc in option::of(any::<u64>()),
        el in option::of(0..4_u8),
        ticks in option::of(any::<u64>()),
    ) -> FirebreakInfo {
        let source = if hypervisor { Source::Hypervisor } else { Source::Firmware };
        FirebreakInfo { source, id, pe, partition, vcpu, pc, el, ticks }
    }
}

prop_compose! {
    fn record()(
        severity in severity(),
        pa in option::of(any::<u64>().prop_map(Pa::new)),
        mpidr in option::of(any::<u64>().prop_map(Mpidr::from_raw)),
        iss in 0..1_u32 << 25,
        simulated in any::<bool>(),
        info in option::of(info()),
    ) -> Record {
        Record { severity, pa, mpidr, iss, simulated, info }
    }
}

fn check(record: &Record, bytes: &[u8]) {
    let read = summary(bytes);
    assert_eq!(read.malformed, None);
    assert_eq!(read.severity, Some(record.severity));
    assert_eq!(read.pa, record.pa);
    assert!(!read.more_addresses);
    assert_eq!(read.mpidr, record.mpidr);
    assert_eq!(read.iss, Some(record.iss));
    assert_eq!(read.simulated, record.simulated);
    assert_eq!(read.info, Some(record.info.unwrap_or_default()));
    let sections = 1 + u8::from(record.pa.is_some()) + u8::from(record.mpidr.is_some());
    assert_eq!(read.sections, sections);
    assert_eq!(read.unknown_sections, 0);
}

proptest! {
    #[test]
    fn a_record_reads_back_as_written(record in record()) {
        let mut buf = [0xa5; 512];
        let len = write_record(&mut buf, &record).unwrap();
        check(&record, &buf[..len]);
        prop_assert_eq!(header_len(buf.first_chunk().unwrap(), 512), Ok(len));
        let block = StatusBlock::parse(&buf).unwrap();
        prop_assert_eq!(block.len_bytes(), len);
        prop_assert_eq!(block.declared_entries() as usize, block.entries().count());
        prop_assert!(buf[len..].iter().all(|byte| *byte == 0xa5), "wrote behind the block");
    }

    #[test]
    fn a_buffer_that_is_too_small_is_refused_and_reads_as_empty(record in record()) {
        let mut buf = [0; 512];
        let len = write_record(&mut buf, &record).unwrap();
        for size in 0..len {
            let mut buf = vec![0xff; size];
            let refused = write_record(&mut buf, &record);
            let Err(CperError::NoRoom { have_bytes, need_bytes }) = refused else {
                panic!("{size} bytes are enough for {len}: {refused:?}");
            };
            prop_assert!(have_bytes == size && need_bytes > size);
            if size >= HEADER_LEN_BYTES {
                prop_assert_eq!(StatusBlock::parse(&buf), Err(CperError::Empty));
            }
        }
        let mut exact = vec![0xff; len];
        prop_assert_eq!(write_record(&mut exact, &record), Ok(len));
    }

    #[test]
    fn a_cper_record_reads_back_as_written(record in record(), id in any::<u64>()) {
        let mut buf = [0xa5; 700];
        let len = write_cper(&mut buf, id, &record).unwrap();
        let read = CperRecord::parse(&buf).unwrap();
        prop_assert_eq!(read.header.record_id, id);
        prop_assert_eq!(read.header.severity, record.severity);
        prop_assert_eq!(read.simulated(), record.simulated);
        let mut own = None;
        for section in read.sections() {
            let section = section.unwrap();
            prop_assert_eq!(section.severity, record.severity);
            match section.body {
                SectionBody::Memory(memory) => prop_assert_eq!(memory.pa, record.pa),
                SectionBody::ArmProcessor(arm) => {
                    prop_assert_eq!(arm.fields.mpidr, record.mpidr);
                    prop_assert_eq!(arm.infos().next().unwrap().unwrap().pa, record.pa);
                }
                SectionBody::Firebreak(section) => own = Some(section),
                SectionBody::Other { section_type, .. } => panic!("wrote a {section_type}"),
            }
        }
        let own = own.unwrap();
        prop_assert_eq!(own.info, record.info.unwrap_or_default());
        prop_assert_eq!(own.iss, Some(record.iss));
        for size in 0..len {
            let mut small = vec![0; size];
            prop_assert!(write_cper(&mut small, id, &record).is_err());
        }
    }

    #[test]
    fn a_boot_error_region_keeps_its_records_in_order(
        records in prop::collection::vec(record(), 0..6),
        garbage in any::<u8>(),
    ) {
        let mut region = vec![garbage; 4096];
        region[..HEADER_LEN_BYTES].fill(0);
        for record in &records {
            append_record(&mut region, record).unwrap();
        }
        let read: Vec<_> = Bert::new(&region).records().map(Result::unwrap).collect();
        prop_assert_eq!(read.len(), records.len());
        for ((_, bytes), record) in read.iter().zip(&records) {
            check(record, bytes);
        }
    }
}

#[test]
fn a_full_boot_error_region_refuses_and_keeps_what_it_has() {
    let record = Record {
        pa: Some(Pa::new(0x4500_0000)),
        ..Record::new(Severity::Fatal)
    };
    let mut region = [0; 1000];
    while append_record(&mut region, &record).is_ok() {}
    let kept = Bert::new(&region).records().filter(Result::is_ok).count();
    let mut one = [0; 512];
    assert_eq!(kept, 1000 / write_record(&mut one, &record).unwrap());
    assert_eq!(
        Bert::new(&region).records().filter(Result::is_err).count(),
        0
    );
}

#[test]
fn single_sections_read_back_as_written() {
    let mut buf = [0; 256];
    let memory = MemoryError {
        pa_mask: Some(!0xfff),
        error_type: Some(3),
        ..MemoryError::at(Severity::Recoverable, Pa::new(0x4500_1040))
    };
    let len = write_memory_error(&mut buf, &memory).unwrap();
    let read = summary(&buf[..len]);
    assert_eq!((read.pa, read.pa_mask), (memory.pa, memory.pa_mask));

    let processor = ProcessorError {
        pa: Some(Pa::new(0x4500_2000)),
        va: Some(0xffff_8000_1234_5678),
        midr: 0x414f_d0c1,
        ..ProcessorError::at(Severity::Fatal, Mpidr::from_raw(0x8100_0300))
    };
    let len = write_processor_error(&mut buf, &processor).unwrap();
    let read = summary(&buf[..len]);
    assert_eq!(read.mpidr, Some(Mpidr::from_raw(0x300)));
    assert_eq!(
        read.pa, processor.pa,
        "an Arm section's address serves when there is no other"
    );
    assert_eq!(read.severity, Some(Severity::Fatal));
}

#[test]
fn the_block_is_as_bad_as_its_worst_section() {
    let mut buf = [0; 512];
    let mut writer = Writer::new(&mut buf, Severity::Corrected).unwrap();
    writer
        .memory(&MemoryError::at(Severity::Corrected, Pa::new(0x1000)))
        .unwrap();
    writer
        .memory(&MemoryError::at(Severity::Recoverable, Pa::new(0x2000)))
        .unwrap();
    let len = writer.finish().unwrap();
    let block = StatusBlock::parse(&buf[..len]).unwrap();
    assert_eq!(block.severity(), Severity::Recoverable);
    let read = summary(&buf);
    assert!(read.more_addresses);
    assert_eq!(read.pa, Some(Pa::new(0x1000)));
}

#[test]
fn the_17th_section_is_refused_and_the_16_stay() {
    let mut buf = vec![0; MAX_BLOCK_LEN_BYTES];
    let mut writer = Writer::new(&mut buf, Severity::Corrected).unwrap();
    let error = MemoryError::at(Severity::Corrected, Pa::new(0x1000));
    for _ in 0..16 {
        writer.memory(&error).unwrap();
    }
    assert!(matches!(
        writer.memory(&error),
        Err(CperError::TooMany { max: 16, .. })
    ));
    let len = writer.finish().unwrap();
    assert_eq!(summary(&buf[..len]).sections, 16);
}
