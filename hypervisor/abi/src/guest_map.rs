// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine that a guest sees: QEMU `virt`'s map, as intermediate physical addresses.

use crate::Ipa;

/// GICv3 distributor, 64 KiB.
pub const GICD: Ipa = Ipa::new(0x0800_0000);
/// Length of the distributor's frame, in bytes.
pub const GICD_LEN: u64 = 0x1_0000;
/// GICv3 redistributors, two 64 KiB frames for each vCPU.
pub const GICR: Ipa = Ipa::new(0x080a_0000);
/// Length of one vCPU's redistributor (RD_base and SGI_base), in bytes.
pub const GICR_STRIDE: u64 = 0x2_0000;
/// PL011 UART, one page.
pub const UART: Ipa = Ipa::new(0x0900_0000);
/// PL031 real-time clock, one page.
pub const RTC: Ipa = Ipa::new(0x0901_0000);
/// pvpanic, by which a guest says that it panics, one page. QEMU has this device on a bus that guests
/// do not have here.
pub const PVPANIC: Ipa = Ipa::new(0x090f_0000);
/// Length of its registers, in bytes.
pub const PVPANIC_LEN: u64 = 2;
/// SBSA generic watchdog: refresh frame, one page.
pub const WDT_REFRESH: Ipa = Ipa::new(0x0b00_0000);
/// SBSA generic watchdog: control frame, one page.
pub const WDT_CONTROL: Ipa = Ipa::new(0x0b01_0000);
/// Flash banks 0 and 1 that read as erased (all ones).
pub const FLASH: Ipa = Ipa::new(0x0000_0000);
/// Length of both flash banks, in bytes.
pub const FLASH_LEN: u64 = 0x0800_0000;
/// Start of RAM. A copy of the devicetree stands here.
pub const RAM: Ipa = Ipa::new(0x4000_0000);
/// Where raw and `Image` kernels are put and entered: 2 MiB into RAM.
pub const KERNEL: Ipa = Ipa::new(0x4020_0000);

/// INTID of the PL011 (SPI 1).
pub const UART_INTID: u32 = 33;
/// INTID of the PL031 (SPI 2).
pub const RTC_INTID: u32 = 34;
/// INTID of the watchdog's first signal WS0 (SPI 16).
pub const WDT_INTID: u32 = 48;
/// INTID of the virtual timer (PPI 11).
pub const VTIMER_INTID: u32 = 27;
/// INTID of the EL1 physical timer (PPI 14).
pub const PTIMER_INTID: u32 = 30;
/// First INTID of shared peripheral interrupts; those below belong to one PE (IHI0069, 2.2.1).
pub const FIRST_SPI: u32 = 32;
/// Highest number of interrupts that a guest's distributor implements (INTIDs 0 to 159).
pub const GUEST_INTIDS: u32 = 160;

/// Frames that are emulated for a guest of `vcpus` vCPUs, or kept for that: start and length. No
/// RAM and no passed-through device of the guest may lie there.
pub const fn emulated(vcpus: u8) -> [(Ipa, u64); 8] {
    const PAGE: u64 = crate::PAGE_SIZE_BYTES;
    [
        (FLASH, FLASH_LEN),
        (GICD, GICD_LEN),
        (GICR, GICR_STRIDE * vcpus as u64),
        (UART, PAGE),
        (RTC, PAGE),
        (PVPANIC, PAGE),
        (WDT_REFRESH, PAGE),
        (WDT_CONTROL, PAGE),
    ]
}
