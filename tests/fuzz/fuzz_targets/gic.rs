// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any accesses of guests to their GIC: see `checks/gic.rs` for what must hold. The machine around
//! it and the oracle are those of the crate's own tests.
#![no_main]

#[path = "../checks/bytes.rs"]
mod bytes;
#[path = "../checks/gic.rs"]
mod checks;
#[path = "../../../hypervisor/vgic/tests/vgic/cpu.rs"]
mod cpu;
#[path = "../../../hypervisor/vgic/tests/vgic/machine.rs"]
mod machine;
#[path = "../../../hypervisor/vgic/tests/vgic/oracle.rs"]
mod oracle;
#[path = "../../../hypervisor/vgic/tests/vgic/pair.rs"]
mod pair;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::check_gic(bytes));
