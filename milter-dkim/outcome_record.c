/*
 * Invariants: encoding copies bytes as they came, only cut, because it runs while
 * the mail server waits; whoever writes to SQL cleans them.  Words, not numbers of
 * enums, are stored, so that records outlive a change of the code.
 */
#include "outcome_record.h"

#include "lib/base/bytes.h"
#include "lib/base/utf8.h"

#define SIG_TEXT_MAX 255 /* characters of a text of a signature */
#define ITEM_HEADER 3
#define UTF8_MAX 4

enum kind { KIND_ASCII, KIND_CHARS, KIND_BYTES, KIND_LINES };

static const struct {
	size_t width; /* of the column; BYTES: bytes, otherwise characters */
	enum kind kind;
} columns[OUTCOME_ALL_FIELDS] = {
#define COLUMN(name, width, kind) {width, KIND_##kind},
	OUTCOME_FIELD_ROWS(COLUMN) OUTCOME_FAILURE_ROWS(COLUMN)
#undef COLUMN
};

bool outcome_wanted(const struct session_outcome *o)
{
	if (o->action == SESSION_TEMPFAIL)
		return false;
	return o->ours ? o->action == SESSION_ACCEPT && o->signature_count > 0 : o->inbound->dmarc_done;
}

/* ---- filling ---- */

static void set(struct outcome_record *r, enum outcome_field field, struct span value)
{
	/* An empty value is there, too. */
	r->fields[field] = value.ptr == NULL ? SPAN_LIT("") : value;
}

static void set_word(struct outcome_record *r, enum outcome_field field, const char *word)
{
	r->fields[field] = span_str(word);
}

static void set_if_any(struct outcome_record *r, enum outcome_field field, struct span value)
{
	if (value.len > 0)
		r->fields[field] = value;
}

static struct span flag(bool value)
{
	return value ? SPAN_LIT("1") : SPAN_LIT("0");
}

static struct span alignment(const struct dmarc_verdict *v, struct span domain)
{
	return v->author_domain.len == 0 ? SPAN_EMPTY : flag(dmarc_could_align(v, DMARC_DKIM, domain));
}

static enum auth_result better(enum auth_result a, enum auth_result b)
{
	static const unsigned char rank[AUTH_RESULTS] = {
		[AUTH_PASS] = 7, [AUTH_NEUTRAL] = 6, [AUTH_POLICY] = 5, [AUTH_TEMPERROR] = 4,
		[AUTH_SOFTFAIL] = 3, [AUTH_FAIL] = 2, [AUTH_PERMERROR] = 1, [AUTH_NONE] = 0,
	};
	return rank[a] >= rank[b] ? a : b;
}

/* A new signature without any fields; NULL past the cap. */
static struct span *next_signature(struct outcome_record *r)
{
	if (r->signature_count == OUTCOME_SIGNATURES_MAX)
		return NULL;
	struct span *sig = r->signatures[r->signature_count++];
	memset(sig, 0, sizeof(r->signatures[0]));
	return sig;
}

static void fill_dkim(const struct inbound *in, struct outcome_record *r)
{
	enum auth_result best = AUTH_NONE;
	for (size_t i = 0; i < in->dkim.count; i++) {
		const struct verify_signature *s = &in->dkim.signatures[i];
		struct span *sig = next_signature(r);
		if (sig == NULL)
			break;
		sig[OUTCOME_SIG_DOMAIN] = s->sig.domain;
		sig[OUTCOME_SIG_SELECTOR] = s->sig.selector;
		sig[OUTCOME_SIG_ALGORITHM] = span_str(s->sig.alg_known ? crypto_alg_name(s->sig.alg) : NULL);
		sig[OUTCOME_SIG_RESULT] = span_str(auth_result_name(s->verdict.result));
		sig[OUTCOME_SIG_REASON] = span_str(s->verdict.reason);
		sig[OUTCOME_SIG_ALIGNED] = alignment(&in->dmarc, s->sig.domain);
		best = better(best, s->verdict.result);
	}
	set_word(r, OUTCOME_DKIM_RESULT, auth_result_name(best));
}

