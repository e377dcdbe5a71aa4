// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints a blob as source, so that messages can point at a line of it.
//!
//! It is read by the hypervisor's own reader: what boots can be printed.

use std::fmt::Write as _;

use firebreak_manifest::tree::{Event, Tree};

/// Prints a blob as source.
///
/// # Errors
///
/// What is wrong with the blob.
pub(crate) fn print_blob(blob: &[u8]) -> Result<String, String> {
    // The reader wants it on a multiple of 8, as a bootloader has to put it.
    let mut words = vec![0_u64; blob.len().div_ceil(8)];
    for (word, chunk) in words.iter_mut().zip(blob.chunks(8)) {
        let mut whole = [0; 8];
        whole[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(whole);
    }
    let aligned = &zerocopy::IntoBytes::as_bytes(words.as_slice())[..blob.len()];
    print(aligned).map_err(|fault| fault.to_string())
}

fn print(blob: &[u8]) -> Result<String, firebreak_manifest::TreeFault> {
    let mut walk = Tree::open(blob)?.walk();
    let mut text = "/dts-v1/;\n".to_owned();
    let mut depth = 0;
    while let Some(event) = walk.next_event()? {
        if matches!(event, Event::End) {
            depth -= 1;
        }
        text += &"    ".repeat(depth);
        match event {
            Event::Begin(name) => {
                let name = String::from_utf8_lossy(name);
                let name = if name.is_empty() { "/".into() } else { name };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{name} {{");
                depth += 1;
            }
            Event::Property(name, value) => {
                text += &String::from_utf8_lossy(name.bytes()?);
                print_value(value.bytes(), &mut text);
            }
            Event::End => text += "};\n",
        }
    }
    Ok(text)
}

fn print_value(bytes: &[u8], text: &mut String) {
    let plain = |byte: &u8| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
    let strings = bytes.strip_suffix(b"\0").filter(|inner| {
        let mut parts = inner.split(|byte| *byte == 0);
        parts.all(|part| !part.is_empty() && part.iter().all(plain))
    });
    let list: Vec<String>;
    let (open, between, close) = if let Some(strings) = strings {
        let parts = strings.split(|byte| *byte == 0);
        list = parts
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect();
        (" = \"", "\", \"", "\"")
    } else if bytes.is_empty() {
        list = Vec::new();
        ("", "", "")
    } else if let (cells, []) = bytes.as_chunks::<4>() {
        let cell = |cell: &[u8; 4]| format!("{:#x}", u32::from_be_bytes(*cell));
        list = cells.iter().map(cell).collect();
        (" = <", " ", ">")
    } else {
        list = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        (" = [", " ", "]")
    };
    let _ = writeln!(text, "{open}{}{close};", list.join(between));
}
