# fuzz.mk - `make fuzz SECONDS=N`: each target of tests/fuzz by libFuzzer (clang), N seconds, one after the
# other; and the library of the same targets, by the project's compiler, which test_fuzz_corpus replays.
# Included by the top Makefile.
FUZZ_SRC     := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_NAMES   := $(patsubst tests/fuzz/fuzz_%.c,%,$(FUZZ_SRC))
FUZZ_BUILD   := $(BUILD)/fuzz
FUZZ_CC      ?= clang-14
FUZZ_MAKE    := BUILD=$(FUZZ_BUILD) CC=$(FUZZ_CC) \
                WARNINGS='-Wall -Wno-gnu-variable-sized-type-not-at-end'
FUZZ_PARTS   := $(FUZZ_BUILD)/libagent.a $(FUZZ_BUILD)/libapi.a $(FUZZ_BUILD)/libfetch.a \
                $(FUZZ_BUILD)/libvmm.a $(FUZZ_BUILD)/libbase.a
SECONDS      ?= 30

.PHONY: fuzz fuzz-programs
fuzz: ## SECONDS=N each target of tests/fuzz for so long (needs clang)
	@$(MAKE) fuzz-programs
	@tests/fuzz/run $(FUZZ_BUILD) $(SECONDS) $(TARGETS)

# The parts are built as always, but by clang and with its coverage.
fuzz-programs:
	@$(MAKE) $(FUZZ_MAKE) SANITIZE=address,undefined,fuzzer-no-link $(FUZZ_PARTS)
	@$(MAKE) $(FUZZ_MAKE) SANITIZE=fuzzer,address,undefined \
	    $(FUZZ_NAMES:%=$(FUZZ_BUILD)/fuzz_%)

$(BUILD)/libfuzz.a: $(call objects_of,$(FUZZ_SRC))
$(BUILD)/tests/test_fuzz_corpus: $(BUILD)/libfuzz.a

$(BUILD)/fuzz_%: tests/fuzz/fuzz_%.c $(wildcard tests/fuzz/*.h) tests/unit/virtio_harness.h \
    $(BUILD)/libagent.a $(BUILD)/libapi.a $(BUILD)/libfetch.a $(BUILD)/libvmm.a $(BUILD)/libbase.a
	@echo '  FUZZ $@'
	@$(CC) $(CFLAGS) -DFUZZ_ALONE -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
	    $(LDFLAGS) -lcmocka $(LIBS_AGENT) $(LIBS_API) $(LIBS_FETCH) $(LIBS_BASE)

-include $(wildcard $(BUILD)/tests/fuzz/*.d)
