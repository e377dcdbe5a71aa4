// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that was passed through: mounts it, counts its lives on it, and holds what it reads
//! against what was written.
//!
//! Debian builds virtio as modules; the initramfs has them. Every `disk` mounts, works and
//! unmounts, so that all that is read came from the device.

use crate::sys;
use crate::watchdog::MODULE_DIR;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// In this order: each needs those before it.
const MODULES: [&str; 4] = [
    "virtio_ring.ko",
    "virtio.ko",
    "virtio_mmio.ko",
    "virtio_blk.ko",
];
const DEVICE: &str = "/dev/vda";
const MOUNT_POINT: &str = "/disk";
/// Bytes that are written and read back.
const BYTES: usize = 256 * 1024;
/// How long the kernel may take to find the disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// What working on the disk showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// How often the disk was worked on before, as it says itself.
    pub(crate) lives: u64,
    /// Whether what an earlier life wrote, and what this one did, read back as it was.
    pub(crate) intact: bool,
    /// Interrupts of virtio devices so far.
    pub(crate) irqs: u64,
}

/// Works on the disk once.
pub(crate) fn work() -> io::Result<Found> {
    for name in MODULES {
        let path = Path::new(MODULE_DIR).join(name);
        let named = |error| io::Error::other(format!("{}: {error}", path.display()));
        let file = File::open(&path).map_err(named)?;
        sys::load_module(&file).map_err(named)?;
    }
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(DEVICE).exists() {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("there is no {DEVICE}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::create_dir_all(MOUNT_POINT)?;
    sys::mount_device(c"/dev/vda", c"ext4", c"/disk")?;
    let worked = on_mounted();
    sys::unmount(c"/disk")?;
    let (lives, written) = worked?;
    // Mounted anew, nothing of the file is cached.
    sys::mount_device(c"/dev/vda", c"ext4", c"/disk")?;
    let read = fs::read(Path::new(MOUNT_POINT).join("data"));
    sys::unmount(c"/disk")?;
    Ok(Found {
        lives,
        intact: written && read? == pattern(lives + 1),
        irqs: irqs_of(&fs::read_to_string("/proc/interrupts")?, "virtio"),
    })
}

/// Returns how many lives came before, and whether their last data were whole.
fn on_mounted() -> io::Result<(u64, bool)> {
    let dir = Path::new(MOUNT_POINT);
    let mut text = String::new();
    let lives = match File::open(dir.join("lives")) {
        Ok(mut file) => {
            file.read_to_string(&mut text)?;
            text.trim().parse().map_err(io::Error::other)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let intact = lives == 0 || fs::read(dir.join("data"))? == pattern(lives);
    for (name, bytes) in [
        ("data", pattern(lives + 1)),
        ("lives", format!("{}\n", lives + 1).into_bytes()),
    ] {
        let mut file = File::create(dir.join(name))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
    }
    Ok((lives, intact))
}

/// What a life writes: no two lives, and no two places, the same.
fn pattern(life: u64) -> Vec<u8> {
    let mut state = life.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(BYTES);
    while bytes.len() < BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Sums the counts of all lines of `/proc/interrupts` whose last word starts so.
fn irqs_of(interrupts: &str, name: &str) -> u64 {
    let lines = interrupts.lines().filter(|line| {
        line.split_whitespace()
            .next_back()
            .is_some_and(|last| last.starts_with(name))
    });
    lines
        .flat_map(|line| {
            let counts = line.split_whitespace().skip(1);
            counts.map_while(|word| word.parse::<u64>().ok())
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_are_summed_over_cpus_and_lines() {
        let text = "           CPU0       CPU1       \n \
                    11:       1036         12     GICv3  27 Level     arch_timer\n \
                    45:          3         40     GICv3  79 Edge      virtio0\n \
                    46:          1          0     GICv3  78 Edge      virtio1\n\
                    IPI0:        2          9       Rescheduling interrupts\n";
        assert_eq!(irqs_of(text, "virtio"), 44);
        assert_eq!(irqs_of(text, "arch_timer"), 1048);
        assert_eq!(irqs_of("", "virtio"), 0);
    }

    #[test]
    fn each_life_writes_something_of_its_own() {
        assert_eq!(pattern(1).len(), BYTES);
        assert_eq!(pattern(3), pattern(3));
        assert_ne!(pattern(1)[..8], pattern(2)[..8]);
    }
}
