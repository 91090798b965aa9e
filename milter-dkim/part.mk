# milter-dkim: its core (everything but main and the libmilter adapter) is an
# archive that postern and the tests link too.

ARCHIVES += milter-core
milter-core_SRCS := $(filter-out milter-dkim/main.c milter-dkim/milter.c,$(wildcard milter-dkim/*.c))
MILTER_CORE_LIBS := -lcares -lidn2 -lpsl $(RUN_LIBS)

# The evaluators over DNS answers.
AUTH_TESTS := spf authres dmarc
TESTS += $(AUTH_TESTS:%=test_%)
define auth_test
test_$(1)_SRCS := tests/unit/test_$(1).c
test_$(1)_ARCHIVES := milter-core mail run base
test_$(1)_LIBS := $(MILTER_CORE_LIBS)
endef
$(foreach t,$(AUTH_TESTS),$(eval $(call auth_test,$(t))))

TESTS += test_rfc5322 test_taglist test_canon
test_rfc5322_SRCS := tests/unit/test_rfc5322.c
test_rfc5322_ARCHIVES := mail base
test_taglist_SRCS := tests/unit/test_taglist.c
test_taglist_ARCHIVES := milter-core mail base
test_canon_SRCS := tests/unit/test_canon.c
test_canon_ARCHIVES := milter-core mail base
test_canon_LIBS := -lcrypto

TESTS += test_sign test_verify
test_sign_SRCS := tests/unit/test_sign.c
test_sign_ARCHIVES := milter-core mail base
test_sign_LIBS := -lcrypto -lidn2
test_verify_SRCS := tests/unit/test_verify.c
test_verify_ARCHIVES := milter-core mail base
test_verify_LIBS := -lcrypto -lidn2
