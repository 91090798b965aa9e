/*
 * The keys that the administrator has blocked: a short list that can be
 * walked, with an index for the decision.  Pure.
 */
#ifndef POLICYD_BLOCKS_H
#define POLICYD_BLOCKS_H

#include "policyd-ratelimit/keymap.h"

#define BLOCKS_MAX 10000
#define BLOCKS_KEY_MAX 320 /* bytes of a key: the longest address */

struct block {
	enum rule_scope scope;
	char *key;
};

struct blocks {
	struct keymap map;
	struct block *items;
	size_t count;
};

void blocks_init(struct blocks *blocks);
void blocks_done(struct blocks *blocks);
/* ERR_SYNTAX where KEY is none of SCOPE or over BLOCKS_KEY_MAX, ERR_EXISTS, ERR_LIMIT at BLOCKS_MAX. */
int blocks_add(struct blocks *blocks, enum rule_scope scope, struct span key) MUST_CHECK;
int blocks_remove(struct blocks *blocks, enum rule_scope scope, struct span key) MUST_CHECK;
/* Removes all. */
void blocks_clear(struct blocks *blocks);

#endif
