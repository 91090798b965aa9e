/*
 * A map from what limits count (a scope and an address, account, domain or
 * network as an administrator writes it) to numbers: the index of overrides
 * and of blocks.  Networks are found by longest prefix; "@domain" under a
 * scope of addresses stands for all addresses there, after an entry of
 * their own.  Under the scopes of domains a name may be written as example.com,
 * @example.com or example.com. (with a dot).  Fill, seal, look up.  Pure.
 */
#ifndef POLICYD_KEYMAP_H
#define POLICYD_KEYMAP_H

#include "policyd-ratelimit/subject.h"

#define KEYMAP_MAX 1000000

struct keymap {
	struct netmap nets[2]; /* client_ip, client_net */
	struct htab names;
	unsigned scopes; /* bit set of those that have an entry */
};

void keymap_init(struct keymap *map);
void keymap_done(struct keymap *map);
/*
 * ERR_SYNTAX where KEY is none of SCOPE, ERR_LIMIT when full.  ERR_EXISTS where
 * a name is there already, with its value in *VALUE; networks are not compared.
 */
int keymap_add(struct keymap *map, enum rule_scope scope, struct span key, uint32_t *value) MUST_CHECK;
void keymap_seal(struct keymap *map);
/* The most specific key of SUBJECT; *FROM, 0 at first, is where to look for the next wider one. */
int keymap_find_from(const struct keymap *map, enum rule_scope scope, const struct subject *subject, size_t *from,
		     uint32_t *value_out) MUST_CHECK;
int keymap_find(const struct keymap *map, enum rule_scope scope, const struct subject *subject,
		uint32_t *value_out) MUST_CHECK;

#endif
