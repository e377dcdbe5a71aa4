// SPDX-License-Identifier: MIT OR Apache-2.0
//! `sweep pe=<dec> id=<dec> iss=<hex> sev=<word> [pa=<hex>] period=<ticks> from=<ticks> to=<ticks>
//! [open=<ticks>:<hex>:<word>[:<hex>[:<hex>]][@<dec>]] [probe=<hex>[+<dec>][@<ticks>]]
//! [nest=<hex>,...]`:
//! `open` has offset, syndrome, severity, address and PE of what comes once in each period, and how
//! much further on the next address is; it may stand there twice. `probe` is an instruction of EL2 and how many from there on, and for how long
//! another PE waits there; `nest` the instructions at which errors without a record strike one after
//! the other before it.

use firebreak_abi::{MAX_PES, Pa};
use firebreak_syndrome::{CperSeverity, Iss};

use super::{Command, decimal, hexadecimal, once};
use crate::errors::Error;
use crate::sweep::{Nest, OPENINGS, Opening, Plan, Probes};

pub(super) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Command, &'static str> {
    let (mut id, mut pe, mut iss, mut severity, mut pa) = (None, None, None, None, None);
    let (mut period, mut from, mut to, mut probe) = (None, None, None, None);
    let (mut nest, mut openings) = (None, [None; OPENINGS]);
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("id", value) => once(&mut id, decimal(value))?,
            ("pe", value) => once(&mut pe, decimal(value))?,
            ("iss", value) => once(&mut iss, syndrome(value))?,
            ("sev", value) => once(&mut severity, Some(record(value)?))?,
            ("pa", value) => once(&mut pa, hexadecimal(value).map(Pa::new))?,
            ("period", value) => once(&mut period, decimal(value))?,
            ("from", value) => once(&mut from, decimal(value))?,
            ("to", value) => once(&mut to, decimal(value))?,
            ("probe", value) => once(&mut probe, code(value))?,
            ("nest", value) => once(&mut nest, chain(value))?,
            ("open", value) => {
                let free = openings.iter_mut().find(|slot| slot.is_none());
                *free.ok_or("open-too-often")? = Some(opening(value)?);
            }
            _ => return Err("unknown-word"),
        }
    }
    let pe = pe
        .and_then(|pe| usize::try_from(pe).ok())
        .filter(|pe| *pe < MAX_PES);
    Ok(Command::Sweep {
        pe: pe.ok_or("pe-missing-or-bad")?,
        plan: Plan {
            error: Error::sei(
                id.ok_or("id-missing")?,
                iss.ok_or("iss-missing-or-bad")?,
                pa,
                severity.ok_or("sev-missing")?,
            ),
            openings,
            period_ticks: period.filter(|ticks| *ticks != 0).ok_or("period-missing")?,
            from_ticks: from.ok_or("from-missing")?,
            to_ticks: to.ok_or("to-missing")?,
            probes: probe,
            nest: nest.unwrap_or_default(),
        },
    })
}

/// Instructions in RAM, where EL3 can write.
fn code(text: &str) -> Option<Probes> {
    let (text, hold_ticks) = text.split_once('@').unwrap_or((text, "0"));
    let (first, count) = text.split_once('+').unwrap_or((text, "1"));
    let (first, count) = (hexadecimal(first)?, decimal(count)?);
    let last = count.checked_sub(1)?.checked_mul(4)?.checked_add(first)?;
    (is_code(first) && is_code(last)).then_some(Probes {
        first,
        count,
        hold_ticks: decimal(hold_ticks)?,
    })
}

fn is_code(address: u64) -> bool {
    address.is_multiple_of(4) && crate::psci::is_ram(address)
}

fn chain(text: &str) -> Option<Nest> {
    let address = |text| hexadecimal(text).filter(|address| is_code(*address));
    text.split(',')
        .all(|text| address(text).is_some())
        .then(|| Nest::new(text.split(',').filter_map(address)))?
}

fn syndrome(text: &str) -> Option<Iss> {
    u32::try_from(hexadecimal(text)?).ok().and_then(Iss::new)
}

fn record(word: &str) -> Result<Option<CperSeverity>, &'static str> {
    match word {
        "none" => Ok(None),
        word => Ok(Some(CperSeverity::from_name(word).ok_or("sev-unknown")?)),
    }
}

