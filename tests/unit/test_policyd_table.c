/*
 * Tests of the counters: the promise against an exact log of all events,
 * memory, displacement.  TABLE_EVENTS in the environment sets the number of
 * random events of the property test.
 */
#include <check.h>

#include "policyd-ratelimit/table.h"
#include "tests/unit/runner.h"

#define NOW INT64_C(100000000000)

static const struct hash_key fixed_key = {1, 2};

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

struct event {
	int64_t at_ms;
	uint64_t amount;
};

/* The exact log of one key. */
struct exact {
	struct event *events;
	size_t first, count;
};

/* Exact count in the closed window of LENGTH_MS that ends at NOW_MS. */
static uint64_t exact_sum(struct exact *x, int64_t now_ms, int64_t length_ms)
{
	uint64_t sum = 0;
	while (x->first < x->count && x->events[x->first].at_ms < now_ms - length_ms)
		x->first++;
	for (size_t i = x->first; i < x->count; i++)
		sum += x->events[i].amount;
	return sum;
}

#define KEYS 7

struct property {
	int64_t length_ms;
	uint64_t max, amount_max;
	bool wide;
};

/* Bursts, pauses within the window, silences of up to two windows. */
static int64_t step_next(uint64_t *seed, int64_t length_ms)
{
	uint64_t r = random_next(seed);
	int64_t range = r % 100 < 60 ? 20 : r % 100 < 98 ? length_ms / 20 : 2 * length_ms;
	return (int64_t)(r >> 8) % range;
}

/*
 * Since each admitted event ends a window, checking the window that ends at
 * each admission covers every window.  One charge in ten is taken back.
 */
static void property_run(const struct property *p, unsigned long events, uint64_t seed)
{
	struct table *t = table_new(&fixed_key, 64u << 20);
	struct exact logs[KEYS] = {0};
	unsigned class = (unsigned)table_class(t, p->length_ms, p->wide);
	unsigned long refused_early = 0, admitted = 0;
	int64_t now = NOW;
	for (int i = 0; i < KEYS; i++)
		logs[i].events = mem_alloc(events * sizeof(struct event));
	for (unsigned long i = 0; i < events; i++) {
		uint64_t key = random_next(&seed) % KEYS, hash = table_hash(key + 1, 77);
		uint64_t amount = 1 + random_next(&seed) % p->amount_max;
		struct exact *x = &logs[key];
		struct table_mark mark;
		now += step_next(&seed, p->length_ms);
		uint64_t used = table_used(t, hash, class, now), exact = exact_sum(x, now, p->length_ms);
		ck_assert_uint_ge(used, exact);
		if (used + amount > p->max) {
			refused_early += exact + amount <= p->max;
			continue;
		}
		ck_assert_uint_le(exact + amount, p->max);
		admitted++;
		table_charge(t, hash, class, now, amount, &mark);
		if (random_next(&seed) % 10 == 0)
			table_refund(t, &mark);
		else
			x->events[x->count++] = (struct event){now, amount};
	}
	/* Not useless either: few refusals come from the rounding to buckets. */
	ck_assert_uint_lt(refused_early, events / 20);
	ck_assert_uint_gt(admitted, events / 100);
	for (int i = 0; i < KEYS; i++)
		free(logs[i].events);
	table_free(&t);
}

START_TEST(at_most_n_in_every_window)
{
	static const struct property rows[] = {
		{3600000, 100, 1, false}, {86400000, 5000, 3, false}, {10000, 3, 1, false},
		{61000, 50000000, 9000000, true}, {600000, 1, 1, false},
	};
	const char *wanted = getenv("TABLE_EVENTS");
	unsigned long events = wanted != NULL ? strtoul(wanted, NULL, 10) : 200000;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		property_run(&rows[i], events, 0x9e3779b97f4a7c15 + i);
}
END_TEST

/* The bounds of the memory of an event: a full window, not much more. */
START_TEST(remembers_a_window_and_a_bucket)
{
	const int64_t length = 3600000, width = window_width_ms(length);
	struct table *t = table_new(&fixed_key, 64u << 20);
	unsigned class = (unsigned)table_class(t, length, false);
	for (int64_t offset = 0; offset < 2 * width; offset += 997) {
		struct table_mark mark;
		int64_t at = NOW + offset;
		table_charge(t, 5, class, at, 1, &mark);
		ck_assert_uint_eq(table_used(t, 5, class, at + length), 1);
		ck_assert_int_le(table_free_at(t, 5, class, at, 0), at + length + width);
		ck_assert_uint_eq(table_used(t, 5, class, at + length + width), 0);
		ck_assert_uint_eq(t->count, 0);
	}
	table_free(&t);
}
END_TEST

