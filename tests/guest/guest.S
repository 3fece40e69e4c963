/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that notices when a migration harms it.
 *
 * It fills one 512-byte boot sector. It goes to 32-bit protected mode and then sweeps a region of RAM without
 * end: every word is checked against what the sweep before wrote, and gets a new value. So each page of the
 * region is dirtied in each sweep, and a page that a migration lost, swapped, tore or delivered in an older
 * version is found within one sweep.
 *
 *      value(address, sweep) = address + (sweep + 1) * STEP        (mod 2^32)
 *
 * No two pages hold the same value in one sweep, no page the same in two, and a page of zeros is wrong.
 *
 * What it says on COM1:
 *      >                           once: protected mode is reached, the first sweep (which only writes) begins
 *      A B … Z A …                 a sweep found every word right
 *      !address:found:expected\n   the first wrong word of a sweep, in lower-case hex; that sweep gets no letter.
 *                                  The word is written anew, so that one harm is told once.
 * Letters go round, so what the source printed and then the destination is one unbroken row.
 *
 * Dirty pages. QEMU 7.2 under TCG can miss that the guest goes on writing to a page: while it collects the dirty
 * bitmap, the page that is being written keeps its TLB entry without the mark that makes the next write count. 4 of
 * 200 pre-copies of 32 MiB from one QEMU straight to another, on two loaded cores, arrived with a word that was one
 * sweep old. So the guest drops the TLB entry of each page that it is done with and writes the last word once more:
 * that write counts, and the page is sent again.
 *
 * Interrupts stay off, and all state is in RAM and registers. Memory:
 *      0x07c00             this sector; the stack grows down from here
 *      0x200000            the region, as many MiB as the field at offset 504 says. The VM must have 2 MiB more,
 *                          and some room for what the firmware keeps at the top of RAM.
 * Image:
 *      500  "vmfg"         proves to a harness that the next field is what it wants to patch
 *      504  u32, LE        the region's size in MiB, 1 to 2045
 *      510  0x55 0xaa
 *
 * Registers of the sweep:
 *      edi  address        ebp  end of the region      edx  (sweep + 1) * STEP, for the values to be found
 *      eax  value          bl   the next letter        bh   1 once this sweep has found a wrong word
 *
 * Build: as --32 guest.S -o guest.o && ld -m elf_i386 -Ttext 0x7c00 -e start --oformat binary guest.o -o guest.bin
 */
        .set    STEP, 0x9e3779b1                /* odd, and far from any small multiple of a page */
        .set    REGION, 0x200000
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
        ljmp    0, offset 1f                    /* some firmware comes as 07c0:0000 */
1:      xor     ax, ax
        mov     ds, ax
        in      al, 0x92                        /* A20 by the "fast" gate, which QEMU's pc has */
        or      al, 2
        and     al, 0xfe                        /* bit 0 would reset the machine */
        out     0x92, al
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        ljmp    0x08, offset protected

        .code32
protected:
        mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     esp, 0x7c00
        mov     ebp, [region_mib]
        shl     ebp, 20
        add     ebp, REGION
        mov     al, '>'
        call    put_char

        mov     edx, STEP
        mov     edi, REGION
fill:   lea     eax, [edi + edx]
        mov     [edi], eax
        add     edi, 4
        cmp     edi, ebp
        jb      fill

        mov     bl, 'A'
sweep:  mov     edi, REGION
        mov     bh, 0
check:  lea     eax, [edi + edx]
        cmp     [edi], eax
        jne     wrong
next:   add     eax, STEP
        mov     [edi], eax
        add     edi, 4
        test    edi, 4095
        jnz     check
        invlpg  [edi - 4]                       /* see "Dirty pages" */
        mov     [edi - 4], eax
        cmp     edi, ebp
        jb      check

        add     edx, STEP
        test    bh, bh
        jnz     sweep
        mov     al, bl
        call    put_char
        inc     bl
        cmp     bl, 'Z'
        jbe     sweep
        mov     bl, 'A'
        jmp     sweep

/* A word is not what it was: tell of it, unless this sweep has told already. Keeps eax, the value expected. */
wrong:  test    bh, bh
        jnz     next
        mov     bh, 1
        mov     esi, [edi]
        push    eax
        mov     al, '!'
        call    put_char
        mov     eax, edi
        call    put_hex
        mov     al, ':'
        call    put_char
        mov     eax, esi
        call    put_hex
        mov     al, ':'
        call    put_char
        mov     eax, [esp]
        call    put_hex
        mov     al, '\n'
        call    put_char
        pop     eax
        jmp     next

/* Prints eax as 8 digits. Digits are lower-case, since an upper-case letter means a good sweep. */
put_hex:
        push    edx
        mov     ecx, 8
        mov     edx, eax
1:      rol     edx, 4
        mov     eax, edx
        and     eax, 15
        mov     al, [hex_digits + eax]
        call    put_char
        loop    1b
        pop     edx
        ret

/* Prints al. Keeps all registers. */
put_char:
        push    edx
        push    eax
        mov     dx, COM1_LSR
1:      in      al, dx
        test    al, LSR_THR_EMPTY
        jz      1b
        pop     eax
        mov     dx, COM1
        out     dx, al
        pop     edx
        ret

hex_digits:
        .ascii  "0123456789abcdef"

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9a000000ffff              /* 0x08: code, flat 4 GiB */
        .quad   0x00cf92000000ffff              /* 0x10: data, flat 4 GiB */
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt

        .org    500
        .ascii  "vmfg"
region_mib:
        .long   128
        .org    510
        .byte   0x55, 0xaa
