// SPDX-License-Identifier: MIT OR Apache-2.0
//! What real guests do at start and afterwards, told step by step.

use super::machine::{GICR_SGI, Machine};

const SGI_IRM: u64 = 1 << 40;

/// The order of accesses of Linux's GICv3 driver on its boot CPU, for `irqs` lines.
fn linux_distributor(machine: &mut Machine) {
    machine.gicd(0, 0x0000, 4, 0);
    assert_eq!(machine.gicd_read(0, 0x0000, 4) >> 31, 0, "RWP");
    let lines = 32 * ((machine.gicd_read(0, 0x0004, 4) & 31) + 1) as u32;
    for irq in (32..lines).step_by(32) {
        machine.gicd(0, 0x0080 + irq / 8, 4, u64::from(u32::MAX));
    }
    for irq in (32..lines).step_by(16) {
        machine.gicd(0, 0x0c00 + irq / 4, 4, 0);
    }
    for irq in (32..lines).step_by(4) {
        machine.gicd(0, 0x0400 + irq, 4, 0xa0a0_a0a0);
    }
    for irq in (32..lines).step_by(32) {
        machine.gicd(0, 0x0380 + irq / 8, 4, u64::from(u32::MAX));
        machine.gicd(0, 0x0180 + irq / 8, 4, u64::from(u32::MAX));
    }
    machine.gicd(0, 0x0000, 4, 0x13);
    assert_eq!(machine.gicd_read(0, 0x0000, 4), 0x53);
    for irq in 32..lines {
        machine.gicd(0, 0x6000 + 8 * irq, 8, 0);
    }
}

fn linux_cpu(machine: &mut Machine, cpu: usize) {
    let waker = machine.gicr_read(cpu, cpu, 0x14, 4);
    machine.gicr(cpu, cpu, 0x14, 4, waker & !2);
    assert_eq!(
        machine.gicr_read(cpu, cpu, 0x14, 4) & 4,
        0,
        "ChildrenAsleep"
    );
    machine.gicr(cpu, cpu, GICR_SGI + 0x80, 4, u64::from(u32::MAX));
    machine.gicr(cpu, cpu, GICR_SGI + 0x380, 4, u64::from(u32::MAX));
    machine.gicr(cpu, cpu, GICR_SGI + 0x180, 4, u64::from(u32::MAX));
    for irq in (0..32).step_by(4) {
        machine.gicr(cpu, cpu, GICR_SGI + 0x400 + irq, 4, 0xa0a0_a0a0);
    }
    assert_eq!(machine.gicr_read(cpu, cpu, 0x0, 4) & 8, 0, "RWP");
    // Eight SGIs, the virtual timer.
    machine.gicr(cpu, cpu, GICR_SGI + 0x100, 4, 0xff);
    machine.gicr(cpu, cpu, GICR_SGI + 0x100, 4, 1 << 27);
    assert_eq!(
        machine.gicr_read(cpu, cpu, GICR_SGI + 0x100, 4),
        0x0800_00ff
    );
}

fn linux(cpus: usize) -> Machine {
    let mut machine = Machine::new(cpus, 4);
    linux_distributor(&mut machine);
    for cpu in 0..cpus {
        linux_cpu(&mut machine, cpu);
    }
    machine
}

#[test]
fn linux_starts_and_its_timer_ticks_once_a_tick() {
    let mut machine = linux(2);
    for _ in 0..100 {
        for cpu in 0..2 {
            machine.fire(cpu, 27);
            assert_eq!(machine.ack(cpu), Some(27));
            assert_eq!(machine.ack(cpu), None);
            machine.eoi(cpu, 27);
            assert_eq!(machine.ack(cpu), None);
        }
    }
}

#[test]
fn linux_masks_its_uart_in_the_handler_and_gets_it_again_while_the_line_is_high() {
    let mut machine = linux(2);
    machine.gicd(0, 0x104, 4, 1 << 1);
    machine.level(1, 33, true);
    for _ in 0..3 {
        assert_eq!(machine.ack(0), Some(33));
        assert_eq!(machine.gicd_read(0, 0x304, 4), 1 << 1, "active");
        machine.eoi(0, 33);
    }
    assert_eq!(machine.ack(0), Some(33));
    machine.level(0, 33, false);
    machine.eoi(0, 33);
    assert_eq!(machine.ack(0), None);
    assert_eq!(machine.gicd_read(0, 0x204, 4), 0);
    assert_eq!(machine.gicd_read(0, 0x304, 4), 0);
}

