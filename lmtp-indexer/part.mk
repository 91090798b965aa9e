# lmtp-indexer: the proxy between Postfix and Dovecot, and the index.

GMIME_CFLAGS := $(shell pkg-config --cflags gmime-3.0)
GMIME_LIBS   := $(shell pkg-config --libs gmime-3.0)
CPPFLAGS_lmtp-indexer := $(patsubst -I%,-isystem %,$(GMIME_CFLAGS))
CPPFLAGS_tests += $(CPPFLAGS_lmtp-indexer)

ARCHIVES += indexer-core
indexer-core_SRCS := $(addprefix lmtp-indexer/,lmtp.c body.c ulid.c session.c tokens.c terms.c block.c query.c \
	match.c html.c extract.c extract_charset.c extract_fields.c extract_flowed.c extract_guard.c extract_headers.c extract_parts.c \
	extract_record.c extract_source.c extract_words.c delivery.c payload.c change.c hint.c doveadm_reply.c doveadm.c uidset.c reconcile.c follow_queue.c pace.c)

BINS += lmtp-indexer
lmtp-indexer_SRCS := $(addprefix lmtp-indexer/,main.c server.c eraser.c front.c cork.c relay.c relay_pool.c route.c spool.c \
	spool_file.c spool_reader.c spool_erase.c index.c index_parse.c index_write.c parser.c parser_child.c parser_confine.c settle.c writer.c \
	writer_rows.c rows.c seal.c threads.c webhook.c webhook_retry.c hints.c flight.c follow.c follow_fetch.c follow_scan.c \
	follow_passes.c follow_step.c follow_mails.c follow_store.c follow_store_write.c)
lmtp-indexer_ARCHIVES := indexer-core run base
lmtp-indexer_LIBS := $(GMIME_LIBS) -lcurl $(RUN_LIBS)

define indexer_test
TESTS += $(1)
$(1)_SRCS := tests/unit/$(1).c
$(1)_ARCHIVES := indexer-core base
$(1)_LIBS := $(GMIME_LIBS)
endef
$(foreach t,test_indexer_lmtp test_indexer_session test_indexer_tokens test_indexer_extract test_indexer_fields \
	test_indexer_inner test_indexer_texts test_indexer_delivery test_indexer_search test_indexer_follow test_indexer_turns,\
	$(eval $(call indexer_test,$(t))))

test_indexer_follow_SRCS += lmtp-indexer/plugin/sender.c lib/run/marker.c

TESTS += test_indexer_pass
test_indexer_pass_SRCS := tests/unit/test_indexer_pass.c $(addprefix lmtp-indexer/,flight.c follow_scan.c follow_step.c)
test_indexer_pass_ARCHIVES := indexer-core run base
test_indexer_pass_LIBS := $(GMIME_LIBS) $(RUN_LIBS)

TESTS += test_indexer_thread
test_indexer_thread_SRCS := tests/unit/test_indexer_thread.c lmtp-indexer/follow.c lmtp-indexer/follow_passes.c
test_indexer_thread_ARCHIVES := indexer-core run base
test_indexer_thread_LIBS := $(GMIME_LIBS) $(RUN_LIBS)

TESTS += test_indexer_doveadm
test_indexer_doveadm_SRCS := tests/unit/test_indexer_doveadm.c
test_indexer_doveadm_ARCHIVES := indexer-core run base
test_indexer_doveadm_LIBS := $(GMIME_LIBS) $(RUN_LIBS)

TESTS += test_indexer_parser
test_indexer_parser_SRCS := tests/unit/test_indexer_parser.c $(addprefix lmtp-indexer/,parser.c parser_child.c parser_confine.c)
test_indexer_parser_ARCHIVES := indexer-core run base
test_indexer_parser_LIBS := $(GMIME_LIBS) $(RUN_LIBS)

TESTS += test_indexer_eraser
test_indexer_eraser_SRCS := tests/unit/test_indexer_eraser.c lmtp-indexer/eraser.c
test_indexer_eraser_ARCHIVES := run base
test_indexer_eraser_LIBS := $(RUN_LIBS)

TESTS += test_indexer_rows
test_indexer_rows_SRCS := tests/unit/test_indexer_rows.c lmtp-indexer/rows.c
test_indexer_rows_ARCHIVES := base

TESTS += test_indexer_spool
test_indexer_spool_SRCS := tests/unit/test_indexer_spool.c \
	$(addprefix lmtp-indexer/,spool.c spool_file.c spool_reader.c spool_erase.c)
test_indexer_spool_ARCHIVES := indexer-core run base
test_indexer_spool_LIBS := $(GMIME_LIBS) $(RUN_LIBS)

TESTS += test_indexer_caps test_indexer_queue
test_indexer_caps_SRCS := tests/unit/test_indexer_caps.c $(addprefix lmtp-indexer/,route.c threads.c rows.c hints.c)
test_indexer_caps_ARCHIVES := $(lmtp-indexer_ARCHIVES)
test_indexer_caps_LIBS := $(lmtp-indexer_LIBS)
test_indexer_queue_SRCS := tests/unit/test_indexer_queue.c $(filter-out lmtp-indexer/main.c,$(lmtp-indexer_SRCS))
test_indexer_queue_ARCHIVES := $(lmtp-indexer_ARCHIVES)
test_indexer_queue_LIBS := $(lmtp-indexer_LIBS)

define indexer_fuzzer
FUZZERS += fuzz_$(1)
fuzz_$(1)_SRCS := tests/fuzz/fuzz_$(1).c
fuzz_$(1)_ARCHIVES := indexer-core base
fuzz_$(1)_LIBS := $(GMIME_LIBS)
endef
$(foreach f,indexer_lmtp indexer_reply indexer_extract indexer_query indexer_block indexer_record indexer_hint \
	indexer_doveadm,$(eval $(call indexer_fuzzer,$(f))))

# The plug-in takes what it needs of lib/base as source: archives are not
# position-independent.
PLUGINS += lib20_postern_notify_plugin
lib20_postern_notify_plugin_SRCS := $(addprefix lmtp-indexer/,plugin/notify.c plugin/sender.c hint.c ulid.c) \
	$(addprefix lib/base/,span.c sbuf.c num.c err.c) lib/run/marker.c
