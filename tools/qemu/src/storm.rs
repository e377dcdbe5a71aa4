// SPDX-License-Identifier: MIT OR Apache-2.0
//! A storm of errors, and the three accounts of it: the firmware's, the hypervisor's queue's, and
//! what came over the line to the host.

use std::fmt;

use serde::Serialize;

use crate::log::Record;

/// Very many errors of one kind, which the firmware is asked to raise on one PE, each as soon as
/// the one before it was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Storm {
    /// Number of the first; the others count up.
    pub first_id: u64,
    /// How many.
    pub count: u64,
    /// PE that takes them.
    pub pe: u8,
    /// ESR_EL2.ISS, 25 bits.
    pub iss: u32,
    /// CPER severity.
    pub severity: String,
    /// Ticks of the counter between two looks of the firmware; `None`: its own choice.
    pub gap_ticks: Option<u64>,
    /// Physical address of all of them, if they have one.
    pub pa: Option<u64>,
}

impl Storm {
    /// Makes a storm of corrected errors.
    pub fn corrected(count: u64, pe: u8) -> Self {
        Self {
            first_id: 1_000_000,
            count,
            pe,
            iss: 0x1811,
            severity: "corrected".to_owned(),
            gap_ticks: None,
            pa: None,
        }
    }

    /// Gives all of them the same address.
    #[must_use]
    pub fn at(mut self, pa: u64) -> Self {
        self.pa = Some(pa);
        self
    }

    /// Has the firmware look at the block more often, or less.
    #[must_use]
    pub fn every_ticks(mut self, gap_ticks: u64) -> Self {
        self.gap_ticks = Some(gap_ticks);
        self
    }

    fn has(&self, id: u64) -> bool {
        (self.first_id..self.first_id + self.count).contains(&id)
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            first_id,
            count,
            pe,
            iss,
            severity,
            ..
        } = self;
        write!(
            f,
            "storm id={first_id} count={count} pe={pe} iss={iss:x} sev={severity}"
        )?;
        if let Some(pa) = self.pa {
            write!(f, " pa={pa:x}")?;
        }
        match self.gap_ticks {
            Some(gap_ticks) => write!(f, " gap={gap_ticks}"),
            None => Ok(()),
        }
    }
}

/// What each of the three says of a storm that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct StormAccount {
    /// Firmware: errors that happened.
    pub raised: u64,
    /// Firmware: handed over by an SEI.
    pub delivered: u64,
    /// Firmware: deferred ones that EL2 took by itself.
    pub taken: u64,
    /// Firmware: records that EL2 acknowledged.
    pub acked: u64,
    /// Firmware: lost.
    pub dropped: u64,
    /// Hypervisor: records that the PE's queue took in since boot.
    pub published: u64,
    /// Hypervisor: records that were worked off.
    pub finished: u64,
    /// Hypervisor: records that the queue refused at first, because it was full.
    pub refused: u64,
    /// Host: `error` events of the storm.
    pub events: u64,
    /// Host: errors of any kind that `suppressed` events speak of.
    pub suppressed: u64,
    /// Host: `error` events of the PE that are not the storm's.
    pub others: u64,
}

impl StormAccount {
    /// Adds up what was said, or `None` while the storm, or the hypervisor's account of it, is not
    /// at its end.
    pub fn read(records: &[Record], storm: &Storm) -> Option<Self> {
        let over = records
            .iter()
            .filter_map(|record| record.firmware("storm"))
            .find(|line| line.num("id") == Some(storm.first_id))?;
        let last = records
            .iter()
            .filter_map(|record| record.event("queue"))
            .rfind(|event| event.num("pe") == Some(u64::from(storm.pe)))?;
        let told = last.num("reported")? + last.num("suppressed")?;
        let finished = last.num("finished")?;
        if last.num("pending")? != 0 || told != finished || finished < over.num("acked")? {
            return None;
        }
        let mut account = Self {
            raised: over.num("raised")?,
            delivered: over.num("delivered")?,
            taken: over.num("taken")?,
            acked: over.num("acked")?,
            dropped: over.num("dropped")?,
            published: last.num("published")?,
            finished,
            refused: last.num("refused")?,
            ..Self::default()
        };
        for record in records {
            if let Some(event) = record.event("error") {
                let is_its = event.num("id").is_some_and(|id| storm.has(id));
                account.events += u64::from(is_its);
                let on_pe = event.num("pe") == Some(u64::from(storm.pe));
                account.others += u64::from(!is_its && on_pe);
            } else if let Some(event) = record.event("suppressed")
                && event.text("what") == Some("errors")
            {
                account.suppressed += event.num("count")?;
            }
        }
        Some(account)
    }

