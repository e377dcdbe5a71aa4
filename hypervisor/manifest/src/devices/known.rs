// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of kinds of devices, by `compatible`: data, and no code for any of them.

use crate::value::Value;

/// How a device is made to stop what it does.
///
/// 32-bit writes in their order; then a register is read until the bits that tell that the
/// device still works are clear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quiesce {
    /// Offset in the first range of registers, and value.
    pub writes: &'static [(u64, u32)],
    /// Offset, and the bits that have to become 0.
    pub until_clear: Option<(u64, u32)>,
}

/// A kind of device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// One of the strings of its `compatible`.
    pub compatible: &'static str,
    /// Whether it can start DMA.
    pub dma: bool,
    /// How it is made quiet.
    pub quiesce: Quiesce,
}

/// Kinds of devices. One that is not here is taken for one that starts DMA and cannot be stopped.
const KNOWN: [Known; 4] = [
    // Virtio 1.2, 4.2.2.1: writing 0 to Status (0x70) resets; it reads as 0 when that is done.
    Known {
        compatible: "virtio,mmio",
        dma: true,
        quiesce: Quiesce {
            writes: &[(0x70, 0)],
            until_clear: Some((0x70, u32::MAX)),
        },
    },
    // Arm DDI 0224: RTCIMSC and RTCICR.
    Known {
        compatible: "arm,pl031",
        dma: false,
        quiesce: Quiesce {
            writes: &[(0x10, 0), (0x1c, 1)],
            until_clear: None,
        },
    },
    // Arm DDI 0190: GPIOIE, GPIOIC, and GPIODIR, so that no pin is driven.
    Known {
        compatible: "arm,pl061",
        dma: false,
        quiesce: Quiesce {
            writes: &[(0x410, 0), (0x41c, 0xff), (0x400, 0)],
            until_clear: None,
        },
    },
    // Arm DDI 0183: UARTDMACR, UARTIMSC, UARTCR and UARTICR. Its DMA is another device's, which
    // `dmas` would name.
    Known {
        compatible: "arm,pl011",
        dma: false,
        quiesce: Quiesce {
            writes: &[(0x48, 0), (0x38, 0), (0x30, 0), (0x44, 0x7ff)],
            until_clear: None,
        },
    },
];

impl Known {
    /// Finds the kind of a device.
    pub(super) fn of(compatible: Value<'_>) -> Option<&'static Self> {
        KNOWN.iter().find(|known| compatible.has(known.compatible))
    }
}
