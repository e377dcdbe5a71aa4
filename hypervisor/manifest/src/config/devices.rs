// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices that a partition's node asks for.

use super::domain::Domain;
use super::property;
use crate::devices::MAX_DEVICES;
use crate::error::{Fault, Refused};
use crate::value::Value;

impl Domain<'_, '_> {
    /// Checks the three lists, whatever order they came in.
    pub(super) fn check_devices(&self) -> Result<(), Refused> {
        const PATHS: &str = "paths of devices, each a string";
        const DMA: &str = "one cell for each device, 0 or 1";
        const IPA: &str = "two cells for each device: an address, or 0";
        let list = self.partition.devices;
        let text = core::str::from_utf8(list.paths.bytes());
        if !list.paths.is_empty() && !text.is_ok_and(|text| text.ends_with('\0')) {
            return self.fault(property::DEVICES, Fault::Form(PATHS));
        }
        let count = list.iter().count();
        if count > MAX_DEVICES {
            let (what, most) = ("devices", MAX_DEVICES);
            return self.fault(property::DEVICES, Fault::TooMany { what, most });
        }
        if !list.dma.is_none_or(|dma| numbers(dma, 1, count, 1)) {
            return self.fault(property::DEVICE_DMA, Fault::Form(DMA));
        }
        if !list.ipa.is_none_or(|ipa| numbers(ipa, 2, count, u64::MAX)) {
            return self.fault(property::DEVICE_IPA, Fault::Form(IPA));
        }
        Ok(())
    }
}

/// Says whether a value is so many numbers of so many cells, each at most `most`.
fn numbers(value: Value<'_>, cells: u32, count: usize, most: u64) -> bool {
    let Some(mut list) = value.cells() else {
        return false;
    };
    let all = (0..count).all(|_| list.number(cells).is_some_and(|number| number <= most));
    all && list.is_done()
}
