/*
 * Looking up what signs for an address.  Invariant: a rule that applies always
 * gives a key, a broken one where nothing better is to be had.
 */
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/keytable_internal.h"
#include "milter-dkim/sigwrite.h"

#define ADDRESS_SIZE (KEYTABLE_ADDRESS_MAX + 1)
#define PATH_MAX_BYTES 4096
#define NONE KEYTABLE_NONE

/* What find() collects. */
struct collecting {
	struct keytable *table;
	struct span domain;
	struct arena *arena;
	struct keytable_match *matches;
	size_t count, max;
};

bool keytable_glob(struct span pattern, struct span text)
{
	size_t p = 0, s = 0, star = NONE, from = 0;
	while (s < text.len) {
		if (p < pattern.len && pattern.ptr[p] == '*') {
			star = p++;
			from = s;
		} else if (p < pattern.len && pattern.ptr[p] == text.ptr[s]) {
			p++;
			s++;
		} else if (star != NONE) {
			p = star + 1;
			s = ++from;
		} else {
			return false;
		}
	}
	while (p < pattern.len && pattern.ptr[p] == '*')
		p++;
	return p == pattern.len;
}

struct keytable_row *keytable_row_named(const struct keytable *table, struct span name)
{
	struct keytable_row *row = htab_get(&table->names, name);
	if (!table->source.key_patterns)
		return row;
	for (size_t i = 0; i < table->row_count; i++)
		if (keytable_glob(span_str(table->rows[i]->name), name))
			return table->rows[i];
	return NULL;
}

/* TEXT with each % replaced by DOMAIN. */
static void expand(const char *text, struct span domain, struct sbuf *out)
{
	for (; *text != '\0'; text++) {
		if (*text == '%')
			sbuf_add(out, domain);
		else
			sbuf_addc(out, *text);
	}
}

/* Keeps KEY under NAME, unless it cannot be used: its file may come yet. */
static void keep_expanded(struct keytable *t, struct span name, struct signkey *key)
{
	struct crypto_key *parsed;
	const char *reason;
	if (signkey_get(key, &parsed, &reason) < 0)
		return;
	crypto_key_unref(&parsed);
	struct keytable_expanded *e = mem_zalloc(sizeof(*e) + name.len);
	memcpy(e->name, name.ptr, name.len);
	e->name_len = name.len;
	e->key = signkey_ref(key);
	pthread_mutex_lock(&t->lock);
	if (t->expanded.count == KEYTABLE_EXPANDED_MAX) {
		htab_done(&t->expanded, keytable_expanded_free);
		htab_init(&t->expanded, KEYTABLE_EXPANDED_MAX);
	}
	void *old = NULL;
	if (htab_put(&t->expanded, span_of(e->name, e->name_len), e, &old) < 0)
		old = e;
	pthread_mutex_unlock(&t->lock);
	if (old != NULL)
		keytable_expanded_free(old);
}

/* Makes the key of ROW for SIGNING, the d=; DOMAIN is the author's. */
static struct signkey *make_key(const struct keytable *t, const struct keytable_row *row, struct span signing,
				struct span domain)
{
	char mem[PATH_MAX_BYTES];
	struct sbuf path;
	struct span selector = span_str(row->selector);
	/* What could not be made A-labels. */
	if (!idn_is_ascii(signing))
		return signkey_new_broken(signing, selector, "the domain is no domain name");
	if (row->path == NULL)
		return signkey_of_domain(row->key, signing);
	sbuf_init(&path, mem, sizeof(mem));
	expand(row->path, domain, &path);
	if (!sbuf_ok(&path) || span_chr(domain, '/') != SPAN_NPOS || !dnsname_valid(domain))
		return signkey_new_broken(signing, selector, "its path is too long or no path");
	return signkey_new_file(t->source.cache, signing, selector, sbuf_cstr(&path), t->source.read, t->source.arg);
}

/* The key of a row with a %, made once for each domain. */
static struct signkey *expanded_key(struct keytable *t, const struct keytable_row *row, struct span domain)
{
	bool percent = strcmp(row->domain, "%") == 0;
	struct span signing = percent ? domain : span_str(row->domain);
	char mem[3 * ADDRESS_SIZE];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_addf(&name, "%s %.*s", row->name, SPAN_ARG(domain));
	pthread_mutex_lock(&t->lock);
	struct keytable_expanded *e = htab_get(&t->expanded, sbuf_span(&name));
	struct signkey *key = e == NULL ? NULL : signkey_ref(e->key);
	pthread_mutex_unlock(&t->lock);
	if (key != NULL)
		return key;
	key = make_key(t, row, signing, domain);
	if (sbuf_ok(&name))
		keep_expanded(t, sbuf_span(&name), key);
	return key;
}

