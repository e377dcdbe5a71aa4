// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the `newc` archive that Linux takes as its initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

/// One entry.
pub(crate) struct Entry<'a> {
    /// Path without a leading slash.
    pub(crate) path: &'a str,
    /// Contents of a file, or `None` for a directory.
    pub(crate) contents: Option<&'a [u8]>,
    /// Whether it may be run.
    pub(crate) executable: bool,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// Returns the archive: entries in order (parents before children), all root's, without times,
/// so that the same entries give the same bytes.
pub(crate) fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (inode, entry) in (1..).zip(entries) {
        let mode = match (entry.contents, entry.executable) {
            (None, _) => DIRECTORY,
            (Some(_), true) => PROGRAM,
            (Some(_), false) => FILE,
        };
        append(
            &mut bytes,
            inode,
            mode,
            entry.path,
            entry.contents.unwrap_or(&[]),
        );
    }
    append(&mut bytes, 0, 0, "TRAILER!!!", &[]);
    bytes
}

fn append(bytes: &mut Vec<u8>, inode: u32, mode: u32, path: &str, contents: &[u8]) {
    let name_len = path.len() + 1;
    // inode, mode, uid, gid, links, time, size, device (2), device file (2), name, checksum
    let fields = [
        inode,
        mode,
        0,
        0,
        1,
        0,
        length(contents.len()),
        0,
        0,
        0,
        0,
        length(name_len),
        0,
    ];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(contents);
    pad(bytes);
}

/// The format has room for 4 GiB; an initramfs is a thousandth of that.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        archive(&[
            Entry {
                path: "lib",
                contents: None,
                executable: false,
            },
            Entry {
                path: "lib/a.ko",
                contents: Some(b"abcde"),
                executable: false,
            },
            Entry {
                path: "init",
                contents: Some(b"#!"),
                executable: true,
            },
        ])
    }

    #[test]
    fn every_header_stands_on_a_multiple_of_four_and_tells_its_lengths() {
        let bytes = sample();
        let field = |at: usize, index: usize| {
            let start = at + 6 + index * 8;
            let text = std::str::from_utf8(&bytes[start..start + 8]).unwrap();
            usize::from_str_radix(text, 16).unwrap()
        };
        let (mut at, mut seen) = (0, Vec::new());
        loop {
            assert_eq!((&bytes[at..at + 6], at % 4), (&b"070701"[..], 0));
            let (size, name_len) = (field(at, 6), field(at, 11));
            let name = String::from_utf8(bytes[at + 110..at + 109 + name_len].to_vec()).unwrap();
            let start = (at + 110 + name_len).next_multiple_of(4);
            seen.push((
                name.clone(),
                field(at, 1),
                bytes[start..start + size].to_vec(),
            ));
            at = (start + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
        }
        assert_eq!(at, bytes.len());
        assert_eq!(seen[0], ("lib".to_owned(), 0o040_755, vec![]));
        assert_eq!(
            seen[1],
            ("lib/a.ko".to_owned(), 0o100_644, b"abcde".to_vec())
        );
        assert_eq!(seen[2], ("init".to_owned(), 0o100_755, b"#!".to_vec()));
    }

    #[test]
    fn the_cpio_of_this_machine_reads_it_where_there_is_one() {
        let spawned = Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else { return };
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            "lib\nlib/a.ko\ninit\n"
        );
    }
}
