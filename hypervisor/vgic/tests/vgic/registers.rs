// SPDX-License-Identifier: MIT OR Apache-2.0
//! Register frames: what guests read at the start, and that no access can do harm.

use super::machine::{GICR_SGI, Machine};

#[test]
fn a_guest_finds_a_gicv3_with_one_security_state_and_160_intids() {
    let mut machine = Machine::new(3, 4);
    assert_eq!(
        machine.gicd_read(0, 0x0000, 4),
        0x50,
        "ARE and DS, groups off"
    );
    let typer = machine.gicd_read(0, 0x0004, 4);
    assert_eq!(32 * ((typer & 31) + 1), 160, "ITLinesNumber");
    assert_eq!(typer >> 5 & 7, 0, "CPUNumber is 0 without legacy operation");
    assert_eq!(
        typer & (1 << 8 | 1 << 10 | 1 << 16 | 1 << 17 | 1 << 24 | 1 << 26),
        0
    );
    assert_eq!((typer >> 19 & 31) + 1, 10, "IDbits");
    assert_eq!(typer >> 25 & 1, 1, "No1N");
    assert_eq!(machine.gicd_read(0, 0x0008, 4) & 0xfff, 0x43b);
    assert_eq!(machine.gicd_read(0, 0xffe8, 4), 0x3b, "PIDR2");
    assert_eq!(machine.gicr_read(0, 0, 0xffe8, 4), 0x3b, "PIDR2");
    for (offset, value) in [
        (0xfff0, 0x0d),
        (0xfff4, 0xf0),
        (0xfff8, 0x05),
        (0xfffc, 0xb1),
    ] {
        assert_eq!(machine.gicd_read(0, offset, 4), value, "component ID");
    }
}

#[test]
fn redistributors_name_their_vcpu_and_the_last_says_so() {
    let mut machine = Machine::new(3, 4);
    for target in 0..3 {
        let typer = machine.gicr_read(1, target, 0x0008, 8);
        assert_eq!(typer >> 32, target as u64, "affinity");
        assert_eq!(typer >> 8 & 0xffff, target as u64, "processor number");
        assert_eq!(typer >> 4 & 1 == 1, target == 2, "Last");
        assert_eq!(typer & 0xf, 0, "no LPIs");
        let halves =
            machine.gicr_read(1, target, 0x0008, 4) | machine.gicr_read(1, target, 0x000c, 4) << 32;
        assert_eq!(halves, typer);
    }
    assert_eq!(machine.gicr_read(1, 3, 0x0008, 8), 0, "no fourth vCPU");
    assert_eq!(machine.gicr_read(1, 0, 0xffe8, 4), 0x3b);
}

#[test]
fn waker_shows_that_a_woken_redistributor_is_awake() {
    let mut machine = Machine::new(1, 4);
    assert_eq!(
        machine.gicr_read(0, 0, 0x14, 4),
        0b110,
        "asleep after reset"
    );
    machine.gicr(0, 0, 0x14, 4, 0);
    assert_eq!(machine.gicr_read(0, 0, 0x14, 4), 0);
    machine.gicr(0, 0, 0x14, 4, 0b010);
    assert_eq!(machine.gicr_read(0, 0, 0x14, 4), 0b110);
}

#[test]
fn priorities_take_bytes_and_words_and_keep_five_bits() {
    let mut machine = Machine::new(2, 4);
    machine.gicd(0, 0x400 + 33, 1, 0xa7);
    assert_eq!(machine.gicd_read(0, 0x400 + 33, 1), 0xa0);
    assert_eq!(machine.gicd_read(0, 0x400 + 32, 4), 0xa000);
    machine.gicd(0, 0x400 + 156, 4, 0x8040_20f8);
    assert_eq!(machine.gicd_read(0, 0x400 + 159, 1), 0x80);
    assert_eq!(machine.gicd_read(0, 0x400 + 156, 4), 0x8040_20f8);
    machine.gicr(0, 1, GICR_SGI + 0x400 + 27, 1, 0x50);
    assert_eq!(
        machine.gicr_read(0, 1, GICR_SGI + 0x400 + 24, 4),
        0x5000_0000
    );
    assert_eq!(
        machine.gicr_read(0, 0, GICR_SGI + 0x400 + 27, 1),
        0,
        "not the other vCPU's"
    );
    machine.gicd(0, 0x400, 4, 0x1010_1010);
    assert_eq!(
        machine.gicd_read(0, 0x400, 4),
        0,
        "private priorities are not in the distributor"
    );
}

#[test]
fn routers_take_64_bits_and_halves() {
    let mut machine = Machine::new(2, 4);
    machine.gicd(0, 0x6000 + 8 * 40, 8, 1);
    assert_eq!(machine.gicd_read(0, 0x6000 + 8 * 40, 8), 1);
    assert_eq!(machine.dist.route(40), Some(1));
    machine.gicd(0, 0x6000 + 8 * 41, 4, 0x8000_0001);
    machine.gicd(0, 0x6004 + 8 * 41, 4, 0xff);
    assert_eq!(
        machine.gicd_read(0, 0x6000 + 8 * 41, 8),
        1,
        "no 1-of-N, no Aff3"
    );
    machine.gicd(0, 0x6000 + 8 * 42, 8, 0x0001_0000);
    assert_eq!(machine.gicd_read(0, 0x6000 + 8 * 42, 8), 0x0001_0000);
    assert_eq!(machine.dist.route(42), None, "nobody there");
    assert_eq!(
        machine.gicd_read(0, 0x6000 + 8 * 31, 8),
        0,
        "no router for private INTIDs"
    );
    machine.gicd(0, 0x6000 + 8 * 43, 8, 1);
    machine.gicd(0, 0x6000 + 8 * 43, 8, 0);
    assert_eq!(machine.dist.route(43), Some(0));
}

