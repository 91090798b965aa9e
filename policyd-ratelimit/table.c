/*
 * Invariants: hash 0 marks a free cell; a cell in use has at least one entry
 * after any public call returns; a probe from a cell's home meets no free cell
 * before it (removal shifts the run back).  Only this file knows where a
 * cell's entries are.
 */
#include "table.h"

#include <string.h>
#include <sys/mman.h>

#define SHARD_FEW 64   /* cells that each array has from the start */
#define FEW_BYTES (2u << 20) /* of all these together: one large page, where the kernel has any */
#define SHARD_STEP 128 /* one page; larger arrays are a multiple of it */
#define MID_ENTRIES 16
#define HITS_MAX 31
#define WIDE_SHIFT 12 /* 4 KB weigh as much as one message */

enum cell_form { FORM_INLINE, FORM_MID, FORM_FULL };

struct table_cell {
	uint64_t hash;
	uint32_t base;
	uint8_t class;
	uint8_t count;
	uint8_t form : 2;
	uint8_t protected : 1;
	uint8_t hits : 5; /* charges, up to HITS_MAX */
	uint8_t generation;
	union {
		uint32_t narrow[4];
		uint64_t wide[2];
		uint32_t ref;
	};
};

_Static_assert(sizeof(struct table_cell) == 32, "a counter is 32 bytes");
_Static_assert((size_t)TABLE_SHARDS * SHARD_FEW * sizeof(struct table_cell) == FEW_BYTES, "the first arrays fill a page");

