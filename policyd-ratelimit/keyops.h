/*
 * What administrators do to a key: reset, block, release; here, and at the other
 * daemons that share the limits.
 */
#ifndef POLICYD_KEYOPS_H
#define POLICYD_KEYOPS_H

#include "policyd-ratelimit/policyd.h"

struct keyops_key {
	enum rule_scope scope;
	struct span text;
};

/* Each window of a limit that counts the key. */
typedef void keyops_window_fn(void *arg, const struct rule *rule, const struct rule_window *window,
			      const struct subject *subject, uint64_t hash);
/* Calls FN for each; WIDE: also for limits of its network, its domain, and of all mail. Their number. */
int keyops_each_window(struct policyd *p, const struct keyops_key *key, bool wide, keyops_window_fn *fn, void *arg);

/* The windows that were counting. */
size_t keyops_reset(struct policyd *p, const struct keyops_key *key);
/* ERR_EXISTS where it is blocked already, ERR_LIMIT. */
int keyops_block(struct policyd *p, const struct keyops_key *key) MUST_CHECK;
/* How often it was held or blocked. */
size_t keyops_release(struct policyd *p, const struct keyops_key *key);
/* The same because another daemon was told so; a key that is none of SCOPE is ignored. */
void keyops_apply(struct policyd *p, enum wire_verb verb, enum rule_scope scope, struct span key);

#endif
