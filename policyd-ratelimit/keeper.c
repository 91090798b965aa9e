/*
 * What is kept of the counters, and when.  A snapshot goes through the table in
 * small steps in between the requests, no faster than a slow disk can follow; when
 * it is complete, what was written before its begin is removed.
 */
#include "policyd.h"

#include <fcntl.h>
#include <unistd.h>

#define SNAPSHOT_MIN_BYTES (32u << 20) /* growth of the log that makes one worth while */
#define SLICE_BYTES (24u << 10)        /* of a snapshot that are added at once, some 800 counters */
#define SLICE_STEPS 64                 /* of the walk at once: a table may be all but empty */
#define SLICE_WAIT_BYTES (256u << 10)  /* the disk is behind: no further slice */
#define SNAPSHOT_PER_MEMORY 3          /* bytes of a snapshot for each of the counters' memory, at most */
#define FAILED_PAUSE_MS 5000
#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

static void boot_now(const struct policyd *p, struct journal_boot *now)
{
	*now = (struct journal_boot){p->keeper.boot_id, clock_boot_ms(), clock_wall_ms()};
}

/* A number for this boot of the machine, 0 where it cannot be told. */
static uint64_t boot_id_read(void)
{
	static const struct hash_key fixed = {1, 2};
	char text[64];
	int fd = open(BOOT_ID_FILE, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof(text));
	close(fd);
	return n < 36 ? 0 : hash_siphash(&fixed, span_of(text, 36));
}

/* ---- writing ---- */

/* A batch to add to, with its header; NULL where too much waits. */
static struct sbuf *batch_begin(struct policyd *p)
{
	struct sbuf *batch = store_begin(p->keeper.store);
	if (batch != NULL && batch->len == 0) {
		struct journal_boot now;
		boot_now(p, &now);
		journal_header_add(p->table, &now, batch);
	}
	return batch;
}

void keeper_message(struct policyd *p, const struct session_outcome *outcome)
{
	struct sbuf *batch = batch_begin(p);
	if (batch == NULL)
		return;
	journal_message_add(outcome->digest, outcome->charges, outcome->charge_count, batch);
	(void)store_end(p->keeper.store);
}

void keeper_reset(struct policyd *p, uint64_t hash)
{
	struct sbuf *batch = batch_begin(p);
	if (batch == NULL)
		return;
	journal_reset_add(hash, batch);
	(void)store_end(p->keeper.store);
}

void keeper_block(struct policyd *p, bool blocked, enum rule_scope scope, struct span key)
{
	struct sbuf *batch = batch_begin(p);
	if (batch == NULL)
		return;
	journal_block_add(blocked, scope, key, batch);
	(void)store_end(p->keeper.store);
}

void keeper_state(struct policyd *p, const struct table_state *state)
{
	struct sbuf *batch = batch_begin(p);
	if (batch == NULL)
		return;
	journal_state_add(state, batch);
	(void)store_end(p->keeper.store);
}

void keeper_held(struct policyd *p, const struct abuse_held *held)
{
	struct sbuf *batch = batch_begin(p);
	if (batch == NULL)
		return;
	journal_held_add(held, batch);
	(void)store_end(p->keeper.store);
}

/* ---- snapshots ---- */

bool keeper_busy(const struct policyd *p)
{
	return p->keeper.step < TABLE_WALK_STEPS;
}

/* Messages that were charged lately: asked about again, they are not charged again. */
static void ended_write(struct policyd *p, struct sbuf *batch)
{
	struct txn_table *txns = &p->session.txns;
	for (const struct txn *t = txn_list_oldest(txns, &txns->ended); t != NULL; t = txn_list_newer(txns, t))
		if (t->charged)
			journal_message_add(t->digest, NULL, 0, batch);
}

_Static_assert(BLOCKS_MAX * (4 + BLOCKS_KEY_MAX) + ABUSE_HELD_MAX * (44 + ABUSE_KEY_TEXT_MAX) + TXN_ENDED_MAX * 11 +
		       JOURNAL_HEADER_MAX < STORE_ENTRY_MAX, "all that a snapshot begins with is one entry");

