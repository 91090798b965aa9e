# The administrator's command. postern-core is pure: arguments, tables, names,
# zone files, the order of migrations.

CPPFLAGS_postern := -DPOSTERN_SQL_DIR='"$(PREFIX)/share/postern/sql"'

ARCHIVES += postern-core
postern-core_SRCS := $(addprefix postern/,args.c migrations.c names.c table.c zone.c)

BINS += postern
postern_SRCS := $(filter-out $(postern-core_SRCS),$(wildcard postern/*.c))
postern_ARCHIVES := postern-core milter-core indexer-core run mail base
postern_LIBS := $(MILTER_CORE_LIBS) $(shell pkg-config --libs glib-2.0) -lcrypt

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
