// SPDX-License-Identifier: MIT OR Apache-2.0
//! An empty qcow2 image, into which QEMU keeps the states of a machine.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
/// The disk itself is never used; states are kept outside of its range.
const DISK_BYTES: u64 = CLUSTER_BYTES;

/// Writes the image: header, refcount table, one refcount block, one L1 table, a cluster each.
pub(crate) fn write(path: &Path) -> io::Result<()> {
    let mut header = Vec::new();
    header.extend(b"QFI\xfb");
    header.extend(3_u32.to_be_bytes());
    // No backing file.
    header.extend([0; 12]);
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(DISK_BYTES.to_be_bytes());
    // Not encrypted; an L1 table of one entry in cluster 3.
    header.extend(0_u32.to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    header.extend((3 * CLUSTER_BYTES).to_be_bytes());
    // The refcount table is cluster 1, and one cluster long.
    header.extend(CLUSTER_BYTES.to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    // No snapshot, no features, refcounts of 2^4 bits, a header of 104 bytes, no extension.
    header.extend([0; 12]);
    header.extend([0; 24]);
    header.extend(4_u32.to_be_bytes());
    header.extend(104_u32.to_be_bytes());
    let mut bytes = vec![0; 4 * CLUSTER_BYTES as usize];
    let mut put = |at: u64, what: &[u8]| {
        let at = at as usize;
        if let Some(place) = bytes.get_mut(at..at + what.len()) {
            place.copy_from_slice(what);
        }
    };
    put(0, &header);
    put(CLUSTER_BYTES, &(2 * CLUSTER_BYTES).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER_BYTES + 2 * cluster, &1_u16.to_be_bytes());
    }
    let mut file = File::create(path)?;
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn qemu_finds_nothing_wrong_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("states.qcow2");
        write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, 4 * CLUSTER_BYTES);
        assert_eq!(&bytes[100..104], &104_u32.to_be_bytes());
        // Where it is installed, QEMU's own tool has the last word.
        if let Ok(checked) = Command::new("qemu-img").arg("check").arg(&path).output() {
            let said = String::from_utf8_lossy(&checked.stdout).into_owned();
            assert!(checked.status.success(), "{said}");
        }
    }
}
