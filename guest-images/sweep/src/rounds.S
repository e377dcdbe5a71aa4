// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The rounds: each waits for a moment to the instruction, has a pattern in every register, does
// one thing, and stores what is in the registers then.
//
// extern "C" fn(start_ticks: u64, registers: *mut Registers) -> u64: 0 when it was too late for
// `start_ticks`, because the firmware had other things to do; nothing has happened then.
//
// One instruction is one tick of CNTPCT. The wait counts down in steps of its own length and
// makes up for the rest with no-operations, so that the instruction at `sweep_anchor` of each
// round runs at the same distance from `start_ticks`.

    .equ    GPR_BYTES, 256          // x0-x30, SP
    .equ    SAVED_BYTES, 112        // x19-x30, the argument
    .equ    STEP, 4                 // instructions of a turn of the wait
    .equ    SLED, 24                // no-operations, more than a turn and the way out of it

    // `timed` = 0: it begins at once.
    .macro  round name, timed=1
    .text
    .global sweep_round_\name
    .global sweep_anchor_\name
sweep_round_\name:
    stp     x19, x20, [sp, #-SAVED_BYTES]!
    stp     x21, x22, [sp, #16]
    stp     x23, x24, [sp, #32]
    stp     x25, x26, [sp, #48]
    stp     x27, x28, [sp, #64]
    stp     x29, x30, [sp, #80]
    str     x1, [sp, #96]
    sub     sp, sp, #(GPR_BYTES + 16)
    .if     \timed
1:  mrs     x2, cntpct_el0
    sub     x2, x0, x2
    cmp     x2, #(SLED + 8)
    b.gt    1b
    // The rest is at least SLED + 8 - STEP + 1, at most SLED + 8: that many less are jumped over.
    cmp     x2, #(SLED + 8 - STEP + 1)
    b.lt    9f
    adr     x3, 2f
    mov     x4, #(SLED + 8)
    sub     x4, x4, x2
    add     x3, x3, x4, lsl #2
    br      x3
2:  .rept   SLED
    nop
    .endr
    .endif
sweep_anchor_\name:
    ldp     x2, x3, [x1, #256]      // NZCV and a spare word
    msr     nzcv, x2
    ldp     x2, x3, [x1, #16]
    ldp     x4, x5, [x1, #32]
    ldp     x6, x7, [x1, #48]
    ldp     x8, x9, [x1, #64]
    ldp     x10, x11, [x1, #80]
    ldp     x12, x13, [x1, #96]
    ldp     x14, x15, [x1, #112]
    ldp     x16, x17, [x1, #128]
    ldp     x18, x19, [x1, #144]
    ldp     x20, x21, [x1, #160]
    ldp     x22, x23, [x1, #176]
    ldp     x24, x25, [x1, #192]
    ldp     x26, x27, [x1, #208]
    ldp     x28, x29, [x1, #224]
    ldr     x30, [x1, #240]
    ldp     x0, x1, [x1, #0]
    .endm

    .macro  round_end name
    .global sweep_done_\name
sweep_done_\name:
    // A second execution of what stands before this would count twice.
    add     x28, x28, #1
    stp     x0, x1, [sp, #0]
    mrs     x0, nzcv
    mrs     x1, daif
    stp     x0, x1, [sp, #256]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    str     x30, [sp, #240]
    mov     x0, sp
    str     x0, [sp, #248]
    ldr     x1, [sp, #(GPR_BYTES + 16 + 96)]
    // What was found takes the place of what was given: x0-x30, SP, NZCV, DAIF.
    mov     x2, #0
3:  ldr     x3, [x0, x2]
    str     x3, [x1, x2]
    add     x2, x2, #8
    cmp     x2, #(GPR_BYTES + 16)
    b.lo    3b
    mov     x0, #1
    b       4f
9:  mov     x0, #0
4:  add     sp, sp, #(GPR_BYTES + 16)
    ldp     x21, x22, [sp, #16]
    ldp     x23, x24, [sp, #32]
    ldp     x25, x26, [sp, #48]
    ldp     x27, x28, [sp, #64]
    ldp     x29, x30, [sp, #80]
    ldp     x19, x20, [sp], #SAVED_BYTES
    ret
    .endm

    // Nothing: the error finds the guest itself.
    round   guest
    .rept   64
    nop
    .endr
    round_end guest

    round   hvc
    hvc     #0
    round_end hvc

    // A call right before an instruction that traps: x4 is a device register's address.
    round   hvc_trap
    hvc     #0
    ldr     w5, [x4]
    round_end hvc_trap

    round   smc
    smc     #0
    round_end smc

    round   load
    ldr     w0, [x1]
    round_end load

    round   store
    str     w0, [x1]
    round_end store

    // ICC_SGI1R_EL1.
    round   sgi
    msr     s3_0_c12_c11_5, x0
    isb
    round_end sgi

    // The virtual timer expires in here; PSTATE.I keeps its interrupt pending.
    round   timer
    .rept   400
    nop
    .endr
    round_end timer

    round   wfi
    wfi
    round_end wfi

    // A character and the end of the line.
    round   console
    str     w0, [x1]
    str     w2, [x1]
    round_end console

    // A store to a device whose interrupt comes of it.
    round   device
    str     w0, [x1]
    .rept   32
    nop
    .endr
    round_end device

    // Waits for an interrupt that stays masked. EL3 wakes it for its own ends: x29 says whether
    // there is one.
    round   receive, 0
1:  wfi
    mrs     x29, isr_el1
    cbz     x29, 1b
    round_end receive

    // Waits for a virtual SError, which stays masked, but not for ever: x29 is ISR_EL1, x30 counts down.
    // Where QEMU runs the PEs in turns, a YIELD ends one.
    round   serror, 0
    mov     x30, #0x4000
1:  yield
    mrs     x29, isr_el1
    tbnz    x29, #8, 2f
    sub     x30, x30, #1
    cbnz    x30, 1b
2:
    round_end serror

    // Touches pages and calls in between, until a page is gone or the word at x2 is not 0. The pages begin
    // at x3 and end at x4, and are x5 bytes apart.
    .global sweep_touch
    round   touch, 0
1:  yield
    mov     w0, #0x84000000         // PSCI_VERSION
    hvc     #0
    mov     x1, x3
2:
sweep_touch:
    ldr     x29, [x1]               // an abort goes on at sweep_done_touch
    add     x1, x1, x5
    sub     x30, x4, x1
    cbnz    x30, 2b
    ldr     x30, [x2]
    cbz     x30, 1b
    round_end touch

    // extern "C" fn(address) -> u64: 1 when a load from there is an external abort, else 0.
    .global sweep_is_gone
    .global sweep_peek
    .global sweep_gone
sweep_is_gone:
sweep_peek:
    ldr     x0, [x0]
    mov     x0, #0
    ret
sweep_gone:
    mov     x0, #1
    ret

    // The first instructions of a vCPU that a round started: x0 = top of its stack, all others 0.
    .text
    .global sweep_secondary_entry
sweep_secondary_entry:
    .irp    n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    orr     x1, x1, x\n
    .endr
    adrp    x2, sweep_residue
    str     x1, [x2, :lo12:sweep_residue]
    b       guest_secondary_entry
