// SPDX-License-Identifier: MIT OR Apache-2.0
//
// EL1 exception vectors: all sixteen save one frame (`exception::Frame`) and call
// `guest_exception(&mut Frame, vector)`. The time of entry is read with the second instruction,
// as soon as a register is free: it is what latencies are measured by.

    .equ    FRAME_GPR_BYTES, 288    // x0-x30, ELR, SPSR, ESR, FAR, time of entry
    .equ    FRAME_FP_BYTES, 528     // FPSR and FPCR, q0-q31

    .macro  vector index
    .balign 0x80
    stp     x0, x1, [sp, #-FRAME_GPR_BYTES]!
    mrs     x0, cntvct_el0
    mov     x1, #\index
    b       guest_vector_common
    .endm

    .section .vectors, "ax"
    .balign 0x800
    .global guest_vectors
guest_vectors:
    vector  0
    vector  1
    vector  2
    vector  3
    vector  4
    vector  5
    vector  6
    vector  7
    vector  8
    vector  9
    vector  10
    vector  11
    vector  12
    vector  13
    vector  14
    vector  15

    .balign 0x80
guest_vector_common:
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
    mrs     x2, elr_el1
    stp     x30, x2, [sp, #240]
    mrs     x2, spsr_el1
    mrs     x3, esr_el1
    stp     x2, x3, [sp, #256]
    mrs     x2, far_el1
    stp     x2, x0, [sp, #272]
    mov     x0, sp
    sub     sp, sp, #FRAME_FP_BYTES
    mrs     x2, fpsr
    mrs     x3, fpcr
    stp     x2, x3, [sp]
    stp     q0, q1, [sp, #16]
    stp     q2, q3, [sp, #48]
    stp     q4, q5, [sp, #80]
    stp     q6, q7, [sp, #112]
    stp     q8, q9, [sp, #144]
    stp     q10, q11, [sp, #176]
    stp     q12, q13, [sp, #208]
    stp     q14, q15, [sp, #240]
    stp     q16, q17, [sp, #272]
    stp     q18, q19, [sp, #304]
    stp     q20, q21, [sp, #336]
    stp     q22, q23, [sp, #368]
    stp     q24, q25, [sp, #400]
    stp     q26, q27, [sp, #432]
    stp     q28, q29, [sp, #464]
    stp     q30, q31, [sp, #496]
    bl      guest_exception
    ldp     q30, q31, [sp, #496]
    ldp     q28, q29, [sp, #464]
    ldp     q26, q27, [sp, #432]
    ldp     q24, q25, [sp, #400]
    ldp     q22, q23, [sp, #368]
    ldp     q20, q21, [sp, #336]
    ldp     q18, q19, [sp, #304]
    ldp     q16, q17, [sp, #272]
    ldp     q14, q15, [sp, #240]
    ldp     q12, q13, [sp, #208]
    ldp     q10, q11, [sp, #176]
    ldp     q8, q9, [sp, #144]
    ldp     q6, q7, [sp, #112]
    ldp     q4, q5, [sp, #80]
    ldp     q2, q3, [sp, #48]
    ldp     q0, q1, [sp, #16]
    ldp     x2, x3, [sp]
    msr     fpcr, x3
    msr     fpsr, x2
    add     sp, sp, #FRAME_FP_BYTES
    ldp     x30, x2, [sp, #240]
    ldr     x3, [sp, #256]
    msr     elr_el1, x2
    msr     spsr_el1, x3
    ldp     x28, x29, [sp, #224]
    ldp     x26, x27, [sp, #208]
    ldp     x24, x25, [sp, #192]
    ldp     x22, x23, [sp, #176]
    ldp     x20, x21, [sp, #160]
    ldp     x18, x19, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp], #FRAME_GPR_BYTES
    eret
