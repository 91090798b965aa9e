# The libraries. libbase.a and libmail.a are pure; librun.a does the I/O.

LIBBASE_SRCS := $(wildcard lib/base/*.c)
LIBMAIL_SRCS := $(wildcard lib/mail/*.c)
LIBRUN_SRCS  := $(wildcard lib/run/*.c)

LIBBASE := $(BUILD)/libbase.a
LIBMAIL := $(BUILD)/libmail.a
LIBRUN  := $(BUILD)/librun.a

LIBRUN_LIBS := -lev -lmariadb -lsystemd -ljansson -lcrypto
CHECK_LIBS  := -lcheck -lsubunit -lm -lrt

$(LIBBASE): $(call objs,$(LIBBASE_SRCS))
$(LIBMAIL): $(call objs,$(LIBMAIL_SRCS))
$(LIBRUN): $(call objs,$(LIBRUN_SRCS))

$(LIBBASE) $(LIBMAIL) $(LIBRUN):
	@mkdir -p $(@D)
	@rm -f $@
	$(call say,AR,$@)$(AR) rcs $@ $^
