/*
 * Limits of single accounts, domains and networks that replace the configured
 * ones.  An override applies to each limit of the same scope, unit and window
 * length; where none is configured it makes one, for its key alone (session.h).  The set is built once and then only read, so that it can be made on
 * another thread and swapped in whole.  Pure.
 */
#ifndef POLICYD_OVERRIDES_H
#define POLICYD_OVERRIDES_H

#include "policyd-ratelimit/keymap.h"

#define OVERRIDES_MAX 1000000
#define OVERRIDES_KINDS_MAX 64
#define OVERRIDE_UNLIMITED UINT64_MAX

struct override {
	enum rule_scope scope;
	enum rule_unit unit;
	enum proto_action action;
	bool shadow;
	int64_t length_ms;
	uint64_t max;  /* OVERRIDE_UNLIMITED: none */
	uint32_t next; /* of the same key, as index + 1; 0: none */
};

/* A scope, unit and window of which there are overrides. */
struct override_kind {
	enum rule_scope scope;
	enum rule_unit unit;
	int64_t length_ms;
};

struct overrides {
	struct override_kind kinds[OVERRIDES_KINDS_MAX];
	size_t kind_count;
	struct keymap map;
	struct override *items;
	size_t count, size;
};

struct overrides *overrides_new(void);
void overrides_free(struct overrides **overrides);
/* What is wrong with an override that can never apply; NULL: nothing. DELIMITER as of subject_init(). */
const char *overrides_fault(const struct override *item, struct span key, char delimiter);
/* ERR_SYNTAX where KEY is none of the scope or the window is none that a limit
 * may have, ERR_LIMIT when full, also of kinds.  Those of one
 * network must be added one after the other. */
int overrides_add(struct overrides *overrides, const struct override *item, struct span key) MUST_CHECK;
void overrides_seal(struct overrides *overrides);

/* What replaces the limit of RULE's WINDOW for SUBJECT, or NULL. OVERRIDES may be NULL. */
const struct override *overrides_find(const struct overrides *overrides, const struct rule *rule,
				      const struct rule_window *window, const struct subject *subject);

/* What holds for SUBJECT in RULE's WINDOW. */
struct override_limit {
	uint64_t max; /* OVERRIDE_UNLIMITED: none */
	enum proto_action action;
	bool shadow, overridden;
};

/* Changes LIMIT, the configured one, to what an override has; the burst of a smoothed one keeps its
 * share of the count. */
void overrides_apply(const struct overrides *overrides, const struct rule *rule, const struct rule_window *window,
		     const struct subject *subject, struct override_limit *limit);

/* The limit as configured or as an override has it.  OVERRIDES may be NULL. */
static inline struct override_limit overrides_limit(const struct overrides *overrides, const struct rule *rule,
						    const struct rule_window *window, const struct subject *subject)
{
	struct override_limit limit = {.max = window->max, .action = rule->action, .shadow = rule->shadow};
	if (overrides != NULL)
		overrides_apply(overrides, rule, window, subject, &limit);
	return limit;
}

#endif