static void snapshot_begin(struct policyd *p)
{
	struct keeper *k = &p->keeper;
	struct sbuf *batch = batch_begin(p);
	if (batch == NULL)
		return;
	journal_unblock_all_add(batch);
	for (size_t i = 0; i < p->session.blocks.count; i++) {
		const struct block *b = &p->session.blocks.items[i];
		journal_block_add(true, b->scope, span_str(b->key), batch);
	}
	journal_unhold_all_add(batch);
	for (size_t i = 0; i < p->session.abuse.held_count; i++)
		journal_held_add(p->session.abuse.held[i], batch);
	ended_write(p, batch);
	k->begin_ticket = store_end(k->store);
	k->step = 0;
	k->again = false;
}

struct writing {
	const struct settled *settled;
	struct sbuf *batch;
};

static void state_write(void *arg, const struct table_state *state)
{
	const struct writing *w = arg;
	struct table_state granted = *state;
	settled_take(w->settled, &granted);
	journal_state_add(&granted, w->batch);
}

void keeper_slice(struct policyd *p)
{
	struct keeper *k = &p->keeper;
	if (!keeper_busy(p) || store_waiting(k->store) > SLICE_WAIT_BYTES)
		return;
	struct sbuf *batch = batch_begin(p);
	if (batch == NULL)
		return;
	const size_t begin = batch->len;
	struct writing writing = {&k->settled, batch};
	settled_collect(&k->settled, &p->session.txns, p->table, k->step, k->step + SLICE_STEPS);
	for (unsigned n = 0; n < SLICE_STEPS && keeper_busy(p) && batch->len < begin + SLICE_BYTES; n++)
		table_walk(p->table, k->step++, policyd_now_ms(), state_write, &writing);
	(void)store_end(k->store);
	if (keeper_busy(p))
		return;
	if (!k->again) {
		store_trim(k->store, k->begin_ticket);
		metrics_inc(METRIC_SNAPSHOTS);
	}
	k->settled_bytes = store_bytes(k->store);
}

/* What the log takes with a snapshot of the counters of now behind BYTES. */
static uint64_t room_for_snapshot(const struct policyd *p, uint64_t bytes)
{
	return bytes + SNAPSHOT_PER_MEMORY * table_bytes(p->table) + 2 * (STORE_BATCH_MAX + STORE_ENTRY_MAX);
}

static void limit_set(struct policyd *p, uint64_t bytes)
{
	struct keeper *k = &p->keeper;
	k->limit_bytes = bytes > k->max_bytes ? bytes : k->max_bytes;
	store_set_max(k->store, k->limit_bytes);
}

void keeper_second(struct policyd *p)
{
	struct keeper *k = &p->keeper;
	uint64_t bytes = store_bytes(k->store);
	if (keeper_busy(p))
		return;
	if (k->failed_ms != 0 && clock_boot_ms() - k->failed_ms < FAILED_PAUSE_MS)
		return;
	k->failed_ms = 0;
	/* After the trim the log is smaller than when the snapshot ended. */
	if (bytes < k->settled_bytes)
		k->settled_bytes = bytes;
	/* The one that did not fit is complete. */
	if (k->limit_bytes > k->max_bytes && !k->again)
		limit_set(p, room_for_snapshot(p, bytes));
	uint64_t due = k->settled_bytes + (k->settled_bytes > SNAPSHOT_MIN_BYTES ? k->settled_bytes : SNAPSHOT_MIN_BYTES);
	/* The log must hold what there is and a snapshot of that size beside it. */
	uint64_t size = k->settled_bytes + k->settled_bytes / 4;
	if (k->limit_bytes > size && due > k->limit_bytes - size)
		due = k->limit_bytes - size;
	if (k->again || bytes > due)
		snapshot_begin(p);
}

/* A log at its cap in which no snapshot ends would stay there for good: it may take one more. */
static void limit_grow(struct policyd *p)
{
	char limit[24];
	uint64_t bytes = store_bytes(p->keeper.store);
	if (bytes + STORE_BATCH_MAX + STORE_ENTRY_MAX < p->keeper.limit_bytes)
		return; /* it was the disk */
	limit_set(p, room_for_snapshot(p, bytes));
	snprintf(limit, sizeof(limit), "%llu", (unsigned long long)p->keeper.limit_bytes);
	LOG_EVENT(LOG_WARNING, &ev_journal_grown, "the log of the counters grows past max_journal",
		  LOG_FIELD_STR("PATH", p->skel->state_dir), LOG_FIELD_STR("BYTES", limit));
}