START_TEST(tells_when_it_frees)
{
	const int64_t length = 3600000;
	struct table *t = table_new(&fixed_key, 64u << 20);
	unsigned class = (unsigned)table_class(t, length, false);
	struct table_mark mark;
	for (int i = 0; i < 20; i++)
		table_charge(t, 5, class, NOW + i * 60000, 1, &mark);
	int64_t now = NOW + 20 * 60000;
	for (uint64_t room = 0; room < 20; room++) {
		int64_t at = table_free_at(t, 5, class, now, room);
		ck_assert_int_gt(at, now);
		struct table *u = table_new(&fixed_key, 64u << 20);
		ck_assert_int_eq(table_class(u, length, false), (int)class);
		for (int i = 0; i < 20; i++)
			table_charge(u, 5, class, NOW + i * 60000, 1, &mark);
		ck_assert_uint_gt(table_used(u, 5, class, at - 1), room);
		ck_assert_uint_le(table_used(u, 5, class, at), room);
		table_free(&u);
	}
	ck_assert_int_eq(table_free_at(t, 5, class, now, 20), now);
	table_free(&t);
}
END_TEST

START_TEST(refund_is_exact)
{
	struct table *t = table_new(&fixed_key, 64u << 20);
	unsigned class = (unsigned)table_class(t, 3600000, false);
	struct table_mark first, second;
	table_charge(t, 5, class, NOW, 3, &first);
	table_charge(t, 5, class, NOW + 10, 4, &second);
	table_refund(t, &first);
	ck_assert_uint_eq(table_used(t, 5, class, NOW + 20), 4);
	/* A counter that was reset in between owes nothing to the old charge. */
	table_reset(t, 5);
	table_charge(t, 5, class, NOW + 30, 2, &first);
	table_refund(t, &second);
	ck_assert_uint_eq(table_used(t, 5, class, NOW + 40), 2);
	table_refund(t, &first);
	ck_assert_uint_eq(t->count, 0);
	table_free(&t);
}
END_TEST

/* Many counters, with removal in between, against a plain array. */
START_TEST(growth_and_removal_lose_nothing)
{
	enum { N = 200000 };
	struct table *t = table_new(&fixed_key, 256u << 20);
	unsigned class = (unsigned)table_class(t, 3600000, false);
	struct table_mark mark;
	for (uint64_t i = 0; i < N; i++)
		table_charge(t, table_hash(i, 1), class, NOW, 1 + i % 5, &mark);
	ck_assert_uint_eq(t->count, N);
	for (uint64_t i = 0; i < N; i += 3)
		table_reset(t, table_hash(i, 1));
	for (uint64_t i = 0; i < N; i++)
		ck_assert_uint_eq(table_used(t, table_hash(i, 1), class, NOW), i % 3 == 0 ? 0 : 1 + i % 5);
	table_sweep(t, TABLE_SHARDS, NOW + 2 * 3600000);
	ck_assert_uint_eq(t->count, 0);
	table_free(&t);
}
END_TEST

/* Arrays grow out of the memory that is there from the start, and back into it. */
START_TEST(small_arrays_come_and_go)
{
	enum { FEW = 2000, MANY = 60000 };
	struct table *t = table_new(&fixed_key, 64u << 20);
	unsigned class = (unsigned)table_class(t, 3600000, false);
	struct table_mark mark;
	const size_t least = table_bytes(t);
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < MANY; i++) {
			ck_assert_uint_eq(table_used(t, table_hash(i, 1), class, NOW), i < FEW && round > 0 ? i + 1 : 0);
			table_charge(t, table_hash(i, 1), class, NOW, i < FEW && round > 0 ? 0 : i + 1, &mark);
		}
		ck_assert_uint_eq(t->count, MANY);
		ck_assert_uint_gt(table_bytes(t), least);
		for (uint64_t i = FEW; i < MANY; i++)
			table_reset(t, table_hash(i, 1));
		table_sweep(t, TABLE_SHARDS, NOW);
		for (uint64_t i = 0; i < FEW; i++)
			ck_assert_uint_eq(table_used(t, table_hash(i, 1), class, NOW), i + 1);
		ck_assert_uint_lt(table_bytes(t), least + TABLE_SHARDS * 4096);
	}
	for (uint64_t i = 0; i < FEW; i++)
		table_reset(t, table_hash(i, 1));
	table_sweep(t, TABLE_SHARDS, NOW);
	ck_assert_uint_eq(table_bytes(t), least);
	ck_assert_uint_eq(t->count, 0);
	table_free(&t);
}
END_TEST