#[test]
fn linux_moves_its_uart_to_another_cpu_while_it_is_pending() {
    let mut machine = linux(2);
    machine.gicd(0, 0x104, 4, 1 << 1);
    machine.level(0, 33, true);
    machine.gicd(0, 0x6000 + 8 * 33, 8, 1);
    assert_eq!(machine.ack(0), None);
    assert_eq!(machine.ack(1), Some(33));
    // And back while it is being handled: not before it has ended there.
    machine.gicd(1, 0x6000 + 8 * 33, 8, 0);
    assert_eq!(machine.ack(0), None);
    machine.eoi(1, 33);
    assert_eq!(machine.ack(1), None);
    assert_eq!(machine.ack(0), Some(33));
    machine.level(0, 33, false);
    machine.eoi(0, 33);
    assert_eq!(machine.ack(0), None);
}

#[test]
fn an_edge_that_moves_while_it_is_active_waits_for_its_end() {
    let mut machine = linux(2);
    machine.gicd(0, 0xc08, 4, 0b10 << 4);
    machine.gicd(0, 0x104, 4, 1 << 2);
    machine.edge(1, 34);
    assert_eq!(machine.ack(0), Some(34));
    machine.edge(1, 34);
    machine.gicd(1, 0x6000 + 8 * 34, 8, 1);
    assert_eq!(machine.ack(1), None, "active on the other CPU");
    machine.eoi(0, 34);
    assert_eq!(machine.ack(0), None);
    assert_eq!(machine.ack(1), Some(34));
    machine.eoi(1, 34);
}

#[test]
fn an_ipi_reaches_each_target_once() {
    let mut machine = linux(4);
    machine.sgi(2, SGI_IRM | 3 << 24);
    for cpu in [0, 1, 3] {
        assert_eq!(machine.ack(cpu), Some(3));
        machine.eoi(cpu, 3);
        assert_eq!(machine.ack(cpu), None);
    }
    assert_eq!(machine.ack(2), None);
    machine.sgi(1, 4 << 24 | 0b1010);
    for (cpu, got) in [(0, None), (1, Some(4)), (2, None), (3, Some(4))] {
        assert_eq!(machine.ack(cpu), got);
    }
}

#[test]
fn an_sgi_that_is_sent_again_while_it_is_handled_comes_again() {
    let mut machine = linux(2);
    machine.sgi(0, 1 << 24 | 0b10);
    machine.sgi(0, 1 << 24 | 0b10);
    assert_eq!(machine.ack(1), Some(1));
    machine.sgi(0, 1 << 24 | 0b10);
    machine.sgi(1, 1 << 24 | 0b10);
    machine.eoi(1, 1);
    assert_eq!(machine.ack(1), Some(1));
    machine.eoi(1, 1);
    assert_eq!(machine.ack(1), None);
}

/// A bare-metal guest: one vCPU, the timer and an SGI, straight-line set-up.
#[test]
fn a_bare_metal_guest_gets_its_timer_above_its_sgi() {
    let mut machine = Machine::new(1, 4);
    machine.gicr(0, 0, 0x14, 4, 0);
    machine.gicd(0, 0, 4, 1 << 4 | 1 << 1);
    machine.gicr(0, 0, GICR_SGI + 0x400 + 27, 1, 0x40);
    machine.gicr(0, 0, GICR_SGI + 0x400, 1, 0x80);
    machine.gicr(0, 0, GICR_SGI + 0x100, 4, 1 << 27 | 1);
    machine.sgi(0, 1);
    assert_eq!(machine.ack(0), Some(0));
    machine.fire(0, 27);
    assert_eq!(machine.ack(0), Some(27), "preempts");
    machine.eoi(0, 27);
    machine.eoi(0, 0);
    assert_eq!(machine.ack(0), None);
}

#[test]
fn nothing_comes_while_its_group_is_off_and_all_of_it_afterwards() {
    let mut machine = linux(1);
    machine.gicd(0, 0, 4, 0);
    machine.sgi(0, 1 << 24 | 1);
    machine.fire(0, 27);
    assert_eq!(machine.ack(0), None);
    machine.gicd(0, 0, 4, 2);
    assert!(machine.ack(0).is_some());
    machine.gicd(0, 0, 4, 1);
    assert_eq!(machine.ack(0), None);
    let group0 = !(1 << 1) & 0xffff_ffff;
    machine.gicr(0, 0, GICR_SGI + 0x80, 4, group0);
    machine.gicd(0, 0, 4, 3);
    let pending = machine.cpus[0]
        .live()
        .filter(|lr| lr.is_pending())
        .collect::<Vec<_>>();
    assert_eq!(pending.len(), 1);
}

