// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vGIC against a model of the virtual CPU interface (`cpu`), a machine of several PEs with
//! physical interrupts (`machine`), and an oracle that knows nothing of list registers (`oracle`).

mod against_oracle;
mod common;
mod cpu;
mod guests;
mod machine;
mod oracle;
mod pair;
mod registers;
mod threads;
