// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every interleaving and every reordering that loom knows, of an SEI on the queue's PE with
//! consumers on others:
//! `RUSTFLAGS="--cfg loom" cargo test -p firebreak-ring --release --test loom`.
//!
//! An SEI is not a thread: it runs at one step of the context that it interrupts, to its end. So
//! each test repeats its model for every step of the interrupted context.
#![cfg(loom)]

use firebreak_abi::PeId;
use firebreak_ring::hook::{interrupt_at, lose_at};
use firebreak_ring::{Peeked, Ring};
use loom::sync::Arc;
use loom::thread;

type Queue = Ring<u64, 2>;

const OWNER: PeId = PeId(0);

/// Explores `body` with at most this many preemptions.
fn explore(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(body);
}

/// A consumer that looks `looks` times.
fn consumer(queue: &Arc<Queue>, pe: u8, looks: usize) -> thread::JoinHandle<Vec<u64>> {
    let queue = Arc::clone(queue);
    thread::spawn(move || {
        let take = || {
            queue.take(PeId(pe)).map(|entry| {
                assert_eq!(
                    entry.stamp_ticks, entry.value,
                    "stamp and value of different records"
                );
                entry.value
            })
        };
        (0..looks).filter_map(|_| take()).collect()
    })
}

fn drain(queue: &Queue) -> Vec<u64> {
    core::iter::from_fn(|| queue.take(OWNER))
        .map(|entry| entry.value)
        .collect()
}

#[test]
fn an_sei_in_a_producer_with_a_consumer_elsewhere() {
    for at in 0..10 {
        explore(3, move || {
            let queue = Arc::new(Queue::new());
            let other = consumer(&queue, 1, 2);
            let inner = Arc::clone(&queue);
            let sei = move || assert!(inner.publish(2, 2, 2).is_ok());
            let (reached, outer) = interrupt_at(at, sei, || queue.publish(1, 1, 1));
            assert!(outer.is_ok());
            let theirs = other.join().unwrap();
            let ours = drain(&queue);
            // Whatever order the two were reserved in, it is the order in which they come.
            let mut all = [theirs, ours].concat();
            all.sort_unstable();
            assert_eq!(all, if reached { vec![1, 2] } else { vec![1] });
            assert_eq!(queue.counters().in_flight, 0);
        });
    }
}

#[test]
fn two_consumers_get_each_record_once_and_in_order() {
    explore(3, || {
        let queue = Arc::new(Queue::new());
        queue.publish(1, 1, 1).unwrap();
        let others = [consumer(&queue, 1, 2), consumer(&queue, 2, 1)];
        queue.publish(2, 1, 2).unwrap();
        let got = others.map(|other| other.join().unwrap());
        assert!(got.iter().all(|one| one.is_sorted()));
        let mut all = [got.concat(), drain(&queue)].concat();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn a_slot_is_used_again_only_when_its_reader_is_done() {
    explore(3, || {
        let queue = Arc::new(Queue::new());
        queue.publish(1, 1, 1).unwrap();
        queue.publish(2, 1, 2).unwrap();
        let other = consumer(&queue, 1, 2);
        let taken_in = queue.publish(3, 1, 3).is_ok();
        let theirs = other.join().unwrap();
        assert!(theirs.is_sorted());
        let all = [theirs, drain(&queue)].concat();
        assert_eq!(all, if taken_in { vec![1, 2, 3] } else { vec![1, 2] });
        assert_eq!(queue.take_overflow(), !taken_in);
    });
}

#[test]
fn a_slot_is_used_again_only_when_its_holder_is_done() {
    explore(3, || {
        let queue = Arc::new(Queue::new());
        queue.publish(1, 1, 1).unwrap();
        queue.publish(2, 1, 2).unwrap();
        let holder = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                queue.hold(PeId(1)).map(|mut held| {
                    *held += 10;
                    let value = *held;
                    held.finish();
                    value
                })
            })
        };
        let taken_in = queue.publish(3, 1, 3).is_ok();
        let theirs = holder.join().unwrap();
        assert_eq!(theirs, Some(11));
        let rest = if taken_in { vec![2, 3] } else { vec![2] };
        assert_eq!(drain(&queue), rest);
    });
}

#[test]
fn an_sei_in_the_consumer_of_the_same_pe_with_a_consumer_elsewhere() {
    for at in 0..14 {
        explore(2, move || {
            let queue = Arc::new(Queue::new());
            queue.publish(1, 1, 1).unwrap();
            let other = consumer(&queue, 1, 1);
            let inner = Arc::clone(&queue);
            let sei = move || assert!(inner.publish(2, 1, 2).is_ok());
            let (reached, ours) = interrupt_at(at, sei, || queue.take(OWNER));
            let mut all = other.join().unwrap();
            all.extend(ours.map(|entry| entry.value));
            all.extend(drain(&queue));
            all.sort_unstable();
            assert_eq!(all, if reached { vec![1, 2] } else { vec![1] });
        });
    }
}