static void on_failed(void *arg)
{
	struct policyd *p = arg;
	metrics_inc(METRIC_JOURNAL_FAILURES);
	if (p->keeper.failed_ms == 0)
		LOG_EVENT(LOG_ERR, &ev_journal_failed, "the counters cannot be written to disk",
			  LOG_FIELD_STR("PATH", p->skel->state_dir));
	p->keeper.failed_ms = clock_boot_ms();
	p->keeper.again = true;
	limit_grow(p);
}

/* ---- restoring ---- */

struct restore {
	struct policyd *p;
	struct journal_boots boots;
	struct journal_boot now;
	struct hash_key key;
	size_t scanned, damaged;
};

static int batch_scan(void *arg, struct span batch)
{
	struct restore *r = arg;
	r->scanned += journal_scan(batch, &r->boots, &r->key) == 0;
	return 0;
}

static int batch_apply(void *arg, struct span batch)
{
	struct restore *r = arg;
	r->damaged += journal_apply(batch, &r->boots, &r->now, &r->p->session) < 0;
	return 0;
}

static void restore_log(const struct policyd *p, size_t damaged)
{
	char count_text[24], damaged_text[24];
	snprintf(count_text, sizeof(count_text), "%llu", (unsigned long long)p->table->count);
	snprintf(damaged_text, sizeof(damaged_text), "%zu", damaged);
	LOG_EVENT(damaged > 0 ? LOG_WARNING : LOG_INFO, &ev_journal_restored, "counters restored",
		  LOG_FIELD_STR("COUNTERS", count_text), LOG_FIELD_STR("DAMAGED", damaged_text));
}

/* Makes the table and the session and brings them to what the log says. */
static int state_restore(struct policyd *p, const struct policyd_config *config, struct rules *rules,
			 struct sbuf *error)
{
	struct restore r = {.p = p, .key = hash_key_random()};
	int unread = store_read(p->keeper.store, batch_scan, &r);
	if (unread < 0) {
		sbuf_adds(error, "the log of the counters cannot be read");
		rules_free(&rules);
		return ERR_TEMP;
	}
	p->table = table_new(&r.key, (size_t)config->max_memory);
	if (session_init(&p->session, p->table, rules, (size_t)config->max_transactions,
			 config->transaction_timeout) < 0) {
		sbuf_adds(error, "too many different windows");
		rules_free(&rules);
		table_free(&p->table);
		return ERR_LIMIT;
	}
	boot_now(p, &r.now);
	if (store_read(p->keeper.store, batch_apply, &r) < 0)
		r.damaged++;
	if (r.scanned > 0 || r.damaged > 0 || unread > 0)
		restore_log(p, r.damaged + (size_t)unread);
	return 0;
}

int keeper_open(struct policyd *p, const struct policyd_config *config, struct rules *rules, struct sbuf *error)
{
	char path[1024];
	snprintf(path, sizeof(path), "%s/journal", p->skel->state_dir);
	p->keeper = (struct keeper){.boot_id = boot_id_read(), .step = TABLE_WALK_STEPS,
				    .max_bytes = (uint64_t)config->max_journal,
				    .limit_bytes = (uint64_t)config->max_journal};
	const struct store_config store = {.dir = path, .map_dir = config->runtime_dir, .boot_id = p->keeper.boot_id,
					   .max_bytes = p->keeper.max_bytes, .sync_ms = config->journal_sync,
					   .loop = p->skel->loop, .failed = on_failed, .arg = p};
	if (store_open(&store, &p->keeper.store, error) < 0) {
		rules_free(&rules);
		return ERR_TEMP;
	}
	if (state_restore(p, config, rules, error) < 0) {
		store_close(&p->keeper.store);
		return ERR_TEMP;
	}
	p->keeper.settled_bytes = store_bytes(p->keeper.store);
	/* One that has grown, or a smaller max_journal: nothing is lost until the next snapshot. */
	limit_grow(p);
	p->keeper.again = p->keeper.limit_bytes > p->keeper.max_bytes;
	const char *problem = store_problem(p->keeper.store);
	if (problem[0] != '\0')
		LOG_EVENT(LOG_WARNING, &ev_journal_volatile, "charges do not outlive a crash at once",
			  LOG_FIELD_STR("REASON", problem));
	store_start(p->keeper.store);
	return 0;
}

void keeper_close(struct policyd *p)
{
	store_close(&p->keeper.store);
	settled_done(&p->keeper.settled);
	session_done(&p->session);
	table_free(&p->table);
}
