// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devicetree of a guest: QEMU `virt`'s machine, as far as Firebreak gives it.

use firebreak_abi::{Ipa, PAGE_SIZE_BYTES, guest_map};

use crate::writer::{FdtWriter, WriteError};

/// What differs from guest to guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestMachine<'a> {
    /// Start of RAM: [`guest_map::RAM`], or its physical address where that is mapped 1:1.
    pub ram_ipa: Ipa,
    /// Length of RAM, in bytes.
    pub ram_len_bytes: u64,
    /// Number of vCPUs; their affinity is their number.
    pub vcpus: u8,
    /// Initial RAM disk: start and length in bytes.
    pub initrd: Option<(Ipa, u64)>,
    /// Command line; empty for none.
    pub bootargs: &'a str,
    /// Whether there is a PL011.
    pub console: bool,
    /// Whether there is a watchdog.
    pub watchdog: bool,
    /// Whether there is a pvpanic device.
    pub pvpanic: bool,
    /// Pages that were retired without a spare behind them: the guest must not use them.
    pub holes: &'a [Ipa],
}

/// Period after which a guest's driver should at least refresh the watchdog, in seconds.
const WATCHDOG_TIMEOUT_SECONDS: u32 = 30;

const GIC: u32 = 1;
pub(crate) const CLOCK: u32 = 2;
const CLOCK_HZ: u32 = 24_000_000;
pub(crate) const SPI: u32 = 0;
const PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;

/// PPIs of the generic timer in the order of its binding: secure, EL1 physical, virtual, EL2.
const TIMER_PPIS: [u32; 4] = [13, 14, 11, 10];

/// Writes a guest's devicetree into `buf` and returns its length in bytes.
///
/// # Errors
///
/// [`WriteError::BufferFull`] when `buf` is too short: 4 KiB and the command line are enough for
/// 8 vCPUs and 8 holes.
pub fn write_guest_dt(buf: &mut [u8], machine: &GuestMachine<'_>) -> Result<usize, WriteError> {
    write_guest_dt_with(buf, machine, &mut |_| {})
}

