/*
 * Reading the tables.  Invariants: `rules` are in the order of the file;
 * rules[i].same is the next rule with the same pattern; `by_pattern` leads to the
 * first rule of a pattern, of one of the form *@DOMAIN under "@DOMAIN"; `globs`
 * lists the first rules of the other patterns with wildcards.
 */
#include "keytable.h"

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/keytable_internal.h"

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

static char *full_path(const struct keytable *t, struct span path)
{
	struct sbuf full;
	if (t->folder[0] == '\0' || span_starts(path, SPAN_LIT("/")))
		return span_dup(path);
	sbuf_init_heap(&full, strlen(t->folder) + 1 + path.len);
	sbuf_addf(&full, "%s/", t->folder);
	sbuf_add(&full, path);
	char *text = span_dup(sbuf_span(&full));
	sbuf_done(&full);
	return text;
}

/* DOMAIN as it stands in d=: A-labels, or "%". */
static int read_domain(struct span domain, char **domain_out)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	if (span_eq(domain, SPAN_LIT("%"))) {
		*domain_out = span_dup(domain);
		return 0;
	}
	if (idn_to_ascii(dnsname_trim(domain), &ascii) < 0 || !sbuf_ok(&ascii) || !dnsname_valid(sbuf_span(&ascii)))
		return ERR_SYNTAX;
	*domain_out = span_dup(sbuf_span(&ascii));
	return 0;
}

static const char *malformed(struct keytable_row *row, const char *reason)
{
	row->key = signkey_new_broken(SPAN_EMPTY, SPAN_EMPTY, "its line in the KeyTable is malformed; reload once it is mended");
	return reason;
}

/* Fills ROW from "DOMAIN:SELECTOR:KEY"; a reason where it is broken. */
static const char *read_row(const struct keytable *t, struct keytable_row *row, struct span value)
{
	struct span domain, selector, key = value;
	if (!span_cut(&key, ':', &domain) || !span_cut(&key, ':', &selector) || domain.len == 0 ||
	    selector.len == 0 || key.len == 0)
		return malformed(row, "expected DOMAIN:SELECTOR:KEY");
	if (!dnsname_valid(selector))
		return malformed(row, "the selector is no name in DNS");
	if (read_domain(domain, &row->domain) < 0)
		return malformed(row, "the domain is none");
	row->selector = span_dup(selector);
	domain = span_str(row->domain);
	if (!is_path(key)) {
		row->key = signkey_new(t->source.cache, domain, selector, key);
		return NULL;
	}
	char *path = full_path(t, key);
	if (has_percent(key)) {
		row->path = path;
		return NULL;
	}
	row->key = signkey_new_file(t->source.cache, domain, selector, path, t->source.read, t->source.arg);
	const char *reason = t->source.check(t->source.arg, path) < 0 ? "the key file cannot be read" : NULL;
	free(path);
	return reason;
}

static void add_row(struct keytable *t, struct span name, struct span value, unsigned line)
{
	struct keytable_row *row = mem_zalloc(sizeof(*row));
	row->name = span_dup(name);
	const char *reason = read_row(t, row, value);
	if (reason != NULL && t->source.broken != NULL)
		t->source.broken(t->source.arg, false, line, reason);
	t->rows = grown(t->rows, t->row_count, &t->row_size, sizeof(struct keytable_row *));
	t->rows[t->row_count++] = row;
	/* Of two lines with one name the first counts, as with opendkim. */
	if (htab_get(&t->names, name) == NULL &&
	    htab_put(&t->names, span_str(row->name), row, NULL) < 0)
		PANIC("the table of names is smaller than the cap of lines");
}

/* The pattern as it is looked up, or empty where it has to be matched. */
static struct span lookup_form(const struct keytable *t, struct span pattern)
{
	if (!t->source.patterns || span_chr(pattern, '*') == SPAN_NPOS)
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
	while (t->rules[last].same != KEYTABLE_NONE)
		last = t->rules[last].same;
	t->rules[last].same = number;
}

