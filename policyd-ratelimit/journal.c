/*
 * The decoder is a cursor whose error sticks: every take gives zeros past the
 * end, and the caller looks at `bad` once an entry, before it is applied.
 */
#include "journal.h"

#include "lib/base/bytes.h"

#define JOURNAL_VERSION 1
#define TIME_MAX_MS (UINT64_C(1) << 55) /* sums and differences of times fit */

struct cursor {
	struct span rest;
	bool bad;
};

static uint64_t take(struct cursor *c, unsigned width)
{
	if (c->rest.len < width) {
		c->bad = true;
		c->rest = SPAN_EMPTY;
		return 0;
	}
	uint64_t value = bytes_get(c->rest.ptr, width);
	c->rest = span_skip(c->rest, width);
	return value;
}

static void put(struct sbuf *out, uint64_t value, unsigned width)
{
	char raw[8];
	bytes_put(raw, value, width);
	sbuf_add(out, span_of(raw, width));
}

void journal_header_add(const struct table *table, const struct journal_boot *now, struct sbuf *out)
{
	put(out, JOURNAL_VERSION, 1);
	put(out, now->id, 8);
	put(out, (uint64_t)now->boot_ms, 8);
	put(out, (uint64_t)now->wall_ms, 8);
	put(out, table->key.k0, 8);
	put(out, table->key.k1, 8);
	put(out, table->class_count, 1);
	for (unsigned i = 0; i < table->class_count; i++) {
		put(out, (uint64_t)table->classes[i].width_ms, 8);
		put(out, table->classes[i].wide, 1);
	}
}

/* The one entry that is written for each message: with widths that the compiler knows, and few calls. */
void journal_message_add(uint64_t txn, const struct table_mark *charges, size_t count, struct sbuf *out)
{
	char head[1 + 8 + 2], charge[8 + 1 + 4 + 8];
	head[0] = 'M';
	bytes_put(head + 1, txn, 8);
	bytes_put(head + 9, count, 2);
	sbuf_add(out, span_of(head, sizeof(head)));
	for (size_t i = 0; i < count; i++) {
		bytes_put(charge, charges[i].hash, 8);
		bytes_put(charge + 8, charges[i].class, 1);
		bytes_put(charge + 9, charges[i].bucket, 4);
		bytes_put(charge + 13, charges[i].amount, 8);
		sbuf_add(out, span_of(charge, sizeof(charge)));
	}
}

void journal_state_add(const struct table_state *state, struct sbuf *out)
{
	put(out, 'S', 1);
	put(out, state->hash, 8);
	put(out, state->class, 1);
	put(out, state->base, 4);
	put(out, state->count, 1);
	for (unsigned i = 0; i < state->count; i++) {
		put(out, state->ages[i], 1);
		put(out, state->amounts[i], 8);
	}
}

void journal_reset_add(uint64_t hash, struct sbuf *out)
{
	put(out, 'R', 1);
	put(out, hash, 8);
}

void journal_unblock_all_add(struct sbuf *out)
{
	put(out, 'L', 1);
}

void journal_block_add(bool blocked, enum rule_scope scope, struct span key, struct sbuf *out)
{
	put(out, blocked ? 'B' : 'U', 1);
	put(out, scope, 1);
	put(out, key.len, 2);
	sbuf_add(out, key);
}

void journal_unhold_all_add(struct sbuf *out)
{
	put(out, 'N', 1);
}

void journal_held_add(const struct abuse_held *held, struct sbuf *out)
{
	struct span key = span_str(held->key);
	put(out, 'H', 1);
	put(out, held->step, 1);
	put(out, held->hash, 8);
	put(out, held->rule_id, 8);
	put(out, (uint64_t)held->since_ms, 8);
	put(out, (uint64_t)held->until_ms, 8);
	put(out, held->count, 8);
	put(out, key.len, 2);
	sbuf_add(out, key);
}

/* ---- reading ---- */

struct reader {
	struct cursor c;
	struct journal_boot boot;
	struct hash_key key;
	struct session *session;
	int64_t now_ms, shift_ms; /* session time; what is added to times in the batch */
	struct window_class classes[TABLE_CLASSES_MAX];
	uint8_t class_of[TABLE_CLASSES_MAX]; /* in the table */
	unsigned class_count;
};