/* A flood of one-time keys: memory at its cap, busy and limited counters whole. */
START_TEST(flood_spares_the_busy)
{
	enum { HOT = 200, FLOOD = 3000000 };
	const size_t cap = 32u << 20;
	struct table *t = table_new(&fixed_key, cap);
	unsigned class = (unsigned)table_class(t, 3600000, false);
	struct table_mark mark;
	for (uint64_t i = 0; i < HOT; i++) {
		table_charge(t, table_hash(i, 1), class, NOW, i % 2 == 0 ? 50 : 1, &mark);
		if (i % 2 == 1)
			table_protect(t, table_hash(i, 1));
	}
	for (uint64_t i = 0; i < FLOOD; i++) {
		table_charge(t, table_hash(i, UINT64_C(1) << 40), class, NOW + (int64_t)i / 100, 1, &mark);
		ck_assert_uint_le(table_bytes(t), cap);
	}
	ck_assert_uint_gt(t->evicted, 0);
	ck_assert_uint_eq(t->untracked, 0);
	for (uint64_t i = 0; i < HOT; i++)
		ck_assert_uint_eq(table_used(t, table_hash(i, 1), class, NOW + FLOOD / 100), i % 2 == 0 ? 50 : 1);
	table_free(&t);
}
END_TEST

/* Bytes are large numbers, yet one message of 100 KB does not outweigh a busy account. */
START_TEST(flood_of_bytes_spares_messages)
{
	enum { HOT = 200, FLOOD = 1500000 };
	struct table *t = table_new(&fixed_key, 32u << 20);
	unsigned class = (unsigned)table_class(t, 3600000, false), wide = (unsigned)table_class(t, 3600000, true);
	struct table_mark mark;
	for (int n = 0; n < 5; n++)
		for (uint64_t i = 0; i < HOT; i++)
			table_charge(t, table_hash(i, 1), class, NOW, 1, &mark);
	/* What a restart brings back is worth as much. */
	for (uint64_t i = HOT; i < 2 * HOT; i++) {
		struct table_state state = {.hash = table_hash(i, 1), .base = window_bucket(&t->classes[class], NOW),
					    .class = (uint8_t)class, .count = 1, .amounts = {5}};
		table_restore(t, &state);
	}
	for (uint64_t i = 0; i < FLOOD; i++)
		table_charge(t, table_hash(i, UINT64_C(1) << 40), wide, NOW + (int64_t)i / 100, 100000, &mark);
	ck_assert_uint_gt(t->evicted, 0);
	for (uint64_t i = 0; i < 2 * HOT; i++)
		ck_assert_uint_eq(table_used(t, table_hash(i, 1), class, NOW + FLOOD / 100), 5);
	table_free(&t);
}
END_TEST

/* At the cap lists get coarser rather than longer: never too low a count. */
START_TEST(spilling_stops_at_the_cap)
{
	struct table *t = table_new(&fixed_key, 16u << 20);
	unsigned class = (unsigned)table_class(t, 6400000, false);
	struct table_mark mark;
	for (int round = 0; round < 60; round++)
		for (uint64_t i = 0; i < 40000; i++)
			table_charge(t, table_hash(i, 1), class, NOW + round * 100000, 1, &mark);
	/* One page for each shard is always granted. */
	ck_assert_uint_le(table_bytes(t), (16u << 20) + TABLE_SHARDS * 4096);
	uint64_t counted = 0, over = 0;
	for (uint64_t i = 0; i < 40000; i++) {
		uint64_t used = table_used(t, table_hash(i, 1), class, NOW + 60 * 100000);
		counted += used;
		over += used > 60;
	}
	ck_assert_uint_gt(counted, 0);
	ck_assert_uint_eq(over, 0);
	table_free(&t);
}
END_TEST

