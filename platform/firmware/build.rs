// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells the linker where the firmware's parts go, when it is built for the machine.

use std::env;
use std::path::Path;

fn main() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../linker/el3.ld");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", script.display());
    // On the host the binary is an empty program, so that workspace-wide commands work.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    }
}
