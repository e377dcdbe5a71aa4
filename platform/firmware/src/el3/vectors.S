/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * EL3's vectors. What comes from below is saved whole in the frame at the top of this PE's
 * stack; Rust edits the frame, and `el3_exit` returns to wherever it says.
 */

    .macro  save_and_call handler
    sub     sp, sp, #{FRAME_BYTES}
    stp     x0, x1, [sp, #0]
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
    mrs     x0, elr_el3
    stp     x30, x0, [sp, #{FRAME_X30}]
    mrs     x0, spsr_el3
    str     x0, [sp, #{FRAME_SPSR}]
    mov     x0, sp
    bl      \handler
    mov     x0, sp
    b       el3_exit
    .endm

    /* EL3's own faults: nothing below is to be returned to, so the stack starts afresh. */
    .macro  own_fault kind
    mov     x0, #\kind
    b       el3_own_fault
    .endm

    .section .vectors, "ax"
    .balign 2048
    .global el3_vectors
el3_vectors:
    /* 0x000: current EL, SP_EL0, synchronous. EL3 never runs on SP_EL0. */
    own_fault 0
    .balign 128
    /* 0x080: current EL, SP_EL0, IRQ. */
    own_fault 1
    .balign 128
    /* 0x100: current EL, SP_EL0, FIQ. */
    own_fault 2
    .balign 128
    /* 0x180: current EL, SP_EL0, SError. */
    own_fault 3
    .balign 128
    /* 0x200: current EL, SP_EL3, synchronous: a fault of the firmware itself. */
    own_fault 4
    .balign 128
    /* 0x280: current EL, SP_EL3, IRQ. EL3 runs with everything masked. */
    own_fault 5
    .balign 128
    /* 0x300: current EL, SP_EL3, FIQ. */
    own_fault 6
    .balign 128
    /* 0x380: current EL, SP_EL3, SError. */
    own_fault 7
    .balign 128
    /* 0x400: lower EL, AArch64, synchronous: SMC, or an external abort routed here by EA. */
    save_and_call el3_sync
    .balign 128
    /* 0x480: lower EL, AArch64, IRQ: SCR_EL3.IRQ is 0, never taken. */
    own_fault 9
    .balign 128
    /* 0x500: lower EL, AArch64, FIQ: Group 0, the secure UART, timer and SGI. */
    save_and_call el3_fiq
    .balign 128
    /* 0x580: lower EL, AArch64, SError: a physical one, routed here by EA. */
    save_and_call el3_serror
    .balign 128
    /* 0x600 to 0x780: lower EL, AArch32. EL2 is AArch64, so never taken. */
    own_fault 12
    .balign 128
    own_fault 13
    .balign 128
    own_fault 14
    .balign 128
    own_fault 15
    .balign 128

    .text
    /* Leaves EL3 by the frame at x0, the topmost of this PE's stack. */
    .global el3_exit
el3_exit:
    mov     sp, x0
    ldr     x0, [sp, #{FRAME_SPSR}]
    msr     spsr_el3, x0
    ldp     x30, x0, [sp, #{FRAME_X30}]
    msr     elr_el3, x0
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldp     x0, x1, [sp, #0]
    add     sp, sp, #{FRAME_BYTES}
    eret

el3_own_fault:
    /* Every PE that gets here has Aff0 below MAX_PES: the others never leave boot.S. */
    mrs     x2, mpidr_el1
    and     x2, x2, #0xff
    ldr     x1, =__stacks_end
    mov     x3, #{STACK_BYTES}
    mul     x2, x2, x3
    sub     x1, x1, x2
    sub     sp, x1, #{FRAME_BYTES}
    b       el3_panic_exception
    .ltorg
