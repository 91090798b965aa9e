/*
 * A tuple is the text of its record but for the count: two rows belong together
 * where these texts are equal, so nothing that a reader could tell apart is
 * merged, and nothing is told twice.  Signatures are sorted, so their order in
 * the mail changes nothing.  Of the texts only 128 bits under random keys are
 * kept, which nobody can make collide.
 */
#include "milter-dkim/aggregate.h"

#include <jansson.h>
#include <stdlib.h>

#include "lib/base/hash.h"
#include "lib/mail/addr.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "lib/mail/result.h"
#include "milter-dkim/aggregate_xml.h"

#define SCRATCH_BYTES (4u << 20) /* of one row */
#define SIGNATURES_READ 1000     /* of one row; the best of them are told */

/* ---- one record ---- */

/* A domain as it is compared: A-labels where there are any, in lower case. */
static int clean_domain(struct span text, struct arena *a, struct span *domain_out)
{
	char mem[AGGREGATE_DOMAIN_MAX + 1];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	text = dnsname_trim(text);
	if (idn_to_ascii(text, &b) < 0 || !sbuf_ok(&b)) {
		sbuf_reset(&b);
		sbuf_add_lower(&b, span_take(text, AGGREGATE_DOMAIN_MAX));
	}
	return arena_dup(a, sbuf_span(&b), domain_out);
}

/* The word of RFC 8601, "neutral" for what is none. */
static const char *result_word(struct span text, bool spf)
{
	for (enum auth_result r = AUTH_NONE; r < AUTH_RESULTS; r++) {
		bool known = r != (spf ? AUTH_POLICY : AUTH_SOFTFAIL);
		if (known && span_ieq(text, span_str(auth_result_name(r))))
			return auth_result_name(r);
	}
	return auth_result_name(AUTH_NEUTRAL);
}

static struct span member(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	return json_is_string(value) ? span_of(json_string_value(value), json_string_length(value)) : SPAN_EMPTY;
}

/* Section 2.1.3.  The row tells which domains are aligned; in one that does not
 * the name does. */
static unsigned rank(const json_t *item, struct span domain, struct span author, const char *result)
{
	const json_t *aligned = json_object_get(item, "aligned");
	if (strcmp(result, "pass") != 0)
		return 3;
	if (span_eq(domain, author))
		return 0;
	if (json_is_boolean(aligned))
		return json_is_true(aligned) ? 1 : 2;
	return dnsname_under(domain, author) || (dnsname_labels(domain) > 1 && dnsname_under(author, domain)) ? 1 : 2;
}


static int compare_signatures(const void *pa, const void *pb)
{
	const struct aggregate_signature *a = pa, *b = pb;
	if (a->rank != b->rank)
		return a->rank < b->rank ? -1 : 1;
	int order = span_cmp(a->domain, b->domain);
	if (order == 0)
		order = span_cmp(a->selector, b->selector);
	if (order == 0)
		order = strcmp(a->result, b->result);
	return order != 0 ? order : span_cmp(a->reason, b->reason);
}

static int take_signature(const json_t *item, struct span author, struct arena *a, struct aggregate_signature *s)
{
	int rc = clean_domain(member(item, "domain"), a, &s->domain);
	if (rc == 0)
		rc = arena_dup(a, span_take(member(item, "selector"), AGGREGATE_DOMAIN_MAX), &s->selector);
	s->result = result_word(member(item, "result"), false);
	if (rc == 0 && strcmp(s->result, "pass") != 0)
		rc = arena_dup(a, span_take(member(item, "reason"), 4 * AGGREGATE_TEXT_MAX), &s->reason);
	s->rank = rank(item, s->domain, author, s->result);
	return rc;
}

/* A signature without a domain says nothing that could be reported. */
static int take_signatures(struct span text, struct arena *a, struct aggregate_record *r)
{
	if (text.len == 0 || text.len > AGGREGATE_JSON_MAX)
		return 0;
	json_t *root = json_loadb(text.ptr, text.len, 0, NULL);
	size_t count = json_array_size(root) < SIGNATURES_READ ? json_array_size(root) : SIGNATURES_READ;
	int rc = 0;
	r->signatures = count == 0 ? NULL : arena_calloc(a, count, sizeof(*r->signatures));
	if (count > 0 && r->signatures == NULL)
		rc = ERR_LIMIT;
	for (size_t i = 0; rc == 0 && i < count; i++) {
		const json_t *item = json_array_get(root, i);
		if (member(item, "domain").len > 0)
			rc = take_signature(item, r->header_from, a, &r->signatures[r->signature_count++]);
	}
	json_decref(root);
	if (r->signature_count > 1)
		qsort(r->signatures, r->signature_count, sizeof(*r->signatures), compare_signatures);
	if (r->signature_count > AGGREGATE_SIGNATURES_MAX)
		r->signature_count = AGGREGATE_SIGNATURES_MAX;
	return rc;
}

