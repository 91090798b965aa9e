# dovecot-plugin-quota: quotad, its pure core, and the plug-in of Dovecot.

ARCHIVES += quota-core
quota-core_SRCS := $(addprefix dovecot-plugin-quota/,quotad/once.c quotad/ledger.c \
	quotad/ledger-request.c quotad/journal.c quotad/findings.c quotad/recount-queue.c)

BINS += quotad
quotad_SRCS := $(addprefix dovecot-plugin-quota/quotad/,main.c pending.c channel.c markers.c openmap.c air.c recount.c server.c store.c reader.c tell.c)
quotad_ARCHIVES := quota-core quota run base
quotad_LIBS := $(RUN_LIBS)

# The plug-in takes what it needs of lib as source: archives are not
# position-independent.
PLUGINS += lib11_quota_usage_plugin
lib11_quota_usage_plugin_SRCS := $(addprefix dovecot-plugin-quota/,client.c usage.c \
	plugin/root.c plugin/mailbox.c plugin/count.c plugin/maildir.c plugin-$(DOVECOT_SERIES)/adapter.c) \
	$(addprefix lib/base/,span.c sbuf.c num.c err.c) lib/quota/proto.c lib/run/marker.c

PLUGINS += lib12_imap_quota_usage_plugin
lib12_imap_quota_usage_plugin_SRCS := $(addprefix dovecot-plugin-quota/,client.c usage.c plugin/imap.c plugin/status.c) \
	$(addprefix lib/base/,span.c sbuf.c num.c err.c) lib/quota/proto.c lib/run/marker.c

ARCHIVES += quota-client
quota-client_SRCS := $(addprefix dovecot-plugin-quota/,client.c usage.c)

TESTS += test_quota_proto test_quota_ledger test_quota_limits test_quota_drift test_quota_model test_quota_recount test_quota_journal test_quota_client test_quota_doubt test_quota_channel test_quota_told
test_quota_told_SRCS := tests/unit/test_quota_told.c
test_quota_told_ARCHIVES := quota-client quota-core quota run base
test_quota_channel_SRCS := tests/unit/test_quota_channel.c dovecot-plugin-quota/quotad/channel.c
test_quota_channel_ARCHIVES := quota-core quota base
test_quota_channel_LIBS := -lev
test_quota_journal_SRCS := tests/unit/test_quota_journal.c
test_quota_journal_ARCHIVES := quota-core quota base
test_quota_client_SRCS := tests/unit/test_quota_client.c
test_quota_client_ARCHIVES := quota-client quota-core quota run base
test_quota_doubt_SRCS := tests/unit/test_quota_doubt.c
test_quota_doubt_ARCHIVES := quota-client quota-core quota run base
test_quota_proto_SRCS := tests/unit/test_quota_proto.c
test_quota_proto_ARCHIVES := quota base
test_quota_ledger_SRCS := tests/unit/test_quota_ledger.c
test_quota_ledger_ARCHIVES := quota-core quota base
test_quota_limits_SRCS := tests/unit/test_quota_limits.c
test_quota_limits_ARCHIVES := quota-core quota base
test_quota_drift_SRCS := tests/unit/test_quota_drift.c dovecot-plugin-quota/quotad/openmap.c
test_quota_drift_ARCHIVES := quota-core quota base
test_quota_recount_SRCS := tests/unit/test_quota_recount.c
test_quota_recount_ARCHIVES := quota-core quota base
test_quota_model_SRCS := tests/unit/test_quota_model.c
test_quota_model_ARCHIVES := quota-core quota base

FUZZERS += fuzz_quota_proto
fuzz_quota_proto_SRCS := tests/fuzz/fuzz_quota_proto.c
fuzz_quota_proto_ARCHIVES := quota-core quota base