static int header_take(struct reader *r)
{
	if (take(&r->c, 1) != JOURNAL_VERSION)
		return ERR_SYNTAX;
	r->boot.id = take(&r->c, 8);
	uint64_t boot_ms = take(&r->c, 8), wall_ms = take(&r->c, 8);
	if (boot_ms > TIME_MAX_MS || wall_ms > TIME_MAX_MS)
		return ERR_SYNTAX;
	r->boot.boot_ms = (int64_t)boot_ms;
	r->boot.wall_ms = (int64_t)wall_ms;
	r->key.k0 = take(&r->c, 8);
	r->key.k1 = take(&r->c, 8);
	r->class_count = (unsigned)take(&r->c, 1);
	if (r->class_count > TABLE_CLASSES_MAX)
		return ERR_SYNTAX;
	for (unsigned i = 0; i < r->class_count; i++) {
		r->classes[i].width_ms = (int64_t)take(&r->c, 8);
		r->classes[i].wide = take(&r->c, 1) != 0;
		if (r->classes[i].width_ms <= 0 || r->classes[i].width_ms > window_width_ms(WINDOW_LENGTH_MAX_MS))
			return ERR_SYNTAX;
	}
	return r->c.bad ? ERR_SYNTAX : 0;
}

int journal_scan(struct span batch, struct journal_boots *boots, struct hash_key *key_out)
{
	struct reader r = {.c = {batch, false}};
	int rc = header_take(&r);
	if (rc < 0)
		return rc;
	struct journal_boot *last = boots->count > 0 ? &boots->items[boots->count - 1] : NULL;
	if (last == NULL || last->id != r.boot.id) {
		if (boots->count == JOURNAL_BOOTS_MAX)
			memmove(boots->items, boots->items + 1, --boots->count * sizeof(*boots->items));
		last = &boots->items[boots->count++];
	}
	*last = r.boot;
	*key_out = r.key;
	return 0;
}

/*
 * What must be added to boot times of the batch to get the session's time now.
 * Boots before the one that ran last are moved on from boot to boot.
 */
static int64_t shift_of(const struct reader *r, const struct journal_boots *boots, const struct journal_boot *now)
{
	if (r->boot.id == now->id && now->id != 0)
		return 0;
	const struct journal_boot *from = &r->boot;
	for (size_t i = boots->count; i-- > 0;)
		if (boots->items[i].id == r->boot.id) {
			from = &boots->items[i];
			break;
		}
	int64_t passed = now->wall_ms - from->wall_ms;
	return now->boot_ms - (passed > 0 ? passed : 0) - from->boot_ms;
}

/* BUCKET of the batch as one of now, rounded towards later; false: it is gone
 * for good. */
static bool bucket_move(const struct reader *r, unsigned class, uint64_t bucket, uint32_t *bucket_out)
{
	int64_t width = r->classes[class].width_ms;
	int64_t shift = r->shift_ms / width + (r->shift_ms % width > 0);
	int64_t moved = (int64_t)bucket + shift, newest = r->now_ms / width;
	if (moved < 0)
		return false;
	*bucket_out = (uint32_t)(moved < newest ? moved : newest);
	return true;
}

static int message_apply(struct reader *r)
{
	uint64_t txn = take(&r->c, 8);
	uint64_t count = take(&r->c, 2);
	for (; count > 0; count--) {
		struct table_mark mark;
		uint32_t bucket;
		uint64_t hash = take(&r->c, 8), class = take(&r->c, 1), at = take(&r->c, 4), amount = take(&r->c, 8);
		if (r->c.bad || class >= r->class_count || hash == 0)
			return ERR_SYNTAX;
		if (bucket_move(r, (unsigned)class, at, &bucket))
			table_charge_bucket(r->session->table, hash, r->class_of[class], bucket, amount, &mark);
	}
	if (r->c.bad)
		return ERR_SYNTAX;
	session_restore_ended(r->session, txn, r->now_ms);
	return 0;
}