static const char *disposition_word(struct span text)
{
	static const char *const words[] = {"none", "quarantine", "reject"};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (span_ieq(text, span_str(words[i])))
			return words[i];
	return words[0];
}

static void add_reason(struct aggregate_record *r, const char *type, struct span comment)
{
	for (size_t i = 0; i < r->reason_count; i++)
		if (strcmp(r->reasons[i].type, type) == 0)
			return;
	if (r->reason_count < AGGREGATE_REASONS_MAX)
		r->reasons[r->reason_count++] = (struct aggregate_reason){type, comment};
}

static const char *override_word(struct span text)
{
	static const char *const words[] = {"local_policy", "mailing_list", "policy_test_mode", "trusted_forwarder"};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (span_eq(text, span_str(words[i])))
			return words[i];
	return "other";
}

/* What was done, and why it is not what the policy says (section 2.1.1.9). */
static void take_policy(const struct aggregate_row *row, struct aggregate_record *r)
{
	const char *published = disposition_word(row->dmarc_policy);
	const char *applied = row->dmarc_applied.len > 0 ? disposition_word(row->dmarc_applied) : published;
	r->dkim = row->aligned_dkim;
	r->spf = row->aligned_spf;
	if (span_eq(row->dmarc_result, SPAN_LIT("pass"))) {
		r->disposition = strcmp(published, "none") == 0 ? "none" : "pass";
		return;
	}
	r->disposition = disposition_word(row->disposition);
	if (row->override_type.len > 0)
		add_reason(r, override_word(row->override_type), row->override_reason);
	if (strcmp(r->disposition, published) == 0)
		return;
	if (!span_eq(row->dmarc_result, SPAN_LIT("fail"))) {
		add_reason(r, "other", SPAN_LIT("DMARC could not be decided"));
		return;
	}
	if (strcmp(applied, published) != 0)
		add_reason(r, "policy_test_mode", SPAN_EMPTY);
	if (r->reason_count == 0 || (strcmp(r->disposition, applied) != 0 && row->override_type.len == 0))
		add_reason(r, "local_policy", SPAN_EMPTY);
}

int aggregate_record_make(const struct aggregate_row *row, struct arena *a, struct aggregate_record *record_out)
{
	struct aggregate_record r = {.has_envelope_from = row->has_sender};
	struct span local, domain;
	addr_split(row->envelope_sender, &local, &domain);
	int rc = clean_domain(row->from_domain, a, &r.header_from);
	if (rc == 0)
		rc = clean_domain(domain, a, &r.envelope_from);
	if (rc == 0)
		rc = clean_domain(row->spf_domain, a, &r.spf_domain);
	if (rc == 0)
		rc = take_signatures(row->dkim_signatures, a, &r);
	if (row->spf_result.len > 0)
		r.spf_result = result_word(row->spf_result, true);
	take_policy(row, &r);
	if (rc == 0)
		*record_out = r;
	return rc;
}

/* The schema knows no IPv6 address with an IPv4 part, nor "::" alone. */
int aggregate_ip(struct span client_ip, char text_out[AGGREGATE_IP_SIZE])
{
	struct ip ip;
	struct sbuf b;
	if (ip_parse(client_ip, &ip) < 0)
		return ERR_SYNTAX;
	sbuf_init(&b, text_out, AGGREGATE_IP_SIZE);
	ip_format(&ip, &b);
	if (ip.bits == 32 || (span_chr(sbuf_span(&b), '.') == SPAN_NPOS && b.len > 2))
		return 0;
	sbuf_reset(&b);
	for (unsigned i = 0; i < 16; i += 2)
		sbuf_addf(&b, "%s%x", i > 0 ? ":" : "", (unsigned)ip.bytes[i] << 8 | ip.bytes[i + 1]);
	return 0;
}

/* ---- tuples ---- */

