/* start.S - PVH entry of the test guest (Xen note 18: 32-bit protected mode, no paging, EBX = start
 * info).
 *
 * Ring 0 may be an instruction emulator and each fresh page costs a fault, so everything that can
 * be is built by the assembler: GDT, IDT, TSS and page tables stand ready in the image, and 18
 * instructions lead to ring 3.  Code, descriptors and the ring 0 stack share one page; only it and
 * three table pages are touched before the first serial byte. */
#include "tests/guest/layout.h"

#define CR0_PE_ET_NE_PG 0x80000031
#define CR4_PAE         0x20
#define MSR_EFER        0xc0000080
#define EFER_LME        0x100
#define RFLAGS_IOPL3    0x3002
#define PAGE_TABLE      0x27 /* present, writable, user, accessed */
#define PAGE_LARGE      0xe7 /* and dirty, 2 MiB */
#define IO_PORTS        0xd00 /* 0xcff is PCI's configuration data */
#define FAULT_STUB_SIZE 16

#define ADDRESS_LOW(symbol) ((((symbol) - guest_boot) + GUEST_BASE) & 0xffff)

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18          /* name size, value size, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .quad guest_start

/* ---- the boot page ---- */
    .section .boot, "awx", @progbits
    .balign 4096
guest_boot:

.macro gate target, type
    .word ADDRESS_LOW(\target), SELECTOR_CODE0
    .byte 0, \type
    .word GUEST_BASE >> 16
    .quad 0
.endm

    .balign 16
idt:
    .set stub, 0
    .rept 32                /* exceptions */
    .if stub == 6
    gate undefined_opcode, 0x8e
    .else
    gate fault_stubs+stub*FAULT_STUB_SIZE, 0x8e
    .endif
    .set stub, stub + 1
    .endr
    .set vector, 32
    .rept VECTOR_COUNT - 32
    .if vector == VECTOR_POWER
    gate interrupt_power, 0x8e
    .else
    gate interrupt_return, 0x8e
    .endif
    .set vector, vector + 1
    .endr
idt_end:

gdt:
    .quad 0
    /* The accessed bits are set so that the CPU writes none. */
    .quad 0x00af9b000000ffff /* 08: code, ring 0 */
    .quad 0x00cf93000000ffff /* 10: data, ring 0 */
    .quad 0x00affb000000ffff /* 18: code, ring 3 */
    .quad 0x00cff3000000ffff /* 20: data, ring 3 */
    .word tss_end - tss - 1, ADDRESS_LOW(tss) /* 28: TSS */
    .byte (GUEST_BASE >> 16) & 0xff, 0x89, 0, GUEST_BASE >> 24
    .quad 0
gdt_end:

    .balign 4
    .word 0
gdt_register:
    .word gdt_end - gdt - 1
    .long gdt
    .word 0, 0
    .global idt_register
idt_register:
    .word idt_end - idt - 1
    .quad idt

    .balign 8
    .long 0
tss:
    .long 0
    .quad ring0_stack_top
    .fill 90, 1, 0
    .word io_bitmap - tss
/* Zero: ring 3 may use the port.  A software KVM's IRET drops IOPL, so this is needed too. */
io_bitmap:
    .fill IO_PORTS / 8, 1, 0
    .byte 0xff
tss_end:

    .balign 8
start_frame:                /* what IRETQ takes: RIP, CS, RFLAGS, RSP, SS */
    .quad ring3_start, SELECTOR_CODE3, RFLAGS_IOPL3, ring3_stack_top, SELECTOR_DATA3
fault_frame:
    .quad fault_report, SELECTOR_CODE3, RFLAGS_IOPL3, ring3_stack_top, SELECTOR_DATA3

    .balign 16
    .code32
    .global guest_start
guest_start:
    mov $pml4, %eax
    mov %eax, %cr3
    mov $CR4_PAE, %eax
    mov %eax, %cr4
    mov $MSR_EFER, %ecx
    mov $EFER_LME, %eax
    xor %edx, %edx
    wrmsr
    lgdt gdt_register
    lidt idt_register
    mov $CR0_PE_ET_NE_PG, %eax
    mov %eax, %cr0
    ljmp $SELECTOR_CODE0, $1f
    .code64
1:  mov $SELECTOR_TSS, %eax
    ltr %ax
    mov $start_frame, %esp
    iretq