#[test]
fn an_interrupt_that_is_disabled_in_its_list_register_is_taken_back() {
    let mut machine = linux(1);
    machine.sgi(0, 2 << 24 | 1);
    machine.fire(0, 27);
    machine.gicr(0, 0, GICR_SGI + 0x180, 4, 1 << 27 | 1 << 2);
    assert_eq!(machine.ack(0), None);
    assert_eq!(
        machine.gicr_read(0, 0, GICR_SGI + 0x200, 4),
        1 << 27 | 1 << 2,
        "still pending"
    );
    machine.gicr(0, 0, GICR_SGI + 0x280, 4, 1 << 2);
    machine.gicr(0, 0, GICR_SGI + 0x100, 4, 1 << 27 | 1 << 2);
    assert_eq!(machine.ack(0), Some(27));
    machine.eoi(0, 27);
    assert_eq!(machine.ack(0), None, "the SGI was cleared");
}

#[test]
fn a_disabled_timer_that_fires_reads_as_pending_and_comes_when_enabled() {
    let mut machine = linux(1);
    machine.gicr(0, 0, GICR_SGI + 0x180, 4, 1 << 27);
    machine.fire(0, 27);
    assert_eq!(machine.ack(0), None);
    assert_eq!(machine.gicr_read(0, 0, GICR_SGI + 0x200, 4), 1 << 27);
    machine.gicr(0, 0, GICR_SGI + 0x100, 4, 1 << 27);
    assert_eq!(machine.ack(0), Some(27));
    machine.eoi(0, 27);
}

#[test]
fn a_hundred_pending_interrupts_come_in_priority_order_through_four_list_registers() {
    let mut machine = Machine::new(1, 4);
    machine.gicd(0, 0, 4, 2);
    for word in 1..5 {
        machine.gicd(0, 0xc00 + 8 * word, 4, u64::from(u32::MAX));
        machine.gicd(0, 0xc04 + 8 * word, 4, u64::from(u32::MAX));
        machine.gicd(0, 0x100 + 4 * word, 4, u64::from(u32::MAX));
    }
    let priority = |intid: u32| (intid * 37 % 16) as u8 * 8 + 0x40;
    let intids: Vec<u32> = (50..150)
        .filter(|intid| !(40..42).contains(intid))
        .collect();
    for &intid in &intids {
        machine.gicd(0, 0x400 + intid, 1, priority(intid).into());
    }
    for &intid in &intids {
        machine.edge(0, intid);
    }
    let mut got = Vec::new();
    while let Some(intid) = machine.ack(0) {
        got.push(intid);
        machine.eoi(0, intid);
    }
    assert!(
        got.windows(2)
            .all(|pair| priority(pair[0]) <= priority(pair[1])),
        "{got:?}"
    );
    got.sort_unstable();
    assert_eq!(got, intids);
}

#[test]
fn handlers_nest_deeper_than_there_are_list_registers() {
    for split in [false, true] {
        let mut machine = Machine::new(1, 2);
        machine.cpus[0].split_eoi = split;
        machine.gicd(0, 0, 4, 2);
        machine.gicd(0, 0xc08, 4, u64::from(u32::MAX));
        machine.gicd(0, 0x104, 4, u64::from(u32::MAX));
        let intids = [32, 33, 34, 35, 36, 37, 38, 40];
        let mut nested = Vec::new();
        for (depth, &intid) in intids.iter().enumerate() {
            machine.gicd(0, 0x400 + intid, 1, 0xf0 - 8 * depth as u64);
            if intid == 40 {
                machine.fire(0, intid);
            } else {
                machine.edge(0, intid);
            }
            assert_eq!(machine.ack(0), Some(intid), "split {split}");
            nested.push(intid);
        }
        assert_eq!(machine.gicd_read(0, 0x304, 4), 0x17f, "all active");
        while let Some(intid) = nested.pop() {
            machine.eoi(0, intid);
            if split {
                machine.dir(0, intid);
            }
            assert_eq!(
                machine.gicd_read(0, 0x304, 4) >> (intid & 31),
                0,
                "split {split}"
            );
            assert_eq!(machine.ack(0), None);
        }
        assert_eq!(
            machine.cpus[0].hcr,
            Default::default(),
            "no traps or maintenance left"
        );
        // All of them can come again.
        for &intid in &intids {
            if intid == 40 {
                machine.fire(0, intid);
            } else {
                machine.edge(0, intid);
            }
        }
        assert_eq!(machine.ack(0), Some(40));
    }
}

