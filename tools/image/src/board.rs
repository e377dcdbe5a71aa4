// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `firebreak check` knows of a board, from a board file.

use std::fs;
use std::path::Path;

use firebreak_abi::{Mpidr, PaRange};
use firebreak_boards::{DEVICETREES, KNOWN};
use firebreak_manifest::Board;

use crate::devices;
use crate::diagnostic::{Diagnostics, Problem, Source};
use crate::document::{self, At, Table};
use crate::fields;

/// A board to check against.
#[derive(Clone, Debug)]
pub struct BoardFile {
    /// Its name.
    pub name: String,
    /// What it has.
    pub board: Board,
    /// Where the image will stand.
    pub image_base: u64,
    /// Memory that its firmware keeps over a warm reset: the crash page, and the log behind it.
    pub persistent: Option<PaRange>,
    /// Its devicetree, if there is one to look into.
    pub devicetree: Option<Vec<u8>>,
    /// Whether its PEs have FEAT_RAS, so that a syndrome can be chosen.
    pub has_ras: bool,
}

/// Loads a board by its name, or from a file (a word that ends in `.toml`).
///
/// # Errors
///
/// Why there is no such board, or what is wrong with its file. `named` is the place that asks.
pub(crate) fn load(
    named: &At<String>,
    asker: &Source,
    dir: &Path,
) -> Result<BoardFile, Diagnostics> {
    let name = &named.value;
    if let Some((name, text)) = KNOWN.iter().find(|(known, _)| known == name) {
        let built_in = |file: &str| {
            let found = DEVICETREES.iter().find(|(known, _)| *known == file);
            found
                .map(|(_, bytes)| bytes.to_vec())
                .ok_or_else(|| "it is not built in".to_owned())
        };
        return read(&Source::new(Path::new(name), *text), built_in);
    }
    if !name.ends_with(".toml") {
        let known: Vec<_> = KNOWN.iter().map(|(known, _)| *known).collect();
        let remedy = match document::nearest(name, &known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!(
                "use {}, or the path of a board file (.toml)",
                known.join(", ")
            ),
        };
        let message = format!("there is no board \"{name}\"");
        return Err(
            Problem::error(asker, named.span.clone(), message, "unknown board", remedy).into(),
        );
    }
    let path = dir.join(name);
    let text = fs::read_to_string(&path).map_err(|error| {
        let message = format!("the board file {} cannot be read: {error}", path.display());
        let remedy = "correct the path; it is relative to this file";
        Problem::error(asker, named.span.clone(), message, "named here", remedy)
    })?;
    let beside = path.parent().unwrap_or(Path::new("")).to_path_buf();
    read(&Source::new(&path, text), |file| {
        fs::read(beside.join(file)).map_err(|error| error.to_string())
    })
}

