/*
 * Codec of the spool's records and the fold over them.  A record is read with
 * a cursor whose error sticks, so a torn or foreign one is refused as a whole.
 */
#include "delivery.h"

#include "lib/base/bytes.h"

#define RECORD_VERSION 1
#define KEY_LEN sizeof(uint64_t)

struct cursor {
	struct span rest;
	bool bad;
};

static struct span take(struct cursor *c, size_t len)
{
	if (c->bad || c->rest.len < len) {
		c->bad = true;
		return SPAN_EMPTY;
	}
	struct span s = span_take(c->rest, len);
	c->rest = span_skip(c->rest, len);
	return s;
}

static uint64_t take_uint(struct cursor *c, unsigned width)
{
	struct span s = take(c, width);
	return c->bad ? 0 : bytes_get(s.ptr, width);
}

static struct span take_text(struct cursor *c)
{
	return take(c, (size_t)take_uint(c, 4));
}

static void add_text(struct sbuf *out, struct span s)
{
	bytes_add_u32(out, (uint32_t)s.len);
	sbuf_add(out, s);
}

static struct delivery *alloc(size_t rcpts, size_t text)
{
	struct delivery *d = mem_zalloc(sizeof(*d));
	d->rcpt_count = rcpts;
	d->rcpts = mem_zalloc((rcpts + 1) * sizeof(*d->rcpts));
	d->envelope = mem_alloc(text + 1);
	return d;
}

static struct span put(char **to, struct span s)
{
	if (s.len > 0)
		memcpy(*to, s.ptr, s.len);
	*to += s.len;
	return span_of(*to - s.len, s.len);
}

struct delivery *delivery_new(const struct lmtp_session_envelope *e, int64_t now_ms)
{
	size_t text = e->sender.len;
	for (size_t i = 0; i < e->accepted; i++)
		text += e->rcpts[e->order[i]].path.len;
	struct delivery *d = alloc(e->accepted, text);
	char *to = d->envelope;
	d->id = e->id;
	d->received_ms = now_ms;
	d->size_bytes = e->size_bytes;
	d->sender = put(&to, e->sender);
	for (size_t i = 0; i < e->accepted; i++)
		d->rcpts[i].path = put(&to, e->rcpts[e->order[i]].path);
	return d;
}

void delivery_drop_content(struct delivery *d)
{
	free(d->record);
	d->record = NULL;
	d->content = SPAN_EMPTY;
}

void delivery_free(struct delivery **delivery)
{
	struct delivery *d = *delivery;
	if (d == NULL)
		return;
	free(d->record);
	free(d->envelope);
	free(d->rcpts);
	free(d);
	*delivery = NULL;
}

bool delivery_has_unknown(const struct delivery *d)
{
	for (size_t i = 0; i < d->rcpt_count; i++)
		if (d->rcpts[i].outcome == OUTCOME_UNKNOWN || d->rcpts[i].outcome == OUTCOME_NONE)
			return true;
	return false;
}

bool delivery_wanted(const struct delivery *d)
{
	for (size_t i = 0; i < d->rcpt_count; i++)
		if (d->rcpts[i].outcome == OUTCOME_REPLIED && d->rcpts[i].code / 100 == 2)
			return true;
	return delivery_has_unknown(d);
}

void delivery_account(struct sbuf *out, struct span path, const char *delimiter)
{
	size_t at = span_rchr(path, '@');
	struct span local = at == SPAN_NPOS ? path : span_take(path, at);
	for (size_t i = 1; i < local.len; i++)
		if (local.ptr[i] != '\0' && strchr(delimiter, local.ptr[i]) != NULL)
			local.len = i;
	sbuf_add_lower(out, local);
	if (at != SPAN_NPOS)
		sbuf_add_lower(out, span_skip(path, at));
}

/* ---- Records ---- */

static void add_head(struct sbuf *out, enum delivery_record kind)
{
	sbuf_addc(out, (char)kind);
	sbuf_addc(out, RECORD_VERSION);
}

void delivery_add_prepared(struct sbuf *out, const struct delivery *d, struct span content)
{
	add_head(out, RECORD_PREPARED);
	sbuf_addc(out, d->in_file);
	sbuf_add(out, ulid_span(&d->id));
	bytes_add_u64(out, (uint64_t)d->received_ms);
	bytes_add_u64(out, d->size_bytes);
	add_text(out, d->sender);
	bytes_add_u32(out, (uint32_t)d->rcpt_count);
	for (size_t i = 0; i < d->rcpt_count; i++)
		add_text(out, d->rcpts[i].path);
	add_text(out, content);
}

void delivery_add_result(struct sbuf *out, const struct delivery_result *r)
{
	add_head(out, RECORD_RESULT);
	bytes_add_u64(out, r->prepared_seq);
	bytes_add_u32(out, r->index);
	sbuf_addc(out, (char)r->outcome);
	bytes_add_u32(out, r->code);
	bytes_add_u64(out, (uint64_t)r->settled_ms);
}

void delivery_add_done(struct sbuf *out, uint64_t prepared_seq)
{
	add_head(out, RECORD_DONE);
	bytes_add_u64(out, prepared_seq);
}

int delivery_record_kind(struct span record)
{
	if (record.len < 2 || record.ptr[1] != RECORD_VERSION || record.ptr[0] < RECORD_PREPARED ||
	    record.ptr[0] > RECORD_DONE)
		return ERR_SYNTAX;
	return record.ptr[0];
}

static bool is_end(const struct cursor *c)
{
	return !c->bad && c->rest.len == 0;
}

