// SPDX-License-Identifier: MIT OR Apache-2.0
//! One producing PE and several consuming ones, as real threads. Miri runs this with many seeds.
#![cfg(not(loom))]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use firebreak_abi::PeId;
use firebreak_ring::{Entry, Ring, take_oldest};

const RECORDS: u64 = if cfg!(miri) { 7 } else { 100_000 };
const CONSUMERS: u8 = if cfg!(miri) { 2 } else { 3 };
const SLOTS: usize = if cfg!(miri) { 2 } else { 16 };

type Record = [u64; 8];

fn record(number: u64) -> Record {
    core::array::from_fn(|word| number.wrapping_mul(0x9e37_79b9).wrapping_add(word as u64))
}

fn check(entry: &Entry<Record>) {
    assert_eq!(
        entry.value,
        record(entry.stamp_ticks),
        "torn or mixed record"
    );
}

/// Publishes all records, each until it is taken in: the source keeps what was refused.
fn produce(ring: &Ring<Record, SLOTS>) {
    for number in 0..RECORDS {
        let fatal = number % 5 == 0;
        loop {
            let result = if fatal {
                ring.publish_fatal(number, 1, record(number))
            } else {
                ring.publish(number, 1, record(number))
            };
            if result.is_ok() {
                break;
            }
            thread::yield_now();
        }
    }
}

/// Takes until the producer is done and nothing is left. Every second record by way of a claim.
fn consume(ring: &Ring<Record, SLOTS>, pe: PeId, done: &AtomicBool) -> Vec<u64> {
    let mut got = vec![];
    loop {
        let last_look = done.load(Ordering::Acquire);
        let entry = if got.len() % 2 == 0 {
            ring.take(pe)
        } else {
            ring.claim(pe)
                .inspect(|entry| assert!(ring.finish(entry.position, pe)))
        };
        match entry {
            Some(entry) => {
                check(&entry);
                got.push(entry.stamp_ticks);
            }
            None if last_look => return got,
            None => thread::yield_now(),
        }
    }
}

#[test]
fn every_record_is_taken_once_and_in_order_by_consumers_on_other_pes() {
    let ring = Ring::<Record, SLOTS>::new();
    let done = AtomicBool::new(false);
    let taken: Vec<Vec<u64>> = thread::scope(|scope| {
        let consumers: Vec<_> = (1..=CONSUMERS)
            .map(|pe| {
                scope.spawn({
                    let (ring, done) = (&ring, &done);
                    move || consume(ring, PeId(pe), done)
                })
            })
            .collect();
        produce(&ring);
        done.store(true, Ordering::Release);
        consumers
            .into_iter()
            .map(|consumer| consumer.join().unwrap())
            .collect()
    });
    for one in &taken {
        assert!(one.is_sorted(), "a consumer got records out of order");
    }
    let mut all: Vec<u64> = taken.concat();
    all.sort_unstable();
    assert_eq!(all, (0..RECORDS).collect::<Vec<_>>());
    let counters = ring.counters();
    assert_eq!((counters.published, counters.taken), (RECORDS, RECORDS));
    assert_eq!(
        (counters.pending, counters.in_flight, counters.abandoned),
        (0, 0, 0)
    );
}

#[test]
fn peeking_meanwhile_loses_and_doubles_nothing() {
    let ring = Ring::<Record, SLOTS>::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let consumer = scope.spawn(|| consume(&ring, PeId(1), &done));
        let peeker = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                ring.peek_all(PeId(2), |peeked| {
                    if let firebreak_ring::Peeked::Ready(entry) = peeked {
                        check(&entry);
                    }
                });
                thread::yield_now();
            }
        });
        produce(&ring);
        done.store(true, Ordering::Release);
        peeker.join().unwrap();
        let mut got = consumer.join().unwrap();
        // The peeker may have held the last record when the consumer had its last look.
        got.extend(core::iter::from_fn(|| ring.take(PeId(3))).map(|entry| entry.stamp_ticks));
        got.sort_unstable();
        assert_eq!(got, (0..RECORDS).collect::<Vec<_>>());
    });
}

#[test]
fn one_consumer_of_several_producing_pes_gets_them_merged() {
    let rings: [Ring<Record, SLOTS>; 2] = [Ring::new(), Ring::new()];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let producers: Vec<_> = rings
            .iter()
            .map(|ring| scope.spawn(move || produce(ring)))
            .collect();
        let consumer = scope.spawn(|| {
            let mut last = [None; 2];
            let mut count = 0;
            loop {
                let last_look = done.load(Ordering::Acquire);
                match take_oldest(rings.iter(), PeId(7)) {
                    Some((index, entry)) => {
                        check(&entry);
                        assert!(last[index] < Some(entry.stamp_ticks));
                        last[index] = Some(entry.stamp_ticks);
                        count += 1;
                    }
                    None if last_look => return count,
                    None => thread::yield_now(),
                }
            }
        });
        producers
            .into_iter()
            .for_each(|producer| producer.join().unwrap());
        done.store(true, Ordering::Release);
        assert_eq!(consumer.join().unwrap(), 2 * RECORDS);
    });
}