static struct signkey *key_of_row(struct keytable *t, const struct keytable_row *row, struct span domain)
{
	bool fixed = row->path == NULL && (row->domain == NULL || strcmp(row->domain, "%") != 0);
	return fixed ? signkey_ref(row->key) : expanded_key(t, row, domain);
}

/* A reference to the key of RULE for mail of DOMAIN. */
static struct signkey *key_of(struct keytable *t, const struct keytable_rule *rule, struct span domain)
{
	const struct keytable_row *row = rule->row;
	if (strcmp(rule->name, "%") == 0)
		row = keytable_row_named(t, domain);
	if (row == NULL)
		return signkey_new_broken(domain, SPAN_EMPTY, "the SigningTable names no key for it; reload once it does");
	return key_of_row(t, row, domain);
}

/* What has a meaning of its own in the field, and what is no ASCII, encoded (RFC
 * 6376 section 2.11). */
static void add_encoded(struct span local, struct sbuf *out)
{
	for (size_t i = 0; i < local.len; i++) {
		unsigned char b = (unsigned char)local.ptr[i];
		if (b <= ' ' || b == ';' || b == '=' || b >= 127)
			sbuf_addf(out, "=%02X", b);
		else
			sbuf_addc(out, (char)b);
	}
}

/* SIGNER for i=, with A-labels; empty where it is not inside of the signing
 * domain: that would spoil the signature. */
static struct span identity_of(const struct collecting *c, const char *signer, struct span signing)
{
	char mem[ADDRESS_SIZE], out_mem[4 * ADDRESS_SIZE];
	struct sbuf text, out;
	struct span copy;
	if (signer == NULL)
		return SPAN_EMPTY;
	sbuf_init(&text, mem, sizeof(mem));
	sbuf_init(&out, out_mem, sizeof(out_mem));
	expand(signer, c->domain, &text);
	struct span address = sbuf_span(&text);
	size_t at = span_rchr(address, '@');
	if (!sbuf_ok(&text) || at == SPAN_NPOS)
		return SPAN_EMPTY;
	add_encoded(span_take(address, at), &out);
	sbuf_addc(&out, '@');
	size_t start = out.len;
	if (idn_to_ascii(span_skip(address, at + 1), &out) < 0 || !sbuf_ok(&out))
		return SPAN_EMPTY;
	struct span domain = span_skip(sbuf_span(&out), start);
	if (!dnsname_valid(domain) || !dnsname_under(domain, signing) || !sigwrite_value_valid(sbuf_span(&out)) ||
	    arena_dup(c->arena, sbuf_span(&out), &copy) < 0)
		return SPAN_EMPTY;
	return copy;
}

/* Whether a key of the same kind is among those from FIRST on. */
static bool kind_is_there(const struct collecting *c, size_t first, struct signkey *key)
{
	struct crypto_key *mine, *other;
	const char *reason;
	bool same = false;
	if (first == c->count || signkey_get(key, &mine, &reason) < 0)
		return false;
	for (size_t i = first; i < c->count && !same; i++) {
		if (signkey_get(c->matches[i].key, &other, &reason) < 0)
			continue;
		same = crypto_key_alg(mine) == crypto_key_alg(other);
		crypto_key_unref(&other);
	}
	crypto_key_unref(&mine);
	return same;
}

/* Whether the very same signature is there already. */
static bool match_is_there(const struct collecting *c, const struct signkey *key, struct span identity)
{
	for (size_t i = 0; i < c->count; i++)
		if (span_ieq(signkey_domain(c->matches[i].key), signkey_domain(key)) &&
		    span_ieq(signkey_selector(c->matches[i].key), signkey_selector(key)) &&
		    span_eq(c->matches[i].identity, identity))
			return true;
	return false;
}

