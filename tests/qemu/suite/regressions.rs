// SPDX-License-Identifier: MIT OR Apache-2.0
//! What once went wrong, each with its own case. The guest does what is typed to it.

use firebreak_qemu::Raise;
use libtest_mimic::Trial;

use crate::harness::{Case, Outcome, failed, field, trial, with_firmware};

pub(crate) fn add(trials: &mut Vec<Trial>) {
    let mut add = |name: &str, run: fn() -> Outcome| {
        trials.push(trial(format!("regression::{name}"), run));
    };
    add(
        "regression_a_flood_and_a_reset_do_not_lock_the_console",
        flood,
    );
    add("regression_cpu_on_during_cpu_off_is_not_lost", rounds);
    add(
        "regression_a_vcpu_that_is_turned_on_while_it_parks_keeps_its_partition",
        relay,
    );
    add("regression_cpu_suspend_sees_what_is_pending", suspend);
    add("regression_a_timers_pending_latch_is_hardwares", latch);
    add("regression_each_stop_has_its_own_reason", stops);
    add(
        "regression_a_page_found_bad_by_an_idle_vcpus_pe_is_told_to_one_that_is_on",
        idle_vcpu,
    );
    add(
        "regression_cpu_suspend_is_the_guests_context_and_not_the_machines",
        asleep,
    );
    add(
        "a_page_that_is_taken_is_gone_for_a_vcpu_that_never_leaves_its_guest",
        watch,
    );
    add("memory_functions_of_el2_at_every_alignment", copies);
    add(
        "regression_a_system_with_all_that_it_may_have_boots",
        everything,
    );
    trials.push(trial(
        "regression::regression_the_devicetree_of_devices_that_are_passed_through_is_not_unused",
        devicetree,
    ));
    trials.push(trial(
        "regression::regression_fine_grained_traps_are_set",
        fine_grained_traps,
    ));
}

/// Starts the guest and types a word to it.
fn tell(word: &str, icount: bool) -> Result<Case, libtest_mimic::Failed> {
    let machine = with_firmware("cases")?.smp(3).icount(icount);
    let mut case = Case::start(machine)?;
    case.line("cases", "cases: ready")?;
    case.line("control", "control: ready")?;
    case.machine
        .type_into(0, &format!("{word}\n"))
        .map_err(failed)?;
    Ok(case)
}

/// The neighbor ticks on, and nothing worse happened.
fn nobody_minds(mut case: Case) -> Outcome {
    case.forget();
    case.line("control", "control: ticks=")?;
    for event in ["panic", "killed", "halt"] {
        case.never(event)?;
    }
    Ok(())
}

/// A guest prints faster than its budget, and resets itself with half a line unfinished: the
/// hypervisor, telling how much it left out, waited for the console that it held itself.
fn flood() -> Outcome {
    // By the virtual clock the guest is always faster than its budget.
    let case = tell("flood", true)?;
    case.event("suppressed", |event| {
        event.text("what") == Some("cases") && event.num("count").is_some_and(|count| count > 1000)
    })?;
    case.event_of("restart", "cases")?;
    case.lines("cases", "cases: ready", 2)?;
    nobody_minds(case)
}

/// A vCPU that is turned on while it goes off was never seen again; one that came back had its
/// timer off.
fn rounds() -> Outcome {
    let case = tell("rounds", false)?;
    let told = case.line("cases", "cases: rounds")?;
    case.hold(told == "cases: rounds=200", "every round to be finished")?;
    nobody_minds(case)
}

/// A vCPU turns the other one on again that is just going off, and goes off itself: the PE of the
/// other one found nobody left, and the partition was over.
fn relay() -> Outcome {
    let case = tell("relay", false)?;
    let end = case.wait("the end of the relay, or of the partition", |record| {
        let line = record.line("cases");
        line.is_some_and(|line| line.starts_with("cases: relay"))
            || record.event("stopped").is_some()
    })?;
    case.hold(
        end.line("cases") == Some("cases: relay=1500"),
        "the vCPUs to relieve each other to the end",
    )?;
    nobody_minds(case)
}

/// With an interrupt pending in a list register, CPU_SUSPEND slept for ever.
fn suspend() -> Outcome {
    let case = tell("suspend", false)?;
    let told = case.line("cases", "cases: suspend")?;
    case.hold(
        told == "cases: suspend result=0 taken=1",
        "CPU_SUSPEND to return, and the interrupt to be taken",
    )?;
    nobody_minds(case)
}

/// GICR_ISPENDR0 and GICR_ICPENDR0 did nothing for the timers' interrupts, and did not show them.
fn latch() -> Outcome {
    let case = tell("latch", false)?;
    for line in case.lines("cases", "cases: latch", 2)? {
        case.hold(
            line.ends_with("idle=0 set=1 cleared=0 taken=1"),
            "the latch to be set, cleared, and taken once",
        )?;
    }
    nobody_minds(case)
}