#[test]
fn a_repeated_interrupt_of_low_priority_does_not_get_before_one_that_waits() {
    let mut machine = Machine::new(1, 2);
    machine.cpus[0].split_eoi = true;
    machine.gicd(0, 0, 4, 2);
    machine.gicr(0, 0, GICR_SGI + 0x100, 4, 0xffff);
    machine.gicr(0, 0, GICR_SGI + 0x400, 4, 0x8040_3040);
    machine.sgi(0, 3 << 24 | 1);
    assert_eq!(machine.ack(0), Some(3));
    machine.eoi(0, 3);
    machine.sgi(0, 3 << 24 | 1);
    machine.sgi(0, 1 << 24 | 1);
    machine.sgi(0, 2 << 24 | 1);
    // The first of its handlers is over: the second time it is pending, of low priority.
    machine.dir(0, 3);
    for expected in [1, 2, 3] {
        assert_eq!(machine.ack(0), Some(expected));
        machine.eoi(0, expected);
        machine.dir(0, expected);
    }
    assert_eq!(machine.ack(0), None);
}

#[test]
fn a_late_clear_pending_does_not_hit_an_sgi_that_was_sent_after_it() {
    let mut machine = linux(2);
    machine.eager = false;
    machine.gicr(1, 0, GICR_SGI + 0x280, 4, 1 << 4);
    machine.sgi(0, 4 << 24 | 1);
    machine.run_kicks();
    assert_eq!(machine.ack(0), Some(4));
    machine.eoi(0, 4);
    machine.gicr(1, 0, GICR_SGI + 0x280, 4, 1 << 27);
    machine.fire(0, 27);
    machine.run_kicks();
    assert_eq!(machine.ack(0), Some(27));
}

#[test]
fn a_second_event_of_a_pending_interrupt_counts_once_though_list_registers_are_full() {
    let mut machine = Machine::new(1, 2);
    machine.gicd(0, 0, 4, 2);
    machine.gicr(0, 0, GICR_SGI + 0x100, 4, 0xffff);
    machine.sgi(0, 8 << 24 | 1);
    machine.gicr(0, 0, GICR_SGI + 0x200, 4, 0b1_0000_0101);
    let mut got = Vec::new();
    while let Some(intid) = machine.ack(0) {
        got.push(intid);
        machine.eoi(0, intid);
    }
    got.sort_unstable();
    assert_eq!(got, [0, 2, 8]);
}

#[test]
fn a_reset_forgets_everything_and_leaves_no_physical_interrupt_active() {
    let mut machine = linux(2);
    machine.gicd(0, 0x104, 4, u64::from(u32::MAX));
    machine.fire(0, 27);
    machine.fire(1, 27);
    machine.fire(0, 40);
    assert!(machine.ack(1).is_some());
    machine.gicr(0, 0, GICR_SGI + 0x180, 4, 1 << 27);
    machine.level(0, 33, true);
    for cpu in 0..2 {
        machine.gics[cpu].reset(&mut machine.cpus[cpu]);
        machine.cpus[cpu].running.clear();
    }
    machine.dist.reset();
    for cpu in 0..2 {
        machine.resume(cpu);
    }
    for cpu in 0..2 {
        assert_eq!(machine.ack(cpu), None);
        for offset in [0x100, 0x200, 0x300] {
            assert_eq!(machine.gicr_read(cpu, cpu, GICR_SGI + offset, 4), 0);
            assert_eq!(machine.gicd_read(cpu, offset + 4, 4), 0);
        }
    }
    // The physical timer can come again, so it is not active.
    linux_distributor(&mut machine);
    for cpu in 0..2 {
        linux_cpu(&mut machine, cpu);
        machine.fire(cpu, 27);
        assert_eq!(machine.ack(cpu), Some(27));
    }
}