#[test]
fn trigger_modes_are_kept_for_ppis_and_spis_and_fixed_for_sgis() {
    let mut machine = Machine::new(1, 4);
    assert_eq!(machine.gicr_read(0, 0, GICR_SGI + 0xc00, 4), 0xaaaa_aaaa);
    machine.gicr(0, 0, GICR_SGI + 0xc00, 4, 0);
    assert_eq!(machine.gicr_read(0, 0, GICR_SGI + 0xc00, 4), 0xaaaa_aaaa);
    machine.gicr(0, 0, GICR_SGI + 0xc04, 4, 0xffff_ffff);
    assert_eq!(machine.gicr_read(0, 0, GICR_SGI + 0xc04, 4), 0xaaaa_aaaa);
    machine.gicd(0, 0xc08, 4, 0x0000_0008);
    assert_eq!(machine.gicd_read(0, 0xc08, 4), 8);
    assert!(machine.dist.is_edge(0, 33) && !machine.dist.is_edge(0, 32));
    machine.gicd(0, 0xc04, 4, 0xffff_ffff);
    assert_eq!(
        machine.gicd_read(0, 0xc00, 4),
        0,
        "private modes are not in the distributor"
    );
}

/// Every offset of the frames in every width, in a state with interrupts everywhere: nothing
/// panics, reads have no effect, and what an access does not have reads as zero.
#[test]
fn no_access_of_any_width_can_do_harm() {
    for width in [1, 2, 4, 8] {
        let mut machine = Machine::new(2, 4);
        machine.gicd(0, 0, 4, 3);
        let mask = if width == 8 {
            u64::MAX
        } else {
            (1 << (8 * width)) - 1
        };
        for offset in 0..0x1_0000 {
            machine.gicd(0, offset, width, u64::MAX);
            assert_eq!(machine.gicd_read(0, offset, width) & !mask, 0);
            machine.gicd(1, offset, width, 0x5a5a_5a5a_a5a5_a5a5);
        }
        for offset in 0..0x2_0000 {
            for target in 0..2 {
                machine.gicr(0, target, offset, width, u64::MAX);
                assert_eq!(machine.gicr_read(0, target, offset, width) & !mask, 0);
            }
            machine.gicr(1, 0, offset, width, 0x5a5a_5a5a_a5a5_a5a5);
        }
        // Outside of the frames, and a vCPU that does not exist.
        for offset in [0x1_0000, 0x2_0000, u32::MAX - 7, u32::MAX] {
            machine.gicd(0, offset, width, u64::MAX);
            machine.gicr(0, 0, offset, width, u64::MAX);
            assert_eq!(machine.gicr_read(0, 0, offset, width), 0);
        }
        for target in [2, 7, 8, 31, 32, 255] {
            machine.gicr(0, target, GICR_SGI + 0x100, width, u64::MAX);
            assert_eq!(machine.gicr_read(0, target, GICR_SGI + 0x100, width), 0);
        }
        machine.check();
    }
}

#[test]
fn reserved_registers_and_widths_read_as_zero_and_ignore_writes() {
    let mut machine = Machine::new(1, 4);
    let named = |offset: u32| {
        matches!(offset, 0x0..0xc | 0x84..0x94 | 0x420..0x4a0 | 0xc08..0xc28)
            || (0x104..0x114).contains(&offset)
            || (0x184..0x194).contains(&offset)
            || (0x6100..0x6500).contains(&offset)
            || offset >= 0xffd0
    };
    for offset in (0..0x1_0000).filter(|offset| !named(*offset)) {
        // The pending and active registers would show the state of their write.
        let state = (0x200..0x400).contains(&offset) && (1..5).contains(&(offset >> 2 & 31));
        for width in [1, 2, 4, 8] {
            if !state {
                machine.gicd(0, offset, width, u64::MAX);
            }
            assert_eq!(
                machine.gicd_read(0, offset, width),
                0,
                "{offset:#x} width {width}"
            );
        }
    }
    // Registers in widths that they do not have.
    machine.gicd(0, 0x104, 8, u64::MAX);
    machine.gicd(0, 0x104, 2, u64::MAX);
    machine.gicd(0, 0x105, 4, u64::MAX);
    machine.gicd(0, 0x104, 1, u64::MAX);
    assert_eq!(machine.gicd_read(0, 0x104, 4), 0);
    assert_eq!(machine.gicd_read(0, 0x4, 8), 0);
    assert_eq!(machine.gicd_read(0, 0x4, 2), 0);
}

#[test]
fn what_is_raised_is_counted_until_a_reset() {
    let distributor = firebreak_vgic::Distributor::new();
    distributor.configure(2);
    assert_eq!(distributor.counts(), (0, 0));
    distributor.pend(1, 3);
    distributor.pend(0, 40);
    distributor.set_level(0, 41, true);
    assert_eq!(distributor.counts(), (0, 3));
    distributor.reset();
    assert_eq!(distributor.counts(), (0, 0));
}