static void restore_into(void *arg, const struct table_state *state)
{
	table_restore(arg, state);
}

START_TEST(walk_and_restore_are_inverse)
{
	struct table *t = table_new(&fixed_key, 64u << 20), *u = table_new(&fixed_key, 64u << 20);
	unsigned narrow = (unsigned)table_class(t, 3600000, false), wide = (unsigned)table_class(t, 86400000, true);
	ck_assert_int_eq(table_class(u, 3600000, false), (int)narrow);
	ck_assert_int_eq(table_class(u, 86400000, true), (int)wide);
	struct table_mark mark;
	uint64_t seed = 42;
	for (int i = 0; i < 50000; i++) {
		uint64_t key = random_next(&seed) % 500;
		table_charge(t, table_hash(key, 1), key % 2 ? narrow : wide, NOW + i * 70, 1 + key, &mark);
	}
	int64_t end = NOW + 50000 * 70;
	table_charge(u, table_hash(3, 1), narrow, end, 1000, &mark);
	for (unsigned step = 0; step < TABLE_WALK_STEPS; step++)
		table_walk(t, step, end, restore_into, u);
	/* Later too: each bucket is where it was. */
	for (int64_t now = end; now < end + 4000000; now += 300000)
		for (uint64_t key = 0; key < 500; key++) {
			unsigned class = key % 2 ? narrow : wide;
			ck_assert_uint_eq(table_used(u, table_hash(key, 1), class, now),
					  table_used(t, table_hash(key, 1), class, now));
		}
	table_free(&t);
	table_free(&u);
}
END_TEST

struct visits {
	uint8_t times[40000];
	uint64_t by_hash[65536]; /* number + 1 of the key, open addressing */
	uint64_t hashes[65536];
};

static void visit_add(struct visits *v, uint64_t hash, uint64_t key)
{
	size_t at = hash % 65536;
	while (v->by_hash[at] != 0)
		at = (at + 1) % 65536;
	v->by_hash[at] = key + 1;
	v->hashes[at] = hash;
}

static void visit_count(void *arg, const struct table_state *state)
{
	struct visits *v = arg;
	size_t at = state->hash % 65536;
	while (v->hashes[at] != state->hash)
		at = (at + 1) % 65536;
	v->times[v->by_hash[at] - 1]++;
}

/* A counter that is there all the time is met once, however the arrays grow,
 * shrink and shift between the steps. */
START_TEST(walk_meets_each_counter_once)
{
	static struct visits v;
	struct table *t = table_new(&fixed_key, 64u << 20);
	unsigned class = (unsigned)table_class(t, 3600000, false);
	struct table_mark mark;
	uint64_t seed = 7;
	for (uint64_t key = 0; key < 20000; key++) {
		visit_add(&v, table_hash(key, 1), key);
		table_charge(t, table_hash(key, 1), class, NOW, 1, &mark);
	}
	for (uint64_t key = 20000; key < 40000; key++)
		visit_add(&v, table_hash(key, 1), key);
	for (unsigned step = 0; step < TABLE_WALK_STEPS; step++) {
		table_walk(t, step, NOW, visit_count, &v);
		for (int i = 0; i < 4; i++) { /* others come and go, most of all where the walk is */
			uint64_t key = 20000 + random_next(&seed) % 20000;
			if (table_used(t, table_hash(key, 1), class, NOW) > 0)
				table_reset(t, table_hash(key, 1));
			else
				table_charge(t, table_hash(key, 1), class, NOW, 1, &mark);
		}
	}
	for (uint64_t key = 0; key < 20000; key++)
		ck_assert_msg(v.times[key] == 1, "key %llu: %u times", (unsigned long long)key, v.times[key]);
	for (uint64_t key = 20000; key < 40000; key++)
		ck_assert_uint_le(v.times[key], 1);
	table_free(&t);
}
END_TEST

static const TTest *const *const tests[] = {
	&at_most_n_in_every_window, &remembers_a_window_and_a_bucket, &tells_when_it_frees, &refund_is_exact,
	&growth_and_removal_lose_nothing, &small_arrays_come_and_go, &flood_spares_the_busy, &flood_of_bytes_spares_messages,
	&spilling_stops_at_the_cap,
	&walk_and_restore_are_inverse, &walk_meets_each_counter_once, NULL,
};

TEST_MAIN("policyd_table", tests)
