/* The key was checked by whoever calls, or is by keyops_apply(). */
#include "keyops.h"

/* Whether a limit of SCOPE counts what a key of FROM stands for; WIDE: also as
 * part of its network or domain, or of all mail. */
static bool scope_holds(enum rule_scope scope, enum rule_scope from, bool wide)
{
	static const enum rule_scope wider[SCOPE_COUNT] = {
		[SCOPE_CLIENT_IP] = SCOPE_CLIENT_NET, [SCOPE_CLIENT_NET] = SCOPE_CLIENT_NET,
		[SCOPE_ACCOUNT] = SCOPE_ACCOUNT_DOMAIN, [SCOPE_ACCOUNT_DOMAIN] = SCOPE_ACCOUNT_DOMAIN,
		[SCOPE_SENDER] = SCOPE_SENDER_DOMAIN, [SCOPE_SENDER_DOMAIN] = SCOPE_SENDER_DOMAIN,
		[SCOPE_RECIPIENT] = SCOPE_RECIPIENT_DOMAIN, [SCOPE_RECIPIENT_DOMAIN] = SCOPE_RECIPIENT_DOMAIN,
		[SCOPE_GLOBAL] = SCOPE_GLOBAL,
	};
	return scope == from || (wide && (scope == wider[from] || scope == SCOPE_GLOBAL));
}

int keyops_each_window(struct policyd *p, const struct keyops_key *key, bool wide, keyops_window_fn *fn, void *arg)
{
	static struct subject subject;
	const struct rules *rules = p->session.rules;
	int matches = 0;
	if (subject_init_text(&subject, key->scope, key->text, rules->delimiter) < 0)
		return 0;
	for (size_t i = 0; i < rules->count; i++) {
		const struct rule *rule = &rules->items[i];
		for (size_t j = 0; scope_holds(rule->scope, key->scope, wide) && j < rule->window_count; j++) {
			uint64_t hash;
			if (rule->extra && overrides_find(p->session.overrides, rule, &rule->windows[j], &subject) == NULL)
				continue;
			if (session_hash(&p->session, rule, &rule->windows[j], &subject, &hash) < 0)
				continue;
			fn(arg, rule, &rule->windows[j], &subject, hash);
			matches++;
		}
	}
	return matches;
}

struct resetting {
	struct policyd *p;
	bool everywhere;
	size_t done;
};

static void window_reset(void *arg, const struct rule *rule, const struct rule_window *w,
			 const struct subject *subject, uint64_t hash)
{
	struct resetting *r = arg;
	bool counted = table_used(r->p->table, hash, w->class, policyd_now_ms()) > 0;
	if (counted) {
		table_reset(r->p->table, hash);
		keeper_reset(r->p, hash);
	}
	sharer_reset(r->p->sharer, subject, rule, w, hash, r->everywhere);
	struct session_limited *l = &r->p->session.limited[hash % SESSION_LIMITED_MAX];
	if (l->hash == hash)
		l->hash = 0;
	r->done += counted;
}

static size_t reset(struct policyd *p, const struct keyops_key *key, bool everywhere)
{
	struct resetting r = {.p = p, .everywhere = everywhere};
	(void)keyops_each_window(p, key, false, window_reset, &r);
	return r.done;
}

size_t keyops_reset(struct policyd *p, const struct keyops_key *key)
{
	size_t done = reset(p, key, true);
	sharer_order(p->sharer, WIRE_RESET, key->scope, key->text);
	return done;
}

/* KEY as requests are compared with it: in lower case, an address without its extension, a domain bare. */
static int canonical(const struct policyd *p, const struct keyops_key *key, struct subject *subject,
		     struct keyops_key *key_out)
{
	int rc = subject_init_text(subject, key->scope, key->text, p->session.rules->delimiter);
	struct span name = subject_name(subject, key->scope);
	*key_out = (struct keyops_key){key->scope, name.len > 0 ? name : key->text};
	return rc;
}

static int block(struct policyd *p, const struct keyops_key *key)
{
	int rc = blocks_add(&p->session.blocks, key->scope, key->text);
	if (rc == 0)
		keeper_block(p, true, key->scope, key->text);
	return rc;
}

int keyops_block(struct policyd *p, const struct keyops_key *key)
{
	static struct subject subject;
	struct keyops_key k;
	int rc = canonical(p, key, &subject, &k);
	if (rc == 0)
		rc = block(p, &k);
	if (rc == 0 || rc == ERR_EXISTS)
		sharer_order(p->sharer, WIRE_BLOCK, k.scope, k.text);
	return rc;
}

/* The subject and its canonical key. */
static size_t release(struct policyd *p, const struct subject *subject, const struct keyops_key *key)
{
	size_t done = guard_release(p, subject, key->scope);
	if (blocks_remove(&p->session.blocks, key->scope, key->text) < 0)
		return done;
	keeper_block(p, false, key->scope, key->text);
	return done + 1;
}

size_t keyops_release(struct policyd *p, const struct keyops_key *key)
{
	static struct subject subject;
	struct keyops_key k;
	if (canonical(p, key, &subject, &k) < 0)
		return 0;
	size_t done = release(p, &subject, &k);
	/* Also where nothing was held here: another daemon may hold it. */
	sharer_order(p->sharer, WIRE_RELEASE, k.scope, k.text);
	return done;
}

void keyops_apply(struct policyd *p, enum wire_verb verb, enum rule_scope scope, struct span key)
{
	static struct subject subject;
	struct keyops_key k;
	if (canonical(p, &(struct keyops_key){scope, key}, &subject, &k) < 0)
		return;
	if (verb == WIRE_RESET)
		(void)reset(p, &k, false);
	else if (verb == WIRE_RELEASE)
		(void)release(p, &subject, &k);
	else if (block(p, &k) == ERR_LIMIT)
		log_text(LOG_WARNING, "too many keys are blocked: one that another daemon blocked is not, here");
}
