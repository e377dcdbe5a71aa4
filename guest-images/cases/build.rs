// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links the guest at its fixed address.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../linker/guest.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=-T{script}");
}
