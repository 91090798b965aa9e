/*
 * The log of the counters: a batch of any bytes is applied or refused without
 * harm, and a snapshot of what came of it restores the same counts and blocks.
 */
#include "policyd-ratelimit/journal.h"

#define SNAPSHOT_MAX (4u << 20)
#define TABLE_BYTES (64u << 20)

static const struct hash_key fixed_key = {5, 6};
static const struct journal_boot now = {.id = 7, .boot_ms = INT64_C(86400000), .wall_ms = INT64_C(1795305600000)};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void session_open(struct session *s)
{
	char mem[128];
	struct sbuf reason;
	struct rules *rules = rules_new();
	sbuf_init(&reason, mem, sizeof(mem));
	if (rules_add_limit(rules, SPAN_LIT("client_ip messages 100/1h"), &reason) < 0)
		PANIC("a limit is refused");
	rules_seal(rules);
	if (session_init(s, table_new(&fixed_key, TABLE_BYTES), rules, 64, 3600000) < 0)
		PANIC("no session");
}

static void session_close(struct session *s)
{
	struct table *table = s->table;
	session_done(s);
	table_free(&table);
}

static int batch_apply(struct session *s, struct span batch)
{
	struct journal_boots boots = {.count = 0};
	struct hash_key key;
	int scanned = journal_scan(batch, &boots, &key);
	int rc = journal_apply(batch, &boots, &now, s);
	if (scanned < 0 && rc == 0)
		PANIC("a batch that cannot be scanned was applied");
	return rc;
}

static void state_write(void *arg, const struct table_state *state)
{
	journal_state_add(state, arg);
}

static void snapshot(const struct session *s, struct sbuf *out)
{
	journal_header_add(s->table, &now, out);
	journal_unblock_all_add(out);
	for (size_t i = 0; i < s->blocks.count; i++)
		journal_block_add(true, s->blocks.items[i].scope, span_str(s->blocks.items[i].key), out);
	for (unsigned i = 0; i < TABLE_WALK_STEPS; i++)
		table_walk(s->table, i, now.boot_ms + JOURNAL_CLOCK_BIAS_MS, state_write, out);
}

static void state_compare(void *arg, const struct table_state *state)
{
	const struct session *const *both = arg;
	int64_t at_ms = now.boot_ms + JOURNAL_CLOCK_BIAS_MS;
	if (table_used(both[0]->table, state->hash, state->class, at_ms) !=
	    table_used(both[1]->table, state->hash, state->class, at_ms))
		PANIC("a snapshot restores another count");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct session first, second;
	const struct session *both[] = {&first, &second};
	struct sbuf saved;
	session_open(&first);
	session_open(&second);
	(void)batch_apply(&first, span_of(data, size));
	sbuf_init_heap(&saved, SNAPSHOT_MAX);
	snapshot(&first, &saved);
	if (sbuf_ok(&saved)) {
		if (batch_apply(&second, sbuf_span(&saved)) < 0)
			PANIC("a snapshot is refused");
		if (first.blocks.count != second.blocks.count || first.table->count < second.table->count)
			PANIC("a snapshot restores something else");
		for (unsigned i = 0; i < TABLE_WALK_STEPS; i++)
			table_walk(first.table, i, now.boot_ms + JOURNAL_CLOCK_BIAS_MS, state_compare, both);
	}
	sbuf_done(&saved);
	session_close(&first);
	session_close(&second);
	return 0;
}