#[test]
fn a_fatal_record_is_never_overtaken() {
    explore(3, || {
        let queue = Arc::new(Queue::new());
        queue.publish(1, 1, 1).unwrap();
        queue.publish(2, 1, 2).unwrap();
        let other = consumer(&queue, 1, 3);
        queue.publish_fatal(3, 1, 3).unwrap();
        let younger = queue.publish(4, 1, 4).is_ok();
        let all = [other.join().unwrap(), drain(&queue)].concat();
        assert_eq!(
            all,
            if younger {
                vec![1, 2, 3, 4]
            } else {
                vec![1, 2, 3]
            }
        );
    });
}

#[test]
fn a_lost_producer_is_given_up_while_others_consume() {
    for at in 0..8 {
        explore(2, move || {
            let queue = Arc::new(Queue::new());
            queue.publish(1, 1, 1).unwrap();
            let other = consumer(&queue, 1, 2);
            lose_at(at, || assert!(queue.publish(2, 2, 2).is_ok()));
            // SAFETY: the producer of level 2 was unwound or is done, on this thread.
            let freed = unsafe { queue.abandon(2) };
            let third = queue.publish(3, 1, 3).is_ok();
            let mut all = [other.join().unwrap(), drain(&queue)].concat();
            all.retain(|value| *value != 2 || freed != 0);
            assert_eq!(
                all,
                if third { vec![1, 3] } else { vec![1] },
                "lost at {at}"
            );
        });
    }
}

#[test]
fn a_lost_consumer_gives_its_record_to_another() {
    for at in 0..10 {
        explore(2, move || {
            let queue = Arc::new(Queue::new());
            queue.publish(1, 1, 1).unwrap();
            let other = consumer(&queue, 1, 1);
            lose_at(at, || {
                assert!(queue.claim(OWNER).is_none_or(|entry| entry.value == 1))
            });
            // SAFETY: the claim of this PE was unwound or is done, on this thread; it will not
            // finish.
            unsafe { queue.release_claims(OWNER) };
            let all = [other.join().unwrap(), drain(&queue)].concat();
            assert_eq!(all, [1], "lost at {at}");
        });
    }
}

#[test]
fn a_lost_consumer_elsewhere_is_done_reading_before_the_slot_is_used_again() {
    for at in [5, 6, 7, 8] {
        explore(2, move || {
            let queue = Arc::new(Queue::new());
            queue.publish(1, 1, 1).unwrap();
            queue.publish(2, 1, 2).unwrap();
            let crashed = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    lose_at(at, || assert!(queue.claim(PeId(1)).is_some()));
                    // SAFETY: the claim of this PE was unwound or is done, on this thread; it
                    // will not finish.
                    unsafe { queue.release_claims(PeId(1)) };
                })
            };
            let theirs = consumer(&queue, 2, 1).join().unwrap();
            let taken_in = queue.publish(3, 1, 3).is_ok();
            crashed.join().unwrap();
            let mut all = [theirs, drain(&queue)].concat();
            all.sort_unstable();
            assert_eq!(all, if taken_in { vec![1, 2, 3] } else { vec![1, 2] });
        });
    }
}

#[test]
fn the_crash_path_may_look_while_others_consume_and_produce() {
    explore(2, || {
        let queue = Arc::new(Queue::new());
        queue.publish(1, 1, 1).unwrap();
        queue.publish(2, 1, 2).unwrap();
        let other = consumer(&queue, 1, 1);
        let peeker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                queue.peek_all(PeId(2), |peeked| {
                    if let Peeked::Ready(entry) = peeked {
                        assert_eq!(entry.stamp_ticks, entry.value);
                    }
                });
            })
        };
        let theirs = other.join().unwrap();
        let taken_in = queue.publish(3, 1, 3).is_ok();
        peeker.join().unwrap();
        let all = [theirs, drain(&queue)].concat();
        assert_eq!(all, if taken_in { vec![1, 2, 3] } else { vec![1, 2] });
    });
}

/// Found by Miri: the consumer saw an empty queue, then the emergency record.
#[test]
fn a_fatal_record_does_not_overtake_those_that_are_just_being_published() {
    explore(3, || {
        let queue = Arc::new(Queue::new());
        let other = consumer(&queue, 1, 2);
        queue.publish(1, 1, 1).unwrap();
        queue.publish(2, 1, 2).unwrap();
        queue.publish_fatal(3, 1, 3).unwrap();
        let all = [other.join().unwrap(), drain(&queue)].concat();
        assert_eq!(all, [1, 2, 3]);
    });
}

#[test]
fn the_emergency_slot_is_used_again_only_when_its_reader_is_done() {
    explore(3, || {
        let queue = Arc::new(Queue::new());
        assert!((1..=3).all(|n| queue.publish_fatal(n, 1, n).is_ok()));
        assert!((1..=2).all(|n| queue.take(OWNER).is_some_and(|entry| entry.value == n)));
        assert!((4..=5).all(|n| queue.publish(n, 1, n).is_ok()));
        // The ring is full, and the emergency slot is next.
        let producer = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.publish_fatal(6, 1, 6).is_ok())
        };
        assert_eq!(queue.take(PeId(1)).map(|entry| entry.value), Some(3));
        let taken_in = producer.join().unwrap();
        assert_eq!(
            drain(&queue),
            if taken_in { vec![4, 5, 6] } else { vec![4, 5] }
        );
    });
}
