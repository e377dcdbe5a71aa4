// SPDX-License-Identifier: MIT OR Apache-2.0
//! `firebreak new`: somebody's first partition file.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::Failure;

/// What each devicetree blob begins with.
const DTB_MAGIC: [u8; 4] = 0xd00d_feed_u32.to_be_bytes();

/// Writes a first partition file into a directory, and never over a file that is there.
#[derive(Args)]
#[command(after_help = "Examples:
  firebreak new my-system                                a system for QEMU virt
  firebreak new my-system --board xlnx-versal-virt
  firebreak new my-system --devicetree board.dtb         and a board file of this devicetree
  dtc -I fs -O dtb /proc/device-tree -o board.dtb        (on the board, under Linux)")]
pub(crate) struct NewArgs {
    /// The directory; it is made if it is not there
    directory: PathBuf,
    /// A board that is built in
    #[arg(
        long,
        value_name = "NAME",
        default_value = "qemu-virt",
        conflicts_with = "devicetree"
    )]
    board: String,
    /// The board's devicetree (DTB); its board file is written too
    #[arg(long, value_name = "DTB")]
    devicetree: Option<PathBuf>,
    /// Writes one JSON object to standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &NewArgs) -> Result<String, Failure> {
    write_all(args).map_err(|why| Failure::told(why, args.json))
}

fn write_all(args: &NewArgs) -> Result<String, String> {
    let mut files = Vec::new();
    let board = match &args.devicetree {
        None => known_board(&args.board)?,
        Some(path) => {
            let told = |error: String| format!("{}: {error}", path.display());
            let dtb = fs::read(path)
                .map_err(|error| told(format!("cannot be read: {error}; check the path")))?;
            if !dtb.starts_with(&DTB_MAGIC) {
                return Err(told(
                    "this is no devicetree blob; `dtc -I dts -O dtb` makes one of a source"
                        .to_owned(),
                ));
            }
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let text = firebreak_image::board_file(&name, &dtb).map_err(told)?;
            files.push((args.directory.join("board.toml"), text));
            "board.toml".to_owned()
        }
    };
    let file = args.directory.join("firebreak.toml");
    files.push((file.clone(), firebreak_image::partition_file(&board)));
    if let Some((there, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(format!(
            "{} is there already; choose another directory",
            there.display()
        ));
    }
    fs::create_dir_all(&args.directory).map_err(|error| refuse(&args.directory, &error))?;
    for (path, text) in &files {
        write_new(path, text)?;
    }
    let paths: Vec<_> = files.iter().map(|(path, _)| path).collect();
    if args.json {
        return Ok(format!(
            "{:#}\n",
            serde_json::json!({ "ok": true, "files": paths })
        ));
    }
    let mut text = String::new();
    for path in paths {
        text += &format!("{} is written\n", path.display());
    }
    Ok(text
        + &format!(
            "next: put your guest's image beside it, then `firebreak check {}`\n",
            file.display()
        ))
}

fn known_board(name: &str) -> Result<String, String> {
    let known: Vec<&str> = firebreak_image::KNOWN_BOARDS
        .iter()
        .map(|(name, _)| *name)
        .collect();
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "there is no board \"{name}\"; use {}, or --devicetree",
        known.join(", ")
    ))
}

fn refuse(path: &Path, error: &std::io::Error) -> String {
    let remedy = match error.kind() {
        ErrorKind::AlreadyExists => "choose another directory",
        _ => "check the path and its permissions",
    };
    format!("{} cannot be written: {error}; {remedy}", path.display())
}

fn write_new(path: &Path, text: &str) -> Result<(), String> {
    fs::File::create_new(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| refuse(path, &error))
}
