/*
 * Invariants: `rules` are in the order of the file; rules[i].same is the next
 * rule with the same pattern; `by_pattern` leads to the first rule of a pattern,
 * of one of the form *@DOMAIN under "@DOMAIN"; `globs` lists the first rules of
 * the other patterns with wildcards.
 */
#include "keytable.h"

#include <stdatomic.h>

#include "lib/base/htab.h"
#include "lib/mail/dnsname.h"

#define ADDRESS_MAX 1024
#define NONE SIZE_MAX

struct row {
	char *name;
	char *domain, *selector; /* domain may be "%" */
	char *path;              /* only where it holds a %: read at use */
	struct signkey *key;     /* else the key */
};

struct rule {
	char *pattern;
	struct row *row; /* NULL: names no key */
	size_t same;
};

struct keytable {
	atomic_uint refs;
	struct keytable_source source;
	struct htab names; /* of rows */
	struct row **rows;
	size_t row_count, row_size;
	struct rule *rules;
	size_t rule_count, rule_size;
	struct htab by_pattern; /* to the number of the rule plus one */
	size_t *globs;
	size_t glob_count, glob_size;
};

static void report(const struct keytable *t, const char *table, unsigned line, const char *reason)
{
	if (t->source.broken != NULL)
		t->source.broken(t->source.arg, table, line, reason);
}

/* Doubles ARRAY of *SIZE items where COUNT have filled it. */
static void *grown(void *array, size_t count, size_t *size, size_t item)
{
	if (count < *size)
		return array;
	*size = *size == 0 ? 64 : *size * 2;
	return mem_realloc(array, *size * item);
}

static bool has_percent(struct span s)
{
	return span_chr(s, '%') != SPAN_NPOS;
}

static bool is_path(struct span key)
{
	return span_starts(key, SPAN_LIT("/")) || span_starts(key, SPAN_LIT("./")) ||
	       span_starts(key, SPAN_LIT("../"));
}

/* Reads a key file; a key that cannot be read is a broken one. */
static struct signkey *read_key(const struct keytable_source *source, struct span domain,
				struct span selector, const char *path)
{
	struct sbuf text;
	sbuf_init_heap(&text, CRYPTO_KEY_TEXT_MAX);
	struct signkey *key;
	if (source->read(source->arg, path, &text) < 0 || !sbuf_ok(&text))
		key = signkey_new_broken(domain, selector, "its file cannot be read");
	else
		key = signkey_new(domain, selector, sbuf_span(&text));
	if (text.ptr != NULL)
		explicit_bzero(text.ptr, text.size);
	sbuf_done(&text);
	return key;
}

/* Fills ROW from "DOMAIN:SELECTOR:KEY"; a reason where it is broken. */
static const char *read_row(const struct keytable *t, struct row *row, struct span value)
{
	struct span domain, selector, key = value;
	if (!span_cut(&key, ':', &domain) || !span_cut(&key, ':', &selector) || domain.len == 0 ||
	    selector.len == 0 || key.len == 0) {
		row->key = signkey_new_broken(SPAN_EMPTY, SPAN_EMPTY, "its line in the KeyTable is malformed");
		return "expected DOMAIN:SELECTOR:KEY";
	}
	row->domain = span_dup(domain);
	row->selector = span_dup(selector);
	if (!is_path(key)) {
		row->key = signkey_new(domain, selector, key);
		return NULL;
	}
	char *path = span_dup(key);
	if (has_percent(key)) {
		row->path = path;
		return NULL;
	}
	row->key = read_key(&t->source, domain, selector, path);
	free(path);
	return signkey_text(row->key).len == 0 ? "the key file cannot be read" : NULL;
}

static void add_row(struct keytable *t, struct span name, struct span value, unsigned line)
{
	struct row *row = mem_zalloc(sizeof(*row));
	row->name = span_dup(name);
	const char *reason = read_row(t, row, value);
	if (reason != NULL)
		report(t, "KeyTable", line, reason);
	t->rows = grown(t->rows, t->row_count, &t->row_size, sizeof(struct row *));
	t->rows[t->row_count++] = row;
	/* Of two lines with one name the first counts, as with opendkim. */
	if (htab_get(&t->names, name) == NULL &&
	    htab_put(&t->names, span_str(row->name), row, NULL) < 0)
		PANIC("the table of names is smaller than the cap of lines");
}

