# The administrator's command. postern-core is pure: arguments, tables, names,
# zone files, the order of migrations.

CPPFLAGS_postern := -DPOSTERN_SQL_DIR='"$(PREFIX)/share/postern/sql"'

ARCHIVES += postern-core
postern-core_SRCS := $(addprefix postern/,args.c dkim_authority.c index_diff.c migrations.c names.c rotation.c table.c zone.c)

# The reports that we send.
postern-core_SRCS += $(addprefix postern/,gzip.c report_mail.c report_rules.c failure_mail.c)

# Reports that others send us: archives, XML, JSON, mail.
ARCHIVES += reports-core
reports-core_SRCS := $(wildcard postern/reports/*.c)
REPORTS_LIBS := -lz -lidn2 -ljansson $(shell pkg-config --libs libxml-2.0 gmime-3.0)
CPPFLAGS_postern += $(patsubst -I%,-isystem %,$(shell pkg-config --cflags libxml-2.0 gmime-3.0))
CPPFLAGS_tests += $(patsubst -I%,-isystem %,$(shell pkg-config --cflags libxml-2.0))

BINS += postern
postern_SRCS := $(filter-out $(postern-core_SRCS),$(wildcard postern/*.c))
postern_ARCHIVES := postern-core reports-core milter-core indexer-core policyd-core spf dns run mail base
postern_LIBS := $(MILTER_CORE_LIBS) $(REPORTS_LIBS) $(shell pkg-config --libs glib-2.0) -lcrypt

TESTS += test_postern_args test_postern_table
test_postern_args_SRCS := tests/unit/test_postern_args.c
test_postern_args_ARCHIVES := postern-core base
test_postern_table_SRCS := tests/unit/test_postern_table.c
test_postern_table_ARCHIVES := postern-core base
test_postern_table_LIBS := -ljansson

TESTS += test_postern_names test_postern_zone test_postern_migrations
test_postern_names_SRCS := tests/unit/test_postern_names.c
test_postern_names_ARCHIVES := postern-core mail base
test_postern_names_LIBS := $(MAIL_LIBS) -ljansson
test_postern_zone_SRCS := tests/unit/test_postern_zone.c
test_postern_zone_ARCHIVES := postern-core base
test_postern_migrations_SRCS := tests/unit/test_postern_migrations.c
test_postern_migrations_ARCHIVES := postern-core base

REPORTS_TESTS := archive feedback caps moment tlsrpt reader
TESTS += $(REPORTS_TESTS:%=test_reports_%)
define reports_test
test_reports_$(1)_SRCS := tests/unit/test_reports_$(1).c
test_reports_$(1)_ARCHIVES := reports-core mail base
test_reports_$(1)_LIBS := $(REPORTS_LIBS)
endef
$(foreach t,$(REPORTS_TESTS),$(eval $(call reports_test,$(t))))

REPORTS_FUZZERS := archive feedback tlsrpt reader
FUZZERS += $(REPORTS_FUZZERS:%=fuzz_reports_%)
define reports_fuzzer
fuzz_reports_$(1)_SRCS := tests/fuzz/fuzz_reports_$(1).c
fuzz_reports_$(1)_ARCHIVES := reports-core mail base
fuzz_reports_$(1)_LIBS := $(REPORTS_LIBS)
endef
$(foreach t,$(REPORTS_FUZZERS),$(eval $(call reports_fuzzer,$(t))))

TESTS += test_report_mail
test_report_mail_SRCS := tests/unit/test_report_mail.c
test_report_mail_ARCHIVES := postern-core mail base
test_report_mail_LIBS := -lz $(MAIL_LIBS)

TESTS += test_failure_mail
test_failure_mail_SRCS := tests/unit/test_failure_mail.c
test_failure_mail_ARCHIVES := postern-core base

TESTS += test_dkim_authority
test_dkim_authority_SRCS := tests/unit/test_dkim_authority.c
test_dkim_authority_ARCHIVES := postern-core mail base
test_dkim_authority_LIBS := $(MAIL_LIBS)

TESTS += test_postern_rotation
test_postern_rotation_SRCS := tests/unit/test_postern_rotation.c
test_postern_rotation_ARCHIVES := postern-core base

TESTS += test_postern_index_diff
test_postern_index_diff_SRCS := tests/unit/test_postern_index_diff.c
test_postern_index_diff_ARCHIVES := postern-core base