    /// Holds the accounts against each other.
    ///
    /// # Errors
    ///
    /// Which two do not agree.
    pub fn check(&self, storm: &Storm) -> Result<(), String> {
        let same = |what: &str, ours: u64, theirs: u64| {
            if ours == theirs {
                Ok(())
            } else {
                Err(format!("{what}: {ours}, not {theirs} ({self:?})"))
            }
        };
        same("raised, of asked for", self.raised, storm.count)?;
        same("dropped", self.dropped, 0)?;
        same("acknowledged, of raised", self.acked, self.raised)?;
        let handed_over = self.delivered + self.taken;
        same("handed over, of raised", handed_over, self.raised)?;
        let of_storm = self.published.saturating_sub(self.others);
        same("published, of acknowledged", of_storm, self.acked)?;
        same("worked off, of published", self.finished, self.published)?;
        let heard = self.events + self.suppressed;
        same("heard of, of acknowledged", heard, self.acked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, FirmwareLine};
    use serde_json::json;

    fn records(suppressed: u64, finished: u64) -> Vec<Record> {
        let event = |value| Record::Event(Event::new(value).unwrap());
        let error = |id| event(json!({"v":1,"t":1,"ev":"error","id":id,"pe":1}));
        vec![
            error(10),
            error(1_000_000),
            event(json!({"v":1,"t":2,"ev":"suppressed","what":"errors","count":suppressed})),
            event(json!({"v":1,"t":2,"ev":"suppressed","what":"console:vm","count":9})),
            Record::Firmware(
                FirmwareLine::parse(
                    "fw: storm id=1000000 pe=1 raised=5 delivered=4 deferred=1 taken=1 acked=5 dropped=0",
                )
                .unwrap(),
            ),
            event(json!({"v":1,"t":3,"ev":"queue","pe":1,"published":finished,
                "finished":finished,"pending":0,"refused":2,"reported":2,"suppressed":finished - 2})),
        ]
    }

    #[test]
    fn a_storm_whose_accounts_agree_passes_and_others_do_not() {
        let storm = Storm::corrected(5, 1);
        let account = StormAccount::read(&records(4, 6), &storm).unwrap();
        assert_eq!(
            (account.events, account.others, account.suppressed),
            (1, 1, 4)
        );
        assert_eq!(account.check(&storm), Ok(()));
        for lost in [
            StormAccount {
                acked: 4,
                ..account
            },
            StormAccount {
                events: 0,
                ..account
            },
        ] {
            assert!(lost.check(&storm).is_err());
        }
        let short = StormAccount::read(&records(3, 6), &storm).unwrap();
        assert!(short.check(&storm).unwrap_err().starts_with("heard of"));
    }

    #[test]
    fn an_account_that_is_not_closed_is_none() {
        let storm = Storm::corrected(5, 1);
        assert_eq!(StormAccount::read(&records(4, 6)[..5], &storm), None);
        assert_eq!(StormAccount::read(&records(4, 4), &storm), None);
        assert_eq!(StormAccount::read(&[], &storm), None);
    }

    #[test]
    fn a_storm_is_one_line() {
        let storm = Storm::corrected(7, 1).every_ticks(1000).at(0x4200_0000);
        assert_eq!(
            storm.to_string(),
            "storm id=1000000 count=7 pe=1 iss=1811 sev=corrected pa=42000000 gap=1000"
        );
    }
}
