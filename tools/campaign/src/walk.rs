// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the translation table by which a guest reaches an address of its own: the walk that its PE
//! does, from the outside.

/// What a walk begins with: TCR_EL1, TTBR0_EL1 and TTBR1_EL1 of the PE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regime {
    pub(crate) tcr: u64,
    pub(crate) ttbr0: u64,
    pub(crate) ttbr1: u64,
}

/// The last table of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Address of the descriptor that maps, as the guest knows it.
    pub(crate) ipa: u64,
    /// Level of its table.
    pub(crate) level: u32,
}

/// Bits of a descriptor, and of TTBR, that are an address.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// Bits \[1:0\] of a descriptor.
const TABLE_OR_PAGE: u64 = 0b11;
const BLOCK: u64 = 0b01;
/// TCR_EL1.TG0 and .TG1 of tables of 4 KiB.
const TG0_4K: u64 = 0b00;
const TG1_4K: u64 = 0b10;
const LAST_LEVEL: u32 = 3;

impl Regime {
    /// Walks to `address`; `read` returns the 8 bytes at an address of the guest.
    pub(crate) fn walk(
        &self,
        address: u64,
        mut read: impl FnMut(u64) -> Result<u64, String>,
    ) -> Result<Entry, String> {
        // Bit 55 chooses, whatever a tag says above it.
        let is_high = address >> 55 & 1 == 1;
        let (ttbr, size, granule, of_4k) = match is_high {
            false => (self.ttbr0, self.tcr, self.tcr >> 14 & 3, TG0_4K),
            true => (self.ttbr1, self.tcr >> 16, self.tcr >> 30 & 3, TG1_4K),
        };
        if granule != of_4k {
            return Err("the guest's tables are not of 4 KiB".to_owned());
        }
        let bits = 64 - u32::try_from(size & 0x3f).unwrap_or(0);
        if !(25..=48).contains(&bits) {
            return Err(format!("the guest's addresses have {bits} bits"));
        }
        let mut level = LAST_LEVEL + 1 - (bits - 12).div_ceil(9);
        let mut table = ttbr & ADDRESS;
        loop {
            let shift = 12 + 9 * (LAST_LEVEL - level);
            // The first table may be shorter than a page.
            let width = 9.min(bits.saturating_sub(shift));
            let index = address >> shift & ((1 << width) - 1);
            let ipa = table + 8 * index;
            let descriptor = read(ipa)?;
            match (descriptor & TABLE_OR_PAGE, level) {
                (TABLE_OR_PAGE, LAST_LEVEL) | (BLOCK, 1 | 2) => return Ok(Entry { ipa, level }),
                (TABLE_OR_PAGE, _) => table = descriptor & ADDRESS,
                _ => return Err(format!("the guest maps nothing at {address:#x}")),
            }
            level += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// 48 bits each, tables of 4 KiB.
    const TCR: u64 = 16 | 16 << 16 | TG1_4K << 30;
    const REGIME: Regime = Regime {
        tcr: TCR,
        // ASIDs stand above, CnP below.
        ttbr0: 0x12_0000_4000_0001,
        ttbr1: 0x34_0000_4100_0001,
    };

    fn walk(regime: Regime, address: u64, memory: &[(u64, u64)]) -> Result<Entry, String> {
        let memory: BTreeMap<u64, u64> = memory.iter().copied().collect();
        regime.walk(address, |ipa| Ok(memory.get(&ipa).copied().unwrap_or(0)))
    }

    #[test]
    fn a_page_is_found_through_four_levels() {
        let address = 0x0000_ffff_8040_3123;
        let memory = [
            (0x4000_0000 + 8 * 0x1ff, 0x4000_1003),
            (0x4000_1000 + 8 * 0x1fe, 0x4000_2003),
            (0x4000_2000 + 8 * 2, 0x4000_3003),
            (0x4000_3000 + 8 * 3, 0x0060_0000_4444_4fc3),
        ];
        let entry = Entry {
            ipa: 0x4000_3018,
            level: 3,
        };
        assert_eq!(walk(REGIME, address, &memory), Ok(entry));
        // A tag changes nothing.
        assert_eq!(walk(REGIME, address | 0xab << 56, &memory), Ok(entry));
        let hole = walk(REGIME, address, &memory[..3]);
        assert!(hole.unwrap_err().contains("maps nothing"));
    }

    #[test]
    fn a_block_of_the_upper_half_ends_the_walk() {
        let memory = [
            (0x4100_0000 + 8 * 0x100, 0x4100_1003),
            (0x4100_1000, 0x4100_2003),
            (0x4100_2000 + 8 * 0x40, 0x4020_0701),
        ];
        let entry = Entry {
            ipa: 0x4100_2200,
            level: 2,
        };
        assert_eq!(walk(REGIME, 0xffff_8000_0812_3456, &memory), Ok(entry));
    }

    #[test]
    fn shorter_addresses_begin_at_a_later_level() {
        // 39 bits: three levels. 25 bits: one table of 16 entries at level 2.
        let regime = |tsz: u64| Regime {
            tcr: tsz | tsz << 16 | TG1_4K << 30,
            ..REGIME
        };
        let memory = [(0x4000_0000 + 8 * 0x1ff, 0x4000_0701)];
        let entry = walk(regime(25), 0x7f_c000_0000, &memory).unwrap();
        assert_eq!((entry.level, entry.ipa), (1, 0x4000_0ff8));
        let memory = [(0x4000_0000 + 8 * 0xf, 0x4000_0701)];
        let entry = walk(regime(39), 0x1fe_0000, &memory).unwrap();
        assert_eq!((entry.level, entry.ipa), (2, 0x4000_0078));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let large = Regime {
            tcr: TCR | 1 << 14,
            ..REGIME
        };
        assert!(walk(large, 0x1000, &[]).unwrap_err().contains("4 KiB"));
        let long = Regime { tcr: 0, ..REGIME };
        assert!(walk(long, 0x1000, &[]).unwrap_err().contains("64 bits"));
    }
}
