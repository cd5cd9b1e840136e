# net.mk - dnsmasq's seccomp program, compiled while building; and the tool of tests/integration/net: real
# networks, taps whose fds the test holds.  Included by the top Makefile.
$(BUILD)/net/build_filter: net/build_filter.c base/filter_print.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -iquote . $(OPTIMIZE) $(WARNINGS) -D_GNU_SOURCE -o $@ $< -lseccomp

$(BUILD)/net/dhcp_filter.inc: $(BUILD)/net/build_filter
	$< >$@.new
	mv $@.new $@

$(BUILD)/net/dhcp.o: $(BUILD)/net/dhcp_filter.inc

$(BUILD)/tests/net_tool: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/tools/net_*.c)) \
    $(call objects_of,$(NET_SRC)) $(BUILD)/libbase.a
	@mkdir -p $(@D)
	$(CC) -o $@ $^ $(LDFLAGS) -lmnl -lnftables $(LIBS_BASE)