/// Writes a guest's devicetree with more nodes below the root, which `more` writes.
///
/// # Errors
///
/// As [`write_guest_dt`], and [`WriteError::NamesFull`] when the other nodes have too many
/// properties of their own.
pub fn write_guest_dt_with(
    buf: &mut [u8],
    machine: &GuestMachine<'_>,
    more: &mut dyn FnMut(&mut FdtWriter<'_>),
) -> Result<usize, WriteError> {
    let mut tree = FdtWriter::new(buf);
    tree.node("", |root| {
        root.prop_str_list("compatible", &["firebreak,guest", "linux,dummy-virt"]);
        root.prop_str("model", "Firebreak guest");
        root.prop_u32("#address-cells", 2);
        root.prop_u32("#size-cells", 2);
        root.prop_u32("interrupt-parent", GIC);
        chosen(root, machine);
        memory(root, machine);
        cpus(root, machine.vcpus);
        interrupts_and_time(root, machine.vcpus);
        devices(root, machine);
        more(root);
    });
    tree.finish()
}

fn chosen(root: &mut FdtWriter<'_>, machine: &GuestMachine<'_>) {
    root.node("chosen", |node| {
        if machine.console {
            node.prop_str("stdout-path", "/pl011@9000000");
        }
        if !machine.bootargs.is_empty() {
            node.prop_str("bootargs", machine.bootargs);
        }
        if let Some((start, len_bytes)) = machine.initrd {
            node.prop_u64("linux,initrd-start", start.get());
            node.prop_u64("linux,initrd-end", start.get().saturating_add(len_bytes));
        }
    });
}

fn memory(root: &mut FdtWriter<'_>, machine: &GuestMachine<'_>) {
    let start = machine.ram_ipa.get();
    root.node_at("memory", start, |node| {
        node.prop_str("device_type", "memory");
        node.prop_u64_list("reg", &[start, machine.ram_len_bytes]);
    });
    if machine.holes.is_empty() {
        return;
    }
    root.node("reserved-memory", |node| {
        node.prop_u32("#address-cells", 2);
        node.prop_u32("#size-cells", 2);
        node.prop_empty("ranges");
        for hole in machine.holes {
            node.node_at("retired", hole.page().get(), |node| {
                node.prop_u64_list("reg", &[hole.page().get(), PAGE_SIZE_BYTES]);
                node.prop_empty("no-map");
            });
        }
    });
}

fn cpus(root: &mut FdtWriter<'_>, vcpus: u8) {
    root.node("cpus", |node| {
        node.prop_u32("#address-cells", 1);
        node.prop_u32("#size-cells", 0);
        for cpu in 0..vcpus {
            node.node_at("cpu", u64::from(cpu), |node| {
                node.prop_str("device_type", "cpu");
                node.prop_str("compatible", "arm,armv8");
                node.prop_str("enable-method", "psci");
                node.prop_u32("reg", u32::from(cpu));
            });
        }
    });
    root.node("psci", |node| {
        node.prop_str_list("compatible", &["arm,psci-1.0", "arm,psci-0.2"]);
        node.prop_str("method", "hvc");
    });
}

fn interrupts_and_time(root: &mut FdtWriter<'_>, vcpus: u8) {
    root.node_at("intc", guest_map::GICD.get(), |node| {
        node.prop_str("compatible", "arm,gic-v3");
        node.prop_u64_list(
            "reg",
            &[
                guest_map::GICD.get(),
                guest_map::GICD_LEN,
                guest_map::GICR.get(),
                guest_map::GICR_STRIDE * u64::from(vcpus),
            ],
        );
        node.prop_empty("interrupt-controller");
        node.prop_u32("#interrupt-cells", 3);
        node.prop_u32("#address-cells", 2);
        node.prop_u32("#size-cells", 2);
        node.prop_u32("phandle", GIC);
    });
    root.node("timer", |node| {
        let [secure, physical, virtual_timer, hypervisor] = TIMER_PPIS;
        node.prop_str("compatible", "arm,armv8-timer");
        node.prop_empty("always-on");
        node.prop_cells(
            "interrupts",
            &[
                PPI,
                secure,
                LEVEL_HIGH,
                PPI,
                physical,
                LEVEL_HIGH,
                PPI,
                virtual_timer,
                LEVEL_HIGH,
                PPI,
                hypervisor,
                LEVEL_HIGH,
            ],
        );
    });
    root.node("apb-pclk", |node| {
        node.prop_str("compatible", "fixed-clock");
        node.prop_u32("#clock-cells", 0);
        node.prop_u32("clock-frequency", CLOCK_HZ);
        node.prop_str("clock-output-names", "clk24mhz");
        node.prop_u32("phandle", CLOCK);
    });
}

fn devices(root: &mut FdtWriter<'_>, machine: &GuestMachine<'_>) {
    if machine.console {
        root.node_at("pl011", guest_map::UART.get(), |node| {
            node.prop_str_list("compatible", &["arm,pl011", "arm,primecell"]);
            node.prop_u64_list("reg", &[guest_map::UART.get(), PAGE_SIZE_BYTES]);
            interrupt(node, guest_map::UART_INTID);
            node.prop_str_list("clock-names", &["uartclk", "apb_pclk"]);
            node.prop_cells("clocks", &[CLOCK, CLOCK]);
        });
    }
    root.node_at("pl031", guest_map::RTC.get(), |node| {
        node.prop_str_list("compatible", &["arm,pl031", "arm,primecell"]);
        node.prop_u64_list("reg", &[guest_map::RTC.get(), PAGE_SIZE_BYTES]);
        interrupt(node, guest_map::RTC_INTID);
        node.prop_str("clock-names", "apb_pclk");
        node.prop_u32("clocks", CLOCK);
    });
    if machine.pvpanic {
        root.node_at("pvpanic", guest_map::PVPANIC.get(), |node| {
            node.prop_str("compatible", "qemu,pvpanic-mmio");
            node.prop_u64_list("reg", &[guest_map::PVPANIC.get(), guest_map::PVPANIC_LEN]);
        });
    }
    if machine.watchdog {
        root.node_at("watchdog", guest_map::WDT_CONTROL.get(), |node| {
            node.prop_str("compatible", "arm,sbsa-gwdt");
            // The binding wants the control frame first.
            node.prop_u64_list(
                "reg",
                &[
                    guest_map::WDT_CONTROL.get(),
                    PAGE_SIZE_BYTES,
                    guest_map::WDT_REFRESH.get(),
                    PAGE_SIZE_BYTES,
                ],
            );
            interrupt(node, guest_map::WDT_INTID);
            node.prop_u32("timeout-sec", WATCHDOG_TIMEOUT_SECONDS);
        });
    }
}

fn interrupt(node: &mut FdtWriter<'_>, intid: u32) {
    node.prop_cells(
        "interrupts",
        &[SPI, intid.saturating_sub(guest_map::FIRST_SPI), LEVEL_HIGH],
    );
}
