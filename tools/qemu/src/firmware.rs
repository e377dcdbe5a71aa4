// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference firmware's serial line: what it says, and what it is asked to raise.
//!
//! No guest and no hypervisor can write to this line (it is the secure UART), which makes it the
//! witness against which the other two are held.

use std::collections::BTreeMap;
use std::fmt;

/// One line of the firmware: `fw: <verb> key=value ...`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FirmwareLine {
    /// First word.
    pub verb: String,
    /// The pairs behind it.
    pub fields: BTreeMap<String, String>,
    /// The line as it came.
    pub raw: String,
}

impl FirmwareLine {
    /// Reads a line, or `None` when the firmware did not write it.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end_matches('\r');
        let mut words = line
            .strip_prefix("fw: ")?
            .split(' ')
            .filter(|word| !word.is_empty());
        let verb = words.next()?.to_owned();
        let fields = words
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Some(Self {
            verb,
            fields,
            raw: line.to_owned(),
        })
    }

    /// Returns a field as it was written.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key).map(String::as_str)
    }

    /// Returns a field that is a number, decimal or `0x...`.
    pub fn num(&self, key: &str) -> Option<u64> {
        let value = self.text(key)?;
        match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => value.parse().ok(),
        }
    }
}

/// An error that the firmware is asked to raise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raise {
    /// Number by which firmware and hypervisor will name it.
    pub id: u64,
    /// PE that takes it.
    pub pe: u8,
    /// ESR_EL2.ISS, 25 bits.
    pub iss: u32,
    /// CPER severity: `recoverable`, `fatal`, `corrected`, `informational` or `none`.
    pub severity: String,
    /// Physical address in the record.
    pub pa: Option<u64>,
    /// Whether the SError comes without a record.
    pub no_record: bool,
    /// Ticks of the counter until it is raised.
    pub delay_ticks: u64,
    /// Whether the firmware waits until the PE is in a guest.
    pub in_guest: bool,
    /// Makes it a synchronous external abort: met by `data` or `fetch`, at this virtual address.
    pub sync: Option<(String, Option<u64>)>,
    /// How the firmware misbehaves for this one, if not as for the whole PE: `barge-in`, ...
    pub modes: Option<String>,
    /// A second PE that takes the same error.
    pub with: Option<u8>,
}

impl Raise {
    /// Makes one without an address, at once, with a record.
    pub fn new(id: u64, pe: u8, iss: u32, severity: &str) -> Self {
        Self {
            id,
            pe,
            iss,
            severity: severity.to_owned(),
            pa: None,
            no_record: false,
            delay_ticks: 0,
            in_guest: false,
            sync: None,
            modes: None,
            with: None,
        }
    }

    /// Names a physical address.
    #[must_use]
    pub fn at(mut self, pa: u64) -> Self {
        self.pa = Some(pa);
        self
    }

    /// Lets it hit a guest, never the hypervisor.
    #[must_use]
    pub fn in_guest(mut self) -> Self {
        self.in_guest = true;
        self
    }

    /// Makes it a synchronous external abort, met by `data` or `fetch`.
    #[must_use]
    pub fn sync(mut self, met_by: &str, far: Option<u64>) -> Self {
        self.sync = Some((met_by.to_owned(), far));
        self
    }

    /// Has the firmware break the contract for this error.
    #[must_use]
    pub fn behaving(mut self, modes: &str) -> Self {
        self.modes = Some(modes.to_owned());
        self
    }

    /// Has a second PE take it too.
    #[must_use]
    pub fn with(mut self, pe: u8) -> Self {
        self.with = Some(pe);
        self
    }

    /// Puts it off.
    #[must_use]
    pub fn after_ticks(mut self, ticks: u64) -> Self {
        self.delay_ticks = ticks;
        self
    }
}

impl fmt::Display for Raise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            pe,
            iss,
            severity,
            ..
        } = self;
        write!(f, "raise id={id} pe={pe} iss={iss:#x} sev={severity}")?;
        if let Some(pa) = self.pa {
            write!(f, " pa={pa:#x}")?;
        }
        if self.no_record {
            write!(f, " norecord")?;
        }
        if self.delay_ticks != 0 {
            write!(f, " delay={}", self.delay_ticks)?;
        }
        if self.in_guest {
            write!(f, " in=guest")?;
        }
        if let Some(pe) = self.with {
            write!(f, " with={pe}")?;
        }
        if let Some((met_by, far)) = &self.sync {
            write!(f, " sync={met_by}")?;
            if let Some(far) = far {
                write!(f, " far={far:#x}")?;
            }
        }
        if let Some(modes) = &self.modes {
            write!(f, " as={modes}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_verb_and_pairs() {
        let line = FirmwareLine::parse("fw: delivered id=7 pe=1 from=el1 vector=0x580\r").unwrap();
        assert_eq!(line.verb, "delivered");
        assert_eq!((line.num("id"), line.num("vector")), (Some(7), Some(0x580)));
        assert_eq!(
            (line.text("from"), line.text("elr"), line.num("from")),
            (Some("el1"), None, None)
        );
        for other in ["firebreak: hi", "fw:ready", "fw: ", "", "xfw: ready"] {
            assert_eq!(FirmwareLine::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_request_is_one_line() {
        let mut raise = Raise::new(7, 1, 0xc11, "recoverable")
            .at(0x4800_0000)
            .after_ticks(5);
        assert_eq!(
            raise.to_string(),
            "raise id=7 pe=1 iss=0xc11 sev=recoverable pa=0x48000000 delay=5"
        );
        raise.no_record = true;
        assert!(raise.to_string().contains(" norecord "));
    }
}
