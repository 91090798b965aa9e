/*
 * Fields in a fixed order; texts as length and bytes.  One cursor whose error
 * sticks reads them: a record is taken as a whole or not at all.
 */
#include "extract_record.h"

#include "lib/base/bytes.h"
#include "lib/base/utf8.h"

#define RESULT_CHARS 16 /* of a verdict: the width of its columns */

/* ---- Writing ---- */

static void add_text(struct sbuf *out, struct span s)
{
	bytes_add_u32(out, (uint32_t)s.len);
	sbuf_add(out, s);
}

static void add_flags(struct sbuf *out, const struct extract *x)
{
	sbuf_addc(out, (char)x->state);
	sbuf_addc(out, x->has_subject);
	sbuf_addc(out, x->has_date);
	sbuf_addc(out, x->truncated);
	sbuf_addc(out, x->has_subject_hash);
	sbuf_addc(out, x->subject_joins);
	bytes_add_u64(out, (uint64_t)x->date_s);
	sbuf_add(out, span_of(x->subject_hash, EXTRACT_HASH_LEN));
}

void extract_record_add(struct sbuf *out, const struct extract *x)
{
	const struct span texts[] = {x->subject, x->message_id, x->in_reply_to, x->snippet, x->text,
				     x->terms,	 x->spf,	x->dkim,	x->dmarc,   x->arc};
	add_flags(out, x);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		add_text(out, texts[i]);
	bytes_add_u32(out, (uint32_t)x->address_count);
	for (size_t i = 0; i < x->address_count; i++) {
		sbuf_addc(out, (char)x->addresses[i].kind);
		add_text(out, x->addresses[i].address);
		add_text(out, x->addresses[i].display);
	}
	bytes_add_u32(out, (uint32_t)x->attachment_count);
	for (size_t i = 0; i < x->attachment_count; i++) {
		const struct extract_attachment *a = &x->attachments[i];
		add_text(out, a->name);
		add_text(out, a->media_type);
		bytes_add_u64(out, a->size_bytes);
		sbuf_add(out, span_of(a->sha256, sizeof(a->sha256)));
	}
	bytes_add_u32(out, (uint32_t)x->ref_count);
	if (x->ref_count > 0)
		sbuf_add(out, span_of(x->refs, x->ref_count * EXTRACT_HASH_LEN));
}

/* ---- Reading ---- */

struct reader {
	struct span rest;
	struct extract *x;
	bool bad;
};

static struct span take(struct reader *r, size_t len)
{
	if (r->bad || r->rest.len < len) {
		r->bad = true;
		return SPAN_EMPTY;
	}
	struct span s = span_take(r->rest, len);
	r->rest = span_skip(r->rest, len);
	return s;
}

static uint64_t take_uint(struct reader *r, unsigned width, uint64_t max)
{
	struct span s = take(r, width);
	uint64_t value = r->bad ? 0 : bytes_get(s.ptr, width);
	r->bad = r->bad || value > max;
	return r->bad ? 0 : value;
}

static bool take_bool(struct reader *r)
{
	return take_uint(r, 1, 1) != 0;
}

static void take_bytes(struct reader *r, void *to, size_t len)
{
	struct span s = take(r, len);
	if (!r->bad)
		memcpy(to, s.ptr, len);
}

/* At most MAX bytes and CHARS characters of UTF-8 without NUL. */
static struct span take_text(struct reader *r, size_t max, size_t chars)
{
	struct span s = take(r, (size_t)take_uint(r, 4, max)), copy = SPAN_EMPTY;
	if (r->bad || s.len == 0)
		return SPAN_EMPTY;
	if (utf8_prefix(s) < s.len || (chars > 0 && extract_cut(s, chars).len < s.len) ||
	    arena_dup(&r->x->arena, s, &copy) < 0)
		r->bad = true;
	return copy;
}

static struct span take_short(struct reader *r, size_t chars)
{
	return take_text(r, chars * 4, chars);
}

/* COUNT items of SIZE bytes each; NULL for none. */
static void *take_array(struct reader *r, size_t max, size_t size, size_t *count_out)
{
	size_t count = (size_t)take_uint(r, 4, max);
	void *items = count == 0 ? NULL : arena_calloc(&r->x->arena, count, size);
	r->bad = r->bad || (count > 0 && items == NULL);
	*count_out = r->bad ? 0 : count;
	return items;
}

static void read_head(struct reader *r, const struct extract_limits *limits)
{
	struct extract *x = r->x;
	x->state = (enum extract_state)take_uint(r, 1, EXTRACT_FAILED);
	x->has_subject = take_bool(r);
	x->has_date = take_bool(r);
	x->truncated = take_bool(r);
	x->has_subject_hash = take_bool(r);
	x->subject_joins = take_bool(r);
	x->date_s = (int64_t)take_uint(r, 8, UINT64_MAX);
	r->bad = r->bad || x->date_s < EXTRACT_DATE_MIN_S || x->date_s > EXTRACT_DATE_MAX_S;
	take_bytes(r, x->subject_hash, EXTRACT_HASH_LEN);
	x->subject = take_short(r, EXTRACT_SUBJECT_CHARS);
	x->message_id = take_short(r, EXTRACT_ID_CHARS);
	x->in_reply_to = take_short(r, EXTRACT_ID_CHARS);
	x->snippet = take_short(r, EXTRACT_SNIPPET_CHARS);
	x->text = take_text(r, limits->text_max_bytes, 0);
	x->terms = take_text(r, extract_terms_max(limits), 0);
	x->spf = take_short(r, RESULT_CHARS);
	x->dkim = take_short(r, RESULT_CHARS);
	x->dmarc = take_short(r, RESULT_CHARS);
	x->arc = take_short(r, RESULT_CHARS);
}

static void read_lists(struct reader *r)
{
	struct extract *x = r->x;
	size_t count;
	x->addresses = take_array(r, EXTRACT_ADDRESSES_MAX, sizeof(*x->addresses), &count);
	for (size_t i = 0; i < count && !r->bad; i++) {
		x->addresses[i].kind = (enum extract_kind)take_uint(r, 1, KIND_BCC);
		x->addresses[i].address = take_short(r, EXTRACT_ADDRESS_CHARS);
		x->addresses[i].display = take_short(r, EXTRACT_ADDRESS_CHARS);
	}
	x->address_count = count;
	x->attachments = take_array(r, EXTRACT_ATTACHMENTS_MAX, sizeof(*x->attachments), &count);
	for (size_t i = 0; i < count && !r->bad; i++) {
		struct extract_attachment *a = &x->attachments[i];
		a->name = take_short(r, EXTRACT_NAME_CHARS);
		a->media_type = take_short(r, EXTRACT_TYPE_CHARS);
		a->size_bytes = take_uint(r, 8, INT64_MAX);
		take_bytes(r, a->sha256, sizeof(a->sha256));
	}
	x->attachment_count = count;
	x->refs = take_array(r, EXTRACT_REFS_MAX + 2, EXTRACT_HASH_LEN, &x->ref_count);
	if (x->ref_count > 0)
		take_bytes(r, x->refs, x->ref_count * EXTRACT_HASH_LEN);
}

int extract_record_read(struct span record, const struct extract_limits *limits, struct extract **extract_out)
{
	struct reader r = {.rest = record, .x = extract_new_failed(limits)};
	read_head(&r, limits);
	read_lists(&r);
	if (r.bad || r.rest.len > 0) {
		extract_free(&r.x);
		return ERR_SYNTAX;
	}
	*extract_out = r.x;
	return 0;
}
