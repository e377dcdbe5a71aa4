// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a devicetree got wrong: which node, which property, and what to do about it.

use core::cell::Cell;
use core::fmt;

use firebreak_triage::ReactionError;

use crate::tree::TreeFault;

/// A devicetree that cannot be used. Nothing has been booted from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DtError<'a> {
    /// The blob itself is damaged.
    Tree(TreeFault),
    /// A property of a node, or the lack of it.
    Property {
        /// The node.
        node: NodePath<'a>,
        /// The property.
        property: &'a str,
        /// What is wrong with it.
        fault: Fault<'a>,
    },
    /// A node as such.
    Node {
        /// The node.
        node: NodePath<'a>,
        /// What is wrong with it.
        fault: Fault<'a>,
    },
}

/// What is wrong, and the remedy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault<'a> {
    /// It must be there.
    Missing(&'static str),
    /// It stands there twice.
    Duplicate,
    /// It means nothing to Firebreak, so that ignoring it could break a promise.
    Unknown,
    /// Its value has not the form that is said.
    Form(&'static str),
    /// Its value has the right form but cannot be.
    Value(&'static str),
    /// A word stands where only others may.
    Word {
        /// What stands there.
        found: &'a str,
        /// What may stand there.
        allowed: &'static str,
    },
    /// A policy word that cannot be had.
    Reaction(ReactionError),
    /// More than the bound of this build.
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        most: usize,
    },
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Missing(remedy) => write!(f, "is missing; {remedy}"),
            Self::Duplicate => f.write_str("is there twice; remove one"),
            Self::Unknown => {
                f.write_str("is not understood; remove it, nothing is ignored in a partition")
            }
            Self::Form(form) => write!(f, "has the wrong form; give {form}"),
            Self::Value(remedy) => f.write_str(remedy),
            Self::Word { found, allowed } => write!(f, "\"{found}\" is not known; use {allowed}"),
            Self::Reaction(error) => write!(f, "{error}"),
            Self::TooMany { what, most } => {
                write!(f, "too many {what}; at most {most} are supported")
            }
        }
    }
}

impl fmt::Display for DtError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(fault) => write!(f, "devicetree: {fault}"),
            Self::Property {
                node,
                property,
                fault,
            } => write!(f, "{node}: {property}: {fault}"),
            Self::Node { node, fault } => write!(f, "{node}: {fault}"),
        }
    }
}

impl core::error::Error for DtError<'_> {}

/// Says that the reader's [`Complaint`] holds the error.
///
/// It takes no room, so a function that may refuse still returns its value in registers: at EL2,
/// where an error of this size would be copied at each `?`, that is a fifth of the readers' code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(());

/// Where a reader and all that it calls put down what is wrong.
#[derive(Default)]
pub(crate) struct Complaint<'a>(Cell<Option<DtError<'a>>>);

impl<'a> Complaint<'a> {
    /// Complains of a property.
    #[cold]
    #[inline(never)]
    pub(crate) fn property(
        &self,
        node: &NodePath<'a>,
        property: &'a str,
        fault: &Fault<'a>,
    ) -> Refused {
        self.put(DtError::Property {
            node: *node,
            property,
            fault: *fault,
        })
    }

    /// Complains of a node as such.
    #[cold]
    #[inline(never)]
    pub(crate) fn node(&self, node: &NodePath<'a>, fault: &Fault<'a>) -> Refused {
        self.put(DtError::Node {
            node: *node,
            fault: *fault,
        })
    }

    /// Complains of the blob.
    #[cold]
    #[inline(never)]
    pub(crate) fn tree(&self, fault: TreeFault) -> Refused {
        self.put(DtError::Tree(fault))
    }

    fn put(&self, error: DtError<'a>) -> Refused {
        self.0.set(Some(error));
        Refused(())
    }

    /// Gives a result its error back.
    pub(crate) fn close<T>(&self, result: Result<T, Refused>) -> Result<T, DtError<'a>> {
        // `put` alone makes a `Refused`, so the error is there whenever one is wanted.
        result.map_err(|Refused(())| {
            let unsaid = DtError::Tree(TreeFault::Unfinished);
            self.0.get().unwrap_or(unsaid)
        })
    }
}

/// The last names on the way to a node, for messages.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct NodePath<'a> {
    names: [&'a [u8]; 3],
    /// Depth of the node; the root is 0.
    depth: usize,
}

impl<'a> NodePath<'a> {
    /// Makes the path of a node below the root.
    pub const fn top(name: &'a [u8]) -> Self {
        Self {
            names: [name, b"", b""],
            depth: 1,
        }
    }

    /// Makes the path of a child.
    #[must_use]
    pub const fn child(self, name: &'a [u8]) -> Self {
        let [a, b, c] = self.names;
        let names = match self.depth {
            0 => [name, b, c],
            1 => [a, name, c],
            2 => [a, b, name],
            _ => [b, c, name],
        };
        Self {
            names,
            depth: self.depth + 1,
        }
    }

    /// Says whether this is the node of a full path. Never true deeper than three levels.
    pub fn is(&self, path: &str) -> bool {
        let mut wanted = path.split('/').skip(1).map(str::as_bytes);
        self.depth <= self.names.len()
            && self
                .names
                .iter()
                .take(self.depth)
                .all(|name| wanted.next() == Some(name))
            && wanted.next().is_none()
    }
}

/// Prints bytes of a blob that nobody vouches for.
fn print(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const MOST_SHOWN: usize = 64;
    for byte in bytes.iter().take(MOST_SHOWN) {
        if byte.is_ascii_graphic() {
            fmt::Write::write_char(f, char::from(*byte))?;
        } else {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    if bytes.len() > MOST_SHOWN {
        f.write_str("...")
    } else {
        Ok(())
    }
}

impl fmt::Debug for NodePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodePath({self})")
    }
}

impl fmt::Display for NodePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.depth == 0 {
            return f.write_str("/");
        }
        if self.depth > self.names.len() {
            f.write_str("/...")?;
        }
        for name in self.names.iter().take(self.depth) {
            f.write_str("/")?;
            print(f, name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_shows_its_last_three_names_and_escapes_what_no_name_may_hold() {
        let path = NodePath::default();
        assert_eq!(path.to_string(), "/");
        let path = path.child(b"soc").child(b"bus@0");
        assert_eq!(path.to_string(), "/soc/bus@0");
        let path = path.child(b"uart\x1b").child(b"x");
        assert_eq!(path.to_string(), "/.../bus@0/uart\\x1b/x");
        assert_eq!(
            NodePath::default().child(&[b'a'; 80]).to_string().len(),
            1 + 64 + 3
        );
    }
}
