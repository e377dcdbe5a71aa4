// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Exception vectors of EL2, guest entry, and the SEI path.
//
// Stack pointers. SP_EL2 points at this PE's PeBlock from the first guest entry on: whatever
// interrupts EL2 finds a known-good place to save registers, and never needs to trust the stack
// pointer that it interrupted. EL2's code runs on SP_EL0 (EL2t); the guest's own SP_EL0 waits in
// the frame. Below the PeBlock lie the levels (`frame.rs`): an SEI that interrupts EL2 moves
// SP_EL2 down by one before anything else, and back up right before its ERET, so that one that
// barges in finds a place of its own. Each level has a stack of its own, too.
//
// Masks. EL2's code runs with SError unmasked and IRQ masked. What must not be interrupted lies
// between two linker-visible symbols: firebreak_window_NAME_start and _end.
//   entry  from the vector's first instruction until the guest's ELR, SPSR, ESR and FAR are in
//          the frame; SError is masked there by the exception itself. Firmware that barges in
//          overwrites those registers: `_known`, `_esr` and `_far` say from where on ELR and
//          SPSR, ESR, and FAR are in x0 and x1 or in the frame. What was not read yet is lost;
//          the SEI path makes up for it and lets the window go on (`windows.rs`).
//   sei    the SEI path from EL2, with the same marks. Its way back begins at `_exit` and is
//          restartable, as its frame stays whole; at `_tail` all is loaded.
//   exit   from the last look at `attention` to ERET. It is restartable and NOT masked: the
//          frame stays whole until ERET, and the SEI path sends an interrupted exit back to
//          its start, where the look is taken again.

