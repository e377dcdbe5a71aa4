// SPDX-License-Identifier: MIT OR Apache-2.0
//! Routing over every state that SPSR_EL3 and the controls can be in, against the rows of the
//! contract written down as text.
//!
//! The oracle matches patterns; it has no priorities: each legal state must match exactly one
//! row, so the rows are known to be complete and not to contradict each other.

use firebreak_contract::{
    DeferReason, Kind, Origin, PanicReason, Route, Taken, Target, hcr, origin, route, spsr,
};

/// from, TGE, E2H, AMO, TMEA, A -> where. `-` matches both.
const SEI_ROWS: [&str; 18] = [
    "EL0 0-1-- EL2",
    "EL1 0-1-- EL2",
    "EL0 0-0-0 EL1",
    "EL1 0-0-0 EL1",
    "EL0 0-001 masked",
    "EL1 0-001 masked",
    "EL0 0-011 EL2",
    "EL1 0-011 EL2",
    "EL0 10--- EL2",
    "EL0 11--0 EL2",
    "EL0 11--1 masked",
    "EL1 1---- illegal",
    "EL2 0-0-- not-ready",
    "EL2 0-1-0 EL2",
    "EL2 0-1-1 masked",
    "EL2 1---0 EL2",
    "EL2 1---1 masked",
    "EL3 ----- el3",
];

/// from, TGE, TEA, TMEA, A, stage-2 walk -> where.
const SEA_ROWS: [&str; 12] = [
    "EL0 -1--- EL2",
    "EL1 01--- EL2",
    "EL0 -0--1 EL2",
    "EL1 00--1 EL2",
    "EL0 00--0 EL1",
    "EL0 10--0 EL2",
    "EL1 00110 EL2",
    "EL1 00100 EL1",
    "EL1 000-0 EL1",
    "EL1 1---- illegal",
    "EL2 ----- EL2",
    "EL3 ----- el3",
];

/// kind, target, from (M\[4:0\] class), width of the level below the target -> offset.
/// `s` same level with SP_EL0, `h` same level with SP_ELx, `6` and `3` lower level.
const VECTORS: [(&str, u16); 8] = [
    ("sync s", 0x000),
    ("sync h", 0x200),
    ("sync 6", 0x400),
    ("sync 3", 0x600),
    ("serror s", 0x180),
    ("serror h", 0x380),
    ("serror 6", 0x580),
    ("serror 3", 0x780),
];

/// M\[4:0\] -> level, stack pointer or width. Everything else cannot be.
const MODES: [(u64, &str, char); 14] = [
    (0b0_0000, "EL0", '6'),
    (0b0_0100, "EL1", 's'),
    (0b0_0101, "EL1", 'h'),
    (0b0_1000, "EL2", 's'),
    (0b0_1001, "EL2", 'h'),
    (0b0_1100, "EL3", 's'),
    (0b0_1101, "EL3", 'h'),
    (0b1_0000, "EL0", '3'),
    (0b1_0001, "EL1", '3'),
    (0b1_0010, "EL1", '3'),
    (0b1_0011, "EL1", '3'),
    (0b1_0111, "EL1", '3'),
    (0b1_1011, "EL1", '3'),
    (0b1_1111, "EL1", '3'),
];

/// One state of the machine, as single facts.
#[derive(Clone, Copy, Debug)]
struct State {
    mode: u64,
    a: bool,
    amo: bool,
    tge: bool,
    e2h: bool,
    rw: bool,
    tea: bool,
    tmea: bool,
    el2: bool,
    secure: bool,
    walk: bool,
    ease_el1: bool,
    ease_el2: bool,
    kind: Kind,
}

impl State {
    fn from_number(number: u32) -> Self {
        let bit = |index: u32| number >> index & 1 == 1;
        Self {
            mode: u64::from(number & 0x1f),
            a: bit(5),
            amo: bit(6),
            tge: bit(7),
            e2h: bit(8),
            rw: bit(9),
            tea: bit(10),
            tmea: bit(11),
            el2: bit(12),
            secure: bit(13),
            walk: bit(14),
            ease_el1: bit(15),
            ease_el2: bit(16),
            kind: if bit(17) { Kind::Sei } else { Kind::Sea },
        }
    }

    const COUNT: u32 = 1 << 18;

    fn taken(&self) -> Taken {
        let when = |set: bool, bits: u64| if set { bits } else { 0 };
        Taken {
            kind: self.kind,
            // Bits that must not matter are set at random.
            spsr_el3: self.mode | when(self.a, spsr::A) | when(self.amo, spsr::I | spsr::NZCV),
            hcr_el2: when(self.amo, hcr::AMO)
                | when(self.tge, hcr::TGE)
                | when(self.e2h, hcr::E2H)
                | when(self.rw, hcr::RW)
                | when(self.tea, hcr::TEA)
                | when(self.a, 0x1f),
            tmea: self.tmea,
            el2_enabled: self.el2,
            secure: self.secure,
            stage2_walk: self.walk,
            ease_el1: self.ease_el1,
            ease_el2: self.ease_el2,
        }
    }
}

