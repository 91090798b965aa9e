# The administrator's command. postern-core is pure: arguments, tables, zone files.

CPPFLAGS_postern := -DPOSTERN_SQL_DIR='"$(PREFIX)/share/postern/sql"'

ARCHIVES += postern-core
postern-core_SRCS := postern/args.c postern/table.c

TESTS += test_postern_args test_postern_table
test_postern_args_SRCS := tests/unit/test_postern_args.c
test_postern_args_ARCHIVES := postern-core base
test_postern_table_SRCS := tests/unit/test_postern_table.c
test_postern_table_ARCHIVES := postern-core base
test_postern_table_LIBS := -ljansson
