// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the partitions below `/chosen` and reads each.
//!
//! `/chosen` itself is a bootloader's notice board, so a property of it that is not for us is
//! left alone; one that begins with `firebreak,` must be known. A child of it that speaks of a
//! partition (`xen,`, `multiboot,` or `firebreak,` in its `compatible`) must be one, and inside of
//! a partition nothing is ignored.

use firebreak_abi::Pa;

use super::domain::Domain;
use super::{
    MAX_LOG_BYTES, MAX_TRACE_BYTES, MIN_LOG_BYTES, PartitionConfig, SystemConfig, property,
};
use crate::error::{Complaint, DtError, Fault, NodePath, Refused};
use crate::tree::{Event, Name, Tree, Walk};
use crate::value::Value;

/// Reads the partitions from a configuration's devicetree, or from the board's own.
///
/// `image_base` is where the image stands, for modules that are given relative to it.
///
/// # Errors
///
/// A damaged blob, or a partition that is not described as the binding wants it. A tree without
/// any partition is not an error: the list is empty.
#[inline(never)]
pub fn read_config(config_dtb: &[u8], image_base: Pa) -> Result<SystemConfig<'_>, DtError<'_>> {
    let complaint = Complaint::default();
    complaint.close(read(config_dtb, image_base, &complaint))
}

fn read<'a>(
    config_dtb: &'a [u8],
    image_base: Pa,
    complaint: &Complaint<'a>,
) -> Result<SystemConfig<'a>, Refused> {
    let tree = Tree::open(config_dtb).map_err(|fault| complaint.tree(fault))?;
    let mut walk = tree.walk();
    let mut config = SystemConfig::default();
    while let Some(event) = next(&mut walk, complaint)? {
        if let Event::Begin(b"chosen") = event
            && walk.depth() == 2
        {
            read_chosen(&mut walk, image_base, &mut config, complaint)?;
        }
    }
    Ok(config)
}

#[inline(never)]
fn next<'a>(walk: &mut Walk<'a>, complaint: &Complaint<'a>) -> Result<Option<Event<'a>>, Refused> {
    walk.next_event().map_err(|fault| complaint.tree(fault))
}

#[inline(never)]
fn bytes<'a>(name: Name<'a>, complaint: &Complaint<'a>) -> Result<&'a [u8], Refused> {
    name.bytes().map_err(|fault| complaint.tree(fault))
}

fn read_chosen<'a>(
    walk: &mut Walk<'a>,
    image_base: Pa,
    config: &mut SystemConfig<'a>,
    complaint: &Complaint<'a>,
) -> Result<(), Refused> {
    let path = NodePath::top(b"chosen");
    while let Some(event) = next(walk, complaint)? {
        match event {
            Event::Property(name, value) => {
                let name = bytes(name, complaint)?;
                chosen_property(&path, name, value, config, complaint)?;
            }
            Event::Begin(name) => {
                let path = path.child(name);
                match compatible(walk.clone(), complaint)? {
                    Some(list) if list.has("firebreak,domain") || list.has("xen,domain") => {
                        let partition = read_domain(walk, path, name, image_base, complaint)?;
                        add(config, path, partition, complaint)?;
                    }
                    Some(list) if speaks_of_partitions(list) => {
                        let fault = Fault::Word {
                            found: list
                                .bytes()
                                .split(|byte| *byte == 0)
                                .next()
                                .and_then(|word| core::str::from_utf8(word).ok())
                                .unwrap_or("?"),
                            allowed: "\"firebreak,domain\" or \"xen,domain\" below /chosen",
                        };
                        return Err(complaint.property(&path, "compatible", &fault));
                    }
                    _ => skip(walk, complaint)?,
                }
            }
            Event::End => return Ok(()),
        }
    }
    Ok(())
}

fn chosen_property<'a>(
    path: &NodePath<'a>,
    name: &'a [u8],
    value: Value<'a>,
    config: &mut SystemConfig<'a>,
    complaint: &Complaint<'a>,
) -> Result<(), Refused> {
    if name == property::CONTROL.as_bytes() {
        if !value.bytes().is_empty() {
            let fault = Fault::Form("no value: the property is there, or it is not");
            return Err(complaint.property(path, property::CONTROL, &fault));
        }
        config.control = true;
    } else if name == property::LOG.as_bytes() {
        match kib(value) {
            Some(bytes @ (0 | MIN_LOG_BYTES..=MAX_LOG_BYTES)) => config.log_bytes = Some(bytes),
            _ => {
                let fault = Fault::Form("KiB as two cells: 0, or 2 to 256");
                return Err(complaint.property(path, property::LOG, &fault));
            }
        }
    } else if name == property::TRACE.as_bytes() {
        match kib(value) {
            Some(bytes @ 0..=MAX_TRACE_BYTES) => config.trace_bytes = bytes,
            _ => {
                let fault = Fault::Form("KiB as two cells, 0 to 32");
                return Err(complaint.property(path, property::TRACE, &fault));
            }
        }
    } else if name.starts_with(b"firebreak,") {
        let name = core::str::from_utf8(name).unwrap_or("firebreak,?");
        return Err(complaint.property(path, name, &Fault::Unknown));
    }
    Ok(())
}

