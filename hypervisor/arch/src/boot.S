// SPDX-License-Identifier: MIT OR Apache-2.0
//
// First instructions of the hypervisor.
//
// The image starts with the header of the arm64 Linux boot protocol, so that QEMU's -kernel,
// U-Boot's booti and TF-A's BL33 all know how to start it: MMU and data cache off, x0 = physical
// address of the devicetree, the image cleaned to the point of coherency.

    .section .text.boot.header0, "ax"
    .global _start
_start:
    b       start                   // code0
    .word   0                       // code1
    .quad   0                       // text_offset: none, any 2 MiB boundary will do
    // linker/hypervisor.ld puts image_size here; `firebreak build` adds the payloads'.
    .section .text.boot.header1, "ax"
    .quad   0xa                     // flags: little endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .word   0
    // ImageInfo (firebreak_abi::image): filled in by `firebreak build`.
    .ascii  "FBIMAGE1"
    // The rest of ImageInfo: linker/hypervisor.ld, then `firebreak build`.
    .section .text.boot.start, "ax"
    .zero   24
start:
    msr     daifset, #0xf
    mov     x19, x0                 // devicetree

    // E2H = 0 and TGE = 0 before any other EL2 register is given a meaning; only if this is EL2.
    mrs     x1, CurrentEL
    cmp     x1, #8
    b.ne    0f
    mov     x1, #(1 << 31)          // HCR_EL2.RW
    msr     hcr_el2, x1
    isb
0:
    // Apply the relocations: the image was linked at 0 and runs where it stands. Only
    // R_AARCH64_RELATIVE (1027) occurs in a static position-independent executable.
    adrp    x20, _start
    add     x20, x20, :lo12:_start
    adrp    x1, __rela_start
    add     x1, x1, :lo12:__rela_start
    adrp    x2, __rela_end
    add     x2, x2, :lo12:__rela_end
1:  cmp     x1, x2
    b.hs    2f
    ldp     x3, x4, [x1], #16       // r_offset, r_info
    ldr     x5, [x1], #8            // r_addend
    cmp     w4, #1027
    b.ne    1b
    add     x5, x5, x20
    str     x5, [x3, x20]
    b       1b
2:
    // BSS is part of the file and zero there, so it needs no clearing.
    adrp    x1, __boot_stack_top
    add     x1, x1, :lo12:__boot_stack_top
    mov     sp, x1
    mov     x0, x19
    mov     x1, x20
    mrs     x2, CurrentEL
    bl      firebreak_boot          // extern "C" fn(dtb_pa, image_pa, current_el) -> &PeBlock

    // The primary PE goes on like any other: x0 = its PeBlock, the MMU is on.
    b       enter_run_loop

// Below the boot stack: what an overflow writes over first.
    .section .boot_guard, "aw"
    .balign 16
    .fill   {BOOT_GUARD_BYTES}, 1, {BOOT_GUARD_BYTE}
    .section .text.boot.start, "ax"

// A PE that PSCI CPU_ON started: x0 = physical address of its PeBlock, MMU off. The addresses
// below are the same with the MMU on: EL2 maps itself where it stands.
    .global firebreak_secondary_start
firebreak_secondary_start:
    msr     daifset, #0xf
    mov     x19, x0
    mov     x1, #(1 << 31)          // HCR_EL2.RW: E2H = 0, TGE = 0
    msr     hcr_el2, x1
    isb
    adrp    x1, firebreak_mmu_registers
    add     x1, x1, :lo12:firebreak_mmu_registers
    ldp     x2, x3, [x1]            // MAIR_EL2, TCR_EL2
    ldp     x4, x5, [x1, #16]       // TTBR0_EL2, SCTLR_EL2
    msr     mair_el2, x2
    msr     tcr_el2, x3
    msr     ttbr0_el2, x4
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x5
    isb
    ldr     x1, [x19, #{EL2_SP}]
    msr     spsel, #1
    mov     sp, x19
    msr     spsel, #0
    mov     sp, x1
    mov     x0, x19
    bl      firebreak_secondary     // extern "C" fn(&PeBlock)
    mov     x0, x19

// Becomes the run loop of a PE: x0 = PeBlock. SP_EL2 points at it from now on and for ever.
enter_run_loop:
    adrp    x1, firebreak_vectors
    add     x1, x1, :lo12:firebreak_vectors
    msr     vbar_el2, x1
    msr     tpidr_el2, xzr          // failures of this PE, see el2_fault
    ldr     x1, [x0, #{EL2_SP}]
    msr     spsel, #1
    mov     sp, x0
    msr     spsel, #0
    mov     sp, x1
    isb
    bl      firebreak_ready         // extern "C" fn(&PeBlock): vectors and stacks stand
    b       guest_entry
