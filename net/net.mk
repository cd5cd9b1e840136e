# net.mk - the tool of tests/integration/net: real networks, taps whose fds the test holds.
# Included by the top Makefile.
$(BUILD)/tests/net_tool: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/tools/net_*.c)) \
    $(call objects_of,$(call sources_of,net)) $(BUILD)/libbase.a
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(LDFLAGS) -lmnl -lnftables $(LIBS_BASE)
