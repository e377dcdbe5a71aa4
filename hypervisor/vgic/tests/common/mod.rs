// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests run the vGIC against: a model of the virtual CPU interface, a machine of several
//! PEs with physical interrupts, and an oracle that knows nothing of list registers.
#![expect(unreachable_pub, reason = "a module shared by test binaries")]

pub mod cpu;
pub mod machine;
pub mod oracle;