fn matching<'a>(rows: &[&'a str], from: &str, facts: &[bool]) -> &'a str {
    let found: Vec<&str> = rows
        .iter()
        .filter_map(|row| {
            let mut words = row.split(' ');
            let same = words.next() == Some(from);
            let pattern = words.next().unwrap();
            assert_eq!(pattern.len(), facts.len(), "{row}");
            let fits = pattern
                .chars()
                .zip(facts)
                .all(|(want, &fact)| want == '-' || (want == '1') == fact);
            (same && fits).then(|| words.next().unwrap())
        })
        .collect();
    assert_eq!(found.len(), 1, "{from} {facts:?} matches {found:?}");
    found[0]
}

fn oracle(state: &State) -> Route {
    let Some(&(_, from, shape)) = MODES.iter().find(|(mode, ..)| *mode == state.mode) else {
        return Route::Panic(PanicReason::IllegalState);
    };
    if from == "EL3" {
        return Route::Panic(PanicReason::FromEl3);
    }
    if state.secure {
        return Route::Panic(PanicReason::FromSecure);
    }
    // Without EL2 none of its controls has an effect, except RW, which then stands for
    // SCR_EL3.RW.
    let tge = state.tge && state.el2;
    let in_host = tge && state.e2h;
    let narrow_el1 = !state.rw && !in_host;
    let consistent = match (from, shape) {
        ("EL2", _) => state.el2,
        ("EL1", '3') => narrow_el1,
        ("EL1", _) | ("EL0", '6') => !narrow_el1,
        _ => true,
    };
    if !consistent {
        return Route::Panic(PanicReason::IllegalState);
    }
    let (amo, tmea) = (state.amo && state.el2, state.tmea && state.el2);
    let word = match state.kind {
        Kind::Sei => matching(&SEI_ROWS, from, &[tge, state.e2h, amo, tmea, state.a]),
        Kind::Sea => {
            let (tea, walk) = (state.tea && state.el2, state.walk && state.el2);
            matching(&SEA_ROWS, from, &[tge, tea, tmea, state.a, walk])
        }
    };
    let target = match word {
        "masked" => return Route::Defer(DeferReason::Masked),
        "not-ready" => return Route::Defer(DeferReason::NotReady),
        "illegal" => return Route::Panic(PanicReason::IllegalState),
        "EL1" => Target::El1,
        "EL2" => Target::El2,
        other => panic!("{other}"),
    };
    if target == Target::El1 && narrow_el1 {
        return Route::Panic(PanicReason::Aarch32Target);
    }
    let to = if target == Target::El1 { "EL1" } else { "EL2" };
    let below = match (from == to, target) {
        (true, _) => shape,
        (false, Target::El1) => shape,
        (false, Target::El2) if in_host => shape,
        (false, Target::El2) if narrow_el1 => '3',
        (false, Target::El2) => '6',
    };
    let ease = if target == Target::El1 {
        state.ease_el1
    } else {
        state.ease_el2
    };
    let class = if state.kind == Kind::Sei || ease {
        "serror"
    } else {
        "sync"
    };
    let key = format!("{class} {below}");
    let vector_offset = VECTORS.iter().find(|(name, _)| *name == key).unwrap().1;
    Route::Deliver {
        target,
        vector_offset,
    }
}

#[test]
fn every_state_is_routed_as_the_contract_says() {
    for number in 0..State::COUNT {
        let state = State::from_number(number);
        assert_eq!(route(&state.taken()), oracle(&state), "{state:?}");
    }
}

#[test]
fn an_sei_never_looks_at_tea_and_an_sea_never_at_amo() {
    for number in 0..State::COUNT {
        let state = State::from_number(number);
        let other = match state.kind {
            Kind::Sei => State {
                tea: !state.tea,
                walk: !state.walk,
                ..state
            },
            Kind::Sea => State {
                amo: !state.amo,
                ..state
            },
        };
        assert_eq!(route(&state.taken()), route(&other.taken()), "{state:?}");
    }
}

#[test]
fn an_sea_is_never_deferred() {
    for number in 0..State::COUNT {
        let state = State::from_number(number);
        if state.kind == Kind::Sea {
            assert!(
                !matches!(route(&state.taken()), Route::Defer(_)),
                "{state:?}"
            );
        }
    }
}

#[test]
fn a_masked_el2_is_never_entered_with_an_sei() {
    for number in 0..State::COUNT {
        let state = State::from_number(number);
        if state.kind == Kind::Sei && matches!(state.mode, 0b0_1000 | 0b0_1001) && state.a {
            assert!(
                !matches!(route(&state.taken()), Route::Deliver { .. }),
                "{state:?}"
            );
        }
    }
}

#[test]
fn origins_are_those_of_the_mode_field() {
    for mode in 0..32 {
        let expected = MODES
            .iter()
            .find(|(m, ..)| *m == mode)
            .map(|(_, name, _)| *name);
        let got = origin(mode | spsr::A | spsr::NZCV).map(|origin| match origin {
            Origin::El0 => "EL0",
            Origin::El1 => "EL1",
            Origin::El2 => "EL2",
            Origin::El3 => "EL3",
        });
        assert_eq!(got, expected, "{mode:#b}");
    }
}
