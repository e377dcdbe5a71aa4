// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the devicetree that QEMU 10.0.2 makes for `virt` with 4 Neoverse N1 and 1 GiB.

use firebreak_abi::{Mpidr, Pa, PaRange};
use firebreak_manifest::{Conduit, read_board};

#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

static VIRT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../tests/corpus/dtb/qemu-virt.dtb"));
static SECURE: &Aligned<[u8]> = &Aligned(*include_bytes!(
    "../../../tests/corpus/dtb/qemu-virt-secure.dtb"
));

#[test]
fn qemu_virt_is_what_its_devicetree_says() {
    let board = read_board(&VIRT.0).unwrap();
    assert_eq!(board.model, "linux,dummy-virt");
    assert_eq!(board.memory, [PaRange::new(0x4000_0000, 0x4000_0000)]);
    assert_eq!(board.cpus, [0, 1, 2, 3].map(Mpidr::from_raw));
    assert_eq!(board.psci_conduit, Some(Conduit::Smc));
    let gic = board.gicv3.unwrap();
    assert_eq!(gic.gicd, PaRange::new(0x800_0000, 0x1_0000));
    assert_eq!(gic.gicr, [PaRange::new(0x80a_0000, 0xf6_0000)]);
    assert_eq!(gic.maintenance_intid, 25);
    let uart = board.uart.unwrap();
    assert_eq!((uart.base, uart.intid), (Pa::new(0x900_0000), 33));
    let timer = board.timer.unwrap();
    assert_eq!(
        (
            timer.physical_intid,
            timer.virtual_intid,
            timer.hypervisor_intid
        ),
        (30, 27, 26)
    );
    assert!(board.reserved.is_empty());
    assert_eq!(board.sei, None);
    assert!(!board.has_domains);
}

#[test]
fn secure_memory_and_the_secure_uart_are_not_for_us() {
    let board = read_board(&SECURE.0).unwrap();
    assert_eq!(board.memory, [PaRange::new(0x4000_0000, 0x4000_0000)]);
    assert_eq!(board.uart.unwrap().base, Pa::new(0x900_0000));
    assert_eq!(board.psci_conduit, None);
}
