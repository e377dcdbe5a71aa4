// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays `tests/corpus/`: the fuzzers' seeds, what covers the most in the fewest bytes, and
//! whatever they found. (`cper`, the status block's, is replayed by that crate's own tests.)

use std::fs;
use std::path::Path;

#[path = "../../fuzz/checks/bytes.rs"]
mod bytes;
#[path = "../../fuzz/checks/console.rs"]
mod console;
#[path = "../../../hypervisor/vgic/tests/vgic/cpu.rs"]
mod cpu;
#[path = "../../fuzz/checks/devicetree.rs"]
mod devicetree;
#[path = "../../fuzz/checks/gic.rs"]
mod gic;
#[path = "../../fuzz/checks/hypercall.rs"]
mod hypercall;
#[path = "../../../hypervisor/vgic/tests/vgic/machine.rs"]
mod machine;
#[path = "../../../hypervisor/vgic/tests/vgic/oracle.rs"]
mod oracle;
#[path = "../../../hypervisor/vgic/tests/vgic/pair.rs"]
mod pair;
#[path = "../../fuzz/checks/uart.rs"]
mod uart;

/// Runs a check on each file of a corpus, and on its front half: an input cut short is an input.
fn replay(corpus: &str, check: fn(&[u8])) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(corpus);
    let mut count = 0;
    for file in fs::read_dir(&path).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let checked = std::panic::catch_unwind(|| {
            check(&bytes);
            check(&bytes[..bytes.len() / 2]);
        });
        assert!(checked.is_ok(), "{} fails", path.display());
        count += 1;
    }
    assert!(count >= 5, "{} is nearly empty", path.display());
}

#[test]
fn the_devicetree_corpus_is_read_safely() {
    replay("devicetree", devicetree::check_devicetree);
    for board in ["qemu-virt.dtb", "qemu-virt-secure.dtb"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/dtb");
        devicetree::check_devicetree(&fs::read(path.join(board)).unwrap());
    }
}

#[test]
fn the_hypercall_corpus_is_answered_as_specified() {
    replay("hypercall", hypercall::check_hypercall);
}

#[test]
fn the_gic_corpus_agrees_with_the_oracle() {
    replay("gic", gic::check_gic);
}

#[test]
fn the_uart_corpus_loses_nothing() {
    replay("uart", uart::check_uart);
}

#[test]
fn the_console_corpus_reaches_whom_it_is_for() {
    replay("console", console::check_console);
}