static void fill_spf(const struct inbound *in, struct outcome_record *r)
{
	if (in->request.ip.bits == 0)
		return;
	set_word(r, OUTCOME_SPF_RESULT, auth_result_name(in->spf.result));
	set_if_any(r, OUTCOME_SPF_DOMAIN, in->spf.domain);
	set_word(r, OUTCOME_SPF_SCOPE, in->spf.identity == SPF_MAILFROM ? "mfrom" : "helo");
}

static enum dmarc_policy disposition(const struct session_outcome *o)
{
	return o->action == SESSION_REJECT ? DMARC_REJECT : o->quarantined ? DMARC_QUARANTINE : DMARC_NONE;
}

static void fill_dmarc(const struct session_outcome *o, struct outcome_record *r)
{
	const struct dmarc_verdict *v = &o->inbound->dmarc;
	set_word(r, OUTCOME_DMARC_RESULT, auth_result_name(v->result));
	set_word(r, OUTCOME_DMARC_DISCOVERY, o->inbound->request.psl != NULL ? "psl" : "treewalk");
	set_word(r, OUTCOME_DISPOSITION, dmarc_policy_name(disposition(o)));
	set_if_any(r, OUTCOME_DMARC_DOMAIN, v->policy_domain);
	set_word(r, OUTCOME_OVERRIDE_TYPE, o->override_type);
	set_word(r, OUTCOME_OVERRIDE_REASON, o->override_comment);
	if (!v->has_policy)
		return;
	set_word(r, OUTCOME_DMARC_POLICY, dmarc_policy_name(v->published));
	set_word(r, OUTCOME_DMARC_APPLIED, dmarc_policy_name(v->policy));
	set(r, OUTCOME_DMARC_RECORD, v->record.text);
	r->fields[OUTCOME_ALIGNED_DKIM] = flag(v->aligned[DMARC_DKIM].len > 0);
	r->fields[OUTCOME_ALIGNED_SPF] = flag(v->aligned[DMARC_SPF].len > 0);
}

static void fill_judged(const struct session_outcome *o, struct outcome_record *r)
{
	struct span author = o->inbound->dmarc.author_domain;
	set_word(r, OUTCOME_DIRECTION, "verified");
	set_if_any(r, OUTCOME_FROM_DOMAIN, author.len > 0 ? author : o->author_domain);
	fill_spf(o->inbound, r);
	fill_dkim(o->inbound, r);
	set_word(r, OUTCOME_ARC_RESULT, auth_result_name(o->inbound->arc.result));
	fill_dmarc(o, r);
}

static void fill_signed(const struct session_outcome *o, struct outcome_record *r)
{
	const struct dmarc_verdict author = {.author_domain = o->author_domain};
	set_word(r, OUTCOME_DIRECTION, "signed");
	set_if_any(r, OUTCOME_FROM_DOMAIN, o->author_domain);
	for (size_t i = 0; i < o->signature_count; i++) {
		struct span *sig = next_signature(r);
		if (sig == NULL)
			break;
		sig[OUTCOME_SIG_DOMAIN] = o->signed_domain[i];
		sig[OUTCOME_SIG_SELECTOR] = o->signed_selector[i];
		sig[OUTCOME_SIG_ALGORITHM] = span_str(crypto_alg_name(o->signed_with[i]));
		sig[OUTCOME_SIG_ALIGNED] = alignment(&author, o->signed_domain[i]);
	}
}

static void fill_failure(const struct failure *f, struct outcome_record *r)
{
	set_word(r, OUTCOME_AUTH_FAILURE, f->auth_failure);
	set_word(r, OUTCOME_ALIGNMENT, f->alignment);
	set(r, OUTCOME_SENDER, f->sender);
	set_if_any(r, OUTCOME_DKIM_DOMAIN, f->dkim_domain);
	set_if_any(r, OUTCOME_DKIM_IDENTITY, f->dkim_identity);
	set_if_any(r, OUTCOME_DKIM_SELECTOR, f->dkim_selector);
	set_if_any(r, OUTCOME_SPF_RECORD, f->spf_record);
	set(r, OUTCOME_HEADER, f->header);
}

