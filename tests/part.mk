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

# Measures side by side and prints the table of docs/bench.md; SECTIONS="milters"
# runs a part.
HELPERS += milter_null lmtp_load
milter_null_SRCS := tests/bench/milter_null.c
milter_null_ARCHIVES := base
milter_null_LIBS := -lmilter
lmtp_load_SRCS := tests/bench/lmtp_load.c
lmtp_load_ARCHIVES := base
.PHONY: bench
bench: all $(HELPERS:%=$(BUILD)/helpers/%)
	$(Q)$(DEPS) install tools/deps-bench.txt
	$(Q)POSTERN_BUILD=$(abspath $(BUILD)) tests/bench/bench.py $(SECTIONS)

HELPERS += db_probe
db_probe_SRCS := tests/integration/db_probe.c
db_probe_ARCHIVES := run base
db_probe_LIBS := $(RUN_LIBS) $(CHECK_LIBS)
check check-integration: $(HELPERS:%=$(BUILD)/helpers/%)
