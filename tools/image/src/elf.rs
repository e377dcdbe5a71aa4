// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lays out an ELF file as it is in a guest's memory.
//!
//! What comes out starts where every raw kernel starts, [`guest_map::KERNEL`], and is entered at
//! its first byte. An entry elsewhere is reached by a branch there, if no segment needs the place.

use std::fmt;
use std::ops::Range;

use firebreak_abi::guest_map;
use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// Why an ELF file cannot be a guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ElfError {
    /// Its tables are not whole.
    Damaged,
    /// It is for 32 bits.
    Class,
    /// It is big endian.
    BigEndian,
    /// It is for another machine.
    Machine(u16),
    /// It is no program that is linked to a fixed address.
    Kind,
    /// It wants an interpreter: a program for an operating system.
    Interpreter,
    /// It has nothing to load.
    Empty,
    /// A segment lies outside of memory.
    Outside {
        /// The segment.
        segment: Range<u64>,
        /// Memory that it may use.
        memory: Range<u64>,
    },
    /// Two segments lie on one another.
    Overlap(u64),
    /// The entry is in no segment.
    NoEntry(u64),
    /// The entry is not where the image begins, and what begins there is no branch.
    EntryTaken(u64),
}

impl ElfError {
    /// Returns what to do about it.
    pub(crate) fn remedy(&self) -> String {
        const KERNEL: u64 = guest_map::KERNEL.get();
        match self {
            Self::Damaged => "copy or link the file again".to_owned(),
            Self::Class | Self::BigEndian | Self::Machine(_) => {
                "build it for aarch64, little endian (such as the target aarch64-unknown-none)"
                    .to_owned()
            }
            Self::Kind => format!(
                "link it to a fixed address from {KERNEL:#x} on, not position independent (-no-pie)"
            ),
            Self::Interpreter => "name a program that runs without an operating system".to_owned(),
            Self::Empty => "link it with sections that are loaded".to_owned(),
            Self::Outside { memory, .. } => format!(
                "link it to physical addresses from {:#x} to {:#x}, or give it more memory",
                memory.start, memory.end
            ),
            Self::Overlap(_) => "correct the linker script".to_owned(),
            Self::NoEntry(_) => {
                "name the first instruction in the linker script (ENTRY)".to_owned()
            }
            Self::EntryTaken(_) => format!(
                "put the first instruction at {KERNEL:#x}, or leave the four bytes there free for \
                 a branch to it"
            ),
        }
    }
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("an ELF file that is damaged"),
            Self::Class => f.write_str("an ELF file for 32 bits"),
            Self::BigEndian => f.write_str("a big-endian ELF file"),
            Self::Machine(machine) => write!(f, "an ELF file for another machine ({machine})"),
            Self::Kind => f.write_str("no ELF program with fixed addresses"),
            Self::Interpreter => f.write_str("an ELF program for an operating system"),
            Self::Empty => f.write_str("an ELF file without anything to load"),
            Self::Outside { segment, memory } => write!(
                f,
                "a segment from {:#x} to {:#x} is outside of {:#x} to {:#x}",
                segment.start, segment.end, memory.start, memory.end
            ),
            Self::Overlap(at) => write!(f, "two segments overlap at {at:#x}"),
            Self::NoEntry(at) => write!(f, "the entry {at:#x} is in no segment"),
            Self::EntryTaken(at) => write!(f, "the entry is {at:#x}, behind other code"),
        }
    }
}

/// A segment: where it goes and what is in it.
struct Segment<'d> {
    at: u64,
    len: u64,
    data: &'d [u8],
    virtual_at: u64,
}

/// Says whether this is an ELF file.
pub(crate) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(&elf::ELFMAG)
}