/// Reads a board file. `devicetree` gets the file that it names as such.
pub(crate) fn read(
    source: &Source,
    devicetree: impl FnOnce(&str) -> Result<Vec<u8>, String>,
) -> Result<BoardFile, Diagnostics> {
    let document = document::parse(source)?;
    let mut root = Table::new(source, document.get_ref(), 0..0, "a board file").of(&fields::BOARD);
    let name = root
        .string("name")?
        .map_or_else(String::new, |name| name.value);
    let pes = root.integers("pes")?.ok_or_else(|| root.lacks("pes"))?;
    let image = root.integer("image")?.ok_or_else(|| root.lacks("image"))?;
    let has_ras = root.boolean("ras")?.is_none_or(|flag| flag.value);
    let tree = root.string("devicetree")?;
    let memory = root.tables("memory", "a piece of memory")?;
    let reserved = root.tables("reserved", "a reserved range")?;
    let persistent = root.table("persistent", "the memory that survives a reset")?;
    let mut problems = root.unknown_keys();
    let mut board = Board::default();
    add_pes(&mut board, &pes, source, &mut problems);
    let mut ranges = Vec::new();
    for table in memory {
        let range = read_range(table.of(&fields::RANGE), &mut problems)?;
        check_memory(&range, &ranges, source, &mut problems);
        if board.memory.push(range.value).is_err() {
            problems.push(too_many(
                source,
                &range,
                "pieces of memory",
                board.memory.capacity(),
            ));
        }
        ranges.push(range);
    }
    for table in reserved {
        let range = read_range(table.of(&fields::RANGE), &mut problems)?;
        if board.reserve(range.value).is_err() {
            problems.push(too_many(
                source,
                &range,
                "reserved ranges",
                board.reserved.capacity(),
            ));
        }
    }
    let mut persistent = match persistent {
        Some(table) => Some(read_range(table.of(&fields::RANGE), &mut problems)?),
        None => None,
    };
    if let Some(range) = &persistent {
        check_persistent(range, &board, source, &mut problems);
    }
    check_image(&image, &board, source, &mut problems);
    let mut bytes = None;
    if let Some(tree) = tree {
        match devices::load_tree(&tree, source, devicetree) {
            Ok((read, described)) => {
                bytes = Some(read);
                board.uart = described.uart;
                persistent =
                    persistent.or(described
                        .sei
                        .and_then(|sei| sei.persistent)
                        .map(|value| At {
                            value,
                            span: tree.span.clone(),
                        }));
                keep_away(
                    &mut board,
                    &described.reserved,
                    (&tree, source),
                    &mut problems,
                );
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(BoardFile {
            name,
            board,
            image_base: image.value,
            persistent: persistent.map(|range| range.value),
            devicetree: bytes,
            has_ras,
        })
    } else {
        Err(Diagnostics { problems })
    }
}

/// Keeps away from what the board's devicetree reserves, beside what its file says.
fn keep_away(
    board: &mut Board,
    reserved: &[PaRange],
    (tree, source): (&At<String>, &Source),
    problems: &mut Vec<Problem>,
) {
    let inside =
        |outer: &PaRange, inner: &PaRange| outer.start <= inner.start && inner.end() <= outer.end();
    for range in reserved {
        if board.reserved.iter().any(|known| inside(known, range)) {
            continue;
        }
        if board.reserve(*range).is_err() {
            let at = At {
                value: *range,
                span: tree.span.clone(),
            };
            let most = board.reserved.capacity();
            problems.push(too_many(
                source,
                &at,
                "reserved ranges, with those of the devicetree,",
                most,
            ));
            return;
        }
    }
}

/// What survives a reset is the firmware's, and nobody's RAM.
fn check_persistent(
    range: &At<PaRange>,
    board: &Board,
    source: &Source,
    problems: &mut Vec<Problem>,
) {
    let is_ram = board.memory.iter().any(|ram| ram.overlaps(range.value));
    let kept = board
        .reserved
        .iter()
        .any(|kept| kept.start <= range.value.start && range.value.end() <= kept.end());
    if is_ram && !kept {
        problems.push(Problem::error(
            source,
            range.span.clone(),
            "memory that the firmware keeps would be given away",
            "not in a reserved range",
            "add a [[reserved]] range that holds all of it",
        ));
    }
}

fn too_many(source: &Source, at: &At<PaRange>, what: &str, most: usize) -> Problem {
    let message = format!("too many {what}");
    Problem::error(
        source,
        at.span.clone(),
        message,
        "one too many",
        format!("use at most {most}"),
    )
}

fn add_pes(
    board: &mut Board,
    pes: &At<Vec<At<u64>>>,
    source: &Source,
    problems: &mut Vec<Problem>,
) {
    for pe in &pes.value {
        let mpidr = Mpidr::from_raw(pe.value);
        let wrong = if mpidr.get() != pe.value {
            Some((
                "this is not the affinity of a PE",
                "give Aff3, Aff2, Aff1 and Aff0 of MPIDR_EL1 alone",
            ))
        } else if board.has_pe(mpidr) {
            Some(("this PE is listed twice", "list each PE once"))
        } else if board.cpus.push(mpidr).is_err() {
            Some(("this is one PE too many", "list at most 8 PEs"))
        } else {
            None
        };
        if let Some((message, remedy)) = wrong {
            problems.push(Problem::error(
                source,
                pe.span.clone(),
                message,
                "here",
                remedy,
            ));
        }
    }
}

fn read_range(
    mut table: Table<'_, '_>,
    problems: &mut Vec<Problem>,
) -> Result<At<PaRange>, Problem> {
    let base = table.integer("base")?.ok_or_else(|| table.lacks("base"))?;
    let size = table.string("size")?.ok_or_else(|| table.lacks("size"))?;
    problems.extend(table.unknown_keys());
    let bytes =
        document::parse_size(&size.value).filter(|bytes| base.value.checked_add(*bytes).is_some());
    let Some(bytes) = bytes.filter(|bytes| *bytes > 0) else {
        let message = format!("\"{}\" is not a size", size.value);
        let remedy = "write a whole number and KiB, MiB or GiB, such as \"1 GiB\"";
        return Err(Problem::error(
            table.source,
            size.span,
            message,
            "not a size",
            remedy,
        ));
    };
    Ok(At {
        value: PaRange::new(base.value, bytes),
        span: base.span,
    })
}

fn check_memory(
    range: &At<PaRange>,
    others: &[At<PaRange>],
    source: &Source,
    problems: &mut Vec<Problem>,
) {
    let mut wrong = |message: String, remedy: &str| {
        problems.push(Problem::error(
            source,
            range.span.clone(),
            message,
            "this piece of memory",
            remedy,
        ));
    };
    const BLOCK_BYTES: u64 = 2 << 20;
    let start = range.value.start.get();
    if !start.is_multiple_of(BLOCK_BYTES) {
        wrong(
            format!("memory at {start:#x} does not start on a multiple of 2 MiB"),
            "start it on a multiple of 2 MiB",
        );
    }
    if let Some(other) = others
        .iter()
        .find(|other| other.value.overlaps(range.value))
    {
        let (line, _) = source.position(other.span.start);
        let message = format!("memory at {start:#x} overlaps the one of line {line}");
        wrong(message, "make the pieces of memory disjoint");
    }
}

fn check_image(image: &At<u64>, board: &Board, source: &Source, problems: &mut Vec<Problem>) {
    let aligned = image.value.is_multiple_of(2 << 20);
    let start = PaRange::new(image.value, 1);
    let in_memory = board.memory.iter().any(|ram| ram.contains(start.start));
    let reserved = board.reserved.iter().any(|range| range.overlaps(start));
    if !aligned || !in_memory || reserved {
        let message = format!("the image cannot be loaded at {:#x}", image.value);
        let label = if !aligned {
            "not a multiple of 2 MiB"
        } else if in_memory {
            "in a reserved range"
        } else {
            "outside of memory"
        };
        let remedy = "choose a multiple of 2 MiB in memory that is not reserved";
        problems.push(Problem::error(
            source,
            image.span.clone(),
            message,
            label,
            remedy,
        ));
    }
}
