# policyd-ratelimit: the pure core is an archive that the tests share.

ARCHIVES += policyd-core
policyd-core_SRCS := $(addprefix policyd-ratelimit/, \
	abuse.c abuse_rules.c blocks.c config.c grammar.c herald_text.c journal.c keymap.c lease.c lease_wire.c netmap.c notice.c overrides.c \
	proto.c redis_addr.c replay.c reqlog.c rules.c session.c session_rules.c session_share.c settled.c slab.c spfsets.c streaks.c subject.c table.c txn.c verdict.c window.c wiring.c)

TESTS += test_policyd_proto test_policyd_rules test_policyd_table
test_policyd_proto_SRCS := tests/unit/test_policyd_proto.c
test_policyd_proto_ARCHIVES := policyd-core mail base
test_policyd_rules_SRCS := tests/unit/test_policyd_rules.c
test_policyd_rules_ARCHIVES := policyd-core mail base
test_policyd_table_SRCS := tests/unit/test_policyd_table.c
test_policyd_table_ARCHIVES := policyd-core mail base

TESTS += test_policyd_reqlog
test_policyd_reqlog_SRCS := tests/unit/test_policyd_reqlog.c
test_policyd_reqlog_ARCHIVES := policyd-core mail base

TESTS += test_policyd_wiring
test_policyd_wiring_SRCS := tests/unit/test_policyd_wiring.c
test_policyd_wiring_ARCHIVES := policyd-core mail base

FUZZERS += fuzz_policyd_journal
fuzz_policyd_journal_SRCS := tests/fuzz/fuzz_policyd_journal.c
fuzz_policyd_journal_ARCHIVES := policyd-core mail base

FUZZERS += fuzz_policyd_reqlog
fuzz_policyd_reqlog_SRCS := tests/fuzz/fuzz_policyd_reqlog.c
fuzz_policyd_reqlog_ARCHIVES := policyd-core mail base

FUZZERS += fuzz_policyd_proto fuzz_policyd_rules
fuzz_policyd_proto_SRCS := tests/fuzz/fuzz_policyd_proto.c
fuzz_policyd_proto_ARCHIVES := policyd-core mail base
fuzz_policyd_rules_SRCS := tests/fuzz/fuzz_policyd_rules.c
fuzz_policyd_rules_ARCHIVES := policyd-core mail base

TESTS += test_policyd_replay
test_policyd_replay_SRCS := tests/unit/test_policyd_replay.c
test_policyd_replay_ARCHIVES := policyd-core mail base

BINS += policyd-ratelimit
policyd-ratelimit_SRCS := $(addprefix policyd-ratelimit/, \
	control.c exempt.c guard.c herald.c keeper.c keyops.c main.c overrides_sql.c quota.c recorder.c redis_net.c redis_nodes.c \
	reporter.c server.c sharer.c sharer_house.c spf_refresh.c store_disk.c store_map.c store_redis.c tell.c watch.c)
policyd-ratelimit_ARCHIVES := policyd-core spf dns quota mail run base
policyd-ratelimit_LIBS := -lcurl -lcares $(MAIL_LIBS) $(RUN_LIBS) -lhiredis

HELPERS += policy_echo policy_load policy_table
policy_table_SRCS := tests/bench/policy_table.c
policy_table_ARCHIVES := policyd-core mail base
policy_echo_SRCS := tests/bench/policy_echo.c tests/bench/sink.c
policy_echo_ARCHIVES := run base
policy_echo_LIBS := $(RUN_LIBS)
policy_load_SRCS := tests/bench/policy_load.c
policy_load_ARCHIVES := run base
policy_load_LIBS := $(RUN_LIBS)

TESTS += test_policyd_commit
test_policyd_commit_SRCS := tests/unit/test_policyd_commit.c
test_policyd_commit_ARCHIVES := policyd-core mail base

TESTS += test_policyd_session
test_policyd_session_SRCS := tests/unit/test_policyd_session.c
test_policyd_session_ARCHIVES := policyd-core mail base

TESTS += test_policyd_caps test_policyd_promise
test_policyd_caps_SRCS := tests/unit/test_policyd_caps.c
test_policyd_caps_ARCHIVES := policyd-core mail base
test_policyd_promise_SRCS := tests/unit/test_policyd_promise.c
test_policyd_promise_ARCHIVES := policyd-core mail base

TESTS += test_policyd_condition test_policyd_recorder
test_policyd_condition_SRCS := tests/unit/test_policyd_condition.c
test_policyd_condition_ARCHIVES := policyd-core mail base
test_policyd_recorder_SRCS := tests/unit/test_policyd_recorder.c policyd-ratelimit/recorder.c
test_policyd_recorder_ARCHIVES := policyd-core mail base

TESTS += test_policyd_settled
test_policyd_settled_SRCS := tests/unit/test_policyd_settled.c
test_policyd_settled_ARCHIVES := policyd-core mail base

TESTS += test_policyd_store
test_policyd_store_SRCS := tests/unit/test_policyd_store.c policyd-ratelimit/store_disk.c policyd-ratelimit/store_map.c
test_policyd_store_ARCHIVES := run base
test_policyd_store_LIBS := $(RUN_LIBS)

TESTS += test_policyd_notice
test_policyd_notice_SRCS := tests/unit/test_policyd_notice.c
test_policyd_notice_ARCHIVES := policyd-core mail base

TESTS += test_policyd_abuse
test_policyd_abuse_SRCS := tests/unit/test_policyd_abuse.c
test_policyd_abuse_ARCHIVES := policyd-core mail base

TESTS += test_policyd_lease
test_policyd_lease_SRCS := tests/unit/test_policyd_lease.c
test_policyd_lease_ARCHIVES := policyd-core mail base

TESTS += test_policyd_spfsets
test_policyd_spfsets_SRCS := tests/unit/test_policyd_spfsets.c
test_policyd_spfsets_ARCHIVES := policyd-core mail base

FUZZERS += fuzz_policyd_spfsets
fuzz_policyd_spfsets_SRCS := tests/fuzz/fuzz_policyd_spfsets.c
fuzz_policyd_spfsets_ARCHIVES := policyd-core mail base

TESTS += test_policyd_herald
test_policyd_herald_SRCS := tests/unit/test_policyd_herald.c
test_policyd_herald_ARCHIVES := policyd-core mail base
test_policyd_herald_LIBS := -ljansson

TESTS += test_policyd_redis
test_policyd_redis_SRCS := tests/unit/test_policyd_redis.c
test_policyd_redis_ARCHIVES := policyd-core mail base

FUZZERS += fuzz_policyd_redis
fuzz_policyd_redis_SRCS := tests/fuzz/fuzz_policyd_redis.c
fuzz_policyd_redis_ARCHIVES := policyd-core mail base

TESTS += test_policyd_redis_net
test_policyd_redis_net_SRCS := tests/unit/test_policyd_redis_net.c policyd-ratelimit/redis_net.c \
	policyd-ratelimit/redis_nodes.c policyd-ratelimit/store_redis.c
test_policyd_redis_net_ARCHIVES := policyd-core mail run base
test_policyd_redis_net_LIBS := $(RUN_LIBS) -lhiredis