/// Lays the file out; zeroed memory (BSS) is in the result.
///
/// # Errors
///
/// Why it cannot be a guest with `memory_bytes` of RAM.
pub(crate) fn lay_out(bytes: &[u8], memory_bytes: u64) -> Result<Vec<u8>, ElfError> {
    let header = header(bytes)?;
    let segments = segments(bytes, header)?;
    let start = guest_map::KERNEL.get();
    let memory = start..guest_map::RAM.get().saturating_add(memory_bytes);
    let mut end = start;
    for (index, segment) in segments.iter().enumerate() {
        let last = segment.at.saturating_add(segment.len);
        if segment.at < memory.start || last > memory.end {
            let segment = segment.at..last;
            return Err(ElfError::Outside { segment, memory });
        }
        let others = segments.iter().take(index);
        let overlaps = |other: &&Segment<'_>| segment.at < other.at + other.len && other.at < last;
        if let Some(other) = others.into_iter().find(overlaps) {
            return Err(ElfError::Overlap(segment.at.max(other.at)));
        }
        end = end.max(last);
    }
    let entry = entry(header, &segments)?;
    let mut image = vec![0; usize::try_from(end - start).map_err(|_| ElfError::Damaged)?];
    for segment in &segments {
        // Inside, as was checked.
        let at = (segment.at - start) as usize;
        image[at..at + segment.data.len()].copy_from_slice(segment.data);
    }
    if entry != start {
        let taken = segments.iter().any(|segment| segment.at < start + 4);
        let branch = branch(entry - start).filter(|_| !taken);
        let branch = branch.ok_or(ElfError::EntryTaken(entry))?;
        image[..4].copy_from_slice(&branch.to_le_bytes());
    }
    Ok(image)
}

fn header(bytes: &[u8]) -> Result<&FileHeader64<LittleEndian>, ElfError> {
    // e_ident: EI_CLASS of ELFCLASS32, EI_DATA of ELFDATA2MSB.
    match (bytes.get(4), bytes.get(5)) {
        (Some(1), _) => return Err(ElfError::Class),
        (_, Some(2)) => return Err(ElfError::BigEndian),
        _ => {}
    }
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|_| ElfError::Damaged)?;
    let machine = header.e_machine(LittleEndian);
    if machine != elf::EM_AARCH64 {
        return Err(ElfError::Machine(machine.0));
    }
    if header.e_type(LittleEndian) != elf::ET_EXEC {
        return Err(ElfError::Kind);
    }
    Ok(header)
}

fn segments<'d>(
    bytes: &'d [u8],
    header: &FileHeader64<LittleEndian>,
) -> Result<Vec<Segment<'d>>, ElfError> {
    let headers: &[ProgramHeader64<LittleEndian>] = header
        .program_headers(LittleEndian, bytes)
        .map_err(|_| ElfError::Damaged)?;
    let mut segments = Vec::new();
    for one in headers {
        match one.p_type(LittleEndian) {
            elf::PT_INTERP => return Err(ElfError::Interpreter),
            elf::PT_LOAD if one.p_memsz(LittleEndian) > 0 => {}
            _ => continue,
        }
        let data = one
            .data(LittleEndian, bytes)
            .map_err(|()| ElfError::Damaged)?;
        let len = one.p_memsz(LittleEndian);
        if data.len() as u64 > len {
            return Err(ElfError::Damaged);
        }
        segments.push(Segment {
            at: one.p_paddr(LittleEndian),
            len,
            data,
            virtual_at: one.p_vaddr(LittleEndian),
        });
    }
    if segments.is_empty() {
        return Err(ElfError::Empty);
    }
    Ok(segments)
}

/// Returns the physical address of the entry: the MMU is off when it is reached.
fn entry(header: &FileHeader64<LittleEndian>, segments: &[Segment<'_>]) -> Result<u64, ElfError> {
    let entry = header.e_entry(LittleEndian);
    let inside = |start: u64, segment: &Segment<'_>| {
        let offset = entry.checked_sub(start)?;
        (offset < segment.len && offset.is_multiple_of(4)).then(|| segment.at + offset)
    };
    let by_virtual = segments
        .iter()
        .find_map(|segment| inside(segment.virtual_at, segment));
    // Some linker scripts name the physical address of code that is linked to a virtual one.
    by_virtual
        .or_else(|| {
            segments
                .iter()
                .find_map(|segment| inside(segment.at, segment))
        })
        .ok_or(ElfError::NoEntry(entry))
}