static void fill_message_id(const struct mail_header *header, struct outcome_record *r)
{
	size_t at = mail_header_find(header, SPAN_LIT("Message-ID"), 0);
	struct sbuf line;
	if (at == SPAN_NPOS)
		return;
	sbuf_init(&line, r->message_id, sizeof(r->message_id));
	mail_value_unfold(span_take(header->fields[at].value, sizeof(r->message_id) - 1), &line);
	set_if_any(r, OUTCOME_MESSAGE_ID, sbuf_span(&line));
}

void outcome_record_fill(const struct outcome_facts *facts, struct outcome_record *r)
{
	const struct session_outcome *o = facts->outcome;
	struct sbuf ip;
	r->received_ms = facts->received_ms;
	r->signature_count = 0;
	memset(r->fields, 0, sizeof(r->fields));
	set_if_any(r, OUTCOME_QUEUE_ID, facts->queue_id);
	sbuf_init(&ip, r->ip, sizeof(r->ip));
	if (facts->client->bits != 0)
		ip_format(facts->client, &ip);
	set_if_any(r, OUTCOME_CLIENT_IP, sbuf_span(&ip));
	set_if_any(r, OUTCOME_HELO, o->helo);
	set(r, OUTCOME_ENVELOPE_SENDER, o->mail_from);
	set_if_any(r, OUTCOME_ACCOUNT, o->login);
	fill_message_id(o->header, r);
	if (o->ours)
		fill_signed(o, r);
	else
		fill_judged(o, r);
	if (facts->failure != NULL)
		fill_failure(facts->failure, r);
}

/* ---- bytes ---- */

static void put_item(struct sbuf *out, unsigned tag, struct span value, size_t max)
{
	char head[ITEM_HEADER];
	if (value.ptr == NULL)
		return;
	value = span_take(value, max < UINT16_MAX ? max : UINT16_MAX);
	bytes_put(head, tag, 1);
	bytes_put(head + 1, value.len, 2);
	sbuf_add(out, span_of(head, sizeof(head)));
	sbuf_add(out, value);
}

static void put_signature(struct sbuf *out, const struct span *sig)
{
	char mem[OUTCOME_SIG_FIELDS * (ITEM_HEADER + SIG_TEXT_MAX * UTF8_MAX) + 1];
	struct sbuf items;
	sbuf_init(&items, mem, sizeof(mem));
	for (unsigned i = 0; i < OUTCOME_SIG_FIELDS; i++)
		put_item(&items, i, sig[i], (size_t)SIG_TEXT_MAX * UTF8_MAX);
	put_item(out, OUTCOME_SIGNATURE, sbuf_span(&items), UINT16_MAX);
}

/* Tag of a field and back; OUTCOME_ALL_FIELDS for a tag of none. */
static unsigned tag_of(unsigned field)
{
	return field < OUTCOME_FIELDS ? field : OUTCOME_FAILURE + field - OUTCOME_FIELDS;
}

static unsigned field_of(unsigned tag)
{
	if (tag < OUTCOME_FIELDS)
		return tag;
	bool known = tag >= OUTCOME_FAILURE && tag - OUTCOME_FAILURE < OUTCOME_ALL_FIELDS - OUTCOME_FIELDS;
	return known ? tag - OUTCOME_FAILURE + OUTCOME_FIELDS : OUTCOME_ALL_FIELDS;
}

void outcome_record_encode(const struct outcome_record *r, struct sbuf *out)
{
	sbuf_addc(out, OUTCOME_VERSION);
	bytes_add_u64(out, (uint64_t)r->received_ms);
	for (unsigned i = 0; i < OUTCOME_ALL_FIELDS; i++)
		put_item(out, tag_of(i), r->fields[i], columns[i].width * (columns[i].kind == KIND_CHARS ? UTF8_MAX : 1));
	for (size_t i = 0; i < r->signature_count; i++)
		put_signature(out, r->signatures[i]);
}

/* Takes the next item off *REST; ERR_NOT_FOUND at the end. */
static int take_item(struct span *rest, unsigned *tag_out, struct span *value_out)
{
	if (rest->len == 0)
		return ERR_NOT_FOUND;
	if (rest->len < ITEM_HEADER)
		return ERR_SYNTAX;
	size_t len = (size_t)bytes_get(rest->ptr + 1, 2);
	if (rest->len - ITEM_HEADER < len)
		return ERR_SYNTAX;
	*tag_out = (unsigned)bytes_get(rest->ptr, 1);
	*value_out = span_of(rest->ptr + ITEM_HEADER, len);
	*rest = span_skip(*rest, ITEM_HEADER + len);
	return 0;
}

