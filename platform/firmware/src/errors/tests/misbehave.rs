// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each mode on the model: what goes wrong, and that nothing else does.

use super::*;

#[test]
fn barge_in_strikes_a_masked_el2_by_pe_or_by_error() {
    let barge_in = Modes::parse("barge-in").unwrap();
    for (of_pe, of_error, delivered) in [
        (Modes::CONFORMING, None, false),
        (barge_in, None, true),
        (Modes::CONFORMING, Some(barge_in), true),
        (barge_in, Some(Modes::CONFORMING), false),
    ] {
        let (mut model, mut errors) = (Model::new(EL2H_MASKED, READY), PeErrors::new(LIMITS));
        model.modes = of_pe;
        let mut request = uer(1);
        request.error.modes = of_error;
        errors.request(&mut model, request);
        assert_eq!(
            !model.delivered.is_empty(),
            delivered,
            "{of_pe} {of_error:?}"
        );
        assert_eq!(model.pending != 0, !delivered);
    }
}

/// What was deferred while the firmware conformed is delivered once it no longer does.
#[test]
fn a_deferred_error_barges_in_when_the_pe_is_told_to() {
    let (mut model, mut errors) = (Model::new(EL2H_MASKED, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, uer(1));
    model.modes = Modes::parse("barge-in").unwrap();
    model.now = 100;
    errors.service(&mut model, false);
    assert_eq!((&model.delivered[..], model.pending), (&[1][..], 0));
}

fn rude(id: u64, modes: &str) -> Request {
    let mut request = uer(id);
    request.error.modes = Some(Modes::parse(modes).unwrap());
    request
}

#[test]
fn handled_in_firmware_takes_time_and_tells_nobody() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, rude(1, "handled-in-firmware"));
    assert_eq!(model.names(), [(1, "raised"), (1, "handled")]);
    assert!(model.time_passed && model.delivered.is_empty() && model.block.is_none());
    assert!(errors.is_quiet());
}

#[test]
fn no_record_is_an_sei_with_an_empty_block() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, rude(1, "no-record"));
    assert_eq!((&model.delivered[..], model.block), (&[1][..], None));
}

#[test]
fn early_overwrite_writes_over_what_nobody_acknowledged() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, uer(1));
    errors.request(&mut model, rude(2, "early-overwrite"));
    // EL2 is on its way to the first record and masked: the second waits in the same block.
    assert_eq!(
        (model.overwritten, model.block, model.pending),
        (1, Some(2), 1)
    );
    assert_eq!(model.names()[3..], [(1, "dropped"), (2, "masked")]);
    // A third one on top of the deferred one: the pending word is that of the third.
    errors.request(&mut model, rude(3, "early-overwrite+barge-in"));
    assert_eq!((model.pending, &model.delivered[..]), (0, &[1, 3][..]));
    model.acknowledge();
    errors.service(&mut model, false);
    assert!(errors.is_quiet());
}

#[test]
fn barge_in_without_a_record_does_not_wait_for_the_block() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, uer(1));
    errors.request(&mut model, rude(2, "barge-in+no-record"));
    assert_eq!((&model.delivered[..], model.block), (&[1, 2][..], Some(1)));
    model.acknowledge();
    errors.service(&mut model, false);
    assert_eq!(model.names().last(), Some(&(1, "acked")));
}

#[test]
fn cross_pe_meets_before_anything_else() {
    let (mut model, mut errors) = (Model::new(EL1H, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, rude(1, "cross-pe"));
    assert_eq!((model.meetings, &model.delivered[..]), (1, &[1][..]));
}

#[test]
fn slow_retry_leaves_a_deferred_error_to_el2() {
    let (mut model, mut errors) = (Model::new(EL2H_MASKED, READY), PeErrors::new(LIMITS));
    errors.request(&mut model, rude(1, "slow-retry"));
    assert_eq!(errors.next_deadline(0), Some(100 * SLOW_FACTOR));
    model.context = Some((EL2H, READY));
    model.now = 100 * SLOW_FACTOR - 1;
    errors.service(&mut model, false);
    assert!(model.delivered.is_empty());
    model.now += 1;
    errors.service(&mut model, false);
    assert_eq!(model.delivered, [1]);
}
