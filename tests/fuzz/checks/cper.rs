// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes that are read as a status block, a boot error region or a CPER
//! record: no panic, bounded loops, and the cheap answers agree with the thorough ones.
//!
//! Shared by the fuzz target and by the test that replays the corpus.

use firebreak_cper::{
    Bert, CperError, CperRecord, Gist, HEADER_LEN_BYTES, MAX_BLOCK_LEN_BYTES, MAX_CONTEXTS,
    MAX_ERROR_INFOS, MAX_SECTIONS, SectionBody, StatusBlock, gist_of, header_len, summary,
};

fn visit(body: &SectionBody<'_>) {
    if let SectionBody::ArmProcessor(arm) = body {
        assert!(arm.infos().count() <= MAX_ERROR_INFOS + 1);
        assert!(arm.contexts().count() <= MAX_CONTEXTS + 1);
    }
}

/// What the quick reader makes of a block is what the thorough one does, where it dares to speak.
fn check_gist(bytes: &[u8]) {
    let words: Vec<u32> = bytes
        .chunks_exact(4)
        .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let limit = 4 * words.len();
    let Ok(read) = gist_of(&words) else {
        return;
    };
    let thorough = summary(&bytes[..limit]);
    assert_eq!(thorough.malformed, None);
    assert!(!thorough.more_addresses);
    let expected = Gist {
        severity: thorough.severity.unwrap(),
        pa: thorough.pa,
        iss: thorough.iss,
        id: thorough.info.and_then(|info| info.id),
    };
    assert_eq!(read, expected);
}

/// Reads `bytes` in every way and checks the answers against each other.
pub(crate) fn check_reader(bytes: &[u8]) {
    check_gist(bytes);
    let read = summary(bytes);
    let block = StatusBlock::parse(bytes);
    if let Some(header) = bytes.first_chunk::<HEADER_LEN_BYTES>() {
        let len = header_len(header, bytes.len());
        assert_eq!(len, block.map(|block| block.len_bytes()));
        assert_eq!(read.is_empty(), len == Err(CperError::Empty));
    }
    if let Ok(block) = block {
        assert!(block.len_bytes() <= bytes.len().min(MAX_BLOCK_LEN_BYTES));
        let mut good = 0;
        let mut bad = false;
        for entry in block.entries() {
            let Ok(entry) = entry else {
                bad = true;
                continue;
            };
            good += 1;
            match entry.section() {
                Ok(section) => visit(&section.body),
                Err(_) => bad = true,
            }
        }
        assert!(good <= MAX_SECTIONS);
        assert_eq!(usize::from(read.sections), good);
        assert!(read.malformed.is_some() || !bad);
        assert!(
            read.severity
                .is_some_and(|worst| worst.rank() >= block.severity().rank())
        );
    }
    for record in Bert::new(bytes).records().flatten() {
        assert_eq!(record.0.len_bytes(), record.1.len());
    }
    if let Ok(record) = CperRecord::parse(bytes) {
        assert!(record.sections().count() <= MAX_SECTIONS + 1);
        record
            .sections()
            .flatten()
            .for_each(|section| visit(&section.body));
    }
}
