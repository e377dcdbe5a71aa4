// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devicetree that the firmware hands on: QEMU's, with what QEMU cannot know.
//!
//! With `-bios`, QEMU describes no PSCI, and describes the secure world's devices. [`extend`]
//! copies the tree token by token, drops what only the secure world can use, and adds PSCI, the
//! reservation of the shared region and the `firebreak,sei-1` node. The source is checked as it
//! is read: every offset and length is held against its block, and any doubt is an [`Error`].
//!
//! Format: Devicetree Specification 0.4, chapter 5.

use firebreak_abi::{PaRange, sei};
use heapless::Vec;

mod reader;
mod writer;

use reader::{Item, Reader};
use writer::Writer;

const MAGIC: u32 = 0xd00d_feed;
const HEADER_BYTES: usize = 40;
/// Version 17, readable as version 16.
const VERSION: u32 = 17;
const LAST_COMPATIBLE: u32 = 16;

/// Start of the names of the nodes that we add. Those that are there come from an earlier life
/// of the machine, whose tree a warm reset left in place.
const OURS: &[u8] = b"firebreak-sei@";

/// What is wrong with the tree, or with the room for the new one. The firmware then leaves the
/// old tree as it is and says so on its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// No magic number, or a version that is not 17-compatible.
    NotADevicetree,
    /// A block, token, name or value runs over its end.
    Truncated,
    /// A token that does not exist, or in a place where it may not be.
    Malformed,
    /// The new tree does not fit into its buffer.
    NoSpace,
    /// More secure-only nodes than there is room to remember.
    TooManyNodes,
}

impl Error {
    /// Returns a word for the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotADevicetree => "not-a-devicetree",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::NoSpace => "no-space",
            Self::TooManyNodes => "too-many-nodes",
        }
    }
}

/// One error source, as its devicetree node tells.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Affinity of its PE.
    pub affinity: u64,
    /// PA of its page (layout: `firebreak_abi::sei::source`).
    pub page: u64,
}

/// What is added to the tree.
#[derive(Clone, Copy, Debug)]
pub struct Additions<'a> {
    /// The whole shared region, reserved.
    pub region: PaRange,
    /// Boot error record inside it.
    pub boot_error_record: PaRange,
    /// Persistent memory inside it.
    pub persistent: PaRange,
    /// Error sources, one for each PE.
    pub sources: &'a [Source],
}

/// Names of root nodes that are dropped.
type Dropped<'a> = Vec<&'a [u8], 16>;

/// Writes the extended tree into `out`; returns its length in bytes.
///
/// # Errors
///
/// Any [`Error`]; the content of `out` is then meaningless.
pub fn extend(source: &[u8], out: &mut [u8], additions: &Additions<'_>) -> Result<usize, Error> {
    let reader = Reader::new(source)?;
    let (dropped, has_reserved_memory) = survey(&reader)?;
    let mut writer = Writer::new(out, &reader)?;
    copy(
        &reader,
        &mut writer,
        &dropped,
        has_reserved_memory,
        additions,
    )?;
    writer.finish(&reader)
}

/// Finds what will be dropped, and whether `/reserved-memory` exists.
fn survey<'a>(reader: &Reader<'a>) -> Result<(Dropped<'a>, bool), Error> {
    let mut dropped = Dropped::new();
    let mut has_reserved_memory = false;
    let mut at = 0;
    let mut depth = 0_usize;
    let mut node: &[u8] = b"";
    let mut disabled = false;
    while let Some((item, next)) = reader.item(at)? {
        match item {
            Item::Begin(name) => {
                depth += 1;
                if depth == 2 {
                    node = name;
                    disabled = false;
                    has_reserved_memory |= name == b"reserved-memory";
                    if name == b"psci" || name == b"secure-chosen" || name.starts_with(OURS) {
                        push(&mut dropped, name)?;
                    }
                }
            }
            Item::End => depth = depth.checked_sub(1).ok_or(Error::Malformed)?,
            // QEMU's mark for "secure world only" is status = "disabled" with secure-status =
            // "okay"; it writes the two in either order, so the second one seen decides.
            Item::Property {
                name: b"status",
                value: b"disabled\0",
            }
            | Item::Property {
                name: b"secure-status",
                value: b"okay\0",
            } if depth == 2 => {
                if disabled {
                    push(&mut dropped, node)?;
                }
                disabled = true;
            }
            Item::Property { .. } => {}
        }
        at = next;
    }
    if depth == 0 {
        Ok((dropped, has_reserved_memory))
    } else {
        Err(Error::Malformed)
    }
}

fn push<'a>(dropped: &mut Dropped<'a>, name: &'a [u8]) -> Result<(), Error> {
    dropped.push(name).map_err(|_| Error::TooManyNodes)
}

