/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that writes to two disks without end, and notices when a write was lost.
 *
 * It fills one 512-byte boot sector and stays in real mode, where the firmware writes (int 13h, drives 80h and 81h).
 * In each lap it goes to COUNT places, STRIDE sectors apart, on both disks: it reads 4 KiB, which must be what it wrote
 * there in the lap before, and writes
 *
 *      lap << 16 | number of the place         (each 32-bit word of it)
 *
 * What it says on COM1 is as that of guest.S: '>' once, a letter for each good lap, '!' for a wrong or failed one.
 *
 * Build: as guest.S.
 */
        .set    STRIDE, 4051                    /* sectors */
        .set    COUNT, 64
        .set    BUFFER, 0x8000
        .set    SECTORS, 8
        .set    COM1, 0x3f8
        .set    COM1_LSR, COM1 + 5
        .set    LSR_THR_EMPTY, 0x20

        .intel_syntax noprefix
        .text
        .code16
        .globl  start
start:
        cli
        cld
        ljmp    0, offset 1f
1:      xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        sti
        mov     al, '>'
        call    put_char

lap:    mov     word ptr [place], 0
        mov     byte ptr [wrong], 0
step:   mov     byte ptr [drive], 0x80
disk:   movzx   eax, word ptr [place]
        imul    eax, eax, STRIDE
        mov     [lba], eax
        cmp     word ptr [number], 0
        je      fill                            /* the first lap only writes */
        mov     ah, 0x42
        call    transfer
        mov     ax, [number]
        dec     ax
        shl     eax, 16
        mov     ax, [place]
        cmp     [BUFFER], eax
        jne     bad
        cmp     [BUFFER + SECTORS * 512 - 4], eax
        je      fill
bad:    mov     byte ptr [wrong], 1
fill:   mov     ax, [number]
        shl     eax, 16
        mov     ax, [place]
        mov     di, BUFFER
        mov     cx, SECTORS * 128
        rep stosd
        mov     ah, 0x43
        call    transfer
        inc     byte ptr [drive]
        cmp     byte ptr [drive], 0x82
        jb      disk
        inc     word ptr [place]
        cmp     word ptr [place], COUNT
        jb      step

        inc     word ptr [number]
        mov     al, '!'
        cmp     byte ptr [wrong], 0
        jne     2f
        mov     al, [letter]
2:      call    put_char
        inc     byte ptr [letter]
        cmp     byte ptr [letter], 'Z'
        jbe     lap
        mov     byte ptr [letter], 'A'
        jmp     lap

/* ah: 42h reads, 43h writes */
transfer:
        xor     al, al
        mov     dl, [drive]
        mov     si, offset packet
        int     0x13
        jnc     3f
        mov     byte ptr [wrong], 1
3:      ret

put_char:
        push    ax
        mov     dx, COM1_LSR
4:      in      al, dx
        test    al, LSR_THR_EMPTY
        jz      4b
        pop     ax
        mov     dx, COM1
        out     dx, al
        ret

number: .word   0                               /* of the lap */
place:  .word   0
drive:  .byte   0
wrong:  .byte   0
letter: .byte   'A'
        .balign 4
packet: .byte   16, 0
        .word   SECTORS, BUFFER, 0
lba:    .long   0, 0

        .org    510
        .byte   0x55, 0xaa