/// Reads KiB of two cells, as bytes.
pub(super) fn kib(value: Value<'_>) -> Option<u64> {
    let kib = value.number().filter(|_| value.len() == 8)?;
    kib.checked_mul(1024)
}

fn speaks_of_partitions(list: Value<'_>) -> bool {
    ["xen,", "multiboot,", "firebreak,"]
        .iter()
        .any(|prefix| list.has_prefix(prefix))
}

fn add<'a>(
    config: &mut SystemConfig<'a>,
    path: NodePath<'a>,
    partition: PartitionConfig<'a>,
    complaint: &Complaint<'a>,
) -> Result<(), Refused> {
    if config
        .partitions
        .iter()
        .any(|other| other.name == partition.name)
    {
        let fault = Fault::Value("has the name of another partition; rename one");
        return Err(complaint.node(&path, &fault));
    }
    let most = config.partitions.capacity();
    config.partitions.push(partition).map_err(|_| {
        let what = "partitions";
        complaint.node(&path, &Fault::TooMany { what, most })
    })
}

/// Looks ahead for the `compatible` of the node that has just begun.
fn compatible<'a>(
    mut walk: Walk<'a>,
    complaint: &Complaint<'a>,
) -> Result<Option<Value<'a>>, Refused> {
    while let Some(Event::Property(name, value)) = next(&mut walk, complaint)? {
        if bytes(name, complaint)? == b"compatible" {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Passes over the rest of the node that has just begun.
fn skip<'a>(walk: &mut Walk<'a>, complaint: &Complaint<'a>) -> Result<(), Refused> {
    let depth = walk.depth();
    while let Some(event) = next(walk, complaint)? {
        if matches!(event, Event::End) && walk.depth() < depth {
            break;
        }
    }
    Ok(())
}

fn read_domain<'a>(
    walk: &mut Walk<'a>,
    path: NodePath<'a>,
    name: &'a [u8],
    image_base: Pa,
    complaint: &Complaint<'a>,
) -> Result<PartitionConfig<'a>, Refused> {
    let mut domain = Domain::new(path, name, complaint)?;
    while let Some(event) = next(walk, complaint)? {
        match event {
            Event::Property(name, value) => domain.property(bytes(name, complaint)?, value)?,
            Event::Begin(name) => read_module(walk, &mut domain, path.child(name), image_base)?,
            Event::End => break,
        }
    }
    domain.finish()
}

/// The cell counts that a node sets for its children.
#[derive(Clone, Copy)]
pub(super) struct CellCounts {
    pub(super) address: u32,
    pub(super) size: u32,
}

impl Default for CellCounts {
    fn default() -> Self {
        // The specification's defaults (2.3.5).
        Self {
            address: 2,
            size: 1,
        }
    }
}

impl CellCounts {
    /// Takes the value of one of the two properties.
    pub(super) fn note<'a>(
        &mut self,
        node: &NodePath<'a>,
        name: &'a str,
        value: Value<'a>,
        complaint: &Complaint<'a>,
    ) -> Result<(), Refused> {
        let Some(count @ (1 | 2)) = value.u32() else {
            let fault = Fault::Form("one cell, 1 or 2");
            return Err(complaint.property(node, name, &fault));
        };
        if name == "#address-cells" {
            self.address = count;
        } else {
            self.size = count;
        }
        Ok(())
    }
}

fn read_module<'a>(
    walk: &mut Walk<'a>,
    domain: &mut Domain<'a, '_>,
    path: NodePath<'a>,
    image_base: Pa,
) -> Result<(), Refused> {
    let complaint = domain.complaint;
    let mut module = super::domain::ModuleNode::new(path);
    while let Some(event) = next(walk, complaint)? {
        match event {
            Event::Property(name, value) => {
                module.property(bytes(name, complaint)?, value, complaint)?
            }
            Event::Begin(name) => {
                return Err(complaint.node(&path.child(name), &Fault::Unknown));
            }
            Event::End => break,
        }
    }
    domain.module(module, image_base)
}