static int take_signature(struct outcome_record *r, struct span items)
{
	struct span value;
	unsigned tag;
	int rc;
	struct span *sig = next_signature(r);
	if (sig == NULL)
		return ERR_LIMIT;
	while ((rc = take_item(&items, &tag, &value)) == 0)
		if (tag < OUTCOME_SIG_FIELDS)
			sig[tag] = value;
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

int outcome_record_decode(struct span bytes, struct outcome_record *r)
{
	struct span value;
	unsigned tag;
	int rc;
	if (bytes.len < 9 || bytes.ptr[0] != OUTCOME_VERSION)
		return ERR_SYNTAX;
	memset(r->fields, 0, sizeof(r->fields));
	r->signature_count = 0;
	r->received_ms = (int64_t)bytes_get_u64(bytes.ptr + 1);
	bytes = span_skip(bytes, 9);
	while ((rc = take_item(&bytes, &tag, &value)) == 0) {
		unsigned field = field_of(tag);
		if (field < OUTCOME_ALL_FIELDS)
			r->fields[field] = value;
		else if (tag == OUTCOME_SIGNATURE && (rc = take_signature(r, value)) < 0)
			return rc;
	}
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* ---- for SQL ---- */

static void clean_ascii(struct span value, size_t max, bool lines, struct sbuf *out)
{
	value = span_take(value, max);
	for (size_t i = 0; i < value.len; i++) {
		char c = value.ptr[i];
		sbuf_addc(out, (c >= ' ' && c <= '~') || (lines && c == '\n') ? c : '?');
	}
}

void outcome_field_clean(enum outcome_field field, struct span value, struct sbuf *out)
{
	size_t start = out->len, width = columns[field].width;
	if (columns[field].kind == KIND_ASCII || columns[field].kind == KIND_LINES) {
		clean_ascii(value, width, columns[field].kind == KIND_LINES, out);
		return;
	}
	utf8_add_clean(out, value, width);
	if (columns[field].kind == KIND_CHARS || out->len - start <= width)
		return;
	/* Replacements have made it longer than the column. */
	size_t end = start + width;
	while (end > start && ((unsigned char)out->ptr[end] & 0xc0) == 0x80)
		end--;
	sbuf_truncate(out, end);
}

static void add_json_text(struct sbuf *out, struct span value)
{
	char mem[SIG_TEXT_MAX * UTF8_MAX + 1];
	struct sbuf clean;
	if (value.ptr == NULL) {
		sbuf_adds(out, "null");
		return;
	}
	sbuf_init(&clean, mem, sizeof(mem));
	utf8_add_clean(&clean, value, SIG_TEXT_MAX);
	sbuf_addc(out, '"');
	for (size_t i = 0; i < clean.len; i++) {
		if (mem[i] == '"' || mem[i] == '\\')
			sbuf_addc(out, '\\');
		sbuf_addc(out, mem[i]);
	}
	sbuf_addc(out, '"');
}

static void add_signature(struct sbuf *out, const struct span *sig)
{
	static const char *const names[] = {"{\"domain\":", ",\"selector\":", ",\"algorithm\":",
					    ",\"result\":", ",\"reason\":", ",\"aligned\":"};
	for (unsigned i = 0; i < OUTCOME_SIG_ALIGNED; i++) {
		sbuf_adds(out, names[i]);
		add_json_text(out, sig[i]);
	}
	struct span aligned = sig[OUTCOME_SIG_ALIGNED];
	sbuf_adds(out, names[OUTCOME_SIG_ALIGNED]);
	sbuf_adds(out, aligned.ptr == NULL ? "null" : span_eq(aligned, SPAN_LIT("1")) ? "true" : "false");
	sbuf_addc(out, '}');
}

void outcome_signatures_json(const struct outcome_record *r, struct sbuf *out)
{
	sbuf_addc(out, '[');
	for (size_t i = 0; i < r->signature_count; i++) {
		if (i > 0)
			sbuf_addc(out, ',');
		add_signature(out, r->signatures[i]);
	}
	sbuf_addc(out, ']');
}