struct tuple {
	uint64_t hash[2];
	uint32_t count;	  /* 0: a free slot; does not wrap */
	uint32_t written; /* the reading in which it was written */
};

struct aggregate {
	struct hash_key keys[2];
	struct tuple *slots;
	size_t size, used, max; /* slots (a power of two), tuples, their cap */
	uint32_t reading;
	struct arena scratch;
	struct sbuf text; /* address, NUL, body */
	struct aggregate_totals totals;
};

#define SLOTS_FIRST 1024

struct aggregate *aggregate_new(size_t max_tuples)
{
	struct aggregate *g = mem_zalloc(sizeof(*g));
	g->keys[0] = hash_key_random();
	g->keys[1] = hash_key_random();
	g->max = max_tuples;
	g->size = SLOTS_FIRST;
	g->slots = mem_zalloc(g->size * sizeof(*g->slots));
	arena_init(&g->scratch, SCRATCH_BYTES);
	sbuf_init_heap(&g->text, AGGREGATE_IP_SIZE + AGGREGATE_BODY_MAX);
	return g;
}

void aggregate_free(struct aggregate **g)
{
	if (*g == NULL)
		return;
	free((*g)->slots);
	arena_done(&(*g)->scratch);
	sbuf_done(&(*g)->text);
	free(*g);
	*g = NULL;
}

/* The slot of a tuple, or the free one where it would be. */
static struct tuple *find(struct tuple *slots, size_t size, const uint64_t hash[2])
{
	size_t at = (size_t)hash[0] & (size - 1);
	while (slots[at].count != 0 && (slots[at].hash[0] != hash[0] || slots[at].hash[1] != hash[1]))
		at = (at + 1) & (size - 1);
	return &slots[at];
}

static void grow(struct aggregate *g)
{
	size_t size = g->size * 2;
	struct tuple *slots = mem_zalloc(size * sizeof(*slots));
	for (size_t i = 0; i < g->size; i++)
		if (g->slots[i].count != 0)
			*find(slots, size, g->slots[i].hash) = g->slots[i];
	free(g->slots);
	g->slots = slots;
	g->size = size;
}

/* Makes the text of ROW's record; false where it cannot be reported. */
static bool make_text(struct aggregate *g, const struct aggregate_row *row, uint64_t hash_out[2])
{
	struct aggregate_record record;
	char ip[AGGREGATE_IP_SIZE];
	arena_reset(&g->scratch);
	sbuf_reset(&g->text);
	if (aggregate_ip(row->client_ip, ip) < 0 || aggregate_record_make(row, &g->scratch, &record) < 0)
		return false;
	sbuf_adds(&g->text, ip);
	sbuf_addc(&g->text, '\0');
	aggregate_xml_body(&record, &g->text);
	for (unsigned i = 0; i < 2; i++)
		hash_out[i] = hash_siphash(&g->keys[i], sbuf_span(&g->text));
	return sbuf_ok(&g->text);
}

void aggregate_count(struct aggregate *g, const struct aggregate_row *row)
{
	uint64_t hash[2];
	if (!make_text(g, row, hash)) {
		g->totals.left_out++;
		return;
	}
	g->totals.messages++;
	struct tuple *tuple = find(g->slots, g->size, hash);
	if (tuple->count != 0) {
		tuple->count += tuple->count < UINT32_MAX;
		return;
	}
	g->totals.records++;
	if (g->used == g->max)
		return;
	*tuple = (struct tuple){{hash[0], hash[1]}, 1, 0};
	if (++g->used > g->size / 2)
		grow(g);
}

struct aggregate_totals aggregate_totals(const struct aggregate *g)
{
	return g->totals;
}

void aggregate_rewind(struct aggregate *g)
{
	g->reading++;
}

bool aggregate_next(struct aggregate *g, const struct aggregate_row *row, struct span *ip_out, uint64_t *count_out,
		    struct span *body_out)
{
	uint64_t hash[2];
	if (!make_text(g, row, hash))
		return false;
	struct tuple *tuple = find(g->slots, g->size, hash);
	if (tuple->count != 0 && tuple->written == g->reading)
		return false;
	*count_out = 1;
	if (tuple->count != 0) {
		tuple->written = g->reading;
		*count_out = tuple->count;
	}
	*ip_out = span_str(g->text.ptr);
	*body_out = span_skip(sbuf_span(&g->text), ip_out->len + 1);
	return true;
}
