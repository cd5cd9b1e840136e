# The simulator of hosts that promise more memory than they have: make sim.
SIM_SRC := $(filter-out tests/sim/main.c,$(call sources_of,tests/sim))

.PHONY: sim
sim: $(BUILD)/tests/sim/sim ## policies for overcommitted memory, compared; plots in build/sim
	$< --out $(BUILD)/sim

$(BUILD)/libsim.a: $(call objects_of,$(SIM_SRC) scheduler/balancer.c)
$(BUILD)/tests/sim/sim: $(BUILD)/tests/sim/main.o $(BUILD)/libsim.a
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) -o $@ $^ $(LDFLAGS) -lm

SIM_TESTS := $(addprefix $(BUILD)/tests/test_,plot policies sim)
$(SIM_TESTS): $(BUILD)/libsim.a
$(SIM_TESTS): LDFLAGS += -lm
test-tools: $(BUILD)/tests/sim/sim