/* Adds RULE; ONE_OF_A_KIND looks at the matches from FIRST on. */
static void collect(struct collecting *c, const struct keytable_rule *rule, size_t first, bool one_of_a_kind)
{
	if (c->count == c->max)
		return;
	struct signkey *key = key_of(c->table, rule, c->domain);
	struct span identity = identity_of(c, rule->signer, signkey_domain(key));
	if (match_is_there(c, key, identity) || (one_of_a_kind && kind_is_there(c, first, key))) {
		signkey_unref(&key);
		return;
	}
	c->matches[c->count++] = (struct keytable_match){.key = key, .identity = identity};
}

/* All rules with the pattern of the rule NUMBER, which may be NONE; true where the
 * search is over. */
static bool collect_same(struct collecting *c, size_t number)
{
	size_t first = c->count;
	if (number == NONE)
		return false;
	for (; number != NONE; number = c->table->rules[number].same)
		collect(c, &c->table->rules[number], first, true);
	return !c->table->source.multiple;
}

static size_t lookup(const struct keytable *t, struct span key)
{
	void *found = htab_get(&t->by_pattern, key);
	return found == NULL ? NONE : (size_t)(uintptr_t)found - 1;
}

/* A refile: the first line that matches, or all in their order. */
static void find_patterns(struct collecting *c, struct span address, size_t at)
{
	const struct keytable *t = c->table;
	if (t->source.multiple) {
		for (size_t i = 0; i < t->rule_count; i++)
			if (keytable_glob(span_str(t->rules[i].pattern), address))
				collect(c, &t->rules[i], 0, false);
		return;
	}
	size_t best = lookup(t, address), by_domain = lookup(t, span_skip(address, at));
	if (by_domain < best)
		best = by_domain;
	for (size_t i = 0; i < t->glob_count && t->globs[i] < best; i++)
		if (keytable_glob(span_str(t->rules[t->globs[i]].pattern), address))
			best = t->globs[i];
	collect_same(c, best);
}

static size_t lookup_joined(const struct keytable *t, struct span local, const char *between,
			    struct span domain)
{
	char mem[ADDRESS_SIZE];
	struct sbuf key;
	sbuf_init(&key, mem, sizeof(mem));
	sbuf_add(&key, local);
	sbuf_adds(&key, between);
	sbuf_add(&key, domain);
	return sbuf_ok(&key) ? lookup(t, sbuf_span(&key)) : NONE;
}

/* Other tables: the order in which opendkim asks, where its manual tells of all
 * USER@.DOMAIN before all .DOMAIN.  .DOMAIN is what lies below DOMAIN. */
static void find_exact(struct collecting *c, struct span address, size_t at)
{
	const struct keytable *t = c->table;
	struct span local = span_take(address, at), domain = span_skip(address, at + 1);
	if (collect_same(c, lookup(t, address)) || collect_same(c, lookup(t, domain)))
		return;
	for (struct span d = dnsname_parent(domain); d.len > 0; d = dnsname_parent(d))
		if (collect_same(c, lookup_joined(t, local, "@.", d)) ||
		    collect_same(c, lookup_joined(t, SPAN_EMPTY, ".", d)))
			return;
	if (!collect_same(c, lookup_joined(t, local, "@*", SPAN_EMPTY)))
		collect_same(c, lookup(t, SPAN_LIT("*")));
}

size_t keytable_find(struct keytable *table, struct span local, struct span domain, struct arena *a,
		     struct keytable_match *matches_out, size_t max)
{
	char mem[ADDRESS_SIZE];
	struct sbuf address;
	sbuf_init(&address, mem, sizeof(mem));
	sbuf_add_lower(&address, local);
	sbuf_addc(&address, '@');
	sbuf_add_lower(&address, domain);
	if (!sbuf_ok(&address) || table->rule_count == 0)
		return 0;
	struct span text = sbuf_span(&address);
	struct collecting c = {
		.table = table, .domain = span_skip(text, local.len + 1), .arena = a, .matches = matches_out, .max = max,
	};
	if (table->source.patterns)
		find_patterns(&c, text, local.len);
	else
		find_exact(&c, text, local.len);
	return c.count;
}

struct signkey *keytable_key(struct keytable *table, size_t number, struct span domain)
{
	const struct keytable_row *row = table->rows[number];
	if (row->domain == NULL || (strcmp(row->domain, "%") != 0 && !span_ieq(span_str(row->domain), domain)))
		return NULL;
	return key_of_row(table, row, domain);
}
