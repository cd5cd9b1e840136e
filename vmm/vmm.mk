# vmm.mk - the VMM's seccomp programs, compiled while building.  Included by the top Makefile.
$(BUILD)/vmm/build_filters: vmm/build_filters.c base/filter_print.h vmm/filter_rules.h vmm/control_protocol.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -iquote . $(OPTIMIZE) $(WARNINGS) -D_GNU_SOURCE -o $@ $< -lseccomp

$(BUILD)/vmm/filters.inc: $(BUILD)/vmm/build_filters
	$< >$@.new
	mv $@.new $@

$(BUILD)/vmm/filter.o: $(BUILD)/vmm/filters.inc

# The DSDT: iasl knows C's comments and operators, not the suffixes of its numbers.
$(BUILD)/vmm/dsdt.inc: vmm/dsdt.asl vmm/platform.h
	@mkdir -p $(@D)
	@echo '  ASL  $<'
	@$(CC) -E -P -x c -imacros vmm/platform.h $< | sed -E 's/\b(0x[0-9a-f]+|[0-9]+)u?l*\b/\1/g' >$(@D)/dsdt.dsl
	@iasl -we -p $(@D)/dsdt -tc $(@D)/dsdt.dsl >$(@D)/dsdt.log 2>&1 || { cat $(@D)/dsdt.log; exit 1; }
	@mv $(@D)/dsdt.hex $@
$(BUILD)/vmm/acpi.o $(BUILD)/static/vmm/acpi.o: $(BUILD)/vmm/dsdt.inc

# Starts one VMM by hand, without an agent.
$(BUILD)/tests/run_vmm: $(BUILD)/tests/tools/run_vmm.o $(BUILD)/agent/jail_rings.o $(BUILD)/agent/cpu_baseline.o \
                        $(BUILD)/libbase.a
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(LDFLAGS) $(LIBS_BASE)

# The speed of balloon and nics, for tests/bench/run.
$(BUILD)/tests/balloon_bench $(BUILD)/tests/nic_bench: $(BUILD)/tests/%: $(BUILD)/tests/tools/%.o $(BUILD)/libvmm.a $(BUILD)/libbase.a
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(LDFLAGS) -lcmocka $(LIBS_BASE)
