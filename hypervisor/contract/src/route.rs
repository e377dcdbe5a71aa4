// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an error that EL3 took has to go: what hardware would do with SCR_EL3.EA clear.
//!
//! The firmware takes every physical SError and external abort (SCR_EL3.EA=1) and must then
//! behave as if it had not: the masks and routing controls of the lower levels still hold.

/// Bits of HCR_EL2 that routing looks at (Arm ARM, D24.2).
pub mod hcr {
    /// Route SErrors from EL0 and EL1 to EL2.
    pub const AMO: u64 = 1 << 5;
    /// Route all exceptions from EL0 to EL2.
    pub const TGE: u64 = 1 << 27;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// EL2 hosts an operating system.
    pub const E2H: u64 = 1 << 34;
    /// Route synchronous external aborts from EL0 and EL1 to EL2.
    pub const TEA: u64 = 1 << 37;
}

/// Bits of SPSR_EL3 that routing and hand-off look at (Arm ARM, C5.2).
pub mod spsr {
    /// FIQ mask.
    pub const F: u64 = 1 << 6;
    /// IRQ mask.
    pub const I: u64 = 1 << 7;
    /// SError mask.
    pub const A: u64 = 1 << 8;
    /// Debug mask.
    pub const D: u64 = 1 << 9;
    /// All interrupts mask, FEAT_NMI.
    pub const ALLINT: u64 = 1 << 13;
    /// Speculative store bypass safe.
    pub const SSBS: u64 = 1 << 12;
    /// Illegal execution state.
    pub const IL: u64 = 1 << 20;
    /// Software step.
    pub const SS: u64 = 1 << 21;
    /// Privileged access never.
    pub const PAN: u64 = 1 << 22;
    /// User access override.
    pub const UAO: u64 = 1 << 23;
    /// Data independent timing.
    pub const DIT: u64 = 1 << 24;
    /// Tag check override, FEAT_MTE.
    pub const TCO: u64 = 1 << 25;
    /// Condition flags.
    pub const NZCV: u64 = 0xf << 28;
    /// Profiling exception mask, FEAT_EBEP.
    pub const PM: u64 = 1 << 32;
    /// Exception return lock, FEAT_GCS.
    pub const EXLOCK: u64 = 1 << 34;
    /// M\[4\]: the interrupted context is AArch32.
    pub const AARCH32: u64 = 1 << 4;
    /// M\[3:0\].
    pub const MODE: u64 = 0xf;
    /// M\[4:0\] of EL1 with SP_EL1.
    pub const EL1H: u64 = 0b0_0101;
    /// M\[4:0\] of EL2 with SP_EL2.
    pub const EL2H: u64 = 0b0_1001;
}

/// What was taken to EL3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An asynchronous error: the target sees an SError interrupt.
    Sei,
    /// A synchronous external abort.
    Sea,
}

/// The state of the PE at the moment at which EL3 took the error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// What it was.
    pub kind: Kind,
    /// SPSR_EL3: PSTATE of the interrupted context.
    pub spsr_el3: u64,
    /// HCR_EL2 as it stands. With EL2 disabled, RW alone counts and is SCR_EL3.RW.
    pub hcr_el2: u64,
    /// HCRX_EL2.TMEA (bit 19), if FEAT_DoubleFault2 is there and HCRX_EL2 is enabled.
    pub tmea: bool,
    /// EL2 is implemented and enabled in the Security state of the interrupted context.
    pub el2_enabled: bool,
    /// The interrupted context was in Secure state (SCR_EL3.NS=0).
    pub secure: bool,
    /// The abort was on a stage-2 table walk, if the firmware knows. Ignored for an SEI.
    pub stage2_walk: bool,
    /// SCTLR2_EL1.EASE and SCTLR2_EL2.EASE: an SEA uses the SError vector. Ignored for an SEI.
    pub ease_el1: bool,
    /// See `ease_el1`.
    pub ease_el2: bool,
}

