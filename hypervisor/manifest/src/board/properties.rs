// SPDX-License-Identifier: MIT OR Apache-2.0
//! The properties that a board's reader knows, and those of the node at hand.

use firebreak_abi::sei;

use crate::tree::{Name, TreeFault};
use crate::value::{Value, place_of};

macro_rules! properties {
    ($($id:ident = $name:expr),* $(,)?) => {
        /// A property that is of interest.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Id {
            $($id),*
        }

        impl Id {
            const ALL: &[(Self, &str)] = &[$((Self::$id, $name)),*];
        }
    };
}

properties! {
    Reg = "reg",
    Compatible = "compatible",
    Interrupts = "interrupts",
    Status = "status",
    DeviceType = "device_type",
    Phandle = "phandle",
    Ranges = "ranges",
    AddressCells = "#address-cells",
    SizeCells = "#size-cells",
    Method = "method",
    Model = "model",
    StdoutPath = "stdout-path",
    RedistributorRegions = "#redistributor-regions",
    CurrentSpeed = "current-speed",
    Clocks = "clocks",
    ClockFrequency = "clock-frequency",
    Cpu = "cpu",
    Mpidr = "firebreak,mpidr",
    Bert = sei::PROP_BERT,
    Persistent = sei::PROP_PERSISTENT,
    ErrorStatusAddress = sei::PROP_ERROR_STATUS_ADDRESS,
    ErrorStatusLength = sei::PROP_ERROR_STATUS_LENGTH,
    ReadAck = sei::PROP_READ_ACK,
    Pending = sei::PROP_PENDING,
    Syndrome = sei::PROP_SYNDROME,
}

const COUNT: usize = Id::ALL.len();

impl Id {
    /// Returns the property's name.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.get(self as usize).map_or("?", |(_, name)| name)
    }
}

/// Strings blocks are a few hundred bytes long; what lies behind is looked up each time.
const MEMO_LEN: usize = 1024;

/// Remembers what name stands at each offset of the strings block.
pub(super) struct Names {
    /// 0: not seen yet; 1: of no interest; n + 2: the n-th of [`Id::ALL`].
    memo: [u8; MEMO_LEN],
}

impl Names {
    pub(super) const fn new() -> Self {
        Self {
            memo: [0; MEMO_LEN],
        }
    }

    /// Says which property a name means.
    #[inline]
    pub(super) fn find(&mut self, name: Name<'_>) -> Result<Option<Id>, TreeFault> {
        let known = self.memo.get(name.offset()).copied().unwrap_or(0);
        match known {
            0 => self.look_up(name),
            code => Ok(Self::id(code)),
        }
    }

    fn id(code: u8) -> Option<Id> {
        let index = usize::from(code).checked_sub(2)?;
        Id::ALL.get(index).map(|(id, _)| *id)
    }

    fn look_up(&mut self, name: Name<'_>) -> Result<Option<Id>, TreeFault> {
        let bytes = name.bytes()?;
        let found = Id::ALL.iter().find(|(_, known)| known.as_bytes() == bytes);
        let code = found.map_or(1, |(id, _)| *id as u8 + 2);
        if let Some(memo) = self.memo.get_mut(name.offset()) {
            *memo = code;
        }
        Ok(Self::id(code))
    }
}

/// The known properties of the node at hand.
pub(super) struct Properties<'a> {
    /// One bit for each value that is there.
    seen: u32,
    values: [Value<'a>; COUNT],
}

impl<'a> Properties<'a> {
    pub(super) fn new() -> Self {
        Self {
            seen: 0,
            values: [Value::default(); COUNT],
        }
    }

    /// Forgets all, for the next node.
    #[inline]
    pub(super) const fn clear(&mut self) {
        self.seen = 0;
    }

    #[inline]
    pub(super) fn set(&mut self, id: Id, value: Value<'a>) {
        if let Some(slot) = self.values.get_mut(id as usize) {
            *slot = value;
            self.seen |= 1 << id as u32;
        }
    }

    #[inline]
    pub(super) fn get(&self, id: Id) -> Option<Value<'a>> {
        if self.seen & 1 << id as u32 == 0 {
            return None;
        }
        self.values.get(id as usize).copied()
    }

    /// Says whether the node may be used at all.
    pub(super) fn is_enabled(&self) -> bool {
        self.get(Id::Status)
            .is_none_or(|status| status.has("okay") || status.has("ok"))
    }
}

/// A device that is of interest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    Pl011,
    FixedClock,
    Gicv3,
    Timer,
    Psci,
    Sei,
    /// A partition that a bootloader describes.
    Domain,
}

impl Device {
    /// Finds the first compatible string that is of interest.
    pub(super) fn of(compatible: Value<'_>) -> Option<Self> {
        const NAMES: [&str; 10] = [
            "arm,pl011",
            "fixed-clock",
            "arm,gic-v3",
            "arm,armv8-timer",
            "arm,psci-1.0",
            "arm,psci-0.2",
            "arm,psci",
            "firebreak,domain",
            "xen,domain",
            sei::COMPATIBLE,
        ];
        let found = compatible
            .bytes()
            .split(|byte| *byte == 0)
            .find_map(|one| place_of(&NAMES, one))?;
        Some(match found {
            0 => Self::Pl011,
            1 => Self::FixedClock,
            2 => Self::Gicv3,
            3 => Self::Timer,
            4..=6 => Self::Psci,
            7 | 8 => Self::Domain,
            _ => Self::Sei,
        })
    }
}
