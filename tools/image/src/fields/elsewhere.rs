// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a key belongs that stands in the wrong table, and what others call our keys.

use super::{Field, ON_ERROR, PARTITION, RESTART, ROOT, SYSTEM};

/// Words of other tools, and the keys that mean the same.
const OTHER_NAMES: [(&str, &str); 12] = [
    ("append", "cmdline"),
    ("bootargs", "cmdline"),
    ("backoff", "backoff_ms"),
    ("cpu_affinity", "pes"),
    ("cpus", "vcpus"),
    ("initrd", "initramfs"),
    ("kernel", "image"),
    ("max", "limit"),
    ("passthrough", "devices"),
    ("ram", "memory"),
    ("ramdisk", "initramfs"),
    ("uart", "console"),
];

/// Says what to do about a key that a table does not have; `None` if nothing is known of it.
pub(crate) fn remedy(key: &str, table: &'static [Field]) -> Option<String> {
    let has = |fields: &[Field], key: &str| fields.iter().any(|field| field.key == key);
    if let Some((_, ours)) = OTHER_NAMES.iter().find(|(other, _)| *other == key)
        && has(table, ours)
    {
        return Some(format!("it is called `{ours}` here"));
    }
    // Tables of a board file, and devices, have nothing to do with these.
    let tables: [&'static [Field]; 5] = [&ROOT, &SYSTEM, &PARTITION, &RESTART, &ON_ERROR];
    if !tables.iter().any(|one| core::ptr::eq(*one, table)) {
        return None;
    }
    if has(&SYSTEM, key) {
        return Some(
            "it is the system's: write it under [system], above the partitions".to_owned(),
        );
    }
    if key == "on_error" {
        return Some("write [partition.on_error], below the partition that it is for".to_owned());
    }
    if has(&PARTITION, key) {
        let below = "it is a partition's: write it under [[partition]], above [partition.on_error]";
        return Some(below.to_owned());
    }
    if has(&ON_ERROR, key) {
        return Some("it is about errors: write it under [partition.on_error]".to_owned());
    }
    if has(&RESTART, key) {
        return Some(format!(
            "it is about restarts: write restart = {{ {key} = ... }}"
        ));
    }
    None
}