/* The pattern as it is looked up, or empty where it has to be matched. */
static struct span lookup_form(const struct keytable *t, struct span pattern)
{
	if (!t->source.wildcards || span_chr(pattern, '*') == SPAN_NPOS)
		return pattern;
	struct span tail = span_skip(pattern, 1);
	return span_starts(pattern, SPAN_LIT("*@")) && span_chr(tail, '*') == SPAN_NPOS ? tail : SPAN_EMPTY;
}

static void index_rule(struct keytable *t, size_t number)
{
	struct span pattern = span_str(t->rules[number].pattern), form = lookup_form(t, pattern);
	bool matched = form.len == 0;
	void *found = htab_get(&t->by_pattern, matched ? pattern : form);
	if (found == NULL) {
		if (htab_put(&t->by_pattern, matched ? pattern : form, (void *)(uintptr_t)(number + 1), NULL) < 0)
			PANIC("the table of patterns is smaller than the cap of lines");
		if (!matched)
			return;
		t->globs = grown(t->globs, t->glob_count, &t->glob_size, sizeof(size_t));
		t->globs[t->glob_count++] = number;
		return;
	}
	size_t last = (size_t)(uintptr_t)found - 1;
	while (t->rules[last].same != NONE)
		last = t->rules[last].same;
	t->rules[last].same = number;
}

static void add_rule(struct keytable *t, struct span pattern, struct span value, unsigned line)
{
	struct span rest = value, name;
	struct sbuf lower;
	span_cut(&rest, ':', &name);
	t->rules = grown(t->rules, t->rule_count, &t->rule_size, sizeof(struct rule));
	struct rule *rule = &t->rules[t->rule_count];
	sbuf_init_heap(&lower, pattern.len);
	sbuf_add_lower(&lower, pattern);
	*rule = (struct rule){.pattern = span_dup(sbuf_span(&lower)), .same = NONE,
			      .row = htab_get(&t->names, name)};
	sbuf_done(&lower);
	if (rule->row == NULL)
		report(t, "SigningTable", line, name.len == 0 ? "the line names no key"
							     : "the key is not in the KeyTable");
	index_rule(t, t->rule_count++);
}

/* Calls ADD for each line that is not empty or a comment. */
static int each_line(struct keytable *t, struct span text,
		     void (*add)(struct keytable *, struct span, struct span, unsigned))
{
	struct span rest = text, line;
	unsigned number = 0;
	while (rest.len > 0) {
		span_cut(&rest, '\n', &line);
		if (++number > KEYTABLE_LINES_MAX)
			return ERR_LIMIT;
		line = span_trim(span_take(line, span_chr(line, '#')));
		if (line.len == 0)
			continue;
		size_t end = 0;
		while (end < line.len && !ascii_isfws(line.ptr[end]))
			end++;
		add(t, span_take(line, end), span_trim(span_skip(line, end)), number);
	}
	return 0;
}

int keytable_load(const struct keytable_source *source, struct keytable **table_out)
{
	struct keytable *t = mem_zalloc(sizeof(*t));
	atomic_init(&t->refs, 1);
	t->source = *source;
	htab_init(&t->names, KEYTABLE_LINES_MAX);
	htab_init(&t->by_pattern, KEYTABLE_LINES_MAX);
	int rc = each_line(t, source->keys, add_row);
	if (rc == 0)
		rc = each_line(t, source->signing, add_rule);
	t->source.keys = t->source.signing = SPAN_EMPTY;
	t->source.broken = NULL;
	if (rc < 0)
		keytable_unref(&t);
	else
		*table_out = t;
	return rc;
}

struct keytable *keytable_ref(struct keytable *table)
{
	atomic_fetch_add_explicit(&table->refs, 1, memory_order_relaxed);
	return table;
}

void keytable_unref(struct keytable **table)
{
	struct keytable *t = *table;
	*table = NULL;
	if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < t->row_count; i++) {
		struct row *row = t->rows[i];
		free(row->name);
		free(row->domain);
		free(row->selector);
		free(row->path);
		signkey_unref(&row->key);
		free(row);
	}
	for (size_t i = 0; i < t->rule_count; i++)
		free(t->rules[i].pattern);
	htab_done(&t->names, NULL);
	htab_done(&t->by_pattern, NULL);
	free(t->rows);
	free(t->rules);
	free(t->globs);
	free(t);
}

size_t keytable_count(const struct keytable *table)
{
	return table->row_count;
}

/* PATTERN with * for any run of bytes. */
static bool glob(struct span pattern, struct span text)
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

