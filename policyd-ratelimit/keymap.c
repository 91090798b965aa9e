/* Names are kept under one letter for the scope and the name in lower case. */
#include "keymap.h"

struct entry {
	uint32_t value;
	size_t len;
	char key[];
};

void keymap_init(struct keymap *map)
{
	map->scopes = 0;
	netmap_init(&map->nets[0], KEYMAP_MAX);
	netmap_init(&map->nets[1], KEYMAP_MAX);
	htab_init(&map->names, KEYMAP_MAX);
}

void keymap_done(struct keymap *map)
{
	netmap_done(&map->nets[0]);
	netmap_done(&map->nets[1]);
	htab_done(&map->names, free);
	map->scopes = 0;
}

static bool is_client(enum rule_scope scope)
{
	return scope == SCOPE_CLIENT_IP || scope == SCOPE_CLIENT_NET;
}

static struct span entry_key(struct sbuf *b, enum rule_scope scope, struct span name)
{
	sbuf_reset(b);
	sbuf_addc(b, (char)('a' + (int)scope));
	sbuf_add_lower(b, name);
	return sbuf_span(b);
}

static bool is_domain(enum rule_scope scope)
{
	return scope == SCOPE_SENDER_DOMAIN || scope == SCOPE_ACCOUNT_DOMAIN || scope == SCOPE_RECIPIENT_DOMAIN;
}

static int name_add(struct keymap *map, enum rule_scope scope, struct span name, uint32_t *value)
{
	char mem[SUBJECT_KEY_MAX];
	struct sbuf b;
	if (is_domain(scope) && span_starts(name, SPAN_LIT("@")))
		name = span_skip(name, 1);
	bool address = span_chr(name, '@') != SPAN_NPOS;
	if (is_domain(scope) && address)
		return ERR_SYNTAX;
	/* As requests are looked at: subject.c. */
	if ((is_domain(scope) || (address && scope != SCOPE_ACCOUNT)) && span_ends(name, SPAN_LIT(".")))
		name = span_take(name, name.len - 1);
	sbuf_init(&b, mem, sizeof(mem));
	struct span key = entry_key(&b, scope, name);
	if (!sbuf_ok(&b) || (name.len == 0 && scope != SCOPE_GLOBAL))
		return ERR_SYNTAX;
	const struct entry *old = htab_get(&map->names, key);
	if (old != NULL) {
		*value = old->value;
		return ERR_EXISTS;
	}
	struct entry *e = mem_alloc(sizeof(*e) + key.len);
	e->value = *value;
	e->len = key.len;
	memcpy(e->key, key.ptr, key.len);
	int rc = htab_put(&map->names, span_of(e->key, e->len), e, NULL);
	if (rc < 0)
		free(e);
	return rc;
}

int keymap_add(struct keymap *map, enum rule_scope scope, struct span key, uint32_t *value)
{
	int rc;
	if (is_client(scope)) {
		struct ip_net net;
		rc = ip_net_parse(key, &net);
		if (rc == 0)
			rc = netmap_add(&map->nets[scope], &net, *value);
	} else {
		rc = name_add(map, scope, scope == SCOPE_GLOBAL ? SPAN_EMPTY : key, value);
	}
	if (rc == 0)
		map->scopes |= 1u << scope;
	return rc;
}

void keymap_seal(struct keymap *map)
{
	netmap_seal(&map->nets[0]);
	netmap_seal(&map->nets[1]);
}

static int name_find(const struct keymap *map, enum rule_scope scope, struct span name, uint32_t *value_out)
{
	char mem[SUBJECT_KEY_MAX];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	const struct entry *e = htab_get(&map->names, entry_key(&b, scope, name));
	if (e == NULL)
		return ERR_NOT_FOUND;
	*value_out = e->value;
	return 0;
}

int keymap_find_from(const struct keymap *map, enum rule_scope scope, const struct subject *subject, size_t *from,
		     uint32_t *value_out)
{
	if ((map->scopes >> scope & 1) == 0)
		return ERR_NOT_FOUND;
	if (is_client(scope))
		return netmap_find_from(&map->nets[scope], &subject->client, from, value_out);
	struct span name = subject_name(subject, scope);
	if (name.len == 0 && scope != SCOPE_GLOBAL)
		return ERR_NOT_FOUND;
	/* 0: the name, 1: its domain, 2: nothing is left */
	if (*from == 0) {
		*from = 1;
		if (name_find(map, scope, name, value_out) == 0)
			return 0;
	}
	size_t at = span_rchr(name, '@');
	if (*from > 1 || at == SPAN_NPOS)
		return ERR_NOT_FOUND;
	*from = 2;
	return name_find(map, scope, span_skip(name, at), value_out);
}

int keymap_find(const struct keymap *map, enum rule_scope scope, const struct subject *subject,
		uint32_t *value_out)
{
	size_t from = 0;
	return keymap_find_from(map, scope, subject, &from, value_out);
}
