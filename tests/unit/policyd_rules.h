/* Sealed rules for tests. */
#ifndef TESTS_UNIT_POLICYD_RULES_H
#define TESTS_UNIT_POLICYD_RULES_H

#include <check.h>

#include "policyd-ratelimit/rules.h"

/* Those of LIMITS, which a NULL ends; the caller frees them. */
static inline struct rules *rules_of(const char *const *limits)
{
	char mem[512];
	struct sbuf reason;
	struct rules *rules = rules_new();
	sbuf_init(&reason, mem, sizeof(mem));
	for (; *limits != NULL; limits++)
		ck_assert_msg(rules_add_limit(rules, span_str(*limits), &reason) == 0, "%s", mem);
	rules_seal(rules);
	return rules;
}

/* The same of one. */
static inline struct rules *rules_of_one(const char *limit)
{
	return rules_of((const char *const[]){limit, NULL});
}

#endif
