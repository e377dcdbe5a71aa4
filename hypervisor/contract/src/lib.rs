// SPDX-License-Identifier: MIT OR Apache-2.0
//! The SEI contract between EL3 and EL2: routing, deferral and hand-off, pure.
//!
//! What the reference firmware does with an error is decided here and nowhere else: [`route()`]
//! says where the hardware would take it, [`overlay()`] whether it may be notified at all,
//! [`entry_pstate`] and [`esr_for_sei`] what the exception level finds, [`Source`] what happens
//! while the target cannot take it. The same code writes the tables of `docs/sei-contract.md`.
//!
//! Neighbors: `platform/firmware` acts on the answers, the hypervisor relies on them,
//! `firebreak-syndrome` knows the bits of a syndrome.
//!
//! Invariants: pure and total; no allocation, no formatting, no panic. Sources: the Arm ARM
//! (DDI0487 M.a.a), `AArch64.DelegatedSErrorTarget()`, `AArch64.SyncExternalAbortTarget()`,
//! `AArch64.TakeException()`, and ACPI 18.3.2.8 for the acknowledgement.
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

mod handoff;
mod overlay;
mod route;
mod source;

pub use firebreak_syndrome::{CperSeverity, Iss, Severity};
pub use handoff::{PstateFeatures, entry_pstate, esr_for_sea, esr_for_sei};
pub use overlay::{
    Act, CorrectedPolicy, ImpdefPolicy, MaskedUerPolicy, OverlayPolicy, ResetReason, overlay,
};
pub use route::{
    DeferReason, Kind, Origin, PanicReason, Route, Taken, Target, hcr, origin, route, spsr,
};
pub use source::{Action, Backlog, Limits, Raise, Source, SourceState};