impl Taken {
    /// Describes a plain case: Non-secure, EL2 enabled, none of the optional features.
    pub const fn new(kind: Kind, spsr_el3: u64, hcr_el2: u64) -> Self {
        Self {
            kind,
            spsr_el3,
            hcr_el2,
            tmea: false,
            el2_enabled: true,
            secure: false,
            stage2_walk: false,
            ease_el1: false,
            ease_el2: false,
        }
    }
}

/// The exception level that was interrupted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// EL0.
    El0,
    /// EL1.
    El1,
    /// EL2.
    El2,
    /// EL3: the firmware itself.
    El3,
}

impl Origin {
    /// Returns the name that the firmware's protocol uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::El0 => "el0",
            Self::El1 => "el1",
            Self::El2 => "el2",
            Self::El3 => "el3",
        }
    }
}

/// The exception level that gets the error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// EL1.
    El1,
    /// EL2.
    El2,
}

impl Target {
    /// Says whether an error from `origin` interrupts the level that also handles it.
    pub const fn is_same_level(self, origin: Origin) -> bool {
        matches!(
            (self, origin),
            (Self::El1, Origin::El1) | (Self::El2, Origin::El2)
        )
    }
}

/// Why an error has to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeferReason {
    /// PSTATE.A of the interrupted context masks it.
    Masked,
    /// EL2 was interrupted and has not set HCR_EL2.AMO: it does not take SErrors yet.
    NotReady,
}

impl DeferReason {
    /// Returns the word of the `fw: deferred` line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Masked => "masked",
            Self::NotReady => "not-ready",
        }
    }
}

/// Why an error cannot be handed to anyone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PanicReason {
    /// The firmware itself was interrupted.
    FromEl3,
    /// The Secure world was interrupted; this contract does not serve it.
    FromSecure,
    /// SPSR_EL3.M and HCR_EL2 do not describe a state that can be: the PE is not to be trusted.
    IllegalState,
    /// The target is EL1 in AArch32, which has another entry that the contract does not cover.
    Aarch32Target,
}

/// Where an error goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// Enter `target` at VBAR + `vector_offset`.
    Deliver {
        /// The level.
        target: Target,
        /// Offset from that level's VBAR, in bytes.
        vector_offset: u16,
    },
    /// Keep it until the target can take it.
    Defer(DeferReason),
    /// Nobody can take it.
    Panic(PanicReason),
}

/// The interrupted level, with what decides a vector.
struct Context {
    origin: Origin,
    aarch32: bool,
    sp_elx: bool,
}

/// Returns the level that SPSR_EL3 names, or `None` when it names none.
pub const fn origin(spsr_el3: u64) -> Option<Origin> {
    match context(spsr_el3) {
        Some(context) => Some(context.origin),
        None => None,
    }
}

const fn context(spsr_el3: u64) -> Option<Context> {
    let aarch32 = spsr_el3 & spsr::AARCH32 != 0;
    let mode = spsr_el3 & spsr::MODE;
    let origin = match (aarch32, mode) {
        (false, 0b0000) | (true, 0b0000) => Origin::El0,
        (false, 0b0100 | 0b0101) => Origin::El1,
        (false, 0b1000 | 0b1001) => Origin::El2,
        (false, 0b1100 | 0b1101) => Origin::El3,
        // FIQ, IRQ, Supervisor, Abort, Undefined, System. Monitor cannot be below an AArch64
        // EL3, nor Hyp below an EL2 that runs this contract.
        (true, 0b0001 | 0b0010 | 0b0011 | 0b0111 | 0b1011 | 0b1111) => Origin::El1,
        _ => return None,
    };
    Some(Context {
        origin,
        aarch32,
        sp_elx: !aarch32 && mode & 1 != 0,
    })
}

