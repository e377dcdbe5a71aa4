// SPDX-License-Identifier: MIT OR Apache-2.0
//! The board that a devicetree describes beside its `/chosen`.

use firebreak_guestdt::FdtWriter;
use firebreak_manifest::{MAX_TREE_BYTES, read_board};

use super::parse;
use super::tree::{self, Node};
use crate::board::BoardFile;
use crate::diagnostic::{Problem, Source};
use crate::first;

/// Returns the board, if the tree has one: PEs and memory beside `/chosen`.
///
/// Its PEs are taken to have FEAT_RAS, of which no devicetree tells.
///
/// # Errors
///
/// What makes the tree useless as a board.
pub(crate) fn board_of(source: &Source) -> Result<Option<BoardFile>, Problem> {
    let root = tree::resolve(parse::parse(source)?, source)?;
    let Some(cpus) = root.child("cpus") else {
        return Ok(None);
    };
    let wrong = |message: String| {
        let remedy = "correct the tree, or name the board: `firebreak,board` in /chosen";
        let span = cpus.span.clone();
        Problem::error(source, span, message, "the board's own description", remedy)
    };
    let mut blob = vec![0; MAX_TREE_BYTES as usize];
    let mut writer = FdtWriter::new(&mut blob);
    write(&mut writer, &root);
    let len = writer
        .finish()
        .map_err(|error| wrong(format!("the board is not usable: {error}")))?;
    blob.truncate(len);
    let board =
        read_board(&blob).map_err(|error| wrong(format!("the board is not usable: {error}")))?;
    let Some(image_base) = first::image_base(&board) else {
        return Err(wrong("the board has no memory for the image".to_owned()));
    };
    let name = root.property("model").and_then(|model| model.string());
    let persistent = board.sei.as_ref().and_then(|sei| sei.persistent);
    Ok(Some(BoardFile {
        name: name.unwrap_or_else(|| "of this devicetree".to_owned()),
        board,
        image_base,
        persistent,
        devicetree: Some(blob),
        has_ras: true,
    }))
}

fn write(writer: &mut FdtWriter<'_>, node: &Node) {
    writer.node(&node.name, |inside| {
        for property in &node.properties {
            inside.prop_bytes(&property.name, &property.bytes());
        }
        for child in &node.children {
            write(inside, child);
        }
    });
}
