// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The header of an arm64 `Image` (Linux, Documentation/arm64/booting.rst) and the way to Rust.
// Entered at EL1h with the MMU off, DAIF masked and x0 = devicetree.

    .section .head, "ax"
    .global guest_header
guest_header:
    mrs     x19, cntvct_el0         // code0: when the guest's first instruction ran
    b       guest_entry             // code1
    .quad   0                       // text_offset: right at a 2 MiB boundary
    .quad   __image_bytes           // image_size, .bss and stack included
    .quad   0b1010                  // flags: little endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0                 // reserved
    .ascii  "ARM\x64"               // magic
    .word   0                       // no PE header

    .section .text.guest_entry, "ax"
guest_entry:
    msr     daifset, #0xf
    mov     x20, x0
    adrp    x1, guest_vectors
    add     x1, x1, :lo12:guest_vectors
    msr     vbar_el1, x1
    mov     x1, #(3 << 20)          // CPACR_EL1.FPEN: the compiler uses FP and SIMD registers
    msr     cpacr_el1, x1
    isb
    msr     spsel, #1
    adrp    x1, __boot_stack_top
    add     x1, x1, :lo12:__boot_stack_top
    mov     sp, x1
    adrp    x1, __bss_start
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __bss_end
    add     x2, x2, :lo12:__bss_end
1:  cmp     x1, x2
    b.hs    2f
    stp     xzr, xzr, [x1], #16     // both ends are multiples of 16
    b       1b
2:  mov     x0, x20
    mov     x1, x19
    mov     x29, xzr
    mov     x30, xzr
    bl      guest_rt_start
    b       .

// A vCPU that PSCI CPU_ON started: x0 = top of its stack; the word there is its function.
    .global guest_secondary_entry
guest_secondary_entry:
    msr     daifset, #0xf
    adrp    x1, guest_vectors
    add     x1, x1, :lo12:guest_vectors
    msr     vbar_el1, x1
    mov     x1, #(3 << 20)
    msr     cpacr_el1, x1
    isb
    msr     spsel, #1
    mov     sp, x0
    ldr     x1, [x0]
    mov     x29, xzr
    mov     x30, xzr
    blr     x1
    b       .