/* Reads sender and recipients twice: once for their length, once to copy. */
static size_t envelope_length(struct cursor c, size_t *rcpts_out)
{
	size_t text = take_text(&c).len;
	size_t count = (size_t)take_uint(&c, 4);
	if (count > SESSION_RCPT_MAX)
		return 0;
	for (size_t i = 0; i < count && !c.bad; i++)
		text += take_text(&c).len;
	*rcpts_out = count;
	return text;
}

int delivery_read_prepared(struct span record, struct delivery **delivery_out)
{
	struct cursor c = {.rest = record};
	size_t rcpts = 0;
	if (delivery_record_kind(record) != RECORD_PREPARED)
		return ERR_SYNTAX;
	take(&c, 2);
	bool in_file = take_uint(&c, 1) != 0;
	struct span id = take(&c, ULID_LEN);
	int64_t received_ms = (int64_t)take_uint(&c, 8);
	uint64_t size_bytes = take_uint(&c, 8);
	if (c.bad || !ulid_valid(id))
		return ERR_SYNTAX;
	size_t text = envelope_length(c, &rcpts);
	struct delivery *d = alloc(rcpts, text);
	char *to = d->envelope;
	memcpy(d->id.text, id.ptr, ULID_LEN);
	d->in_file = in_file;
	d->received_ms = received_ms;
	d->size_bytes = size_bytes;
	d->sender = put(&to, take_text(&c));
	bool same = take_uint(&c, 4) == rcpts;
	for (size_t i = 0; i < rcpts && same && !c.bad; i++)
		d->rcpts[i].path = put(&to, take_text(&c));
	d->content = take_text(&c);
	if (!same || !is_end(&c)) {
		delivery_free(&d);
		return ERR_SYNTAX;
	}
	*delivery_out = d;
	return 0;
}

int delivery_read_result(struct span record, struct delivery_result *r_out)
{
	struct cursor c = {.rest = record};
	if (delivery_record_kind(record) != RECORD_RESULT)
		return ERR_SYNTAX;
	take(&c, 2);
	struct delivery_result r = {.prepared_seq = take_uint(&c, 8), .index = (uint32_t)take_uint(&c, 4)};
	uint64_t outcome = take_uint(&c, 1);
	r.code = (unsigned)take_uint(&c, 4);
	r.settled_ms = (int64_t)take_uint(&c, 8);
	if (!is_end(&c) || outcome > OUTCOME_UNKNOWN)
		return ERR_SYNTAX;
	r.outcome = (enum lmtp_session_outcome)outcome;
	*r_out = r;
	return 0;
}

int delivery_read_done(struct span record, uint64_t *seq_out)
{
	struct cursor c = {.rest = record};
	if (delivery_record_kind(record) != RECORD_DONE)
		return ERR_SYNTAX;
	take(&c, 2);
	uint64_t seq = take_uint(&c, 8);
	if (!is_end(&c))
		return ERR_SYNTAX;
	*seq_out = seq;
	return 0;
}

/* ---- The fold ---- */

void delivery_table_init(struct delivery_table *t, size_t max)
{
	*t = (struct delivery_table){0};
	htab_init(&t->by_seq, max);
}

void delivery_table_done(struct delivery_table *t)
{
	for (struct delivery *d = t->first; d != NULL;) {
		struct delivery *next = d->next;
		delivery_free(&d);
		d = next;
	}
	htab_done(&t->by_seq, NULL);
	t->first = t->last = NULL;
}

static struct span key_of(const uint64_t *seq)
{
	return span_of(seq, KEY_LEN);
}

static int replay_prepared(struct delivery_table *t, uint64_t seq, struct span record)
{
	struct delivery *d;
	int rc = delivery_read_prepared(record, &d);
	if (rc < 0)
		return rc;
	d->seq = seq;
	d->again = true;
	d->content = SPAN_EMPTY; /* it borrows from RECORD */
	rc = htab_put(&t->by_seq, key_of(&d->seq), d, NULL);
	if (rc < 0) {
		delivery_free(&d);
		return rc;
	}
	d->prev = t->last;
	if (t->last != NULL)
		t->last->next = d;
	else
		t->first = d;
	t->last = d;
	return 0;
}

static int replay_result(struct delivery_table *t, struct span record)
{
	struct delivery_result r;
	int rc = delivery_read_result(record, &r);
	if (rc < 0)
		return rc;
	struct delivery *d = htab_get(&t->by_seq, key_of(&r.prepared_seq));
	if (d == NULL || r.index >= d->rcpt_count)
		return 0;
	d->rcpts[r.index].outcome = r.outcome;
	d->rcpts[r.index].code = r.code;
	d->rcpts[r.index].settled_ms = r.settled_ms;
	return 0;
}

static int replay_done(struct delivery_table *t, struct span record)
{
	uint64_t seq;
	int rc = delivery_read_done(record, &seq);
	if (rc < 0)
		return rc;
	struct delivery *d = htab_del(&t->by_seq, key_of(&seq));
	if (d == NULL)
		return 0;
	*(d->prev != NULL ? &d->prev->next : &t->first) = d->next;
	*(d->next != NULL ? &d->next->prev : &t->last) = d->prev;
	delivery_free(&d);
	return 0;
}

int delivery_table_replay(struct delivery_table *t, uint64_t seq, struct span record)
{
	switch (delivery_record_kind(record)) {
	case RECORD_PREPARED:
		return replay_prepared(t, seq, record);
	case RECORD_RESULT:
		return replay_result(t, record);
	case RECORD_DONE:
		return replay_done(t, record);
	default:
		return ERR_SYNTAX;
	}
}
