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

$(BUILD)/tests/test_sim: $(BUILD)/libsim.a
$(BUILD)/tests/test_sim: LDFLAGS += -lm
