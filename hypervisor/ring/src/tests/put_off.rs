// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is remembered of SEIs that could not be taken, with another SEI at every step.

use std::rc::Rc;

use super::interrupt_at;
use crate::put_off::{PutOff, Sei};

fn guest(iss: u32) -> Sei {
    Sei { iss, el2_pc: None }
}

fn el2(iss: u32, pc: u64) -> Sei {
    Sei {
        iss,
        el2_pc: Some(pc),
    }
}

#[test]
fn each_is_taken_once_with_its_syndrome_and_place() {
    let put_off = PutOff::new();
    assert_eq!((put_off.is_waiting(), put_off.take()), (false, None));
    for sei in [
        guest(0),
        guest(0x1ff_ffff),
        el2(0, 0),
        el2(0xc11, 0x4020_1234),
    ] {
        put_off.note(sei);
        assert!(put_off.is_waiting());
        assert_eq!(put_off.take(), Some(sei));
        assert_eq!((put_off.is_waiting(), put_off.take()), (false, None));
    }
}

#[test]
fn regression_a_put_off_record_forgot_that_el2_was_interrupted() {
    let put_off = PutOff::new();
    put_off.note(el2(0x11, 0x4020_0000));
    put_off.note(guest(0x12));
    // The last syndrome; and EL2, until the last of them is taken.
    assert_eq!(put_off.take(), Some(el2(0x12, 0x4020_0000)));
    assert_eq!(put_off.take(), Some(el2(0x12, 0x4020_0000)));
    assert_eq!(put_off.take(), None);
    put_off.note(guest(0x13));
    assert_eq!(put_off.take(), Some(guest(0x13)));
}

#[test]
fn an_sei_at_every_step_of_a_note_is_counted_and_mixes_nothing() {
    for (outer, inner) in [
        (guest(1), guest(2)),
        (guest(1), el2(2, 0x2222)),
        (el2(1, 0x1111), guest(2)),
        (el2(1, 0x1111), el2(2, 0x2222)),
    ] {
        for at in 0.. {
            let put_off = Rc::new(PutOff::new());
            let sei = Rc::clone(&put_off);
            let (struck, ()) = interrupt_at(at, move || sei.note(inner), || put_off.note(outer));
            let seen: Vec<Sei> = core::iter::from_fn(|| put_off.take()).collect();
            assert_eq!(
                seen.len(),
                1 + usize::from(struck),
                "{outer:?} {inner:?} at {at}"
            );
            if !struck {
                assert_eq!(seen, [outer]);
                break;
            }
            let any_el2 = outer.el2_pc.is_some() || inner.el2_pc.is_some();
            for sei in &seen {
                assert_eq!(sei.el2_pc.is_some(), any_el2, "{outer:?} {inner:?} at {at}");
                // Where both interrupted EL2, syndrome and PC are of the same one.
                if let (Some(_), Some(_)) = (outer.el2_pc, inner.el2_pc) {
                    assert!(*sei == outer || *sei == inner, "{sei:?} at {at}");
                }
            }
        }
    }
}

#[test]
fn an_sei_at_every_step_of_taking_is_not_lost() {
    for at in 0.. {
        let put_off = Rc::new(PutOff::new());
        put_off.note(guest(1));
        let sei = Rc::clone(&put_off);
        let noted = el2(2, 0x2222);
        let (struck, first) = interrupt_at(at, move || sei.note(noted), || put_off.take());
        let rest: Vec<Sei> = core::iter::from_fn(|| put_off.take()).collect();
        if !struck {
            assert_eq!((first, rest.len()), (Some(guest(1)), 0));
            break;
        }
        assert_eq!((first.is_some(), rest), (true, vec![noted]), "at {at}");
    }
}

#[test]
fn as_many_interruptions_as_there_are_levels_lose_nothing() {
    // Each step of the outermost note is struck by one that is struck itself.
    for (one, two) in (0..12).flat_map(|one| (0..12).map(move |two| (one, two))) {
        let put_off = Rc::new(PutOff::new());
        let (sei, inner) = (Rc::clone(&put_off), Rc::clone(&put_off));
        let struck = Rc::new(std::cell::Cell::new(1));
        let count = Rc::clone(&struck);
        let nested = move || {
            let again = Rc::clone(&inner);
            let (deeper, ()) =
                interrupt_at(two, move || again.note(guest(3)), || inner.note(guest(2)));
            count.set(count.get() + 1 + u32::from(deeper));
        };
        interrupt_at(one, nested, || sei.note(guest(1)));
        let taken = core::iter::from_fn(|| put_off.take()).count();
        assert_eq!(taken, struck.get() as usize, "at {one} and {two}");
    }
}