// Saves the guest's context; an interrupt has no syndrome and no fault address, so `syndrome` 0
// leaves those of the frame as they are. `late` breaks it, for the test of the sweep. `load` brings the
// top of the stack into x2 and, where there is one, the function to call into x3: each PE has its
// own, so that a trace costs nothing where there is none. Leaves x0 = PeBlock, SP_EL0 = that stack,
// SPSel = 0.
// Who can arrive: a guest (EL1/EL0); SP = PeBlock; PSTATE.{{D,A,I,F}} = 1.
    .macro save_guest name, syndrome, load:vararg
    .global firebreak_window_entry_\name\()_known
    .global firebreak_window_entry_\name\()_esr
    .global firebreak_window_entry_\name\()_far
    stp     x0, x1, [sp, #{X0}]
    .if     {ELR_SAVED_LATE} == 0
    mrs     x0, elr_el2
    mrs     x1, spsr_el2
firebreak_window_entry_\name\()_known:
    stp     x0, x1, [sp, #{ELR}]
    .else
firebreak_window_entry_\name\()_known:
    .endif
    .if     \syndrome
    mrs     x0, esr_el2
firebreak_window_entry_\name\()_esr:
    mrs     x1, far_el2
firebreak_window_entry_\name\()_far:
    stp     x0, x1, [sp, #{ESR}]
    mrs     x0, hpfar_el2
    .else
firebreak_window_entry_\name\()_esr:
firebreak_window_entry_\name\()_far:
    .endif
    stp     x2, x3, [sp, #{X0} + 16]
    stp     x4, x5, [sp, #{X0} + 32]
    stp     x6, x7, [sp, #{X0} + 48]
    stp     x8, x9, [sp, #{X0} + 64]
    stp     x10, x11, [sp, #{X0} + 80]
    stp     x12, x13, [sp, #{X0} + 96]
    stp     x14, x15, [sp, #{X0} + 112]
    stp     x16, x17, [sp, #{X0} + 128]
    stp     x18, x19, [sp, #{X0} + 144]
    stp     x20, x21, [sp, #{X0} + 160]
    stp     x22, x23, [sp, #{X0} + 176]
    stp     x24, x25, [sp, #{X0} + 192]
    stp     x26, x27, [sp, #{X0} + 208]
    stp     x28, x29, [sp, #{X0} + 224]
    .if     \syndrome
    stp     x30, x0, [sp, #{X0} + 240]      // x30 and HPFAR_EL2
    .else
    str     x30, [sp, #{X0} + 240]
    .endif
    mrs     x1, sp_el0
    \load
    str     x1, [sp, #{SP_EL0}]
    msr     sp_el0, x2
    mov     x0, sp
    msr     spsel, #0
    .endm

// An exception of EL2's own: x0 and x1 go to the level below.
    .macro fault number
    stp     x0, x1, [sp, #{X0} - {LEVEL_BYTES}]
    mov     x1, #\number
    b       el2_fault
    .endm

// EL2's code proper runs with SError unmasked; the benchmark builds it without, to see the cost.
    .macro unmask
    .if     {MASKING_SCHEME}
    msr     daifclr, #4
    .endif
    .endm

// The fault that the sweep has to find: ELR and SPSR saved when SError is unmasked again.
    .macro elr_late
    .if     {ELR_SAVED_LATE}
    mrs     x1, elr_el2
    mrs     x2, spsr_el2
    stp     x1, x2, [x0, #{ELR}]
    .endif
    .endm

// An SEI that interrupted EL2, on SP_EL0 or on SP_EL2: its level, and what is lost first.
    .macro sei_entry name
    .global firebreak_window_\name\()_start
    .global firebreak_window_\name\()_known
    .global firebreak_window_\name\()_end
firebreak_window_\name\()_start:
    sub     sp, sp, #{LEVEL_BYTES}
    stp     x0, x1, [sp, #{X0}]
    mrs     x0, elr_el2
    mrs     x1, spsr_el2
firebreak_window_\name\()_known:
    stp     x0, x1, [sp, #{FOUND_ELR}]
    b       sei_from_el2
firebreak_window_\name\()_end:
    .endm

// Each vector has 32 instructions. One more in any of them, and the assembler stops here: it would
// move all that follow away from where the PE looks for them.
    .macro slot name, offset
    .org    firebreak_vectors + \offset
\name:
    .endm

    .section .text.vectors, "ax"
    .balign 0x800
    .global firebreak_vectors
firebreak_vectors:

// --- From EL2 itself, on SP_EL0: EL2's code proper.
// 0x000 synchronous. An external abort that EL2 consumed, or a Firebreak bug: report and die.
    slot el2t_sync, 0x0
    fault   0
// 0x080 IRQ. Cannot come: EL2 runs with PSTATE.I = 1.
    slot el2t_irq, 0x80
    fault   1
// 0x100 FIQ. Cannot come: Group 0 belongs to EL3, and PSTATE.F = 1.
    slot el2t_fiq, 0x100
    fault   2
// 0x180 SError or SEI from EL3, while EL2's code ran.
    slot el2t_serror, 0x180
    sei_entry sei_el2t

// --- From EL2 itself, on SP_EL2: the entry and exit windows, and the SEI path's edges.
// 0x200 synchronous. As 0x000; an external abort in the exit window begins it anew.
    slot el2h_sync, 0x200
    fault   4
// 0x280 IRQ. Cannot come.
    slot el2h_irq, 0x280
    fault   5
// 0x300 FIQ. Cannot come.
    slot el2h_fiq, 0x300
    fault   6
// 0x380 SError or SEI inside the exit path (unmasked), or barging into a masked window.
    slot el2h_serror, 0x380
    sei_entry sei_el2h

// --- From a guest whose EL1 is AArch64 (its EL0 may be AArch32).
// 0x400 synchronous: hypercall, trap, stage-2 abort, external abort (TEA).
    .global firebreak_window_entry_sync_start
    .global firebreak_window_entry_sync_end
    slot guest_sync, 0x400
firebreak_window_entry_sync_start:
    save_guest sync, 1, ldp x2, x3, [sp, #{EL2_SP}]
    unmask
    elr_late
firebreak_window_entry_sync_end:
    blr     x3                      // on_sync: extern "C" fn(&PeBlock)
    b       guest_entry
// 0x480 IRQ: a physical interrupt, from the guest's own timer to another PE's kick.
    .global firebreak_window_entry_irq_start
    .global firebreak_window_entry_irq_end
    slot guest_irq, 0x480
firebreak_window_entry_irq_start:
    save_guest irq, 0, ldp x3, x2, [sp, #{ON_IRQ}]
    unmask
    elr_late
firebreak_window_entry_irq_end:
    blr     x3                      // on_irq: extern "C" fn(&PeBlock)
    b       guest_entry
// 0x500 FIQ. Group 0 belongs to EL3 (SCR_EL3.FIQ); without EL3 nobody enables it.
    slot guest_fiq, 0x500
    fault   10
// 0x580 SError or SEI, whatever the guest's PSTATE.A says (HCR_EL2.AMO). It runs on the SEI
// stack with SError masked: a second one is the firmware's to hold.
    .global firebreak_window_entry_serror_start
    .global firebreak_window_entry_serror_end
    slot guest_serror, 0x580
firebreak_window_entry_serror_start:
    save_guest serror, 1, ldr x2, [sp, #{SEI_SP}]
    elr_late
    b       sei_from_guest

// --- From a guest whose EL1 is AArch32: cannot be, HCR_EL2.RW = 1 in every guest.
    slot guest32_sync, 0x600
    fault   12
    slot guest32_irq, 0x680
    fault   13
    slot guest32_fiq, 0x700
    fault   14
    slot guest32_serror, 0x780
    fault   15
    .org    firebreak_vectors + 0x800

sei_from_guest:
    bl      firebreak_sei_guest     // extern "C" fn(&PeBlock), in NMI context
firebreak_window_entry_serror_end:
    msr     daifclr, #4
    // falls into guest_entry, which finds what the SEI path left in `attention`.

// Enters the guest that this PE's frame describes. Nothing is in registers yet; SError is
// unmasked and may interrupt at each instruction: the SEI path then restarts here.
    .global guest_entry
    .global firebreak_window_exit_start
    .global firebreak_window_exit_end
guest_entry:
firebreak_window_exit_start:
    msr     spsel, #1
    // The last look: work that others or the SEI path asked for, and a deferred record that
    // the firmware could not hand over. An SEI behind this look comes back to it.
    .if     {MASKING_SCHEME}
    ldr     x1, [sp, #{PENDING_WORD}]
    ldr     x0, [sp, #{ATTENTION}]
    ldr     x1, [x1]
    orr     x0, x0, x1
    .else
    ldr     x0, [sp, #{ATTENTION}]
    .endif
    cbnz    x0, guest_entry_slow
    ldp     x0, x1, [sp, #{ELR}]
    msr     elr_el2, x0
    msr     spsr_el2, x1
    ldr     x0, [sp, #{SP_EL0}]
    msr     sp_el0, x0
    ldp     x2, x3, [sp, #{X0} + 16]
    ldp     x4, x5, [sp, #{X0} + 32]
    ldp     x6, x7, [sp, #{X0} + 48]
    ldp     x8, x9, [sp, #{X0} + 64]
    ldp     x10, x11, [sp, #{X0} + 80]
    ldp     x12, x13, [sp, #{X0} + 96]
    ldp     x14, x15, [sp, #{X0} + 112]
    ldp     x16, x17, [sp, #{X0} + 128]
    ldp     x18, x19, [sp, #{X0} + 144]
    ldp     x20, x21, [sp, #{X0} + 160]
    ldp     x22, x23, [sp, #{X0} + 176]
    ldp     x24, x25, [sp, #{X0} + 192]
    ldp     x26, x27, [sp, #{X0} + 208]
    ldp     x28, x29, [sp, #{X0} + 224]
    ldr     x30, [sp, #{X0} + 240]
    ldp     x0, x1, [sp, #{X0}]
    eret
firebreak_window_exit_end:
    // No straight-line speculation past ERET.
    dsb     nsh
    isb

guest_entry_slow:
    ldr     x1, [sp, #{EL2_SP}]
    mov     x0, sp
    msr     spsel, #0
    mov     sp, x1
    msr     daifclr, #4
    bl      firebreak_resolve       // extern "C" fn(&PeBlock): returns when a guest may run
    b       guest_entry

// The rest of the way of an SEI that interrupted EL2: SP = its level, PSTATE.A = 1; x0, x1, ELR and
// SPSR are saved. Its registers go to the frame of the level, never to the interrupted stack.
    .global firebreak_window_sei_start
    .global firebreak_window_sei_esr
    .global firebreak_window_sei_exit
    .global firebreak_window_sei_tail
    .global firebreak_window_sei_end
sei_from_el2:
firebreak_window_sei_start:
    mrs     x0, esr_el2
firebreak_window_sei_esr:
    str     x0, [sp, #{FOUND_ESR}]
    stp     x2, x3, [sp, #{X0} + 16]
    stp     x4, x5, [sp, #{X0} + 32]
    stp     x6, x7, [sp, #{X0} + 48]
    stp     x8, x9, [sp, #{X0} + 64]
    stp     x10, x11, [sp, #{X0} + 80]
    stp     x12, x13, [sp, #{X0} + 96]
    stp     x14, x15, [sp, #{X0} + 112]
    stp     x16, x17, [sp, #{X0} + 128]
    stp     x18, x19, [sp, #{X0} + 144]
    stp     x20, x21, [sp, #{X0} + 160]
    stp     x22, x23, [sp, #{X0} + 176]
    stp     x24, x25, [sp, #{X0} + 192]
    stp     x26, x27, [sp, #{X0} + 208]
    stp     x28, x29, [sp, #{X0} + 224]
    str     x30, [sp, #{X0} + 240]
    mrs     x0, sp_el0
    str     x0, [sp, #{SP_EL0}]
    ldr     x2, [sp, #{SEI_SP}]
    ldr     x0, [sp, #{THIS}]
    mov     x1, sp
    msr     sp_el0, x2
    msr     spsel, #0
    bl      firebreak_sei_el2       // extern "C" fn(&PeBlock, &mut SeiLevel) -> abandon?, NMI context
    msr     spsel, #1
    cbnz    x0, sei_abandon
firebreak_window_sei_exit:
    // An entry window that has not read ESR_EL2 yet gets what the SEI path left in the frame.
    ldp     x0, x1, [sp, #{ELR}]
    msr     elr_el2, x0
    msr     spsr_el2, x1
    ldr     x0, [sp, #{ESR}]
    msr     esr_el2, x0
    ldr     x0, [sp, #{SP_EL0}]
    msr     sp_el0, x0
    ldp     x2, x3, [sp, #{X0} + 16]
    ldp     x4, x5, [sp, #{X0} + 32]
    ldp     x6, x7, [sp, #{X0} + 48]
    ldp     x8, x9, [sp, #{X0} + 64]
    ldp     x10, x11, [sp, #{X0} + 80]
    ldp     x12, x13, [sp, #{X0} + 96]
    ldp     x14, x15, [sp, #{X0} + 112]
    ldp     x16, x17, [sp, #{X0} + 128]
    ldp     x18, x19, [sp, #{X0} + 144]
    ldp     x20, x21, [sp, #{X0} + 160]
    ldp     x22, x23, [sp, #{X0} + 176]
    ldp     x24, x25, [sp, #{X0} + 192]
    ldp     x26, x27, [sp, #{X0} + 208]
    ldp     x28, x29, [sp, #{X0} + 224]
    ldr     x30, [sp, #{X0} + 240]
    ldp     x0, x1, [sp, #{X0}]
    add     sp, sp, #{LEVEL_BYTES}
firebreak_window_sei_tail:
    eret
firebreak_window_sei_end:
    dsb     nsh
    isb

// EL2's work was lost, and nothing depends on it: on with what is asked for.
sei_abandon:
    ldr     x0, [sp, #{THIS}]
    mov     sp, x0
    msr     daifclr, #4
    b       guest_entry

// An exception of EL2's own. x1 = slot number; x0 and x1 of what it interrupted are in the level
// below, and the rest goes there too: for the crash page, and for what is gone on with. Runs on the SEI
// stack, which is known to be good. TPIDR_EL2 counts, so that failing while one fails has an end.
el2_fault:
    stp     x2, x3, [sp, #{X0} + 16 - {LEVEL_BYTES}]
    mrs     x3, tpidr_el2
    add     x3, x3, #1
    msr     tpidr_el2, x3
    cmp     x3, #{MAX_FAULTS}
    b.hs    el2_lost
    sub     x2, sp, #{LEVEL_BYTES}
    mrs     x0, elr_el2
    mrs     x3, spsr_el2
    stp     x0, x3, [x2, #{ELR}]
    mrs     x0, esr_el2
    mrs     x3, far_el2
    stp     x0, x3, [x2, #{ESR}]
    stp     x4, x5, [x2, #{X0} + 32]
    stp     x6, x7, [x2, #{X0} + 48]
    stp     x8, x9, [x2, #{X0} + 64]
    stp     x10, x11, [x2, #{X0} + 80]
    stp     x12, x13, [x2, #{X0} + 96]
    stp     x14, x15, [x2, #{X0} + 112]
    stp     x16, x17, [x2, #{X0} + 128]
    stp     x18, x19, [x2, #{X0} + 144]
    stp     x20, x21, [x2, #{X0} + 160]
    stp     x22, x23, [x2, #{X0} + 176]
    stp     x24, x25, [x2, #{X0} + 192]
    stp     x26, x27, [x2, #{X0} + 208]
    stp     x28, x29, [x2, #{X0} + 224]
    str     x30, [x2, #{X0} + 240]
    mrs     x3, sp_el0
    str     x3, [x2, #{SP_EL0}]
    ldr     x3, [sp, #{SEI_SP}]
    ldr     x0, [sp, #{THIS}]
    msr     sp_el0, x3
    msr     spsel, #0
    cmp     x1, #0
    ccmp    x1, #4, #4, ne
    b.ne    firebreak_el2_fault     // extern "C" fn(&PeBlock, slot, &Frame) -> !
    // Synchronous, slots 0 and 4. Only a window that needs no more than x0 = PeBlock, x30 and SP_EL0
    // is gone on with; SPSR_EL2 still holds its PSTATE, because SError is masked here and nothing
    // else comes.
    bl      firebreak_el2_sync      // extern "C" fn(&PeBlock, slot, &Frame) -> where to go on
    msr     elr_el2, x0
    msr     spsel, #1
    msr     tpidr_el2, xzr
    sub     x2, sp, #{LEVEL_BYTES}
    ldr     x3, [x2, #{SP_EL0}]
    ldr     x30, [x2, #{X0} + 240]
    msr     sp_el0, x3
    ldr     x0, [sp, #{THIS}]
    eret
    dsb     nsh
    isb
// The way down itself fails. One plain reset (PSCI SYSTEM_RESET); if that comes back here, the end.
el2_lost:
    b.hi    1f
    mov     x0, #0x84000000
    add     x0, x0, #9
    smc     #0
1:  wfi
    b       1b

// Waits for an interrupt or an SEI, unless there is work: x0 = PeBlock. Called from EL2's code
// with IRQs masked. An SEI between the look and WFI would leave WFI asleep on its work, so the
// SEI path sends an interrupted wait back to its start too.
    .section .text.idle, "ax"
    .global firebreak_idle
    .global firebreak_window_idle_start
    .global firebreak_window_idle_end
firebreak_idle:
    dsb     ish
firebreak_window_idle_start:
    ldr     x1, [x0, #{PENDING_WORD}]
    ldr     x2, [x0, #{ATTENTION}]
    ldr     x1, [x1]
    orr     x1, x1, x2
    cbnz    x1, 1f
    wfi
    // An SEI that ends the wait finds ELR here, behind WFI: still inside the window.
1:  ret
firebreak_window_idle_end:

// Writes a guest's memory from EL2, where a page of it may be bad: x0 = to, x1 = from, or 0 for
// zeros in whole pages, x2 = bytes. Returns 0. An SEA on the way ends it: x0 is then 1. What was written so far
// stays written, and no register but those that a call may change is touched.
    .section .text.guest_write, "ax"
    .global firebreak_guest_write
    .global firebreak_guest_write_start
    .global firebreak_guest_write_end
    .global firebreak_guest_write_failed
firebreak_guest_write:
firebreak_guest_write_start:
    cbz     x1, 4f
    subs    x2, x2, #64
    b.lo    2f
1:  ldp     x3, x4, [x1], #16
    ldp     x5, x6, [x1], #16
    ldp     x7, x8, [x1], #16
    ldp     x9, x10, [x1], #16
    stp     x3, x4, [x0], #16
    stp     x5, x6, [x0], #16
    stp     x7, x8, [x0], #16
    stp     x9, x10, [x0], #16
    subs    x2, x2, #64
    b.hs    1b
2:  add     x2, x2, #64
3:  cbz     x2, 10f
    ldrb    w3, [x1], #1
    strb    w3, [x0], #1
    sub     x2, x2, #1
    b       3b
    // Zeros, in whole pages. DC ZVA clears 64 bytes, where DCZID_EL0 says so (DZP = 0, BS = 4); on
    // any other core, stores do.
4:  mrs     x3, dczid_el0
    cmp     x3, #4
    b.ne    6f
5:  cbz     x2, 10f
    dc      zva, x0
    add     x0, x0, #64
    dc      zva, x0
    add     x0, x0, #64
    dc      zva, x0
    add     x0, x0, #64
    dc      zva, x0
    add     x0, x0, #64
    sub     x2, x2, #256
    b       5b
6:  cbz     x2, 10f
    stp     xzr, xzr, [x0], #16
    stp     xzr, xzr, [x0], #16
    stp     xzr, xzr, [x0], #16
    stp     xzr, xzr, [x0], #16
    sub     x2, x2, #64
    b       6b
10: mov     x0, #0
    ret
firebreak_guest_write_end:
firebreak_guest_write_failed:
    mov     x0, #1
    ret

// Clears V0 to V31, FPCR and FPSR. EL2 is compiled without them, so nothing of its own is there.
    .section .text.forget_vectors, "ax"
    .arch_extension simd
    .global firebreak_forget_vectors
firebreak_forget_vectors:
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movi    v\n\().2d, #0
    .endr
    .irp    n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    movi    v\n\().2d, #0
    .endr
    msr     fpcr, xzr
    msr     fpsr, xzr
    ret
    .arch_extension nosimd

// Reads an ID register: x0 = (CRm - 1) * 8 + op2 for CRm 1 to 7, op0 = 3, op1 = 0, CRn = 0.
// The caller has checked the range.
    .section .text.read_id_register, "ax"
    .global firebreak_read_id_register
firebreak_read_id_register:
    adr     x1, 1f
    add     x1, x1, x0, lsl #3
    br      x1
1:
    .irp    crm, 1, 2, 3, 4, 5, 6, 7
    .irp    op2, 0, 1, 2, 3, 4, 5, 6, 7
    mrs     x0, S3_0_C0_C\crm\()_\op2
    ret
    .endr
    .endr