/* The transmitter is empty after reset, so the first byte needs no poll of the line status. */
ring3_start:
    mov $COM1_PORT, %edx
    mov $'r', %al
    out %al, %dx
    mov %ebx, %edi
    xor %ebp, %ebp
    call guest_main
2:  jmp 2b                  /* it does not return */

/* The way from ring 3 to a routine of ring 0 (RDI), which ends in IRETQ: the undefined instruction,
 * since a software KVM may deliver exceptions to ring 0 but no INT n. */
    .global ring0_call
ring0_call:
    ud2
ring0_call_return:
    ret

undefined_opcode:
    cmpl $ring0_call, (%rsp)
    jne fault_stubs + 6 * FAULT_STUB_SIZE
    movl $ring0_call_return, (%rsp)
    jmp *%rdi

/* STI's shadow covers HLT: an interrupt pending since ring 3 last looked wakes it at once. */
    .global ring0_wait
ring0_wait:
    sti
ring0_halt:
    hlt
    iretq

/* The waiter in ring 3 sends the EOI: a store there is cheaper than one here. */
interrupt_power:
    incl power_interrupts
/* What came before HLT wakes it, too: VMRUN of QEMU's emulated SVM forgets STI's shadow. */
interrupt_return:
    cmpl $ring0_halt, (%rsp)
    jne 1f
    incl (%rsp)
1:  iretq

    .balign FAULT_STUB_SIZE
fault_stubs:
    .set stub, 0
    .rept 32
    .if !((1 << stub) & 0x60227d00) /* these push an error code themselves */
    push $0
    .endif
    push $stub
    jmp fault_common
    .balign FAULT_STUB_SIZE
    .set stub, stub + 1
    .endr
/* fault_report(vector, error, rip, cr2, cs) at ring 3, which does not return */
fault_common:
    pop %rdi
    pop %rsi
    pop %rdx
    pop %r8
    mov %cr2, %rcx
    mov $fault_frame, %esp
    iretq

/* No IDT, then a fault that cannot be delivered. */
    .global ring0_triple_fault
ring0_triple_fault:
    push $0
    push $0
    lidt (%rsp)
    ud2

/* Application processors: copied below 1 MiB by machine.c, runs at CS = page >> 4, IP = 0. */
    .code16
    .global ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    lgdtl %cs:(ap_gdt_register - ap_trampoline)
    mov $pml4, %eax
    mov %eax, %cr3
    mov $CR4_PAE, %eax
    mov %eax, %cr4
    mov $MSR_EFER, %ecx
    mov $EFER_LME, %eax
    xor %edx, %edx
    wrmsr
    mov $CR0_PE_ET_NE_PG, %eax
    mov %eax, %cr0
    ljmpl $SELECTOR_CODE0, $ap_started
    .balign 4
ap_gdt_register:
    .word gdt_end - gdt - 1
    .long gdt
ap_trampoline_end:
    .code64
ap_started:
    lock incl ap_count
    cmpl $0, ap_spin
    jne ap_go_spin
1:  cli
    hlt
    jmp 1b
ap_go_spin:                 /* no stack needed: it takes no interrupt and makes no call */
    mov $ap_frame, %esp
    iretq
ap_ring3_spin:
    pause
    jmp ap_ring3_spin
    .balign 8
ap_frame:
    .quad ap_ring3_spin, SELECTOR_CODE3, RFLAGS_IOPL3, ring3_stack_top, SELECTOR_DATA3

    .org guest_boot + 4096  /* the ring 0 stack is what is left of the page */
ring0_stack_top:

/* ---- page tables: the first GiB, identity, 2 MiB pages; memory.c adds the rest ---- */
    .section .tables, "aw", @progbits
    .balign 4096
    .global pml4
pml4:
    .quad pdpt + PAGE_TABLE
    .fill 511, 8, 0
pdpt:
    .quad page_directory + PAGE_TABLE
    .fill 511, 8, 0
page_directory:
    .set page, 0
    .rept 512
    .quad (page << 21) + PAGE_LARGE
    .set page, page + 1
    .endr

    .bss
    .balign 4096
    .fill GUEST_STACK_BYTES, 1, 0
ring3_stack_top:
    .section .note.GNU-stack, "", @progbits