/// A partition was restarted, or left down, for the reason of the stop before.
fn stops() -> Outcome {
    let mut case = tell("reset", false)?;
    case.event_of("restart", "cases")?;
    case.lines("cases", "cases: ready", 2)?;
    case.forget();
    case.machine.type_into(0, "off\n").map_err(failed)?;
    case.event_of("stopped", "cases")?;
    case.line("control", "control: ticks=")?;
    case.never("restart")?;
    nobody_minds(case)
}

/// The PE of a vCPU that is off finds a page of its partition bad: the guest was never told, because
/// that vCPU could not be.
fn idle_vcpu() -> Outcome {
    const MIDDLE_IPA: u64 = 0x4080_0000;
    const PE_OF_SECOND: u8 = 1;
    let mut case = tell("nothing", false)?;
    case.line("cases", "cases: unknown word")?;
    let page = case.pa_of("cases", MIDDLE_IPA)?;
    case.raise(&Raise::new(1, PE_OF_SECOND, 0xc11, "recoverable").at(page))?;
    let error = case.event("error", |event| event.num("id") == Some(1))?;
    case.hold(
        error.text("context") == Some("idle"),
        "a PE without work to be interrupted",
    )?;
    case.event("retired", |event| event.hex("pa") == Some(page))?;
    let told = case.event("vserror", |_| true)?;
    case.hold(
        told.num("vcpu") == Some(0) && told.text("state") != Some("cancelled"),
        "the vCPU that is on to be told",
    )
}

/// A guest in CPU_SUSPEND is no idle EL2: an error without an address reset the machine, which had
/// cost only the guest in its own WFI.
fn asleep() -> Outcome {
    const PE: u8 = 0;
    // By the virtual clock: long after EL2 has printed the line, when the guest has gone to sleep.
    const LATER_TICKS: u64 = 20_000_000;
    let mut case = tell("sleep", true)?;
    case.line("cases", "cases: asleep")?;
    case.raise(&Raise::new(1, PE, 0xc11, "recoverable").after_ticks(LATER_TICKS))?;
    let error = case.event("error", |event| event.num("id") == Some(1))?;
    case.hold(
        error.text("context") == Some("guest") && error.text("name") == Some("cases"),
        "the guest's context to be the interrupted one",
    )?;
    case.forget();
    case.line("control", "control: ticks=")?;
    case.never("boot-error-record")
}

/// Tries `mem.S` in a guest, with the MMU off.
fn copies() -> Outcome {
    let case = tell("copies", false)?;
    let told = case.line("cases", "cases: copies")?;
    case.hold(
        field(&told, "tried").is_some_and(|tried| tried > 50_000) && field(&told, "bad") == Some(0),
        "every copy to be right",
    )
}

/// The firmware leaves HFGRTR_EL2 and its like trapping everything, as a reset may.
fn fine_grained_traps() -> Outcome {
    let case = Case::start(with_firmware("cases")?.cpu("max").smp(3))?;
    case.line("cases", "cases: ready")?;
    case.line("control", "control: ticks=")?;
    case.never("undef")
}

/// Eight partitions with a kernel, a RAM disk, spare pages and room for kernels each are more ranges
/// of memory than the map of owners had room for: `firebreak check` took the system, EL2 did not.
fn everything() -> Outcome {
    const PARTITIONS: usize = 8;
    let machine = with_firmware("full")?.smp(8).memory_mib(1024).icount(true);
    let mut case = Case::start(machine)?;
    case.partitions(PARTITIONS)?;
    case.line("control", "control: ready")?;
    // The last one, and what a page of its own memory is.
    case.order("start touch")?;
    case.line("touch", "touch: ")?;
    case.never("halt")
}

/// The nodes of its devices are read whenever a partition starts. An error in them counted as one in
/// memory that nobody uses, and the next start had EL2 read what was bad.
fn devicetree() -> Outcome {
    const DEVICETREE: u64 = 0x4000_0000;
    let mut case = Case::start(with_firmware("level")?.smp(1))?;
    case.line("cases", "cases: ready")?;
    case.raise(&Raise::new(1, 0, 0x1811, "corrected").at(DEVICETREE))?;
    let error = case.event("error", |event| event.num("id") == Some(1))?;
    case.hold(
        error.text("owner_class") == Some("hypervisor-rodata"),
        "the devicetree to be the hypervisor's",
    )
}

/// The translation of another PE, which runs in the guest all the while, is invalidated: of the first page with
/// the 2 MiB block that is split for it, of the second alone.
fn watch() -> Outcome {
    let mut case = tell("watch", false)?;
    for (id, page) in [(1, 0x4090_0000), (2, 0x4090_1000)] {
        case.line("cases", &format!("cases: watch page={page:#x}"))?;
        let pa = case.pa_of("cases", page)?;
        case.raise(&Raise::new(id, 0, 0xc11, "recoverable").at(pa))?;
        case.line("cases", &format!("cases: watch gone={page:#x}"))?;
    }
    nobody_minds(case)
}
