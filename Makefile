# Warren.  `make` builds, `make check` reads the code, `make test` runs every test, `make help` lists all.
#
#   make SANITIZE=address,undefined BUILD=build/asan test-unit

BUILD    ?= build
SANITIZE ?=
CC       ?= gcc
OPTIMIZE ?= -O2 -g
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
CFLAGS   += -std=gnu11 -iquote . -iquote $(BUILD) $(OPTIMIZE) $(WARNINGS) -fstack-protector-strong \
            -fno-strict-aliasing -D_GNU_SOURCE -MMD -MP -pthread
LDFLAGS  += -pthread -Wl,-z,relro,-z,now
ifneq ($(SANITIZE),)
CFLAGS   += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
LDFLAGS  += -fsanitize=$(SANITIZE)
else
CFLAGS   += -D_FORTIFY_SOURCE=2
endif

# One program = one main.c and the folders it is made of.
sources_of  = $(sort $(wildcard $(1)/*.c))
objects_of  = $(patsubst %.c,$(BUILD)/%.o,$(1))

BASE_SRC   := $(call sources_of,base)
VMM_MAIN   := vmm/main.c
VMM_SRC    := $(filter-out $(VMM_MAIN) $(wildcard vmm/build_*.c),$(call sources_of,vmm))
NET_SRC    := $(filter-out $(wildcard net/build_*.c),$(call sources_of,net))
API_MAIN   := api/server_main.c
API_SRC    := $(filter-out $(API_MAIN),$(sort $(wildcard api/server*.c)))
API_BOTH   := api/query.c api/wire.c api/wire_link.c
FETCH_MAIN := storage/fetch_main.c
FETCH_SRC  := $(filter-out $(FETCH_MAIN),$(sort $(wildcard storage/fetch*.c)))
AGENT_MAIN := agent/main.c
AGENT_SRC  := $(filter-out $(AGENT_MAIN) $(API_MAIN) $(API_SRC) $(FETCH_MAIN) $(FETCH_SRC), \
              $(NET_SRC) $(foreach d,agent api scheduler storage,$(call sources_of,$(d))))

LIBS_AGENT := -lsqlite3 -ljansson -lmnl -lnftables -lnettle
LIBS_API   := -lmicrohttpd -lgnutls -lseccomp
LIBS_FETCH := -lcurl -larchive -lssl -lcrypto -lseccomp
LIBS_BASE  := -ljansson

PROGRAMS := $(BUILD)/warrend $(BUILD)/warren-vmm $(BUILD)/warren-api $(BUILD)/warren-fetch
TESTS    := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/unit/test_*.c)))

.PHONY: all help programs tests test-tools check format test test-unit test-threads test-integration \
        test-host soak bench clean print-flags print-guest-flags
all: programs $(BUILD)/guest.elf ## the four programs and the test guest; what `make` does

help:
	@sed -n 's/^# *make/  make/p; s/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(filter Makefile %.mk,$(MAKEFILE_LIST)) | expand -t 28

-include tests/guest/guest.mk vmm/vmm.mk net/net.mk tests/fuzz/fuzz.mk tests/sim/sim.mk \
         deploy/package/package.mk

programs: $(PROGRAMS)

$(BUILD)/libbase.a: $(call objects_of,$(BASE_SRC))
$(BUILD)/libvmm.a: $(call objects_of,$(VMM_SRC))
$(BUILD)/libapi.a: $(call objects_of,$(API_SRC) $(API_BOTH))
$(BUILD)/libfetch.a: $(call objects_of,$(FETCH_SRC))
$(BUILD)/libagent.a: $(call objects_of,$(AGENT_SRC))
$(BUILD)/%.a:
	@rm -f $@
	@$(AR) rcs $@ $^

# The VMM is static, so that it can be executed inside an empty root, and built with musl, whose start
# costs 0.1 ms; glibc's asks CPUID some fifty times, which is 0.8 ms on hosts that are VMs themselves.
# Its objects are its own (build/static/), and never a sanitizer's, which needs the dynamic loader; tests
# link those of the other compiler.
VMM_CC      ?= musl-gcc
VMM_BASE    := base/delta_format.c base/error.c base/file_io.c base/log.c base/loop.c base/sandbox.c base/seqpacket.c base/sparse_file.c
VMM_OBJECTS := $(patsubst %.c,$(BUILD)/static/%.o,$(VMM_MAIN) $(VMM_SRC) $(VMM_BASE))
UNSANITIZED := -fsanitize=% -fno-sanitize-recover=%
$(BUILD)/static/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC   $< (static)'
	@$(VMM_CC) $(filter-out $(UNSANITIZED),$(CFLAGS)) -idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu -c -o $@ $<
$(BUILD)/static/vmm/filter.o: $(BUILD)/vmm/filters.inc
$(BUILD)/warren-vmm: $(VMM_OBJECTS)
	@echo '  LINK $@'
	@$(VMM_CC) -static -o $@ $^ $(filter-out $(UNSANITIZED),$(LDFLAGS))
$(BUILD)/warren-api: $(call objects_of,$(API_MAIN)) $(BUILD)/libapi.a $(BUILD)/libbase.a
	@echo '  LINK $@'
	@$(CC) -o $@ $^ $(LDFLAGS) $(LIBS_API) $(LIBS_BASE)
$(BUILD)/warren-fetch: $(call objects_of,$(FETCH_MAIN)) $(BUILD)/libfetch.a $(BUILD)/libbase.a
	@echo '  LINK $@'
	@$(CC) -o $@ $^ $(LDFLAGS) $(LIBS_FETCH) $(LIBS_BASE)
$(BUILD)/warrend: $(call objects_of,$(AGENT_MAIN)) $(BUILD)/libagent.a $(BUILD)/libbase.a
	@echo '  LINK $@'
	@$(CC) -o $@ $^ $(LDFLAGS) $(LIBS_AGENT) $(LIBS_BASE)

$(BUILD)/api/openapi.o: openapi.yaml
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC   $<'
	@$(CC) $(CFLAGS) -c -o $@ $<

tests: $(TESTS)
$(BUILD)/tests/test_jail $(BUILD)/tests/test_jail_cgroup $(BUILD)/tests/test_hostile_jail $(BUILD)/tests/test_node_orphans: | $(BUILD)/warren-vmm
$(BUILD)/tests/test_api_service $(BUILD)/tests/test_api_hang: | $(BUILD)/warren-api
$(BUILD)/tests/unit/test_dhcp_filter.o: $(BUILD)/net/dhcp_filter.inc
# Faults come in the place of what the devices call.  Private: a program that a test needs is linked without them.
FAULT_TESTS := $(foreach t,attach block control device snapshot vsock,$(BUILD)/tests/test_$(t)_faults) \
               $(BUILD)/tests/test_kvm_clock $(BUILD)/tests/test_kvm_state
$(FAULT_TESTS): private LDFLAGS += $(foreach f,read write writev ioctl getrandom madvise mmap mremap munmap fallocate epoll_ctl \
    recvmsg sendmsg accept4 getsockopt shutdown eventfd eventfd_read eventfd_write fcntl lseek preadv pwritev fdatasync malloc calloc realloc,-Wl,--wrap=$(f))
$(BUILD)/tests/test_block_faults: private LDFLAGS += -Wl,--wrap=syscall -Wl,--wrap=uring_take
$(BUILD)/tests/test_dhcp_strays: private LDFLAGS += -Wl,--wrap=poll
$(BUILD)/tests/test_api_service: private LDFLAGS += -Wl,--wrap=loop_after
$(BUILD)/tests/test_audit: private LDFLAGS += -Wl,--wrap=calloc -Wl,--wrap=fdatasync
$(BUILD)/tests/test_directory: private LDFLAGS += -Wl,--wrap=readdir
$(BUILD)/tests/test_node_memory: private LDFLAGS += $(foreach f,jail_set_memory_high jail_set_memory_low jail_reclaim_memory \
    jail_cgroups jail_cgroup_held_bytes,-Wl,--wrap=$(f))
$(BUILD)/tests/test_path: private LDFLAGS += -Wl,--wrap=syscall
$(BUILD)/tests/test_snapshot_disks: private LDFLAGS += -Wl,--wrap=fdatasync
$(BUILD)/tests/test_text: private LDFLAGS += -Wl,--wrap=malloc -Wl,--wrap=realloc
$(BUILD)/tests/test_virtio_block_full: private LDFLAGS += $(foreach f,pwritev fdatasync fallocate uring_take,-Wl,--wrap=$(f))
$(BUILD)/tests/test_worker: private LDFLAGS += -Wl,--wrap=malloc
$(BUILD)/tests/%: $(BUILD)/tests/unit/%.o $(BUILD)/libagent.a $(BUILD)/libapi.a $(BUILD)/libfetch.a \
                  $(BUILD)/libvmm.a $(BUILD)/libbase.a
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LDFLAGS) -lcmocka \
	    $(LIBS_AGENT) $(LIBS_API) $(LIBS_FETCH) $(LIBS_BASE)

# Tools that integration tests use.
BENCH_TOOLS := $(BUILD)/tests/disk_bench $(BUILD)/tests/balloon_bench $(BUILD)/tests/nic_bench
TEST_TOOLS := $(BUILD)/tools/image_import $(BUILD)/tests/run_vmm $(BUILD)/tests/net_tool $(BUILD)/tests/rogue_vmm $(BUILD)/tests/fail_malloc.so $(BUILD)/tests/shift_clock.so $(BUILD)/tests/no_sync.so \
              $(BUILD)/tests/vmm_control $(BUILD)/tests/filter_rules
test-tools: $(TEST_TOOLS) $(BENCH_TOOLS)
$(BUILD)/tools/image_import: $(BUILD)/tests/tools/image_import.o $(BUILD)/storage/image.o \
    $(BUILD)/storage/image_import.o $(BUILD)/storage/instance_name.o $(BUILD)/storage/trash.o $(BUILD)/libbase.a
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) -o $@ $^ $(LDFLAGS) $(LIBS_BASE)
$(BUILD)/tests/vmm_control: $(BUILD)/tests/tools/vmm_control.o $(BUILD)/libagent.a $(BUILD)/libbase.a
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) -o $@ $^ $(LDFLAGS) $(LIBS_AGENT) $(LIBS_BASE)
# What a sanitizer can be part of; nothing jails it.
$(BUILD)/tests/unjailed_vmm: $(call objects_of,$(VMM_MAIN)) $(BUILD)/libvmm.a $(BUILD)/libbase.a
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) -o $@ $^ $(LDFLAGS)
$(BUILD)/tests/filter_rules: $(BUILD)/tests/tools/filter_rules.o
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) -o $@ $^ $(LDFLAGS) -lseccomp
# Static, as what it stands in for.
$(BUILD)/tests/rogue_vmm: tests/tools/rogue_vmm.c vmm/control_protocol.h vmm/stats_page.h
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) $(filter-out -MMD -MP -fsanitize=%,$(CFLAGS)) -static -o $@ $<
$(BUILD)/tests/%.so: tests/tools/%.c
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) $(filter-out -MMD -MP -fsanitize=%,$(CFLAGS)) -fPIC -shared -o $@ $<
$(BUILD)/tests/disk_bench: $(BUILD)/tests/tools/disk_bench.o $(BUILD)/storage/delta_file.o $(BUILD)/storage/space.o $(BUILD)/libvmm.a $(BUILD)/libbase.a
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) -o $@ $^ $(LDFLAGS)
.SECONDARY:

check: ## layers, format, clang-tidy, cppcheck, lengths, banned calls
	BUILD=$(BUILD) tests/check
# The flags of the compiler, for tools that read the code.
print-flags:
	@echo '$(filter-out -MMD -MP,$(CFLAGS))'
print-guest-flags:
	@echo '$(filter-out -MMD -MP,$(guest_flags))'
format: ## clang-format everything
	clang-format -i $$(git ls-files '*.c' '*.h')
test: ## every test, as CI runs them
	tests/run
test-unit: tests ## cmocka tests
	tests/run-unit $(BUILD)
test-threads: all tests test-tools ## those with several threads, the VMM and the agent, under ThreadSanitizer
	tests/run-threads $(BUILD)
test-integration: all tests test-tools ## the agent with the test guest on /dev/kvm
	tests/run-integration $(BUILD)
test-host: all ## real kernels inside the test host
	tests/run-host $(BUILD)
soak: all tests test-tools ## SOAK_MINUTES=N the long suites whole: kernels, fuzzing, kills, power cuts
	tests/soak
bench: all $(BENCH_TOOLS) ## name value unit goal ok|short
	tests/bench/run
clean: ## removes what was built
	rm -rf $(BUILD)

-include $(foreach d,base vmm static/base static/vmm agent api storage net scheduler tests/unit tests/tools tests/sim,$(wildcard $(BUILD)/$(d)/*.d))

$(BUILD)/storage/database_schema.o: storage/schema.sql storage/schema_events.sql
