// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes somebody's first files: a board file out of a devicetree, and a partition file to begin
//! with.

use std::fmt::Write as _;

use firebreak_abi::{Pa, PaRange};
use firebreak_manifest::{Board, read_board};

/// Partitions and images begin on such a boundary.
const BLOCK_BYTES: u64 = 2 << 20;

/// Writes the board file of a devicetree.
///
/// # Errors
///
/// What is wrong with the devicetree, or what it lacks for Firebreak to run.
pub fn board_file(name: &str, dtb: &[u8]) -> Result<String, String> {
    let board =
        read_board(dtb).map_err(|error| format!("the devicetree is not usable: {error}"))?;
    let lacks = |what: &str| {
        Err(format!(
            "the devicetree names no {what}; Firebreak needs one"
        ))
    };
    if board.gicv3.is_none() {
        return lacks("arm,gic-v3");
    }
    if board.cpus.is_empty() {
        return lacks("PE in /cpus");
    }
    let memory = whole_blocks(&board);
    let Some(image) = image_base(&board) else {
        return lacks("piece of memory with room for the image");
    };
    let mut text = format!("# {}: what `firebreak check` knows of it.\n", board.model);
    let pes: Vec<String> = board
        .cpus
        .iter()
        .map(|pe| format!("{:#x}", pe.get()))
        .collect();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\nname = {name:?}\n# Affinities of the PEs, in the order of the devicetree.\npes = [{}]\n\
         # Where the image is loaded: a multiple of 2 MiB. Correct it if your bootloader puts it elsewhere.\n\
         image = {image:#x}\n\
         # Whether the PEs have FEAT_RAS (Armv8.2 and later), which no devicetree says.\nras = true\n",
        pes.join(", ")
    );
    for (what, ranges) in [("memory", &memory[..]), ("reserved", &board.reserved)] {
        for range in ranges.iter().filter(|range| range.len_bytes != 0) {
            let _ = write!(
                text,
                "\n[[{what}]]\nbase = {:#x}\nsize = \"{} KiB\"\n",
                range.start.get(),
                range.len_bytes.div_ceil(1024)
            );
        }
    }
    Ok(text)
}

/// Cuts a piece of memory to whole blocks.
fn whole(range: PaRange) -> Option<PaRange> {
    let start = range.start.get().checked_next_multiple_of(BLOCK_BYTES)?;
    let end = range.end().get() / BLOCK_BYTES * BLOCK_BYTES;
    (start < end).then(|| PaRange::new(start, end - start))
}

fn whole_blocks(board: &Board) -> Vec<PaRange> {
    board
        .memory
        .iter()
        .filter_map(|range| whole(*range))
        .collect()
}

/// Finds where an image goes: the first block but one, as bootloaders leave the first to others.
pub(crate) fn image_base(board: &Board) -> Option<u64> {
    let memory = whole_blocks(board);
    let is_free = |base: &u64| {
        let block = PaRange::new(*base, BLOCK_BYTES);
        let inside = memory
            .iter()
            .any(|ram| ram.contains(Pa::new(*base)) && block.end() <= ram.end());
        inside && !board.reserved.iter().any(|range| range.overlaps(block))
    };
    let first = memory.first()?.start.get();
    (1..64)
        .map(|block| first + block * BLOCK_BYTES)
        .find(is_free)
}

/// Writes a partition file with one partition, and what there is to choose.
///
/// `board` is the name of a board, or the path of a board file relative to the partition file.
pub fn partition_file(board: &str) -> String {
    format!(
        r#"# A Firebreak system. `firebreak check` says what is wrong with it, `firebreak build` makes the
# image of it, and docs/partitions.md describes every key.

[system]
board = {board:?}

[[partition]]
name = "first"          # heads each line of its console
vcpus = 1
pes = [0]               # the PE of each vCPU, counted in the board's order
memory = "16 MiB"       # seen by the guest at 0x4000_0000
image = "first.bin"     # raw (entered at 0x4020_0000) or an arm64 Image; may be packed by gzip
# initramfs = "initramfs.cpio"
# cmdline = "console=ttyAMA0"
watchdog = false        # true: a guest that stops refreshing it is restarted

# What is done about hardware errors, by class. These are the values of what is left out.
[partition.on_error]
corrected = "log"       # the hardware corrected it
ueo = "log"             # nothing is lost; "inject" tells the guest
uer = "retire"          # a page is lost: it is taken away and the guest is told
ueu = "kill"            # what the vCPU was doing is lost; "restart" starts it again
"#
    )
}
