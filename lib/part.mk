# The libraries: base and mail are pure, run does the I/O.

ARCHIVES += base mail run
base_SRCS := $(wildcard lib/base/*.c)
mail_SRCS := $(wildcard lib/mail/*.c)
run_SRCS  := $(wildcard lib/run/*.c)
RUN_LIBS  := -lev -lmariadb -lsystemd -ljansson -lcrypto

TESTS += test_span
test_span_SRCS := tests/unit/test_span.c
test_span_ARCHIVES := base
