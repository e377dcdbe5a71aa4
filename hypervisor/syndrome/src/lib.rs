// SPDX-License-Identifier: MIT OR Apache-2.0
//! Codec of ESR, DISR and VSESR syndromes: the only place that knows ISS bits.
//!
//! Neighbors: the reference firmware and `firebreak-contract` re-encode syndromes with it,
//! `firebreak-triage` asks it how bad an error is, the hypervisor decodes its own traps with it.
//!
//! Invariants: every decoder is total (each bit pattern has a named meaning, reserved ones
//! included), every codec gives back exactly the bits it was given, and nothing allocates,
//! formats or panics on the way. Bit positions are those of the Arm ARM (DDI0487 M.a.a),
//! D24.2 `ESR_ELx`, "ISS encoding for an SError exception".
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

mod abort;
mod disr;
mod esr;
mod iss;
mod life;
mod pulled;
mod repeat;
mod severity;

pub use abort::{
    AbortFsc, AccessSize, DataAbort, InstructionAbort, SyncAbort, UNDEFINED_ESR,
    external_abort_esr, external_abort_state,
};
pub use disr::{Disr, VsesrEl2};
pub use esr::{Ec, Esr};
pub use iss::{Aet, Details, Iss, SError, WriteUpdate};
pub use life::{Life, Look, takes_serror_at_once};
pub use pulled::pulled_syndrome;
pub use repeat::{Repeat, repeat};
pub use severity::{CperSeverity, Severity};
