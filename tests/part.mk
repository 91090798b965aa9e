# The tests above the unit tests: corpus replays, the integration tests and the
# faults on a private stack (tests/run), and what they need installed.

DEPS := tools/deps

.PHONY: deps check check-integration check-faults
deps:
	$(Q)$(DEPS) install

check: all tests
	$(Q)$(DEPS) check
	$(Q)tests/run $(TESTS:%=--unit $(BUILD)/tests/%) --integration

# NAMES="test_stack test_quota.Limits" runs a part of them.
check-integration: all
	$(Q)POSTERN_BUILD=$(abspath $(BUILD)) tests/run --integration $(NAMES)
check-faults: all
	$(Q)POSTERN_BUILD=$(abspath $(BUILD)) tests/run --integration faults
