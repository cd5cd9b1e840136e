# guest.mk - builds $(BUILD)/guest.elf, the freestanding test guest.  Included by the top Makefile;
# everything here is prefixed guest_, and only CC and BUILD are taken from outside.
guest_dir     := tests/guest
guest_build   := $(BUILD)/tests/guest
guest_sources := $(wildcard $(guest_dir)/*.c $(guest_dir)/*.S)
guest_objects := $(patsubst $(guest_dir)/%,$(guest_build)/%.o,$(guest_sources))
# No SSE, no x87, no stack protector, no position independence: ring 0 here may be an emulator.
guest_flags   := -std=gnu11 -O2 -g0 -Wall -Wextra -Werror -ffreestanding -fno-pic -fno-pie -m64 \
                 -mgeneral-regs-only -mno-red-zone -fno-stack-protector -fcf-protection=none \
                 -fno-asynchronous-unwind-tables -fno-common -fno-strict-aliasing \
                 -ffunction-sections -fdata-sections -iquote . -MMD -MP

$(BUILD)/guest.elf: $(guest_objects) $(guest_dir)/guest.ld
	$(CC) -static -nostdlib -no-pie -Wl,-T,$(guest_dir)/guest.ld -Wl,--build-id=none \
	    -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments \
	    -Wl,--gc-sections -Wl,-s -o $@ $(guest_objects)

$(guest_build)/%.c.o: $(guest_dir)/%.c $(guest_dir)/guest.mk
	@mkdir -p $(@D)
	$(CC) $(guest_flags) -c -o $@ $<

$(guest_build)/%.S.o: $(guest_dir)/%.S $(guest_dir)/guest.mk
	@mkdir -p $(@D)
	$(CC) $(guest_flags) -c -o $@ $<

-include $(guest_objects:.o=.d)