static struct table_cell *cells_map(struct table *t, size_t size)
{
	void *mem = mmap(NULL, size * sizeof(struct table_cell), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		PANIC("no memory for counters");
	t->cell_bytes += size * sizeof(struct table_cell);
	return mem;
}

static void cells_unmap(struct table *t, struct table_cell *cells, size_t size)
{
	munmap(cells, size * sizeof(struct table_cell));
	t->cell_bytes -= size * sizeof(struct table_cell);
}

/* The arrays of the start, aligned to their size, so that they may be one page. */
static struct table_cell *few_map(struct table *t)
{
	char *mem = (char *)cells_map(t, 2 * FEW_BYTES / sizeof(struct table_cell));
	const size_t before = -(uintptr_t)mem % FEW_BYTES, after = FEW_BYTES - before;
	struct table_cell *few = (struct table_cell *)(void *)(mem + before);
	if (before > 0)
		cells_unmap(t, (struct table_cell *)(void *)mem, before / sizeof(*few));
	cells_unmap(t, few + TABLE_SHARDS * SHARD_FEW, after / sizeof(*few));
	IGNORE_RESULT(madvise(few, FEW_BYTES, MADV_HUGEPAGE) < 0);
	return few;
}

struct table *table_new(const struct hash_key *key, size_t max_bytes)
{
	struct table *t = mem_zalloc(sizeof(*t));
	t->key = *key;
	t->max_bytes = max_bytes;
	t->few = few_map(t);
	for (size_t i = 0; i < TABLE_SHARDS; i++)
		t->shards[i] = (struct table_shard){.cells = t->few + i * SHARD_FEW, .size = SHARD_FEW};
	for (int wide = 0; wide < 2; wide++) {
		size_t entry = wide ? sizeof(uint64_t) : sizeof(uint32_t);
		slab_init(&t->slabs[wide][0], MID_ENTRIES * entry);
		slab_init(&t->slabs[wide][1], (WINDOW_LIVE * entry + 7) / 8 * 8);
	}
	return t;
}

/* Gives back what was the array of a shard. */
static void shard_drop(struct table *t, const struct table_shard *old)
{
	if (old->size == SHARD_FEW)
		memset(old->cells, 0, SHARD_FEW * sizeof(*old->cells)); /* it may become that again */
	else
		cells_unmap(t, old->cells, old->size);
}

void table_free(struct table **table)
{
	struct table *t = *table;
	if (t == NULL)
		return;
	for (unsigned i = 0; i < TABLE_SHARDS; i++)
		shard_drop(t, &t->shards[i]);
	cells_unmap(t, t->few, TABLE_SHARDS * SHARD_FEW);
	for (int i = 0; i < 4; i++)
		slab_done(&t->slabs[i / 2][i % 2]);
	free(t);
	*table = NULL;
}

int table_class(struct table *table, int64_t length_ms, bool wide)
{
	int64_t width = window_width_ms(length_ms);
	for (unsigned i = 0; i < table->class_count; i++)
		if (table->classes[i].width_ms == width && table->classes[i].wide == wide)
			return (int)i;
	if (table->class_count == TABLE_CLASSES_MAX)
		return ERR_LIMIT;
	table->classes[table->class_count] = (struct window_class){.width_ms = width, .wide = wide};
	return (int)table->class_count++;
}

size_t table_bytes(const struct table *table)
{
	size_t bytes = table->cell_bytes;
	for (int i = 0; i < 4; i++)
		bytes += slab_bytes(&table->slabs[i / 2][i % 2]);
	return bytes;
}

static inline struct window cell_window(const struct table *t, struct table_cell *c)
{
	bool wide = t->classes[c->class].wide;
	struct window w = {.base = c->base, .count = c->count, .wide = wide};
	if (c->form == FORM_INLINE) {
		w.entries = c->narrow;
		w.capacity = wide ? 2 : 4;
	} else {
		bool full = c->form == FORM_FULL;
		w.entries = slab_at(&t->slabs[wide][full], c->ref);
		w.capacity = full ? WINDOW_LIVE : MID_ENTRIES;
	}
	return w;
}

static inline void cell_update(struct table_cell *c, const struct window *w)
{
	c->base = w->base;
	c->count = w->count;
}

static inline void cell_set_hits(struct table_cell *c, uint64_t hits)
{
	c->hits = (hits < HITS_MAX ? hits : HITS_MAX) & HITS_MAX;
}

static inline void cell_release(struct table *t, struct table_cell *c)
{
	if (c->form != FORM_INLINE)
		slab_give(&t->slabs[t->classes[c->class].wide][c->form == FORM_FULL], c->ref);
	c->form = FORM_INLINE;
}

/* Gives a cell whose list is full the next larger one, or, without memory,
 * makes the list coarser. */
static void cell_spill(struct table *t, struct table_cell *c)
{
	struct window from = cell_window(t, c);
	bool full = c->form != FORM_INLINE;
	struct slab *slab = &t->slabs[from.wide][full];
	if (slab->free_head == 0 && table_bytes(t) + SLAB_BLOCK_ITEMS * slab->item_size > t->max_bytes) {
		window_merge(&from);
		cell_update(c, &from);
		return;
	}
	uint32_t ref = slab_take(slab);
	memcpy(slab_at(slab, ref), from.entries, from.count * (from.wide ? sizeof(uint64_t) : sizeof(uint32_t)));
	cell_release(t, c);
	c->form = full ? FORM_FULL : FORM_MID;
	c->ref = ref;
}

/* The top bits choose the array, the low 32 the place in it. */
static inline size_t shard_index(uint64_t hash)
{
	return hash / (UINT64_MAX / TABLE_SHARDS + 1);
}

static struct table_shard *shard_of(struct table *t, uint64_t hash)
{
	return &t->shards[shard_index(hash)];
}

static uint32_t home_of(const struct table_shard *s, uint64_t hash)
{
	return (uint32_t)((uint64_t)(uint32_t)hash * s->size >> 32);
}

static uint32_t slot_after(const struct table_shard *s, uint32_t at)
{
	return at + 1 == s->size ? 0 : at + 1;
}

/* Steps forward from A to B around the array. */
static uint32_t slot_distance(const struct table_shard *s, uint32_t a, uint32_t b)
{
	return b >= a ? b - a : b + s->size - a;
}

/* The cell of HASH, or the free one where it belongs. */
static inline struct table_cell *shard_probe(const struct table_shard *s, uint64_t hash)
{
	uint32_t at = home_of(s, hash);
	while (s->cells[at].hash != 0 && s->cells[at].hash != hash)
		at = slot_after(s, at);
	return &s->cells[at];
}

static inline struct table_cell *cell_find(const struct table *t, uint64_t hash)
{
	const struct table_shard *s = &t->shards[shard_index(hash)];
	if (s->count == 0)
		return NULL;
	struct table_cell *c = shard_probe(s, hash);
	return c->hash != 0 ? c : NULL;
}

static void cell_remove(struct table *t, struct table_shard *s, struct table_cell *c)
{
	uint32_t gap = (uint32_t)(c - s->cells);
	cell_release(t, c);
	s->count--;
	t->count--;
	for (uint32_t at = slot_after(s, gap); s->cells[at].hash != 0; at = slot_after(s, at)) {
		uint32_t home = home_of(s, s->cells[at].hash);
		if (slot_distance(s, home, at) < slot_distance(s, gap, at))
			continue;
		s->cells[gap] = s->cells[at];
		gap = at;
	}
	s->cells[gap] = (struct table_cell){0};
}

static void shard_resize(struct table *t, struct table_shard *s, uint32_t size)
{
	const struct table_shard old = *s;
	s->cells = size == SHARD_FEW ? t->few + (size_t)(s - t->shards) * SHARD_FEW : cells_map(t, size);
	s->size = size;
	for (uint32_t i = 0; i < old.size; i++)
		if (old.cells[i].hash != 0)
			*shard_probe(s, old.cells[i].hash) = old.cells[i];
	shard_drop(t, &old);
}

/* Whether the cell counts nothing any more at NOW_MS. */
static bool cell_is_dead(struct table *t, const struct table_cell *c, int64_t now_ms)
{
	uint32_t now = window_bucket(&t->classes[c->class], now_ms);
	return now > c->base && now - c->base >= WINDOW_LIVE;
}

static void shard_sweep(struct table *t, struct table_shard *s, int64_t now_ms)
{
	for (uint32_t i = 0; i < s->size;) {
		struct table_cell *c = &s->cells[i];
		if (c->hash != 0 && cell_is_dead(t, c, now_ms))
			cell_remove(t, s, c); /* another may have moved here */
		else
			i++;
	}
}

void table_sweep(struct table *table, unsigned shards, int64_t now_ms)
{
	for (; shards > 0; shards--) {
		struct table_shard *s = &table->shards[table->sweep_at];
		table->sweep_at = (table->sweep_at + 1) % TABLE_SHARDS;
		shard_sweep(table, s, now_ms);
		if (s->count >= s->size / 3)
			continue;
		uint32_t size = s->count <= SHARD_FEW / 3 ? SHARD_FEW : (s->count * 3 / 2 / SHARD_STEP + 1) * SHARD_STEP;
		if (size < s->size)
			shard_resize(table, s, size);
	}
}

/*
 * What would be lost with the counter: above all the charges that it took.
 * Bytes are large numbers and would else outweigh messages, so that a flood of
 * keys of theirs displaced busy accounts.
 */
static uint64_t cell_worth(const struct table *t, struct table_cell *c)
{
	struct window w = cell_window(t, c);
	uint64_t sum = window_sum(&w);
	return (uint64_t)c->hits << 57 | (w.wide ? sum >> WIDE_SHIFT : sum);
}

/* Makes room in the full array S by displacing a neighbour of HASH's home. */
static bool shard_evict(struct table *t, struct table_shard *s, uint64_t hash)
{
	struct table_cell *victim = NULL;
	uint64_t least = UINT64_MAX;
	uint32_t at = home_of(s, hash);
	for (unsigned i = 0; i < TABLE_EVICT_SCAN && i < s->size; i++, at = slot_after(s, at)) {
		struct table_cell *c = &s->cells[at];
		if (c->hash == 0 || c->form != FORM_INLINE || c->protected)
			continue;
		uint64_t worth = cell_worth(t, c);
		if (victim == NULL || worth < least || (worth == least && c->base < victim->base)) {
			victim = c;
			least = worth;
		}
	}
	if (victim == NULL)
		return false;
	cell_remove(t, s, victim);
	t->evicted++;
	return true;
}

static bool shard_make_room(struct table *t, struct table_shard *s, uint64_t hash)
{
	if ((uint64_t)(s->count + 1) * 5 <= (uint64_t)s->size * 4)
		return true;
	uint32_t more = (s->size / 8 / SHARD_STEP + 1) * SHARD_STEP;
	uint32_t size = s->size == SHARD_FEW ? SHARD_STEP : s->size + more;
	size_t extra = (size - s->size) * sizeof(struct table_cell);
	if (s->size == SHARD_FEW || table_bytes(t) + extra <= t->max_bytes) {
		shard_resize(t, s, size);
		return true;
	}
	return shard_evict(t, s, hash);
}

/* A cell for HASH, which has none; NULL without a place. */
static struct table_cell *cell_make(struct table *t, uint64_t hash, unsigned class, uint32_t bucket)
{
	struct table_shard *s = shard_of(t, hash);
	if (!shard_make_room(t, s, hash)) {
		t->untracked++;
		return NULL;
	}
	struct table_cell *c = shard_probe(s, hash);
	*c = (struct table_cell){.hash = hash, .base = bucket, .class = (uint8_t)class,
				 .generation = t->generation++};
	s->count++;
	t->count++;
	return c;
}

/* Finds HASH and moves its list on to BUCKET; NULL where nothing is counted. */
static inline struct table_cell *cell_current(struct table *t, uint64_t hash, uint32_t bucket, struct window *w_out)
{
	struct table_cell *c = cell_find(t, hash);
	if (c == NULL)
		return NULL;
	*w_out = cell_window(t, c);
	window_advance(w_out, bucket);
	cell_update(c, w_out);
	if (c->count > 0)
		return c;
	cell_remove(t, shard_of(t, hash), c);
	return NULL;
}

void table_prefetch(const struct table *table, uint64_t hash)
{
	const struct table_shard *s = &table->shards[shard_index(hash)];
	__builtin_prefetch(&s->cells[home_of(s, hash)]);
}

uint64_t table_used(struct table *table, uint64_t hash, unsigned class, int64_t now_ms)
{
	struct window w;
	uint32_t bucket = window_bucket(&table->classes[class], now_ms);
	return cell_current(table, hash, bucket, &w) == NULL ? 0 : window_sum(&w);
}

/* Charges C, the cell of HASH, which is made where it is NULL. */
static inline void cell_charge(struct table *table, struct table_cell *c, uint64_t hash, unsigned class, uint32_t bucket,
			uint64_t amount, struct table_mark *mark_out)
{
	*mark_out = (struct table_mark){.hash = hash, .bucket = bucket, .class = (uint8_t)class};
	if (amount == 0)
		return;
	if (c == NULL && (c = cell_make(table, hash, class, bucket)) == NULL)
		return;
	struct window w = cell_window(table, c);
	while (window_add(&w, bucket, amount) < 0) {
		cell_update(c, &w);
		cell_spill(table, c);
		w = cell_window(table, c);
	}
	cell_update(c, &w);
	cell_set_hits(c, c->hits + 1u);
	mark_out->amount = amount;
	mark_out->generation = c->generation;
	if (c->count == 0) /* a bucket out of reach, from an old log */
		cell_remove(table, shard_of(table, hash), c);
}

void table_charge_bucket(struct table *table, uint64_t hash, unsigned class, uint32_t bucket,
			 uint64_t amount, struct table_mark *mark_out)
{
	cell_charge(table, cell_find(table, hash), hash, class, bucket, amount, mark_out);
}

void table_charge(struct table *table, uint64_t hash, unsigned class, int64_t now_ms,
		  uint64_t amount, struct table_mark *mark_out)
{
	uint32_t bucket = window_bucket(&table->classes[class], now_ms);
	struct table_cell *c = cell_find(table, hash);
	/* The clock never steps back, but a restored counter may be ahead. */
	if (c != NULL && c->base > bucket)
		bucket = c->base;
	cell_charge(table, c, hash, class, bucket, amount, mark_out);
}

static inline void cell_take(struct table *table, struct table_cell *c, uint32_t bucket, uint64_t amount)
{
	struct window w = cell_window(table, c);
	window_sub(&w, bucket, amount);
	cell_update(c, &w);
	cell_set_hits(c, c->hits > 1 ? c->hits - 1u : 1);
	if (c->count == 0)
		cell_remove(table, shard_of(table, c->hash), c);
}

void table_take(struct table *table, uint64_t hash, uint32_t bucket, uint64_t amount)
{
	struct table_cell *c = cell_find(table, hash);
	if (c != NULL)
		cell_take(table, c, bucket, amount);
}

/* The cell that was charged, if it is still the same one. */
static inline struct table_cell *cell_of_mark(const struct table *table, const struct table_mark *mark)
{
	struct table_cell *c = mark->amount > 0 ? cell_find(table, mark->hash) : NULL;
	return c != NULL && c->generation == mark->generation ? c : NULL;
}

bool table_has_mark(const struct table *table, const struct table_mark *mark)
{
	return cell_of_mark(table, mark) != NULL;
}

bool table_mark_stands(struct table *table, const struct table_mark *mark, int64_t now_ms, uint64_t max)
{
	struct table_cell *c = cell_of_mark(table, mark);
	const uint32_t bucket = window_bucket(&table->classes[mark->class], now_ms);
	if (c == NULL || mark->bucket != bucket || c->base != bucket)
		return false;
	const struct window w = cell_window(table, c);
	const unsigned at = window_entry_find(&w, bucket);
	/* A counter that was made anew may have the same generation, and less in it. */
	return at < w.count && window_entry_count(&w, at) >= mark->amount && window_sum(&w) <= max;
}

void table_refund(struct table *table, const struct table_mark *mark)
{
	struct table_cell *c = cell_of_mark(table, mark);
	if (c != NULL)
		cell_take(table, c, mark->bucket, mark->amount);
}

void table_reset(struct table *table, uint64_t hash)
{
	struct table_cell *c = cell_find(table, hash);
	if (c != NULL)
		cell_remove(table, shard_of(table, hash), c);
}

int64_t table_free_at(struct table *table, uint64_t hash, unsigned class, int64_t now_ms, uint64_t room)
{
	struct window w;
	struct window_class *k = &table->classes[class];
	uint32_t bucket = window_bucket(k, now_ms);
	if (cell_current(table, hash, bucket, &w) == NULL || window_sum(&w) <= room)
		return now_ms;
	return (int64_t)window_free_bucket(&w, room) * k->width_ms;
}

void table_protect(struct table *table, uint64_t hash)
{
	struct table_cell *c = cell_find(table, hash);
	if (c != NULL)
		c->protected = 1;
}

static void state_fill(const struct table_cell *c, const struct window *w, struct table_state *state)
{
	*state = (struct table_state){.hash = c->hash, .base = w->base, .class = c->class, .count = w->count};
	for (unsigned e = 0; e < w->count; e++) {
		state->amounts[e] = window_entry_count(w, e);
		state->ages[e] = (uint8_t)window_entry_age(w, e);
	}
}

int table_read(struct table *table, uint64_t hash, unsigned class, int64_t now_ms, struct table_state *state_out)
{
	struct window w;
	const struct table_cell *c = cell_current(table, hash, window_bucket(&table->classes[class], now_ms), &w);
	if (c == NULL || w.count == 0)
		return ERR_NOT_FOUND;
	state_fill(c, &w, state_out);
	return 0;
}

/* Which step of its array's walk the counter belongs to. */
static unsigned part_of(uint64_t hash)
{
	return (unsigned)((uint32_t)hash / (UINT32_MAX / TABLE_WALK_PARTS + 1));
}

unsigned table_walk_step(uint64_t hash)
{
	return (unsigned)shard_index(hash) * TABLE_WALK_PARTS + part_of(hash);
}

/*
 * A cell lies at its home or in the run of used cells that begins there, and homes
 * rise with the low bits of the hash: the cells of a part are between the homes of
 * its first and its last hash, and in the run behind the latter.
 */
void table_walk(struct table *table, unsigned step, int64_t now_ms,
		void (*fn)(void *arg, const struct table_state *state), void *arg)
{
	struct table_shard *s = &table->shards[step / TABLE_WALK_PARTS];
	const unsigned part = step % TABLE_WALK_PARTS;
	const uint32_t width = UINT32_MAX / TABLE_WALK_PARTS + 1;
	if (s->count == 0)
		return;
	uint32_t at = home_of(s, (uint64_t)part * width);
	const uint32_t last = home_of(s, (uint64_t)part * width + (width - 1));
	uint32_t must = last - at + 1; /* cells that are looked at, used or not */
	for (uint32_t n = 0; n < s->size && (n < must || s->cells[at].hash != 0); n++, at = slot_after(s, at)) {
		struct table_cell *c = &s->cells[at];
		if (c->hash == 0 || part_of(c->hash) != part || cell_is_dead(table, c, now_ms))
			continue;
		struct window w = cell_window(table, c);
		struct table_state state;
		state_fill(c, &w, &state);
		fn(arg, &state);
	}
}

void table_restore(struct table *table, const struct table_state *state)
{
	table_reset(table, state->hash);
	for (unsigned i = 0; i < state->count; i++) {
		struct table_mark mark;
		table_charge_bucket(table, state->hash, state->class, state->base - state->ages[i],
				    state->amounts[i], &mark);
	}
	/* How many charges made it up is not in a state: as many as it may have been. */
	struct table_cell *c = cell_find(table, state->hash);
	if (c == NULL)
		return;
	struct window w = cell_window(table, c);
	uint64_t hits = w.wide ? window_sum(&w) >> WIDE_SHIFT : window_sum(&w);
	if (hits > c->hits)
		cell_set_hits(c, hits);
}
