# The libraries: base, mail, spf and quota are pure; dns is but for resolver and direct;
# run does the I/O.

ARCHIVES += base mail dns spf quota run
base_SRCS := $(wildcard lib/base/*.c)
mail_SRCS := $(wildcard lib/mail/*.c)
dns_SRCS  := $(wildcard lib/dns/*.c)
spf_SRCS  := $(wildcard lib/spf/*.c)
quota_SRCS := $(wildcard lib/quota/*.c)
run_SRCS  := $(wildcard lib/run/*.c)
RUN_LIBS  := -lev -lmariadb -lsystemd -ljansson -lcrypto

TESTS += test_span test_base
test_span_SRCS := tests/unit/test_span.c
test_span_ARCHIVES := base
test_base_SRCS := tests/unit/test_base.c
test_base_ARCHIVES := base

# Programs that use lib/mail/idn.
MAIL_LIBS := -lidn2
TESTS += test_dnsname test_addr
test_dnsname_SRCS := tests/unit/test_dnsname.c
test_dnsname_ARCHIVES := mail base
test_dnsname_LIBS := $(MAIL_LIBS)
test_addr_SRCS := tests/unit/test_addr.c
test_addr_ARCHIVES := mail base

TESTS += test_seglog
test_seglog_SRCS := tests/unit/test_seglog.c
test_seglog_ARCHIVES := run base

RUN_UNIT := test_skel test_conn test_conn_gather test_conf test_log test_metrics test_metrics_http test_listen test_control test_loop test_marker test_sendmail
TESTS += $(RUN_UNIT)
$(foreach t,$(RUN_UNIT),$(eval $(t)_SRCS := tests/unit/$(t).c))
$(foreach t,$(RUN_UNIT),$(eval $(t)_ARCHIVES := run base))
$(foreach t,$(RUN_UNIT),$(eval $(t)_LIBS := $(RUN_LIBS)))
TESTS += test_direct
test_direct_SRCS := tests/unit/test_direct.c
test_direct_ARCHIVES := dns mail run base
test_direct_LIBS := -lcares $(MAIL_LIBS) $(RUN_LIBS)
TESTS += test_hook
test_hook_SRCS := tests/unit/test_hook.c
test_hook_ARCHIVES := run base
test_hook_LIBS := -lcurl $(RUN_LIBS)
TESTS += test_outbox
test_outbox_SRCS := tests/unit/test_outbox.c
test_outbox_ARCHIVES := run base
test_outbox_LIBS := $(RUN_LIBS)

FUZZERS += fuzz_addr
fuzz_addr_SRCS := tests/fuzz/fuzz_addr.c
fuzz_addr_ARCHIVES := mail base

FUZZERS += fuzz_conf fuzz_control
fuzz_conf_SRCS := tests/fuzz/fuzz_conf.c
fuzz_conf_ARCHIVES := run base
fuzz_conf_LIBS := $(RUN_LIBS)
fuzz_control_SRCS := tests/fuzz/fuzz_control.c
fuzz_control_ARCHIVES := run base
fuzz_control_LIBS := $(RUN_LIBS)