/* Lower case, and the domain of an address in A-labels, as it is asked for. */
static char *read_pattern(struct span pattern)
{
	struct sbuf text;
	sbuf_init_heap(&text, 2 * pattern.len + DNSNAME_MAX);
	size_t at = span_rchr(pattern, '@');
	size_t from = at == SPAN_NPOS ? 0 : at + 1;
	sbuf_add_lower(&text, span_take(pattern, from));
	struct span domain = span_skip(pattern, from);
	if (span_starts(domain, SPAN_LIT("."))) {
		sbuf_addc(&text, '.');
		domain = span_skip(domain, 1);
	}
	if (idn_to_ascii(domain, &text) < 0)
		sbuf_add_lower(&text, domain);
	char *copy = span_dup(sbuf_span(&text));
	sbuf_done(&text);
	return copy;
}

static const char *rule_problem(const struct keytable_rule *rule)
{
	if (rule->name[0] == '\0')
		return "the line names no key";
	if (rule->row == NULL && strcmp(rule->name, "%") != 0)
		return "the key is not in the KeyTable";
	if (rule->signer != NULL && span_chr(span_str(rule->signer), '@') == SPAN_NPOS)
		return "the signer is no address: there will be no i=";
	return NULL;
}

static void add_rule(struct keytable *t, struct span pattern, struct span value, unsigned line)
{
	struct span rest = value, name;
	span_cut(&rest, ':', &name);
	t->rules = grown(t->rules, t->rule_count, &t->rule_size, sizeof(struct keytable_rule));
	struct keytable_rule *rule = &t->rules[t->rule_count];
	*rule = (struct keytable_rule){
		.pattern = read_pattern(pattern),
		.name = span_dup(name),
		.signer = rest.len > 0 ? span_dup(rest) : NULL,
		.row = keytable_row_named(t, name),
		.same = KEYTABLE_NONE,
	};
	const char *problem = rule_problem(rule);
	if (problem != NULL && t->source.broken != NULL)
		t->source.broken(t->source.arg, true, line, problem);
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
	t->source.cache = signkey_cache_ref(source->cache);
	t->folder = mem_strdup(source->folder == NULL ? "" : source->folder);
	htab_init(&t->names, KEYTABLE_LINES_MAX);
	htab_init(&t->by_pattern, KEYTABLE_LINES_MAX);
	htab_init(&t->expanded, KEYTABLE_EXPANDED_MAX);
	pthread_mutex_init(&t->lock, NULL);
	int rc = each_line(t, source->keys, add_row);
	if (rc == 0)
		rc = each_line(t, source->signing, add_rule);
	t->source.keys = t->source.signing = SPAN_EMPTY;
	t->source.folder = NULL;
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

static void free_row(struct keytable_row *row)
{
	free(row->name);
	free(row->domain);
	free(row->selector);
	free(row->path);
	signkey_unref(&row->key);
	free(row);
}

void keytable_expanded_free(void *entry)
{
	struct keytable_expanded *e = entry;
	signkey_unref(&e->key);
	free(e);
}

void keytable_unref(struct keytable **table)
{
	struct keytable *t = *table;
	*table = NULL;
	if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < t->row_count; i++)
		free_row(t->rows[i]);
	for (size_t i = 0; i < t->rule_count; i++) {
		free(t->rules[i].pattern);
		free(t->rules[i].name);
		free(t->rules[i].signer);
	}
	htab_done(&t->names, NULL);
	htab_done(&t->by_pattern, NULL);
	htab_done(&t->expanded, keytable_expanded_free);
	pthread_mutex_destroy(&t->lock);
	signkey_cache_unref(&t->source.cache);
	free(t->folder);
	free(t->rows);
	free(t->rules);
	free(t->globs);
	free(t);
}

size_t keytable_count(const struct keytable *table)
{
	return table->row_count;
}