fn opening(text: &str) -> Result<Opening, &'static str> {
    let (text, pe) = match text.split_once('@') {
        Some((text, pe)) => (text, Some(super::pe_number(decimal(pe))?)),
        None => (text, None),
    };
    let mut parts = text.split(':');
    let at_ticks = parts.next().and_then(decimal).ok_or("open-bad")?;
    let iss = parts.next().and_then(syndrome).ok_or("open-bad")?;
    let record = record(parts.next().ok_or("open-bad")?)?;
    let mut number = || -> Result<Option<u64>, &'static str> {
        let text = parts.next();
        text.map(|text| hexadecimal(text).ok_or("open-bad"))
            .transpose()
    };
    let (pa, stride) = (number()?, number()?);
    match parts.next() {
        None => Ok(Opening {
            at_ticks,
            error: Error::sei(0, iss, pa.map(Pa::new), record),
            pe,
            stride_bytes: stride.unwrap_or(0),
        }),
        Some(_) => Err("open-bad"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_line_becomes_a_plan() {
        let line = b"sweep pe=1 id=100 iss=0 sev=corrected pa=0x50000000 period=65536 from=3 to=9 open=2:c11:recoverable:0x51000000:0x200000@0";
        let Ok(Some(Command::Sweep { pe: 1, plan })) = super::super::parse(line) else {
            panic!("not a sweep")
        };
        assert_eq!(
            (plan.period_ticks, plan.from_ticks, plan.to_ticks),
            (65_536, 3, 9)
        );
        assert_eq!(
            (plan.error.id, plan.error.pa),
            (100, Some(Pa::new(0x5000_0000)))
        );
        let [
            Some(Opening {
                at_ticks,
                error: opening,
                pe,
                stride_bytes: 0x20_0000,
            }),
            None,
        ] = plan.openings
        else {
            panic!("{plan:?}")
        };
        assert_eq!(pe, Some(0));
        assert_eq!(
            (at_ticks, opening.iss, opening.record),
            (2, Iss::UER, Some(CperSeverity::Recoverable))
        );
        assert_eq!(opening.pa, Some(Pa::new(0x5100_0000)));
    }

    #[test]
    fn a_probe_is_one_instruction_or_a_run_of_them() {
        let words = "sweep pe=0 id=2 iss=811 sev=corrected period=65536 from=0 to=0 probe=";
        for (probe, first, count, hold_ticks) in [
            ("40200c00", 0x4020_0c00, 1, 0),
            ("0x40200c04+64", 0x4020_0c04, 64, 0),
            ("40200c00@2000", 0x4020_0c00, 1, 2000),
            ("40200c00+2@2000", 0x4020_0c00, 2, 2000),
        ] {
            let line = format!("{words}{probe}");
            let Ok(Some(Command::Sweep { plan, .. })) = super::super::parse(line.as_bytes()) else {
                panic!("not a sweep: {line}")
            };
            let probes = Probes {
                first,
                count,
                hold_ticks,
            };
            assert_eq!(plan.probes, Some(probes));
        }
        let line = format!("{words}40200c00 nest=40200d00,0x40200d04");
        let Ok(Some(Command::Sweep { plan, .. })) = super::super::parse(line.as_bytes()) else {
            panic!("not a sweep: {line}")
        };
        let nest: Vec<_> = (0..3).map(|turn| plan.nest.get(turn)).collect();
        assert_eq!(nest, [Some(0x4020_0d00), Some(0x4020_0d04), None]);
    }

    #[test]
    fn wrong_lines_are_refused_with_a_reason() {
        for (line, reason) in [
            ("sweep", "pe-missing-or-bad"),
            ("sweep pe=0 id=1 iss=0 sev=corrected", "period-missing"),
            (
                "sweep pe=0 id=1 iss=0 sev=corrected period=0",
                "period-missing",
            ),
            (
                "sweep pe=0 id=1 iss=0 sev=corrected period=1 from=1",
                "to-missing",
            ),
            ("sweep open=1", "open-bad"),
            ("sweep open=1:0", "open-bad"),
            ("sweep open=1:0:none:1:1:1", "open-bad"),
            ("sweep open=1:0:bad", "sev-unknown"),
            ("sweep open=1:0:none@8", "pe-missing-or-bad"),
            (
                "sweep open=1:0:none open=2:0:none open=3:0:none",
                "open-too-often",
            ),
            ("sweep delay=1", "unknown-word"),
            ("sweep probe=40200002", "bad-number"),
            ("sweep probe=9040000", "bad-number"),
            ("sweep nest=40200002", "bad-number"),
            ("sweep nest=40200000,,40200004", "bad-number"),
            (
                "sweep nest=40200000,40200000,40200000,40200000,40200000",
                "bad-number",
            ),
            ("sweep probe=40200000+0", "bad-number"),
            ("sweep probe=40200000@", "bad-number"),
            ("sweep probe=40200000+9223372036854775807", "bad-number"),
        ] {
            assert_eq!(super::super::parse(line.as_bytes()), Err(reason), "{line}");
        }
    }
}
