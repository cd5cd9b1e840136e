/* dsdt.asl - what a guest is told of the machine beyond tables (ACPI 6.4, chapter 19), compiled at
 * build time.  Read by the C preprocessor, so that its numbers are platform.h's; in resources they are
 * plain ones: iasl (20200925) miscounts the bytes of those that it has to compute. */
#define SLOT(name, number, address) Device (name) { Name (_ADR, address) Name (_SUN, number) \
                                                    Method (_EJ0, 1) { PCEJ = One << number } }
#define NOTE(name, number) If (Arg0 & (One << number)) { Notify (name, Arg1) }

DefinitionBlock ("", "DSDT", 2, "WARREN", "WARRENVM", 1)
{
    Scope (\_SB)
    {
        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate () {
                IO (Decode16, PLATFORM_PORT_COM1, PLATFORM_PORT_COM1, 1, PLATFORM_PORT_COM1_SIZE)
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { PLATFORM_PIN_COM1 }
            })
        }
        /* The host bridge, and ECAM as somebody else's resource: Linux uses ECAM only if it is
         * reserved. */
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_SEG, 0)
            Name (_BBN, 0)
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate () {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                               0, 0, PLATFORM_ECAM_LAST_BUS, 0, PLATFORM_ECAM_BUSES)
                IO (Decode16, PLATFORM_PORT_PCI_ADDRESS, PLATFORM_PORT_PCI_ADDRESS, 1,
                    PLATFORM_PORT_PCI_SIZE)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                             0, PLATFORM_PCI32_START, PLATFORM_PCI32_LAST,
                             0, PLATFORM_PCI32_SIZE)
            })
            /* Slots that are filled and emptied while it runs (6.3): of disks, then of nics.  The
             * event device calls PLUG, which asks which. */
            OperationRegion (PCIR, SystemIO, PLATFORM_PORT_HOTPLUG, PLATFORM_PORT_HOTPLUG_SIZE)
            Field (PCIR, DWordAcc, NoLock, WriteAsZeros) { PCUP, 32, PCDN, 32, PCEJ, 32 }
            SLOT (S08, 8, 0x00080000) SLOT (S09, 9, 0x00090000) SLOT (S10, 10, 0x000a0000)
            SLOT (S11, 11, 0x000b0000) SLOT (S12, 12, 0x000c0000) SLOT (S13, 13, 0x000d0000)
            SLOT (S14, 14, 0x000e0000) SLOT (S15, 15, 0x000f0000) SLOT (S16, 16, 0x00100000)
            SLOT (S17, 17, 0x00110000) SLOT (S18, 18, 0x00120000) SLOT (S19, 19, 0x00130000)
            SLOT (S20, 20, 0x00140000) SLOT (S21, 21, 0x00150000) SLOT (S22, 22, 0x00160000)
            SLOT (S23, 23, 0x00170000)
            Method (TELL, 2, Serialized)
            {
                NOTE (S08, 8) NOTE (S09, 9) NOTE (S10, 10) NOTE (S11, 11) NOTE (S12, 12)
                NOTE (S13, 13) NOTE (S14, 14) NOTE (S15, 15) NOTE (S16, 16) NOTE (S17, 17)
                NOTE (S18, 18) NOTE (S19, 19) NOTE (S20, 20) NOTE (S21, 21) NOTE (S22, 22)
                NOTE (S23, 23)
            }
            Method (PLUG, 0, Serialized)
            {
                TELL (PCUP, 1) /* device check */
                TELL (PCDN, 3) /* eject request */
            }
        }
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate () {
                Memory32Fixed (ReadWrite, PLATFORM_ECAM_START, PLATFORM_ECAM_SIZE)
            })
        }
        Device (PWRB)
        {
            Name (_HID, EisaId ("PNP0C0C"))
            Name (_UID, 0)
        }
        /* Sixteen bytes that differ once this machine was copied: random numbers are drawn anew.
         * Linux and Windows know it by _CID. */
        Device (VGEN)
        {
            Name (_HID, "WARR0001")
            Name (_CID, "VM_Gen_Counter")
            Name (_DDN, "VM_Gen_Counter")
            Name (ADDR, Package () { PLATFORM_GENERATION_ID, 0 })
        }
        /* The generic event device (5.6.9): its interrupt runs _EVT, which reads what happened. */
        Device (GED)
        {
            Name (_HID, "ACPI0013")
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate () {
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { PLATFORM_PIN_GED }
            })
            OperationRegion (GEDR, SystemIO, PLATFORM_PORT_GED, 4)
            Field (GEDR, DWordAcc, NoLock, WriteAsZeros) { GEVT, 32 }
            Method (_EVT, 1, Serialized)
            {
                Local0 = GEVT
                If (Local0 & GED_EVENT_POWER_BUTTON) { Notify (\_SB.PWRB, 0x80) }
                If (Local0 & GED_EVENT_PCI_HOTPLUG) { \_SB.PCI0.PLUG () }
                If (Local0 & GED_EVENT_GENERATION_ID) { Notify (\_SB.VGEN, 0x80) }
            }
        }
        Device (PEVT)
        {
            Name (_HID, "QEMU0001")
            Name (_STA, 0xf)
            Name (_CRS, ResourceTemplate () {
                IO (Decode16, PLATFORM_PORT_PVPANIC, PLATFORM_PORT_PVPANIC, 1, 1)
            })
        }
    }
    Name (_S5, Package () { PLATFORM_SLEEP_TYPE_S5, 0, 0, 0 })
}