#[test]
fn what_reaches_a_parked_vcpu_waits_for_it_and_its_spis_can_move_on() {
    let mut machine = linux(2);
    machine.gicd(0, 0x104, 4, 0b110);
    machine.gicd(0, 0xc08, 4, 0b1010 << 2);
    for intid in [33u32, 34] {
        machine.gicd(0, 0x6000 + 8 * intid, 8, 1);
        machine.edge(0, intid);
    }
    assert_eq!(machine.ack(1), Some(33));
    machine.park(1);
    machine.sgi(0, 2 << 24 | 0b10);
    assert_eq!(
        machine.cpus[1].live().count(),
        0,
        "nothing in list registers of a parked vCPU"
    );
    assert_eq!(machine.gicd_read(0, 0x304, 4), 0b10, "still active");
    // The other vCPU takes both over, one of them after it ended the handler for it.
    for intid in [33u32, 34] {
        machine.gicd(0, 0x6000 + 8 * intid, 8, 0);
    }
    assert_eq!(machine.ack(0), Some(34));
    machine.eoi(0, 34);
    machine.edge(0, 33);
    assert_eq!(machine.ack(0), None);
    machine.gicd(0, 0x384, 4, 0b10);
    assert_eq!(machine.ack(0), Some(33));
    machine.eoi(0, 33);
    // A power-up starts with a fresh CPU interface.
    machine.cpus[1].running.clear();
    machine.resume(1);
    assert_eq!(machine.ack(1), Some(2));
}

/// A timer interrupt that its PE had acknowledged when its vCPU parked, or that another vCPU of the
/// guest set pending in its redistributor then, stayed active for all of the vCPU's next life.
#[test]
fn regression_a_timer_taken_for_a_parked_vcpu_is_not_active_in_its_next_life() {
    let mut machine = linux(2);
    machine.park(1);
    machine.fire(1, 27);
    machine.cpus[1].running.clear();
    machine.resume(1);
    assert_eq!(machine.ack(1), None, "it is due no more");
    machine.fire(1, 27);
    assert_eq!(machine.ack(1), Some(27));
}

#[test]
fn an_spi_that_a_vcpu_ended_before_it_was_parked_reaches_another() {
    let mut machine = linux(2);
    machine.gicd(0, 0xc08, 4, 0b10 << 4);
    machine.gicd(0, 0x104, 4, 1 << 2);
    machine.gicd(0, 0x6000 + 8 * 34, 8, 1);
    machine.edge(0, 34);
    assert_eq!(machine.ack(1), Some(34));
    machine.eoi(1, 34);
    machine.park(1);
    machine.gicd(0, 0x6000 + 8 * 34, 8, 0);
    machine.edge(0, 34);
    assert_eq!(machine.ack(0), Some(34));
}

#[test]
fn an_spi_that_another_vcpu_handles_makes_no_room_here() {
    let mut machine = Machine::new(2, 1);
    machine.gicd(0, 0, 4, 2);
    machine.gicd(0, 0x104, 4, 0b11);
    machine.gicd(0, 0x400 + 33, 1, 0x80);
    machine.gicd(0, 0x6000 + 8 * 33, 8, 1);
    machine.level(0, 32, true);
    assert_eq!(machine.ack(0), Some(32));
    machine.level(0, 33, true);
    machine.gicd(0, 0x6000 + 8 * 32, 8, 1);
    assert_eq!(machine.ack(1), Some(33));
    machine.eoi(0, 32);
    assert_eq!(machine.ack(1), Some(32), "preempts");
}

#[test]
fn two_vcpus_do_not_keep_each_other_busy_over_an_spi_that_one_of_them_handles() {
    let mut machine = Machine::new(2, 2);
    machine.gicd(0, 0, 4, 2);
    machine.gicd(0, 0xc08, 4, u64::from(u32::MAX));
    machine.gicd(0, 0x104, 4, 0xff);
    machine.gicd(0, 0x6000 + 8 * 32, 8, 1);
    machine.edge(0, 32);
    assert_eq!(machine.ack(1), Some(32));
    // More than fits, and the one that is handled elsewhere among them: it comes to rest.
    machine.gicd(0, 0x6000 + 8 * 32, 8, 0);
    machine.gicd(1, 0x204, 4, 0xff);
    for _ in 0..7 {
        let intid = machine.ack(0).expect("seven others");
        assert_ne!(intid, 32);
        machine.eoi(0, intid);
    }
    assert_eq!(machine.ack(0), None);
    machine.eoi(1, 32);
    assert_eq!(machine.ack(0), Some(32));
}

#[test]
fn unknown_physical_interrupts_are_deactivated_and_dropped() {
    let mut machine = linux(1);
    for vintid in [160, 1023, u32::MAX] {
        let effects = machine.gics[0].inject_hw(&mut machine.cpus[0], vintid, 99);
        assert!(effects.is_none());
        assert_eq!(std::mem::take(&mut machine.cpus[0].deactivated), [99]);
        machine.gics[0].inject(&mut machine.cpus[0], vintid);
        machine.gics[0].set_level(&mut machine.cpus[0], vintid, true);
        machine.gics[0].deactivate(&mut machine.cpus[0], vintid);
    }
    assert_eq!(machine.ack(0), None);
}
