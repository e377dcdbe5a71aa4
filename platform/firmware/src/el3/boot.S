/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Reset to Rust. Every PE starts here at once, at EL3, MMU off, in the secure flash at 0.
 *
 * Operands in braces come from mod.rs. x19 = number of this PE (Aff0) throughout.
 */

    .section .boot, "ax"
    .global _start
_start:
    msr     daifset, #0xf
    mrs     x19, mpidr_el1
    /* Aff3, Aff2 and Aff1 are 0 on QEMU virt for every PE that we drive. */
    ldr     x0, =0xff00ffff00
    tst     x19, x0
    b.ne    .Lpark
    and     x19, x19, #0xff
    cmp     x19, #{MAX_PES}
    b.hs    .Lpark
    cbnz    x19, .Lwait_for_primary

    ldr     x0, =__text_load
    ldr     x1, =__text_start
    ldr     x2, =__text_end
    bl      .Lcopy
    ldr     x0, =__data_load
    ldr     x1, =__data_start
    ldr     x2, =__data_end
    bl      .Lcopy
    ldr     x1, =__bss_start
    ldr     x2, =__bss_end
1:  cmp     x1, x2
    b.hs    2f
    stp     xzr, xzr, [x1], #16
    b       1b
2:
    /* With FEAT_RME, EL3 executes from Root memory alone: NSE of the code's block. */
    mrs     x0, id_aa64pfr0_el1
    ubfx    x0, x0, #52, #4
    cbz     x0, .Lgo
    ldr     x1, =el3_table_2 + {CODE_INDEX} * 8
    ldr     x2, [x1]
    orr     x2, x2, #(1 << 11)
    str     x2, [x1]

.Lgo:
    dsb     sy
    ic      iallu
    dsb     sy
    isb
    ldr     x0, =el3_start
    br      x0

    /* Copies x0 to x1, up to x2; multiples of 64 bytes. */
.Lcopy:
    cmp     x1, x2
    b.hs    2f
    ldp     x3, x4, [x0], #16
    stp     x3, x4, [x1], #16
    b       .Lcopy
2:  ret

    /*
     * SRAM keeps what it held through a warm reset, so no flag in it can be trusted yet. The
     * distributor's enable bit cannot lie: reset clears it, and the primary sets it last.
     */
.Lwait_for_primary:
    ldr     x0, ={GICD_BASE}
3:  ldr     w1, [x0]
    tbnz    w1, #0, .Lgo
    yield
    b       3b

    /* A PE beyond those that the firmware has room for stays here for good. */
.Lpark:
    wfi
    b       .Lpark
    .ltorg

    .text
el3_start:
    /* The stack's topmost frame is kept free: exceptions from below EL3 are saved there. */
    ldr     x0, =__stacks_end
    mov     x1, #{STACK_BYTES}
    mul     x1, x1, x19
    sub     x0, x0, x1
    sub     sp, x0, #{FRAME_BYTES}
    adr     x0, el3_vectors
    msr     vbar_el3, x0
    ldr     x0, ={MAIR}
    msr     mair_el3, x0
    ldr     x0, ={TCR}
    msr     tcr_el3, x0
    adr     x0, el3_table_1
    msr     ttbr0_el3, x0
    tlbi    alle3
    dsb     sy
    isb
    ldr     x0, ={SCTLR}
    msr     sctlr_el3, x0
    isb
    mov     x0, x19
    mov     x29, xzr
    mov     x30, xzr
    b       el3_main
    .ltorg

/*
 * EL3's map, flat: secure devices and flash below 1 GiB (never executed), SRAM's first 2 MiB
 * read-only and executable, the next 2 MiB writable, and normal-world RAM as the hypervisor
 * maps it (write-back, inner shareable), so that both see the same bytes.
 */
    .equ    BLOCK, 1
    .equ    TABLE, 3
    .equ    NORMAL, 1 << 2
    .equ    NON_SECURE, 1 << 5
    .equ    RES1_AP1, 1 << 6
    .equ    READ_ONLY, 1 << 7
    .equ    SHARED, 3 << 8
    .equ    ACCESS, 1 << 10
    .equ    NEVER_EXECUTE, 1 << 54
    .equ    DEVICE_BLOCK, BLOCK | RES1_AP1 | ACCESS | NEVER_EXECUTE
    .equ    CODE_BLOCK, BLOCK | NORMAL | RES1_AP1 | READ_ONLY | SHARED | ACCESS
    .equ    DATA_BLOCK, BLOCK | NORMAL | RES1_AP1 | SHARED | ACCESS | NEVER_EXECUTE
    .equ    RAM_BLOCK, DATA_BLOCK | NON_SECURE

    .section .tables, "a"
    .balign 4096
el3_table_1:
    .quad   el3_table_2 + TABLE
    .set    index, 1
    .rept   255
    .quad   (index << 30) | RAM_BLOCK
    .set    index, index + 1
    .endr
    .fill   256, 8, 0
el3_table_2:
    .set    index, 0
    .rept   512
    .if     index == {CODE_INDEX}
    .quad   (index << 21) | CODE_BLOCK
    .elseif index == {CODE_INDEX} + 1
    .quad   (index << 21) | DATA_BLOCK
    .else
    .quad   (index << 21) | DEVICE_BLOCK
    .endif
    .set    index, index + 1
    .endr

    .section .stacks, "aw", @nobits
    .balign 4096
    .skip   {STACK_BYTES} * {MAX_PES}