static int state_apply(struct reader *r)
{
	struct table_state state = {.hash = take(&r->c, 8)};
	uint64_t class = take(&r->c, 1), base = take(&r->c, 4), count = take(&r->c, 1);
	if (r->c.bad || class >= r->class_count || state.hash == 0 || count > WINDOW_LIVE)
		return ERR_SYNTAX;
	for (uint64_t i = 0; i < count; i++) {
		state.ages[i] = (uint8_t)take(&r->c, 1);
		state.amounts[i] = take(&r->c, 8);
		if (state.ages[i] >= WINDOW_LIVE)
			return ERR_SYNTAX;
	}
	if (r->c.bad)
		return ERR_SYNTAX;
	state.class = r->class_of[class];
	state.count = (uint8_t)count;
	if (!bucket_move(r, (unsigned)class, base, &state.base) || state.base < WINDOW_LIVE)
		state.count = 0;
	table_restore(r->session->table, &state);
	return 0;
}

static int block_apply(struct reader *r, bool blocked)
{
	uint64_t scope = take(&r->c, 1), len = take(&r->c, 2);
	if (r->c.bad || scope >= SCOPE_COUNT || len > r->c.rest.len)
		return ERR_SYNTAX;
	struct span key = span_take(r->c.rest, len);
	r->c.rest = span_skip(r->c.rest, len);
	int rc = blocked ? blocks_add(&r->session->blocks, (enum rule_scope)scope, key)
			 : blocks_remove(&r->session->blocks, (enum rule_scope)scope, key);
	return rc == ERR_SYNTAX ? rc : 0;
}

/* A time of the batch as one of now. */
static int64_t time_move(const struct reader *r, uint64_t time_ms)
{
	int64_t t = (int64_t)time_ms, moved;
	return t == INT64_MAX || __builtin_add_overflow(t, r->shift_ms, &moved) ? INT64_MAX : moved;
}

static int held_apply(struct reader *r)
{
	struct abuse_held held = {0};
	uint64_t step = take(&r->c, 1);
	held.hash = take(&r->c, 8);
	held.rule_id = take(&r->c, 8);
	held.since_ms = time_move(r, take(&r->c, 8));
	held.until_ms = time_move(r, take(&r->c, 8));
	held.count = take(&r->c, 8);
	uint64_t len = take(&r->c, 2);
	if (r->c.bad || step >= ABUSE_STEPS || len > r->c.rest.len || len >= sizeof(held.key))
		return ERR_SYNTAX;
	held.step = (enum abuse_step)step;
	memcpy(held.key, r->c.rest.ptr, len);
	r->c.rest = span_skip(r->c.rest, len);
	abuse_restore(&r->session->abuse, &held);
	return 0;
}

static int entry_apply(struct reader *r)
{
	switch (take(&r->c, 1)) {
	case 'M':
		return message_apply(r);
	case 'S':
		return state_apply(r);
	case 'R':
		table_reset(r->session->table, take(&r->c, 8));
		return r->c.bad ? ERR_SYNTAX : 0;
	case 'L':
		blocks_clear(&r->session->blocks);
		return 0;
	case 'N':
		abuse_clear(&r->session->abuse);
		return 0;
	case 'H':
		return held_apply(r);
	case 'B':
		return block_apply(r, true);
	case 'U':
		return block_apply(r, false);
	default:
		return ERR_SYNTAX;
	}
}

int journal_apply(struct span batch, const struct journal_boots *boots, const struct journal_boot *now,
		  struct session *session)
{
	struct reader r = {.c = {batch, false}, .session = session};
	int rc = header_take(&r);
	if (rc < 0)
		return rc;
	r.now_ms = now->boot_ms + JOURNAL_CLOCK_BIAS_MS;
	r.shift_ms = shift_of(&r, boots, now);
	for (unsigned i = 0; i < r.class_count; i++) {
		int class = table_class(session->table, r.classes[i].width_ms * WINDOW_BUCKETS, r.classes[i].wide);
		if (class < 0)
			return class;
		r.class_of[i] = (uint8_t)class;
	}
	while (rc == 0 && r.c.rest.len > 0)
		rc = entry_apply(&r);
	return rc;
}
