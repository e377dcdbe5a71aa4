// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decoding of `ICC_SGI0R_EL1`, `ICC_SGI1R_EL1` and `ICC_ASGI1R_EL1` (Arm IHI 0069, 12.2).

/// Which register generated the SGI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SgiRegister {
    /// `ICC_SGI0R_EL1`: reaches SGIs that are configured as group 0.
    Sgi0,
    /// `ICC_SGI1R_EL1`: reaches SGIs of both groups, there being one security state.
    Sgi1,
    /// `ICC_ASGI1R_EL1`: as `ICC_SGI0R_EL1`, there being one security state.
    AliasSgi1,
}

/// IRM: all PEs but the sender.
const IRM: u64 = 1 << 40;
/// Aff3, RS, Aff2, Aff1: only zero names PEs that exist (Aff0 is the vCPU's number, up to 7).
const OTHER_CLUSTER: u64 = 0xff << 48 | 0xf << 44 | 0xff << 32 | 0xff << 16;

/// Returns the SGI's INTID (0 to 15).
#[inline]
pub(crate) const fn intid(value: u64) -> u32 {
    (value >> 24 & 0xf) as u32
}

/// Returns the vCPUs that it goes to; `present` are those that exist, `sender` is one bit.
#[inline]
pub(crate) const fn targets(value: u64, present: u32, sender: u32) -> u32 {
    if value & IRM != 0 {
        present & !sender
    } else if value & OTHER_CLUSTER == 0 {
        (value & 0xffff) as u32 & present
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_list_reaches_the_named_vcpus_that_exist() {
        assert_eq!(intid(0x0500_0003), 5);
        assert_eq!(targets(0x0500_0003, 0b1111, 1), 0b0011);
        assert_eq!(targets(0x0500_fff3, 0b0011, 1), 0b0011);
    }

    #[test]
    fn irm_reaches_all_but_the_sender() {
        assert_eq!(targets(IRM | 0xffff, 0b1111, 0b0100), 0b1011);
        assert_eq!(targets(IRM, 0b0001, 0b0001), 0);
    }

    #[test]
    fn another_cluster_or_range_reaches_nobody() {
        for value in [1 << 16, 1 << 32, 1 << 44, 1 << 48] {
            assert_eq!(targets(value | 0xffff, 0xff, 1), 0);
        }
    }
}
