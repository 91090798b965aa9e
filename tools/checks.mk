# Checks beyond the tests: sanitizers, valgrind, fuzzing, lint.  Each builds
# into a tree of its own below build/.

# asan: the unit tests under AddressSanitizer
# ubsan: the unit tests under UndefinedBehaviorSanitizer
# tsan: the unit tests under ThreadSanitizer
.PHONY: asan ubsan tsan
asan: SANITIZER = address
ubsan: SANITIZER = undefined
tsan: SANITIZER = thread
asan ubsan tsan:
	$(Q)CK_TIMEOUT_MULTIPLIER=10 $(MAKE) --no-print-directory SAN=$(SANITIZER) BUILD=build/$(SANITIZER) check-unit

# valgrind: the unit tests under memcheck
VALGRIND = valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
	--suppressions=tools/valgrind.supp
.PHONY: valgrind
valgrind: tests
	$(Q)failed=0; for t in $(TESTS); do \
		UNDER_VALGRIND=1 CK_TIMEOUT_MULTIPLIER=20 $(VALGRIND) $(BUILD)/tests/$$t || failed=1; done; exit $$failed

# fuzz: every fuzz target for FUZZ_SECONDS (60) each; FUZZERS="fuzz_x" takes a part
FUZZ_SECONDS ?= 60
FUZZ_BUILD = build/fuzzing
.PHONY: fuzz
fuzz:
	$(Q)$(MAKE) --no-print-directory FUZZING=1 CC=clang BUILD=$(FUZZ_BUILD) fuzzers
	$(Q)set -e; for f in $(FUZZERS); do \
		n=$${f#fuzz_}; mkdir -p $(FUZZ_BUILD)/corpus/$$n; \
		dict=; [ ! -f tests/fuzz/$$n.dict ] || dict=-dict=tests/fuzz/$$n.dict; \
		printf '  FUZZ   %s\n' $$f; \
		$(FUZZ_BUILD)/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
			-print_final_stats=1 -verbosity=0 -artifact_prefix=$(FUZZ_BUILD)/$$n- $$dict \
			$(FUZZ_BUILD)/corpus/$$n tests/fuzz/corpus/$$n; \
	done

# lint: layers, sizes, tables, cppcheck, clang-tidy, gcc -fanalyzer
.PHONY: lint
lint:
	$(Q)$(MAKE) --no-print-directory docs
	$(Q)BUILD=$(BUILD) tools/lint/run $(LINTS)

# format: lay out the C code by .clang-format
.PHONY: format
format:
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format -i

# For lint: one line a source file of the product, with its compiler flags.
LINT_SRCS = $(sort $(foreach n,$(ARCHIVES) $(BINS) $(PLUGINS),$($(n)_SRCS)))
PLUGIN_SRCS = $(sort $(foreach n,$(PLUGINS),$($(n)_SRCS)))
PURE_SRCS = $(sort $(foreach n,$(filter base mail dns spf quota %-core,$(ARCHIVES)),$($(n)_SRCS)))
.PHONY: lint-sources lint-pure
lint-sources:
	$(foreach f,$(LINT_SRCS),$(info $(f) $(CPPFLAGS_ALL) $(CPPFLAGS_$(firstword $(subst /, ,$(f)))) \
		$(if $(filter $(f),$(PLUGIN_SRCS)),$(CPPFLAGS_PLUGIN)) $(CSTD) $(WARN)))@:
lint-pure:
	@echo $(PURE_SRCS)