/// Copies the structure block, with the changes.
fn copy(
    reader: &Reader<'_>,
    writer: &mut Writer<'_>,
    dropped: &Dropped<'_>,
    has_reserved_memory: bool,
    additions: &Additions<'_>,
) -> Result<(), Error> {
    let mut at = 0;
    // Names of the nodes that we are in: root is "", levels below 3 do not matter.
    let mut path: [&[u8]; 3] = [b""; 3];
    let mut depth = 0_usize;
    while let Some((item, next)) = reader.item(at)? {
        at = next;
        let [_, top, below] = path;
        match item {
            Item::Begin(name)
                if depth == 1 && dropped.contains(&name)
                    || depth == 2 && top == b"reserved-memory" && name.starts_with(OURS) =>
            {
                at = reader.skip_node(at)?;
            }
            Item::Begin(name) => {
                if let Some(level) = path.get_mut(depth) {
                    *level = name;
                }
                depth += 1;
                writer.begin(name)?;
                if depth == 3 && top == b"cpus" && name.starts_with(b"cpu@") {
                    writer.property("enable-method", b"psci\0")?;
                }
            }
            Item::End => {
                match depth {
                    1 => add_to_root(writer, has_reserved_memory, additions)?,
                    2 if top == b"reserved-memory" => add_reservation(writer, additions)?,
                    _ => {}
                }
                depth = depth.checked_sub(1).ok_or(Error::Malformed)?;
                writer.end()?;
            }
            Item::Property { name, value } => {
                let superseded = depth == 3
                    && top == b"cpus"
                    && below.starts_with(b"cpu@")
                    && name == b"enable-method";
                let dangling = depth == 2 && top == b"aliases" && names_dropped(value, dropped);
                if !superseded && !dangling {
                    writer.copy_property(reader, name, value)?;
                }
            }
        }
    }
    Ok(())
}

/// Says whether the value is the path of a dropped node, or of one below it.
fn names_dropped(value: &[u8], dropped: &Dropped<'_>) -> bool {
    dropped.iter().any(|name| {
        value
            .strip_prefix(b"/")
            .and_then(|path| path.strip_prefix(*name))
            .is_some_and(|rest| matches!(rest.first(), Some(0 | b'/')))
    })
}

fn add_to_root(
    writer: &mut Writer<'_>,
    has_reserved_memory: bool,
    additions: &Additions<'_>,
) -> Result<(), Error> {
    writer.begin(b"psci")?;
    writer.property("compatible", b"arm,psci-1.0\0arm,psci-0.2\0")?;
    writer.property("method", b"smc\0")?;
    writer.end()?;
    if !has_reserved_memory {
        writer.begin(b"reserved-memory")?;
        writer.cells("#address-cells", &[2])?;
        writer.cells("#size-cells", &[2])?;
        writer.property("ranges", b"")?;
        add_reservation(writer, additions)?;
        writer.end()?;
    }
    writer.begin_at(b"firebreak-sei", additions.region.start.get())?;
    writer.string("compatible", sei::COMPATIBLE)?;
    writer.range("reg", additions.region)?;
    writer.range(sei::PROP_BERT, additions.boot_error_record)?;
    writer.range(sei::PROP_PERSISTENT, additions.persistent)?;
    writer.cells("#address-cells", &[2])?;
    writer.cells("#size-cells", &[0])?;
    for source in additions.sources {
        add_source(writer, source)?;
    }
    writer.end()
}

fn add_reservation(writer: &mut Writer<'_>, additions: &Additions<'_>) -> Result<(), Error> {
    writer.begin_at(b"firebreak-sei", additions.region.start.get())?;
    writer.range("reg", additions.region)?;
    writer.property("no-map", b"")?;
    writer.end()
}

fn add_source(writer: &mut Writer<'_>, source: &Source) -> Result<(), Error> {
    use sei::source as layout;
    let at = |offset: u64| source.page.wrapping_add(offset);
    let length = u32::try_from(layout::STATUS_BLOCK_LEN).map_err(|_| Error::NoSpace)?;
    writer.begin_at(b"source", source.affinity)?;
    writer.address("reg", source.affinity)?;
    writer.address(
        sei::PROP_ERROR_STATUS_ADDRESS,
        at(layout::ERROR_STATUS_ADDRESS),
    )?;
    writer.cells(sei::PROP_ERROR_STATUS_LENGTH, &[length])?;
    writer.address(sei::PROP_READ_ACK, at(layout::READ_ACK))?;
    writer.address(sei::PROP_PENDING, at(layout::PENDING))?;
    writer.address(sei::PROP_SYNDROME, at(layout::SYNDROME))?;
    writer.end()
}

#[cfg(test)]
mod tests;
