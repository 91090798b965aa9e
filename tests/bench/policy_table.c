/*
 * The counters under many keys: memory a key, the longest and the 99th
 * percentile of one charge while the table grows, and what a flood of one-time
 * keys does to busy ones.
 *
 *   policy_table KEYS FLOOD MEMORY_MB
 *
 * Prints one line for each.
 */
#include "lib/base/num.h"
#include "policyd-ratelimit/table.h"

#define NOW INT64_C(100000000000)
#define HOT 1000
#define HOT_COUNT 50
#define FLOOD_ID (UINT64_C(1) << 40)

/* Latencies by 1/8 of each power of two of nanoseconds. */
#define BUCKETS (64 * 8)

struct timing {
	uint64_t buckets[BUCKETS];
	uint64_t count, max_ns;
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void timing_add(struct timing *t, uint64_t ns)
{
	uint64_t v = ns > 8 ? ns : 8;
	unsigned power = 63 - (unsigned)__builtin_clzll(v);
	t->buckets[power * 8 + (v >> (power - 3) & 7)]++;
	t->count++;
	t->max_ns = ns > t->max_ns ? ns : t->max_ns;
}

static double percentile_us(const struct timing *t, double share)
{
	uint64_t seen = 0;
	size_t i = 0;
	for (; i < BUCKETS - 1; i++) {
		seen += t->buckets[i];
		if ((double)seen > (double)t->count * share)
			break;
	}
	return (double)((UINT64_C(8) + i % 8) << (i / 8 - 3)) / 1000;
}

static void charge_many(struct table *t, unsigned class, uint64_t id, uint64_t keys, struct timing *timing)
{
	struct table_mark mark;
	uint64_t before = now_ns();
	for (uint64_t i = 0; i < keys; i++) {
		table_charge(t, table_hash(i, id), class, NOW, 1, &mark);
		uint64_t after = now_ns();
		timing_add(timing, after - before);
		before = after;
	}
}

static void report(const char *what, const struct table *t, const struct timing *timing)
{
	printf("%s keys=%llu memory_mb=%.0f bytes_a_key=%.1f p50_us=%.2f p99_us=%.2f p99.999_us=%.1f max_us=%.1f evicted=%llu\n",
	       what, (unsigned long long)t->count, (double)table_bytes(t) / 1e6,
	       (double)table_bytes(t) / (double)t->count, percentile_us(timing, 0.5), percentile_us(timing, 0.99),
	       percentile_us(timing, 0.99999), (double)timing->max_ns / 1000, (unsigned long long)t->evicted);
}

int main(int argc, char **argv)
{
	static struct timing growth, flood;
	const struct hash_key key = hash_key_random();
	uint64_t keys = 0, flood_keys = 0, memory_mb = 0, whole = 0;
	if (argc != 4 || num_parse_u64(span_str(argv[1]), 1000000000, &keys) < 0 ||
	    num_parse_u64(span_str(argv[2]), 1000000000, &flood_keys) < 0 ||
	    num_parse_u64(span_str(argv[3]), 1000000, &memory_mb) < 0) {
		fprintf(stderr, "usage: policy_table KEYS FLOOD MEMORY_MB\n");
		return EXIT_FAILURE;
	}
	struct table *t = table_new(&key, memory_mb << 20);
	unsigned class = (unsigned)table_class(t, 3600000, false);
	struct table_mark mark;
	for (uint64_t i = 0; i < HOT; i++)
		table_charge(t, table_hash(i, 1), class, NOW, HOT_COUNT, &mark);
	charge_many(t, class, 0, keys, &growth);
	report("growth", t, &growth);
	charge_many(t, class, FLOOD_ID, flood_keys, &flood);
	report("flood", t, &flood);
	for (uint64_t i = 0; i < HOT; i++)
		whole += table_used(t, table_hash(i, 1), class, NOW) >= HOT_COUNT;
	printf("busy keys unharmed: %llu of %d\n", (unsigned long long)whole, HOT);
	table_free(&t);
	return whole == HOT ? EXIT_SUCCESS : EXIT_FAILURE;
}