/// Encodes `B` over a distance, if it reaches (Arm ARM C6.2.26: 26 bits of words).
fn branch(distance: u64) -> Option<u32> {
    let words = u32::try_from(distance / 4).ok()?;
    (words < 1 << 25).then_some(0x1400_0000 | words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 0x4020_0000;
    const MEMORY: u64 = 16 << 20;

    /// Writes an ELF file of segments (physical, virtual, contents, length in memory).
    fn file(entry: u64, segments: &[(u64, u64, &[u8], u64)]) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        bytes.resize(16, 0);
        bytes.extend(2_u16.to_le_bytes()); // ET_EXEC
        bytes.extend(183_u16.to_le_bytes()); // EM_AARCH64
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(entry.to_le_bytes());
        bytes.extend(64_u64.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, segments.len() as u16, 64, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        let mut offset = 64 + 56 * segments.len() as u64;
        for (at, virtual_at, data, len) in segments {
            bytes.extend(1_u32.to_le_bytes()); // PT_LOAD
            bytes.extend(5_u32.to_le_bytes());
            for word in [offset, *virtual_at, *at, data.len() as u64, *len, 4096] {
                bytes.extend(word.to_le_bytes());
            }
            offset += data.len() as u64;
        }
        for (_, _, data, _) in segments {
            bytes.extend_from_slice(data);
        }
        bytes
    }

    #[test]
    fn segments_stand_where_they_say_and_bss_is_zero() {
        let elf = file(
            START,
            &[
                (START, START, &[1; 8], 16),
                (START + 0x40, START + 0x40, &[2; 4], 4),
            ],
        );
        let image = lay_out(&elf, MEMORY).unwrap();
        assert_eq!(image.len(), 0x44);
        assert_eq!(image[..8], [1; 8]);
        assert!(image[8..0x40].iter().all(|byte| *byte == 0));
        assert_eq!(image[0x40..], [2; 4]);
    }

    #[test]
    fn an_entry_elsewhere_is_reached_by_a_branch_if_there_is_room() {
        let far = START + 0x1000;
        let elf = file(far + 8, &[(far, far, &[1; 16], 16)]);
        let image = lay_out(&elf, MEMORY).unwrap();
        // b . + 0x1008
        assert_eq!(image[..4], 0x1400_0402_u32.to_le_bytes());
        let elf = file(START + 4, &[(START, START, &[1; 16], 16)]);
        assert_eq!(lay_out(&elf, MEMORY), Err(ElfError::EntryTaken(START + 4)));
    }

    #[test]
    fn a_virtual_entry_is_entered_at_its_physical_address() {
        let high = 0xffff_0000_0000_0000;
        let elf = file(high, &[(START, high, &[1; 16], 16)]);
        assert_eq!(lay_out(&elf, MEMORY).unwrap(), [1; 16]);
    }

    #[test]
    fn what_cannot_be_a_guest_is_refused_for_its_reason() {
        let good = file(START, &[(START, START, &[1; 16], 16)]);
        let patched = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            lay_out(&bytes, MEMORY).unwrap_err()
        };
        assert_eq!(patched(4, 1), ElfError::Class);
        assert_eq!(patched(5, 2), ElfError::BigEndian);
        assert_eq!(patched(18, 62), ElfError::Machine(62));
        assert_eq!(patched(16, 3), ElfError::Kind);
        assert_eq!(patched(64, 3), ElfError::Interpreter);
        assert_eq!(patched(64, 4), ElfError::Empty);
        assert_eq!(patched(24, 16), ElfError::NoEntry(START + 16));
        assert_eq!(lay_out(&good[..70], MEMORY), Err(ElfError::Damaged));
        assert_eq!(lay_out(&good[..130], MEMORY), Err(ElfError::Damaged));
        for (at, len) in [
            (START - 4096, 16),
            (0x4000_0000 + MEMORY - 8, 16),
            (0, 16),
            (START, u64::MAX),
        ] {
            let elf = file(at, &[(at, at, &[1; 16], len)]);
            let error = lay_out(&elf, MEMORY).unwrap_err();
            assert!(matches!(error, ElfError::Outside { .. }), "{at:#x} {error}");
        }
        let two = file(
            START,
            &[(START, START, &[1; 16], 16), (START + 15, 0, &[1; 4], 4)],
        );
        assert_eq!(lay_out(&two, MEMORY), Err(ElfError::Overlap(START + 15)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn damaged_files_are_refused_or_fit(
            edits in proptest::collection::vec((0..200_usize, any::<u8>()), 0..6)
        ) {
            let far = START + 0x1000;
            let mut bytes = file(far, &[(far, far, &[1; 32], 64), (far + 64, far, &[2; 8], 8)]);
            for (at, byte) in edits {
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
            if let Ok(image) = lay_out(&bytes, MEMORY) {
                prop_assert!(image.len() as u64 <= MEMORY);
            }
        }
    }
}
