// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the partitions below `/chosen` and reads each.
//!
//! `/chosen` itself is a bootloader's notice board, so a property of it that is not for us is
//! left alone. A child of it that speaks of a partition (`xen,`, `multiboot,` or `firebreak,` in
//! its `compatible`) must be one, and inside of a partition nothing is ignored.

use firebreak_abi::Pa;

use super::domain::Domain;
use super::{PartitionConfig, SystemConfig};
use crate::error::{DtError, Fault, NodePath};
use crate::tree::{Event, Tree, Walk};
use crate::value::Value;

/// Reads the partitions from a configuration's devicetree, or from the board's own.
///
/// `image_base` is where the image stands, for modules that are given relative to it.
///
/// # Errors
///
/// A damaged blob, or a partition that is not described as the binding wants it. A tree without
/// any partition is not an error: the list is empty.
pub fn read_config(config_dtb: &[u8], image_base: Pa) -> Result<SystemConfig<'_>, DtError<'_>> {
    let mut walk = Tree::open(config_dtb)?.walk();
    let mut config = SystemConfig::default();
    while let Some(event) = walk.next_event()? {
        if let Event::Begin(b"chosen") = event
            && walk.depth() == 2
        {
            read_chosen(&mut walk, image_base, &mut config)?;
        }
    }
    Ok(config)
}

fn read_chosen<'a>(
    walk: &mut Walk<'a>,
    image_base: Pa,
    config: &mut SystemConfig<'a>,
) -> Result<(), DtError<'a>> {
    let path = NodePath::top(b"chosen");
    while let Some(event) = walk.next_event()? {
        match event {
            Event::Property(..) => {}
            Event::Begin(name) => {
                let path = path.child(name);
                match compatible(walk.clone())? {
                    Some(list) if list.has("firebreak,domain") || list.has("xen,domain") => {
                        let partition = read_domain(walk, path, name, image_base)?;
                        add(config, path, partition)?;
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
                        return Err(DtError::Property {
                            node: path,
                            property: "compatible",
                            fault,
                        });
                    }
                    _ => skip(walk)?,
                }
            }
            Event::End => return Ok(()),
        }
    }
    Ok(())
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
) -> Result<(), DtError<'a>> {
    if config
        .partitions
        .iter()
        .any(|other| other.name == partition.name)
    {
        let fault = Fault::Value("has the name of another partition; rename one");
        return Err(DtError::Node { node: path, fault });
    }
    let most = config.partitions.capacity();
    config
        .partitions
        .push(partition)
        .map_err(|_| DtError::Node {
            node: path,
            fault: Fault::TooMany {
                what: "partitions",
                most,
            },
        })
}

/// Looks ahead for the `compatible` of the node that has just begun.
fn compatible(mut walk: Walk<'_>) -> Result<Option<Value<'_>>, DtError<'_>> {
    while let Some(Event::Property(name, value)) = walk.next_event()? {
        if name.bytes()? == b"compatible" {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Passes over the rest of the node that has just begun.
fn skip(walk: &mut Walk<'_>) -> Result<(), DtError<'static>> {
    let depth = walk.depth();
    while let Some(event) = walk.next_event().map_err(DtError::Tree)? {
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
) -> Result<PartitionConfig<'a>, DtError<'a>> {
    let mut domain = Domain::new(path, name)?;
    while let Some(event) = walk.next_event()? {
        match event {
            Event::Property(name, value) => domain.property(name.bytes()?, value)?,
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
    /// Takes the value if `name` is one of the two; says whether it is.
    pub(super) fn note<'a>(
        &mut self,
        node: NodePath<'a>,
        name: &[u8],
        value: Value<'a>,
    ) -> Result<bool, DtError<'a>> {
        let (slot, property) = match name {
            b"#address-cells" => (&mut self.address, "#address-cells"),
            b"#size-cells" => (&mut self.size, "#size-cells"),
            _ => return Ok(false),
        };
        match value.u32() {
            Some(count @ (1 | 2)) => *slot = count,
            _ => {
                let fault = Fault::Form("one cell, 1 or 2");
                return Err(DtError::Property {
                    node,
                    property,
                    fault,
                });
            }
        }
        Ok(true)
    }
}

fn read_module<'a>(
    walk: &mut Walk<'a>,
    domain: &mut Domain<'a>,
    path: NodePath<'a>,
    image_base: Pa,
) -> Result<(), DtError<'a>> {
    let mut module = super::domain::ModuleNode::new(path);
    while let Some(event) = walk.next_event()? {
        match event {
            Event::Property(name, value) => module.property(name.bytes()?, value)?,
            Event::Begin(name) => {
                return Err(DtError::Node {
                    node: path.child(name),
                    fault: Fault::Unknown,
                });
            }
            Event::End => break,
        }
    }
    domain.module(module, image_base)
}