/// Decides where an error goes. Total.
pub const fn route(taken: &Taken) -> Route {
    let Some(context) = context(taken.spsr_el3) else {
        return Route::Panic(PanicReason::IllegalState);
    };
    if matches!(context.origin, Origin::El3) {
        return Route::Panic(PanicReason::FromEl3);
    }
    if taken.secure {
        return Route::Panic(PanicReason::FromSecure);
    }
    let tge = taken.el2_enabled && taken.hcr_el2 & hcr::TGE != 0;
    let impossible = match context.origin {
        Origin::El2 => !taken.el2_enabled,
        // TGE leaves no EL1, and the mode's width has to be that of EL1.
        Origin::El1 => tge || el1_is_aarch32(taken) != context.aarch32,
        // A 32-bit EL1 has no 64-bit EL0.
        Origin::El0 => !context.aarch32 && el1_is_aarch32(taken),
        Origin::El3 => false,
    };
    if impossible {
        return Route::Panic(PanicReason::IllegalState);
    }
    match taken.kind {
        Kind::Sei => route_sei(taken, &context, tge),
        Kind::Sea => route_sea(taken, &context, tge),
    }
}

const fn route_sei(taken: &Taken, context: &Context, tge: bool) -> Route {
    let masked = taken.spsr_el3 & spsr::A != 0;
    let e2h = taken.hcr_el2 & hcr::E2H != 0;
    let amo = taken.el2_enabled && taken.hcr_el2 & hcr::AMO != 0;
    match context.origin {
        Origin::El2 => match (amo || tge, masked) {
            (false, _) => Route::Defer(DeferReason::NotReady),
            (true, true) => Route::Defer(DeferReason::Masked),
            (true, false) => deliver(taken, context, Target::El2, tge),
        },
        // TGE turns AMO's effective value into the opposite of E2H; TMEA has no say then.
        _ if tge => match e2h && masked {
            true => Route::Defer(DeferReason::Masked),
            false => deliver(taken, context, Target::El2, tge),
        },
        _ if amo => deliver(taken, context, Target::El2, tge),
        _ if !masked => deliver(taken, context, Target::El1, tge),
        _ if taken.tmea && taken.el2_enabled => deliver(taken, context, Target::El2, tge),
        _ => Route::Defer(DeferReason::Masked),
    }
}

const fn route_sea(taken: &Taken, context: &Context, tge: bool) -> Route {
    let masked = taken.spsr_el3 & spsr::A != 0;
    let tea = taken.hcr_el2 & hcr::TEA != 0;
    let to_el2 = match context.origin {
        Origin::El2 => true,
        Origin::El1 => tea || taken.stage2_walk || taken.tmea && masked,
        _ => tea || taken.stage2_walk || tge,
    };
    let target = if to_el2 && taken.el2_enabled {
        Target::El2
    } else {
        Target::El1
    };
    deliver(taken, context, target, tge)
}

const fn deliver(taken: &Taken, context: &Context, target: Target, tge: bool) -> Route {
    let el1_aarch32 = el1_is_aarch32(taken);
    if matches!(target, Target::El1) && el1_aarch32 {
        return Route::Panic(PanicReason::Aarch32Target);
    }
    let base = if target.is_same_level(context.origin) {
        if context.sp_elx { 0x200 } else { 0x000 }
    } else {
        // "Lower" is the level right below the target, not the interrupted one; a host EL2 has
        // EL0 right below it.
        let in_host = tge && taken.hcr_el2 & hcr::E2H != 0;
        let lower_aarch32 = match target {
            Target::El1 => context.aarch32,
            Target::El2 if in_host => context.aarch32,
            Target::El2 => el1_aarch32,
        };
        if lower_aarch32 { 0x600 } else { 0x400 }
    };
    let as_serror = match (taken.kind, target) {
        (Kind::Sei, _) => true,
        (Kind::Sea, Target::El1) => taken.ease_el1,
        (Kind::Sea, Target::El2) => taken.ease_el2,
    };
    Route::Deliver {
        target,
        vector_offset: if as_serror { base + 0x180 } else { base },
    }
}

/// Says whether EL1 is in AArch32; a host EL2 has no EL1, and EL0's own bit counts there.
const fn el1_is_aarch32(taken: &Taken) -> bool {
    let in_host =
        taken.el2_enabled && taken.hcr_el2 & hcr::TGE != 0 && taken.hcr_el2 & hcr::E2H != 0;
    !in_host && taken.hcr_el2 & hcr::RW == 0
}
