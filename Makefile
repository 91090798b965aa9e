# Postern. `make help` lists the targets; settings are in config.mk.
#
# Each part is one folder with a part.mk that appends names to these lists and
# gives NAME_SRCS, NAME_ARCHIVES (of $(BUILD)/libX.a) and NAME_LIBS for each:
#   ARCHIVES  $(BUILD)/libNAME.a, the pure cores that tests and postern share
#   BINS      programs in $(BUILD)/bin
#   PLUGINS   shared objects $(BUILD)/lib/NAME.so, for Dovecot
#   TESTS     unit test programs in $(BUILD)/tests, run by `make check-unit`
#   FUZZERS   libFuzzer targets, built and run by `make fuzz`; their corpus
#             tests/fuzz/corpus/NAME is replayed in every test run
#   HELPERS   programs for tests and benchmarks in $(BUILD)/helpers
# What a folder needs of the compiler goes into CPPFLAGS_FOLDER.

include config.mk

CPPFLAGS_ALL = -D_GNU_SOURCE -I. -DPOSTERN_VERSION='"$(VERSION)"' \
	-DPOSTERN_SYSCONFDIR='"$(SYSCONFDIR)"' -include lib/base/banned.h $(CPPFLAGS)
CFLAGS_ALL = $(CSTD) $(OPT) $(WARN) $(HARDEN) -g -pthread -MMD -MP $(CFLAGS)
CPPFLAGS_PLUGIN = -DHAVE_CONFIG_H -isystem $(DOVECOT_INCLUDE)
LDFLAGS_ALL = $(HARDEN_LD) -pthread $(LDFLAGS)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-6s %s\n' $(1) $(2);)
objs = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
pics = $(patsubst %.c,$(BUILD)/pic/%.o,$(1))
archives = $(patsubst %,$(BUILD)/lib%.a,$(1))

ARCHIVES :=
BINS :=
PLUGINS :=
TESTS :=
FUZZERS :=
HELPERS :=
CHECK_LIBS := -lcheck -lsubunit -lm -lrt

include lib/part.mk
include $(sort $(wildcard milter-dkim/part.mk policyd-ratelimit/part.mk lmtp-indexer/part.mk \
	dovecot-plugin-quota/part.mk postern/part.mk tests/part.mk))

# all: every program and plug-in, into build/bin and build/lib
.PHONY: all
all: $(BINS:%=$(BUILD)/bin/%) $(PLUGINS:%=$(BUILD)/lib/%.so)

$(BUILD)/obj/%.o: %.c Makefile config.mk
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CPPFLAGS_ALL) $(CPPFLAGS_$(firstword $(subst /, ,$<))) $(CFLAGS_ALL) -c -o $@ $<

# Dovecot loads only plug-ins that were built for its very ABI: packages depend on
# what this file says, and another Dovecot makes the plug-ins anew.
.PHONY: FORCE
FORCE:
$(BUILD)/lib/dovecot-abi: FORCE
	@mkdir -p $(@D)
	@echo '$(DOVECOT_ABI)' | cmp -s - $@ || echo '$(DOVECOT_ABI)' >$@

# Objects of plug-ins: position-independent, and nothing exported by default,
# so that plug-ins that share code do not see each other's.
$(BUILD)/pic/%.o: %.c Makefile config.mk $(BUILD)/lib/dovecot-abi
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CPPFLAGS_ALL) $(CPPFLAGS_PLUGIN) $(CFLAGS_ALL) -fPIC -fvisibility=hidden -c -o $@ $<

# $(1) name, $(2) file, $(3) more libraries, $(4) more flags
define link_rule
$(2): $$(call objs,$$($(1)_SRCS)) $$(call archives,$$($(1)_ARCHIVES))
	@mkdir -p $$(@D)
	$$(call say,LINK,$$@)$$(CC) $$(LDFLAGS_ALL) $(4) -o $$@ $$(filter %.o,$$^) $$(filter %.a,$$^) $$($(1)_LIBS) $(3)
endef
define archive_rule
$(BUILD)/lib$(1).a: $$(call objs,$$($(1)_SRCS))
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(call say,AR,$$@)$$(AR) rcs $$@ $$^
endef
define plugin_rule
$(BUILD)/lib/$(1).so: $$(call pics,$$($(1)_SRCS))
	@mkdir -p $$(@D)
	$$(call say,LINK,$$@)$$(CC) $$(LDFLAGS) -shared -Wl,-z,relro,-z,now -o $$@ $$^ $$($(1)_LIBS)
endef
$(foreach n,$(ARCHIVES),$(eval $(call archive_rule,$(n))))
$(foreach n,$(BINS),$(eval $(call link_rule,$(n),$(BUILD)/bin/$(n))))
$(foreach n,$(HELPERS),$(eval $(call link_rule,$(n),$(BUILD)/helpers/$(n))))
$(foreach n,$(TESTS),$(eval $(call link_rule,$(n),$(BUILD)/tests/$(n),$(CHECK_LIBS))))
$(foreach n,$(FUZZERS),$(eval $(call link_rule,$(n),$(BUILD)/fuzz/$(n))))
$(foreach n,$(PLUGINS),$(eval $(call plugin_rule,$(n))))

# check-unit: the unit tests and the corpora of the fuzz targets
.PHONY: tests fuzzers check-unit
tests: $(TESTS:%=$(BUILD)/tests/%)
fuzzers: $(FUZZERS:%=$(BUILD)/fuzz/%)
check-unit: tests $(REPLAYS:%=$(BUILD)/helpers/replay_%)
	$(Q)failed=0; for t in $(TESTS); do $(BUILD)/tests/$$t || failed=1; done; \
	for n in $(REPLAYS); do $(BUILD)/helpers/replay_$$n tests/fuzz/corpus/$$n/* >/dev/null || \
		{ echo "FAIL replay of $$n"; failed=1; }; done; \
	exit $$failed

include tools/checks.mk tools/docs.mk tools/install.mk

.PHONY: clean help
help:
	@sed -n 's/^# \([a-z-]*\): \(.*\)/  \1	\2/p' Makefile tools/*.mk tests/part.mk | expand -t 22 | sort -u

# clean: remove everything that was built
clean:
	rm -rf build

-include $(shell find $(BUILD)/obj $(BUILD)/pic -name '*.d' 2>/dev/null)
