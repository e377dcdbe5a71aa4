// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of devices in a board's devicetree: paths, labels, pages.

use firebreak_abi::{PAGE_SIZE_BYTES, PaRange};
use firebreak_manifest::devices::each_node;
use firebreak_manifest::tree::{Event, Tree};
use firebreak_manifest::{Board, read_board};

use crate::diagnostic::{Problem, Source};
use crate::document::{self, At};
use crate::system::aligned_copy;

/// Loads the devicetree that a board file names, and finds the console in it.
pub(crate) fn load_tree(
    named: &At<String>,
    source: &Source,
    read: impl FnOnce(&str) -> Result<Vec<u8>, String>,
) -> Result<(Vec<u8>, Board), Problem> {
    let wrong = |message: String, remedy: &str| {
        Problem::error(source, named.span.clone(), message, "named here", remedy)
    };
    let bytes = read(&named.value).map_err(|error| {
        let message = format!("the devicetree {} cannot be read: {error}", named.value);
        wrong(
            message,
            "correct the path; it is relative to the board file",
        )
    })?;
    let aligned = aligned_copy(&bytes);
    let board = read_board(&aligned.as_bytes()[..bytes.len()]).map_err(|error| {
        let message = format!("the devicetree {} is not usable: {error}", named.value);
        wrong(message, "name a compiled devicetree (.dtb) of this board")
    })?;
    Ok((bytes, board))
}

/// All names.
pub(super) struct Names {
    nodes: Vec<(String, Vec<PaRange>)>,
    /// Labels (`/__symbols__`, as `dtc -@` writes them) and aliases, with their paths.
    labels: Vec<(String, String)>,
}

impl Names {
    /// Reads them; nothing from a tree that is damaged, which was told before.
    pub(super) fn read(tree: &[u8]) -> Self {
        let aligned = aligned_copy(tree);
        let bytes = &aligned.as_bytes()[..tree.len()];
        let mut nodes = Vec::new();
        let _ = each_node(bytes, |node| {
            let names = node.names().iter();
            let path: String = names
                .flat_map(|name| ["/".into(), String::from_utf8_lossy(name)])
                .collect();
            nodes.push((path, node.regs().collect()));
            true
        });
        Self {
            nodes,
            labels: labels(bytes).unwrap_or_default(),
        }
    }

    /// Finds the paths that an entry stands for.
    pub(super) fn find(
        &self,
        source: &Source,
        entry: &At<String>,
        page: Option<u64>,
    ) -> Result<Vec<String>, Box<Problem>> {
        let wrong = |message: String, label: &str, remedy: String| {
            let span = entry.span.clone();
            Err(Box::new(Problem::error(
                source, span, message, label, remedy,
            )))
        };
        let name = entry.value.as_str();
        if let Some(page) = page {
            if !page.is_multiple_of(PAGE_SIZE_BYTES) {
                let first = page / PAGE_SIZE_BYTES * PAGE_SIZE_BYTES;
                let message = format!("{page:#x} is not the start of a 4 KiB page");
                return wrong(message, "not a page", format!("write {first:#x}"));
            }
            let range = PaRange::new(page, PAGE_SIZE_BYTES);
            let inside = |regs: &[PaRange]| regs.iter().any(|reg| reg.overlaps(range));
            let found: Vec<String> = self
                .nodes
                .iter()
                .filter(|(_, regs)| inside(regs))
                .map(|(path, _)| path.clone())
                .collect();
            if found.is_empty() {
                let message = format!("no device of the board has registers at {page:#x}");
                let remedy = "name a page of the board's devicetree, or a device by its path";
                return wrong(message, "an empty page", remedy.to_owned());
            }
            return Ok(found);
        }
        if self.nodes.iter().any(|(path, _)| path == name) {
            return Ok(vec![name.to_owned()]);
        }
        if let Some((_, path)) = self.labels.iter().find(|(label, _)| label == name) {
            return Ok(vec![path.clone()]);
        }
        let known: Vec<&str> = if name.starts_with('/') {
            self.nodes.iter().map(|(path, _)| path.as_str()).collect()
        } else {
            self.labels
                .iter()
                .map(|(label, _)| label.as_str())
                .collect()
        };
        let remedy = match document::nearest(name, &known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "use a full path, a label or an alias of the board's devicetree".to_owned(),
        };
        let message = format!("the board's devicetree has no device \"{name}\"");
        wrong(message, "no such node", remedy)
    }
}

fn labels(tree: &[u8]) -> Option<Vec<(String, String)>> {
    let mut labels = Vec::new();
    let mut walk = Tree::open(tree).ok()?.walk();
    let mut inside = false;
    while let Some(event) = walk.next_event().ok()? {
        match event {
            Event::Begin(name) => {
                inside = walk.depth() == 2 && (name == b"aliases" || name == b"__symbols__");
            }
            Event::Property(name, value) if inside => {
                let name = String::from_utf8_lossy(name.bytes().ok()?).into_owned();
                labels.extend(value.text().map(|path| (name, path.to_owned())));
            }
            Event::Property(..) => {}
            Event::End => inside = false,
        }
    }
    Some(labels)
}
