# Postern. `make help` lists the targets; settings are in config.mk.

include config.mk

CPPFLAGS += -D_GNU_SOURCE -I. -DPOSTERN_VERSION='"$(VERSION)"' -include lib/base/banned.h
CFLAGS_ALL = $(CSTD) $(OPT) $(WARN) $(HARDEN) -g -pthread -MMD -MP $(CFLAGS)
LDFLAGS_ALL = $(HARDEN_LD) -pthread $(LDFLAGS)

.DEFAULT_GOAL := all
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-8s %s\n' $(1) $(2);)

# Each part is one folder with a part.mk that appends to these:
#   BINS     programs in $(BUILD)/bin
#   PLUGINS  shared objects in $(BUILD)/lib
#   TESTS    unit test programs in $(BUILD)/tests
#   FUZZERS  fuzz targets in $(BUILD)/fuzz
# and gives each program NAME its NAME_OBJS (sources) and NAME_LIBS.
BINS :=
PLUGINS :=
TESTS :=
FUZZERS :=

objs = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

include lib/part.mk
-include $(sort $(wildcard */part.mk))

ALL_SRCS := $(shell git ls-files '*.c' 2>/dev/null || find . -name '*.c')

.PHONY: all
all: $(BINS:%=$(BUILD)/bin/%) $(PLUGINS:%=$(BUILD)/lib/%)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CPPFLAGS) $(CPPFLAGS_$(firstword $(subst /, ,$<))) $(CFLAGS_ALL) -c -o $@ $<

.SECONDEXPANSION:
$(BINS:%=$(BUILD)/bin/%): $(BUILD)/bin/%: $$(call objs,$$($$*_SRCS)) $$($$*_ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $($*_LIBS)

$(TESTS:%=$(BUILD)/tests/%): $(BUILD)/tests/%: $$(call objs,$$($$*_SRCS)) $$($$*_ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(filter %.a,$^) $($*_LIBS) $(CHECK_LIBS)

.PHONY: clean
clean:
	rm -rf build

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
