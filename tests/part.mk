# The tests above the unit tests: corpus replays, the integration tests and the
# faults on a private stack (tests/run), and what they need installed.

DEPS := tools/deps
# Builds on all processors, unless make was told how many.
BUILD_ALL = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))
RUN_TESTS = POSTERN_BUILD=$(abspath $(BUILD)) tests/run

.PHONY: deps helpers check check-integration check-faults demo transcripts bench
# deps: install the missing Debian packages (root)
deps:
	$(Q)$(DEPS) install

# check: all tests; closes with "N passed, N failed"
check: deps
	$(Q)$(BUILD_ALL) all tests helpers
	$(Q)$(RUN_TESTS) $(TESTS:%=--unit $(BUILD)/tests/%) $(foreach n,$(REPLAYS),--replay $(BUILD)/helpers/replay_$(n)=tests/fuzz/corpus/$(n)) --integration

# check-integration: the tests on a private stack; NAMES="test_stack test_quota.Limits" for a part
check-integration: all helpers
	$(Q)$(RUN_TESTS) --integration $(NAMES)
check-faults: all
	$(Q)$(RUN_TESTS) --integration faults

# check-trixie: all tests in a Debian 13 chroot (root; kept in TRIXIE_DIR); NAMES as for check-integration
TRIXIE = tools/trixie
.PHONY: check-trixie
check-trixie:
	$(Q)$(DEPS) install tools/deps-trixie.txt
	$(Q)$(TRIXIE) prepare tools/deps.txt
	$(Q)$(TRIXIE) run make --no-print-directory DEPS=true BUILD=build/trixie \
		$(if $(NAMES),check-integration NAMES="$(NAMES)",check)

# check-deb: the packages of Debian 12 and 13, each on a machine just installed (root); SUITES="bookworm" for a part
SUITES ?= bookworm trixie
.PHONY: check-deb deb-bookworm deb-trixie
check-deb:
	$(Q)$(DEPS) install tools/deps-machine.txt
	$(Q)set -e; for s in $(SUITES); do $(MAKE) --no-print-directory deb-$$s check-deb-$$s; done
check-deb-%:
	$(Q)rm -rf build/machine-$* && mkdir -p build/machine-$*
	$(Q)find build/deb-$* -maxdepth 1 -name '*.deb' ! -name '*-dbgsym_*' -exec cp -t build/machine-$* {} +
	$(Q)cp tests/packages/lifecycle.py build/machine-$*
	$(Q)cp -R debian/tests build/machine-$*/autopkgtest
	$(Q)tools/machine prepare $* build/machine-$*/*.deb
	$(Q)tools/machine run $* $(abspath build/machine-$*) python3 /mnt/lifecycle.py
# Each made on the Debian that it is for; the source is of this one's git.
deb-bookworm:
	$(Q)$(MAKE) --no-print-directory DEB=build/$@ deb
deb-trixie:
	$(Q)$(TRIXIE) prepare tools/deps.txt tools/deps-deb.txt
	$(Q)$(MAKE) --no-print-directory DEB=build/$@ deb-tree
	$(Q)$(TRIXIE) run make --no-print-directory DEB=build/$@ deb-build

# demo: show the seven points; KEEP=1 leaves the stack running
demo: deps
	$(Q)$(BUILD_ALL) all
	$(Q)KEEP=$(KEEP) POSTERN_BUILD=$(abspath $(BUILD)) tests/demo

# transcripts: SMTP sessions word for word: signed, verified, quarantined, rejected; the first message over each limit
transcripts: deps
	$(Q)$(BUILD_ALL) all
	$(Q)POSTERN_BUILD=$(abspath $(BUILD)) tests/transcripts

# The connection to the database, against the stack's MariaDB.
HELPERS += db_probe
db_probe_SRCS := tests/integration/db_probe.c
db_probe_ARCHIVES := run base
db_probe_LIBS := $(RUN_LIBS) $(CHECK_LIBS)

# bench: measure side by side, as docs/bench.md tells; SECTIONS="milters" for a part
HELPERS += milter_null milter_load lmtp_load webhook_sink
milter_null_SRCS := tests/bench/milter_null.c
milter_null_ARCHIVES := milter-core base
milter_null_LIBS := -lmilter -lcrypto
milter_load_SRCS := tests/bench/milter_load.c tests/bench/process.c
milter_load_ARCHIVES := base
lmtp_load_SRCS := tests/bench/lmtp_load.c
lmtp_load_ARCHIVES := base
webhook_sink_SRCS := tests/bench/webhook_sink.c tests/bench/sink.c
webhook_sink_ARCHIVES := run base
webhook_sink_LIBS := $(RUN_LIBS)
bench: all helpers
	$(Q)$(DEPS) install tools/deps-bench.txt
	$(Q)POSTERN_BUILD=$(abspath $(BUILD)) tests/bench/bench.py $(SECTIONS)

# bench-trixie: the section of the quota drivers on Debian 13's Dovecot, in the chroot of check-trixie (root)
.PHONY: bench-trixie
bench-trixie:
	$(Q)$(DEPS) install tools/deps-trixie.txt
	$(Q)$(TRIXIE) prepare tools/deps.txt
	$(Q)$(TRIXIE) run env BENCH_ROUNDS=$${BENCH_ROUNDS:-3} BENCH_SCALE=$${BENCH_SCALE:-1} \
		make --no-print-directory DEPS=true BUILD=build/trixie bench SECTIONS=quota

# Each fuzz target once more without the fuzzer, to be fed with its corpus.
REPLAYS := $(FUZZERS:fuzz_%=%)
define replay_settings
HELPERS += replay_$(1)
replay_$(1)_SRCS := $$(fuzz_$(1)_SRCS) tests/fuzz/replay.c
replay_$(1)_ARCHIVES := $$(fuzz_$(1)_ARCHIVES)
replay_$(1)_LIBS := $$(fuzz_$(1)_LIBS)
endef
$(foreach n,$(REPLAYS),$(eval $(call replay_settings,$(n))))

# Stands last: all helpers are known here.
helpers: $(HELPERS:%=$(BUILD)/helpers/%)
