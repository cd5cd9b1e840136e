# vmm.mk - the VMM's seccomp programs, compiled while building.  Included by the top Makefile.
$(BUILD)/vmm/build_filters: vmm/build_filters.c vmm/filter_rules.h vmm/control_protocol.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -iquote . $(OPTIMIZE) $(WARNINGS) -D_GNU_SOURCE -o $@ $< -lseccomp

$(BUILD)/vmm/filters.inc: $(BUILD)/vmm/build_filters
	$< >$@.new
	mv $@.new $@

$(BUILD)/vmm/filter.o: $(BUILD)/vmm/filters.inc

# Starts one VMM by hand, without an agent.
$(BUILD)/tests/run_vmm: $(BUILD)/tests/tools/run_vmm.o $(BUILD)/libbase.a
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(LDFLAGS) $(LIBS_BASE)