static size_t lookup(const struct keytable *t, struct span key)
{
	void *found = htab_get(&t->by_pattern, key);
	return found == NULL ? NONE : (size_t)(uintptr_t)found - 1;
}

/* A refile: the first line that matches. */
static size_t find_wildcard(const struct keytable *t, struct span address, size_t at)
{
	size_t best = lookup(t, address), by_domain = lookup(t, span_skip(address, at));
	if (by_domain < best)
		best = by_domain;
	for (size_t i = 0; i < t->glob_count && t->globs[i] < best; i++)
		if (glob(span_str(t->rules[t->globs[i]].pattern), address))
			best = t->globs[i];
	return best;
}

static size_t lookup_joined(const struct keytable *t, struct span local, const char *between,
			    struct span domain)
{
	char mem[ADDRESS_MAX];
	struct sbuf key;
	sbuf_init(&key, mem, sizeof(mem));
	sbuf_add(&key, local);
	sbuf_adds(&key, between);
	sbuf_add(&key, domain);
	return sbuf_ok(&key) ? lookup(t, sbuf_span(&key)) : NONE;
}

/* Other tables: the order of opendkim.conf(5). */
static size_t find_exact(const struct keytable *t, struct span address, size_t at)
{
	struct span local = span_take(address, at), domain = span_skip(address, at + 1);
	size_t found = lookup(t, address);
	if (found == NONE)
		found = lookup(t, domain);
	for (struct span d = domain; d.len > 0 && found == NONE; d = dnsname_parent(d))
		found = lookup_joined(t, local, "@.", d);
	for (struct span d = domain; d.len > 0 && found == NONE; d = dnsname_parent(d))
		found = lookup_joined(t, SPAN_EMPTY, ".", d);
	if (found == NONE)
		found = lookup_joined(t, local, "@*", SPAN_EMPTY);
	return found == NONE ? lookup(t, SPAN_LIT("*")) : found;
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

/* A reference to the key of ROW for mail of DOMAIN. */
static struct signkey *key_of(const struct keytable *t, const struct row *row, struct span domain)
{
	if (row == NULL)
		return signkey_new_broken(domain, SPAN_EMPTY, "the SigningTable names no key for it");
	bool percent = row->domain != NULL && strcmp(row->domain, "%") == 0;
	if (row->path == NULL && !percent)
		return signkey_ref(row->key);
	struct span signing = percent ? domain : span_str(row->domain), selector = span_str(row->selector);
	if (row->path == NULL)
		return signkey_new(signing, selector, signkey_text(row->key));
	char mem[4096];
	struct sbuf path;
	sbuf_init(&path, mem, sizeof(mem));
	expand(row->path, domain, &path);
	if (!sbuf_ok(&path) || span_chr(domain, '/') != SPAN_NPOS)
		return signkey_new_broken(signing, selector, "its path is too long");
	return read_key(&t->source, signing, selector, sbuf_cstr(&path));
}

/* Whether a key of the same kind is among the first COUNT. */
static bool kind_is_there(struct signkey **keys, size_t count, struct signkey *key)
{
	struct crypto_key *mine, *other;
	const char *reason;
	bool same = false;
	if (signkey_get(key, &mine, &reason) < 0)
		return false;
	for (size_t i = 0; i < count && !same; i++) {
		if (signkey_get(keys[i], &other, &reason) < 0)
			continue;
		same = crypto_key_alg(mine) == crypto_key_alg(other);
		crypto_key_unref(&other);
	}
	crypto_key_unref(&mine);
	return same;
}

size_t keytable_find(const struct keytable *table, struct span local, struct span domain,
		     struct signkey **keys_out, size_t max)
{
	char mem[ADDRESS_MAX];
	struct sbuf address;
	sbuf_init(&address, mem, sizeof(mem));
	sbuf_add_lower(&address, local);
	sbuf_addc(&address, '@');
	sbuf_add_lower(&address, domain);
	if (!sbuf_ok(&address) || table->rule_count == 0)
		return 0;
	struct span text = sbuf_span(&address);
	size_t rule = table->source.wildcards ? find_wildcard(table, text, local.len)
					      : find_exact(table, text, local.len);
	size_t count = 0;
	for (; rule != NONE && count < max; rule = table->rules[rule].same) {
		struct signkey *key = key_of(table, table->rules[rule].row,
					     span_skip(text, local.len + 1));
		if (kind_is_there(keys_out, count, key))
			signkey_unref(&key);
		else
			keys_out[count++] = key;
	}
	return count;
}
