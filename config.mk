# Settings of the build. Override on the command line: make CC=clang PREFIX=/usr

VERSION   ?= 0.1.0
PREFIX    ?= /usr/local
DESTDIR   ?=
SYSCONFDIR ?= /etc/postern

CC        ?= cc
OPT       ?= -O2
CSTD      ?= -std=gnu17

WARN = -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wformat=2 -Wvla \
       -Wstrict-prototypes -Wmissing-prototypes -Wundef -Wcast-qual
HARDEN = -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fPIE
HARDEN_LD = -pie -Wl,-z,relro,-z,now

# CI=true turns warnings into errors.
ifeq ($(CI),true)
WARN += -Werror
endif

# SAN=address, undefined or thread builds an instrumented tree in build/SAN.
SAN ?=
ifneq ($(SAN),)
HARDEN = -fno-omit-frame-pointer -fsanitize=$(SAN) -fPIE -fno-sanitize-recover=all
HARDEN_LD = -pie -fsanitize=$(SAN)
OPT = -O1 -g
BUILD ?= build/$(SAN)
endif
# FUZZING=1 is set by `make fuzz`: clang, libFuzzer with ASan and UBSan.
ifeq ($(FUZZING),1)
HARDEN = -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=undefined -fPIE
HARDEN_LD = -pie -fsanitize=fuzzer,address,undefined
OPT = -O1 -g
endif
BUILD ?= build

# Where the plug-ins for Dovecot are built against and installed to.
DOVECOT_CONFIG  ?= /usr/lib/dovecot/dovecot-config
DOVECOT_INCLUDE ?= /usr/include/dovecot
DOVECOT_MODULES ?= /usr/lib/dovecot/modules
# 2.3 or 2.4, and what Dovecot compares before it loads a plug-in.
DOVECOT_ABI    := $(shell sed -n 's/^\#define DOVECOT_ABI_VERSION "\(.*\)"/\1/p' $(DOVECOT_INCLUDE)/config.h)
DOVECOT_SERIES := $(shell expr '$(DOVECOT_ABI)' : '\([0-9]*\.[0-9]*\)\.')
