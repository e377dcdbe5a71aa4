// SPDX-License-Identifier: MIT OR Apache-2.0
//! A devicetree with the place of everything, and what its references mean.

use std::ops::Range;

use crate::diagnostic::{Problem, Source};

/// A node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) name: String,
    /// Place of the name.
    pub(super) span: Range<usize>,
    pub(super) labels: Vec<String>,
    pub(super) properties: Vec<Property>,
    pub(super) children: Vec<Node>,
    /// Properties and children that an earlier description of the same node loses.
    pub(super) deleted: (Vec<String>, Vec<String>),
}

/// A property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) name: String,
    /// Place of the name.
    pub(super) span: Range<usize>,
    /// Place of the value; that of the name if there is none.
    pub(super) value_span: Range<usize>,
    /// The value in pieces.
    pub(super) pieces: Vec<Piece>,
}

/// A piece of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes as a blob has them.
    Bytes(Vec<u8>),
    /// `&label` in a list of cells.
    Phandle(String, Range<usize>),
    /// `&label` beside lists: the node's path.
    Path(String, Range<usize>),
}

impl Property {
    /// Returns the value as a blob has it, once references are resolved.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            if let Piece::Bytes(more) = piece {
                bytes.extend_from_slice(more);
            }
        }
        bytes
    }

    /// Returns the value as cells.
    pub(super) fn cells(&self) -> Option<Vec<u32>> {
        let bytes = self.bytes();
        let (words, rest) = bytes.as_chunks::<4>();
        rest.is_empty()
            .then(|| words.iter().map(|word| u32::from_be_bytes(*word)).collect())
    }

    /// Returns the value as a list of strings.
    pub(super) fn strings(&self) -> Option<Vec<String>> {
        let text = String::from_utf8(self.bytes()).ok()?;
        let text = text.strip_suffix('\0')?;
        Some(text.split('\0').map(str::to_owned).collect())
    }

    /// Returns the value as one string.
    pub(super) fn string(&self) -> Option<String> {
        match self.strings()?.as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        }
    }
}

impl Node {
    /// Finds a property.
    pub(super) fn property(&self, name: &str) -> Option<&Property> {
        self.properties
            .iter()
            .find(|property| property.name == name)
    }

    /// Finds a child by its name.
    pub(super) fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Returns the words of `compatible`.
    pub(super) fn compatible(&self) -> Vec<String> {
        self.property("compatible")
            .and_then(Property::strings)
            .unwrap_or_default()
    }

    /// Deletes a property, here and in what this is put over.
    pub(super) fn delete_property(&mut self, name: String) {
        self.properties.retain(|property| property.name != name);
        self.deleted.0.push(name);
    }

    /// Deletes a child, here and in what this is put over.
    pub(super) fn delete_child(&mut self, name: String) {
        self.children.retain(|child| child.name != name);
        self.deleted.1.push(name);
    }

    /// Puts another description of the same node over this one.
    pub(super) fn merge(&mut self, other: Self) {
        let (properties, children) = &other.deleted;
        self.properties
            .retain(|one| !properties.contains(&one.name));
        self.children.retain(|one| !children.contains(&one.name));
        self.labels.extend(other.labels);
        for property in other.properties {
            match self
                .properties
                .iter_mut()
                .find(|one| one.name == property.name)
            {
                Some(known) => *known = property,
                None => self.properties.push(property),
            }
        }
        for child in other.children {
            match self.children.iter_mut().find(|one| one.name == child.name) {
                Some(known) => known.merge(child),
                None => self.children.push(child),
            }
        }
    }

    /// Finds the node that a reference names: a label, or a path.
    pub(super) fn find_mut(&mut self, reference: &str) -> Option<&mut Self> {
        if let Some(path) = reference.strip_prefix('/') {
            let mut node = self;
            for name in path.split('/').filter(|name| !name.is_empty()) {
                node = node.children.iter_mut().find(|one| one.name == name)?;
            }
            return Some(node);
        }
        if self.labels.iter().any(|label| label == reference) {
            return Some(self);
        }
        self.children
            .iter_mut()
            .find_map(|child| child.find_mut(reference))
    }

    /// Finds the path of what a reference names.
    fn path_of(&self, reference: &str, here: &str) -> Option<String> {
        if reference.starts_with('/') || self.labels.iter().any(|label| label == reference) {
            let path = if reference.starts_with('/') {
                reference
            } else {
                here
            };
            return Some(if path.is_empty() { "/" } else { path }.to_owned());
        }
        self.children
            .iter()
            .find_map(|child| child.path_of(reference, &format!("{here}/{}", child.name)))
    }

    fn each(&self, visit: &mut impl FnMut(&Property)) {
        self.properties.iter().for_each(&mut *visit);
        self.children.iter().for_each(|child| child.each(visit));
    }

    fn each_mut(&mut self, visit: &mut impl FnMut(&mut Property)) {
        self.properties.iter_mut().for_each(&mut *visit);
        self.children
            .iter_mut()
            .for_each(|child| child.each_mut(visit));
    }
}

/// Puts bytes in the place of references, and gives phandles to the nodes that need one.
pub(super) fn resolve(mut root: Node, source: &Source) -> Result<Node, Problem> {
    let mut wanted = Vec::new();
    let mut highest = 0;
    root.each(&mut |property| {
        for piece in &property.pieces {
            match piece {
                Piece::Phandle(to, span) => wanted.push((to.clone(), span.clone(), true)),
                Piece::Path(to, span) => wanted.push((to.clone(), span.clone(), false)),
                Piece::Bytes(_) => {}
            }
        }
        if property.name == "phandle"
            && let Some([phandle]) = property.cells().as_deref()
        {
            highest = highest.max(*phandle);
        }
    });
    let mut known: Vec<(String, u32, String)> = Vec::new();
    for (to, span, by_phandle) in wanted {
        if known
            .iter()
            .any(|(one, phandle, _)| *one == to && (*phandle != 0 || !by_phandle))
        {
            continue;
        }
        let path = root.path_of(&to, "");
        let (Some(path), Some(node)) = (path, root.find_mut(&to)) else {
            let message = format!("nothing is labelled `{to}`");
            let remedy =
                "put the label before a node (`label: name { ... }`), or correct the reference";
            return Err(Problem::error(
                source,
                span,
                message,
                "no such node",
                remedy,
            ));
        };
        let mut phandle = 0;
        if by_phandle {
            let own = node.property("phandle").and_then(Property::cells);
            phandle = match own.as_deref() {
                Some([own]) => *own,
                _ => {
                    highest = highest.saturating_add(1);
                    node.properties.push(Property {
                        name: "phandle".to_owned(),
                        span: node.span.clone(),
                        value_span: node.span.clone(),
                        pieces: vec![Piece::Bytes(highest.to_be_bytes().to_vec())],
                    });
                    highest
                }
            };
        }
        known.retain(|(one, ..)| *one != to);
        known.push((to, phandle, path));
    }
    root.each_mut(&mut |property| {
        for piece in &mut property.pieces {
            let (to, by_phandle) = match piece {
                Piece::Phandle(to, _) => (to, true),
                Piece::Path(to, _) => (to, false),
                Piece::Bytes(_) => continue,
            };
            let Some((_, phandle, path)) = known.iter().find(|(one, ..)| one == to) else {
                continue;
            };
            *piece = Piece::Bytes(if by_phandle {
                phandle.to_be_bytes().to_vec()
            } else {
                [path.as_bytes(), b"\0"].concat()
            });
        }
    });
    Ok(root)
}
