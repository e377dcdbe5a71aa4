// SPDX-License-Identifier: MIT OR Apache-2.0
// memcpy, memmove and memset, by the C library's contract, for EL2.
//
// The compiler's own take four instructions for eight bytes and ten times the room. Before the
// MMU is on all memory is Device memory, where an access must be aligned to its size: so these
// move as much at once as both sides are aligned to.

    .section .text.memory, "ax"

    .global memmove
    .type memmove, %function
memmove:
    sub     x3, x0, x1
    cmp     x3, x2
    b.hs    memcpy                  // the target does not start inside the source
    orr     x3, x0, x1              // from the end, eight bytes at a time where all is aligned
    orr     x3, x3, x2
    tst     x3, #7
    b.ne    0f
2:  cbz     x2, 1f
    sub     x2, x2, #8
    ldr     x4, [x1, x2]
    str     x4, [x0, x2]
    b       2b
0:  cbz     x2, 1f                  // else a byte at a time: for short moves only
    sub     x2, x2, #1
    ldrb    w4, [x1, x2]
    strb    w4, [x0, x2]
    b       0b
1:  ret
    .size memmove, . - memmove

    .global memcpy
    .type memcpy, %function
memcpy:
    mov     x3, x0
    orr     x4, x0, x1
    tst     x4, #7
    b.ne    11f
1:  subs    x2, x2, #64             // eight words at a time
    b.lo    2f
7:  ldp     x4, x5, [x1], #16
    ldp     x6, x7, [x1], #16
    ldp     x8, x9, [x1], #16
    ldp     x10, x11, [x1], #16
    stp     x4, x5, [x3], #16
    stp     x6, x7, [x3], #16
    stp     x8, x9, [x3], #16
    stp     x10, x11, [x3], #16
    subs    x2, x2, #64
    b.hs    7b
2:  tbz     x2, #5, 12f             // x2 is 64 less than what is left: the low bits are the same
    ldp     x4, x5, [x1], #16
    ldp     x6, x7, [x1], #16
    stp     x4, x5, [x3], #16
    stp     x6, x7, [x3], #16
12: tbz     x2, #4, 13f
    ldp     x4, x5, [x1], #16
    stp     x4, x5, [x3], #16
13: tbz     x2, #3, 3f
    ldr     x4, [x1], #8
    str     x4, [x3], #8
3:  ands    x2, x2, #7
    b.ne    8f
    ret
11: eor     x4, x0, x1
    tst     x4, #7
    b.ne    4f
0:  tst     x3, #7                  // up to the first whole word
    b.eq    1b
    subs    x2, x2, #1
    b.lo    9f
    ldrb    w4, [x1], #1
    strb    w4, [x3], #1
    b       0b
4:  tst     x4, #3                  // aligned together to half a word, or never
    b.ne    8f
5:  tst     x3, #3
    b.eq    6f
    subs    x2, x2, #1
    b.lo    9f
    ldrb    w4, [x1], #1
    strb    w4, [x3], #1
    b       5b
6:  subs    x2, x2, #4
    b.lo    10f
    ldr     w4, [x1], #4
    str     w4, [x3], #4
    b       6b
10: add     x2, x2, #4
8:  subs    x2, x2, #1
    b.lo    9f
    ldrb    w4, [x1], #1
    strb    w4, [x3], #1
    b       8b
9:  ret
    .size memcpy, . - memcpy

    .global memset
    .type memset, %function
memset:
    mov     x3, x0
    and     x1, x1, #0xff
    mov     x4, #0x0101010101010101
    mul     x1, x1, x4
0:  tst     x3, #7
    b.eq    1f
    cbz     x2, 4f
    strb    w1, [x3], #1
    sub     x2, x2, #1
    b       0b
1:  subs    x2, x2, #64
    b.lo    2f
5:  stp     x1, x1, [x3], #16
    stp     x1, x1, [x3], #16
    stp     x1, x1, [x3], #16
    stp     x1, x1, [x3], #16
    subs    x2, x2, #64
    b.hs    5b
2:  tbz     x2, #5, 6f              // x2 is 64 less than what is left: the low bits are the same
    stp     x1, x1, [x3], #16
    stp     x1, x1, [x3], #16
6:  tbz     x2, #4, 7f
    stp     x1, x1, [x3], #16
7:  tbz     x2, #3, 8f
    str     x1, [x3], #8
8:  and     x2, x2, #7
3:  cbz     x2, 4f
    strb    w1, [x3], #1
    sub     x2, x2, #1
    b       3b
4:  ret
    .size memset, . - memset
