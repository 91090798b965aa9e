# milter-dkim: its core (everything but the daemon's adapters) is an archive that
# postern and the tests link too.

ARCHIVES += milter-core
MILTER_DAEMON_SRCS := $(addprefix milter-dkim/,main.c milter.c server.c config.c keysource.c keycopy.c report.c results.c)
milter-core_SRCS := $(filter-out $(MILTER_DAEMON_SRCS),$(wildcard milter-dkim/*.c))
MILTER_CORE_LIBS := -lcares -lidn2 -lpsl $(RUN_LIBS)

BINS += milter-dkim
milter-dkim_SRCS := $(MILTER_DAEMON_SRCS)
milter-dkim_ARCHIVES := milter-core spf dns mail run base
milter-dkim_LIBS := $(MILTER_CORE_LIBS)

# The evaluators over DNS answers.
AUTH_TESTS := spf spf_networks authres dmarc author arc culprit dnscache resolver inbound override report_uri report_external aggregate
TESTS += $(AUTH_TESTS:%=test_%)
define auth_test
test_$(1)_SRCS := tests/unit/test_$(1).c
test_$(1)_ARCHIVES := milter-core spf dns mail run base
test_$(1)_LIBS := $(MILTER_CORE_LIBS)
endef
$(foreach t,$(AUTH_TESTS),$(eval $(call auth_test,$(t))))

AUTH_FUZZERS := spf dmarc authres arc dnsmsg report_uri
FUZZERS += $(AUTH_FUZZERS:%=fuzz_%)
define auth_fuzzer
fuzz_$(1)_SRCS := tests/fuzz/fuzz_$(1).c
fuzz_$(1)_ARCHIVES := milter-core spf dns mail base
fuzz_$(1)_LIBS := -lcrypto -lidn2
endef
$(foreach t,$(AUTH_FUZZERS),$(eval $(call auth_fuzzer,$(t))))

FUZZERS += fuzz_aggregate
fuzz_aggregate_SRCS := tests/fuzz/fuzz_aggregate.c
fuzz_aggregate_ARCHIVES := milter-core spf dns mail base
fuzz_aggregate_LIBS := -ljansson -lidn2

# The core of DKIM and of the milter.
DKIM_TESTS := taglist canon sign verify keytable keyring signkey keycheck hostset edits session outcome_record sealing failure caps milter_wire
TESTS += $(DKIM_TESTS:%=test_%) test_rfc5322
$(foreach t,$(DKIM_TESTS),$(eval $(call auth_test,$(t))))
test_rfc5322_SRCS := tests/unit/test_rfc5322.c
test_rfc5322_ARCHIVES := mail base

# The sockets and threads of the milter, with nothing of ours behind them.
TESTS += test_milter_server
test_milter_server_SRCS := tests/unit/test_milter_server.c milter-dkim/server.c
test_milter_server_ARCHIVES := milter-core run base
test_milter_server_LIBS := $(RUN_LIBS)
TESTS += test_milter_pieces
test_milter_pieces_SRCS := tests/unit/test_milter_pieces.c milter-dkim/server.c
test_milter_pieces_ARCHIVES := milter-core run base
test_milter_pieces_LIBS := $(RUN_LIBS) -Wl,--wrap=mem_alloc,--wrap=mem_realloc

DKIM_FUZZERS := taglist sig keyrecord keytable message outcome_record
DKIM_FUZZERS += milter_wire session author dnsname hostset signingtable arcseal redact
FUZZERS += $(DKIM_FUZZERS:%=fuzz_%)
$(foreach t,$(DKIM_FUZZERS),$(eval $(call auth_fuzzer,$(t))))

HELPERS += dkim_core
dkim_core_SRCS := tests/bench/dkim_core.c
dkim_core_ARCHIVES := milter-core spf dns mail base
dkim_core_LIBS := -lcrypto -lidn2
