/*
 * The promise, over the whole decision: at most N in every window.
 *
 * Random clients begin, go on with, repeat, finish and abandon messages on
 * connections that break, against limits of several windows, units and scopes at
 * once.  Meanwhile the wall clock is set on and back by days, the clock of the
 * requests steps back, time jumps over whole windows, limits are reloaded, and the
 * daemon is started anew from its journal, in the same boot and in another.
 * Each accepted message is entered into an exact log; no window of it may hold
 * more than its limit, and each limit must be reached.  Since an accepted message
 * ends a window, looking at the window that ends at each covers all.
 *
 * Prints its figures.  PROMISE_EVENTS in the environment sets the number of events.
 */
#include <check.h>

#include "policyd-ratelimit/journal.h"
#include "tests/unit/runner.h"

#define EVENTS 1000000ul
#define CONNS 16
#define CLIENTS 6
#define ACCOUNTS 5 /* the first has no name */
#define KEYS (CLIENTS + ACCOUNTS)
#define WINDOWS 6
#define SIZE_MAX_BYTES 20000
#define RESTART_EVERY 10000
#define TABLE_BYTES (32u << 20)
#define WALL INT64_C(1795305600000)
#define DAY_MS INT64_C(86400000)

static const struct hash_key fixed_key = {5, 6};

static const char *const limits[] = {
	"client_ip messages 20/10m, 60/1h smooth = yes burst = 5", "account recipients 30/10m, 100/1h", "account bytes 200K/20m",
};

/* The same windows as the limits name them, for the exact log. */
static const struct window_row {
	const char *text;
	bool by_account, recipients, bytes;
	int64_t length_ms;
	uint64_t max;
} windows[WINDOWS] = {
	{"client_ip messages 20/10m", false, false, false, 600000, 20},
	{"client_ip messages 5/150s", false, false, false, 150000, 5},
	{"client_ip messages 60/1h", false, false, false, 3600000, 60},
	{"account recipients 30/10m", true, true, false, 600000, 30},
	{"account recipients 100/1h", true, true, false, 3600000, 100},
	{"account bytes 200K/20m", true, false, true, 1200000, 200 * 1024},
};

struct entry {
	int64_t at_ms;
	uint64_t amounts[3]; /* messages, recipients, bytes */
};

/* All that one key was granted, and where each window over it begins. */
struct log {
	struct entry *entries;
	size_t count, size, first[WINDOWS];
	uint64_t sum[WINDOWS];
};

struct sender {
	struct session_client conn;
	unsigned instance, client, account, recipients, granted;
	bool open;
};

struct world {
	struct session s;
	struct sender senders[CONNS];
	struct log logs[KEYS];
	uint64_t seed;
	/* True time, and what the session's clocks show of it. */
	int64_t true_ms, boot_offset_ms, wall_offset_ms, batch_wall_offset_ms;
	uint64_t boot_id;
	struct sbuf *batches;
	size_t batch_count, batch_size;
	unsigned next_instance;
	unsigned long asked, accepted, refused, repeated, restarts, reboots, steps, reloads, refunds;
	uint64_t fullest[WINDOWS];
	struct session_outcome outcome;
};

static uint64_t random_next(struct world *w)
{
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return w->seed;
}

static struct rules *rules_make(bool reversed)
{
	char mem[512];
	struct sbuf reason;
	struct rules *rules = rules_new();
	const size_t count = sizeof(limits) / sizeof(limits[0]);
	sbuf_init(&reason, mem, sizeof(mem));
	for (size_t i = 0; i < count; i++)
		ck_assert_int_eq(rules_add_limit(rules, span_str(limits[reversed ? count - 1 - i : i]), &reason), 0);
	rules_seal(rules);
	return rules;
}

static void session_begin(struct world *w)
{
	struct table *table = table_new(&fixed_key, TABLE_BYTES);
	ck_assert_int_eq(session_init(&w->s, table, rules_make(false), 1024, DAY_MS), 0);
}

static void session_end(struct world *w)
{
	struct table *table = w->s.table;
	w->refunds += w->s.stats.refunds;
	session_done(&w->s);
	table_free(&table);
}

static struct journal_boot boot_now(const struct world *w)
{
	return (struct journal_boot){w->boot_id, w->true_ms + w->boot_offset_ms, w->true_ms + w->wall_offset_ms};
}

/* ---- the journal ---- */

static struct sbuf *batch_begin(struct world *w)
{
	const struct journal_boot now = boot_now(w);
	w->batch_wall_offset_ms = w->wall_offset_ms;
	if (w->batch_count == w->batch_size) {
		w->batch_size = w->batch_size == 0 ? 1024 : w->batch_size * 2;
		w->batches = mem_realloc(w->batches, w->batch_size * sizeof(*w->batches));
	}
	struct sbuf *batch = &w->batches[w->batch_count++];
	sbuf_init_heap(batch, 8u << 20);
	journal_header_add(w->s.table, &now, batch);
	return batch;
}

static void batches_drop(struct world *w)
{
	while (w->batch_count > 0)
		sbuf_done(&w->batches[--w->batch_count]);
}

static void state_add(void *arg, const struct table_state *state)
{
	journal_state_add(state, arg);
}

/* All is forgotten and read back; what follows rests on a snapshot of that. */
static void restart(struct world *w)
{
	struct journal_boots boots = {.count = 0};
	struct hash_key key;
	session_end(w);
	if (random_next(w) % 3 == 0) {
		/* The machine too. Over that only the wall clock tells the time: it goes on or is set back. */
		w->reboots++;
		w->boot_id++;
		w->boot_offset_ms = 10000 - w->true_ms;
		w->wall_offset_ms = w->batch_wall_offset_ms - (random_next(w) % 2 == 0 ? DAY_MS : 0);
	}
	session_begin(w);
	const struct journal_boot now = boot_now(w);
	for (size_t i = 0; i < w->batch_count; i++)
		ck_assert_int_eq(journal_scan(sbuf_span(&w->batches[i]), &boots, &key), 0);
	for (size_t i = 0; i < w->batch_count; i++)
		ck_assert_int_eq(journal_apply(sbuf_span(&w->batches[i]), &boots, &now, &w->s), 0);
	session_tick(&w->s, now.boot_ms + JOURNAL_CLOCK_BIAS_MS);
	batches_drop(w);
	struct sbuf *snapshot = batch_begin(w);
	for (unsigned step = 0; step < TABLE_WALK_STEPS; step++)
		table_walk(w->s.table, step, now.boot_ms + JOURNAL_CLOCK_BIAS_MS, state_add, snapshot);
	ck_assert(sbuf_ok(snapshot));
	for (int i = 0; i < CONNS; i++)
		w->senders[i].conn = (struct session_client){0};
	w->restarts++;
}

/* ---- the exact log ---- */

static uint64_t amount_of(const struct entry *e, const struct window_row *row)
{
	return e->amounts[row->bytes ? 2 : row->recipients];
}

static void log_add(struct world *w, struct log *log, bool by_account, const struct entry *e)
{
	if (log->count == log->size) {
		log->size = log->size == 0 ? 4096 : log->size * 2;
		log->entries = mem_realloc(log->entries, log->size * sizeof(*log->entries));
	}
	log->entries[log->count++] = *e;
	for (size_t i = 0; i < WINDOWS; i++) {
		const struct window_row *row = &windows[i];
		if (row->by_account != by_account)
			continue;
		log->sum[i] += amount_of(e, row);
		for (; log->entries[log->first[i]].at_ms < e->at_ms - row->length_ms; log->first[i]++)
			log->sum[i] -= amount_of(&log->entries[log->first[i]], row);
		ck_assert_msg(log->sum[i] <= row->max, "%llu in a window of %s", (unsigned long long)log->sum[i], row->text);
		w->fullest[i] = log->sum[i] > w->fullest[i] ? log->sum[i] : w->fullest[i];
	}
}

/* ---- events ---- */

/* Asks for what X sends; returns whether the answer was DUNNO. */
static bool ask(struct world *w, const struct sender *x, struct session_client *conn, bool end, unsigned recipient,
		uint64_t size)
{
	static struct proto_request request;
	char text[512], reply_mem[1024], account[32] = "";
	struct sbuf reply;
	if (x->account > 0)
		snprintf(account, sizeof(account), "u%u@example.com", x->account);
	int len = snprintf(text, sizeof(text),
			   "request=smtpd_access_policy\nprotocol_state=%s\ninstance=%u\nclient_address=192.0.2.%u\n"
			   "sasl_username=%s\nsender=s@example.com\nrecipient=r%u@example.net\nrecipient_count=%u\nsize=%llu\n\n",
			   end ? "END-OF-MESSAGE" : "RCPT", x->instance, x->client, account, recipient,
			   end ? x->granted : 0, (unsigned long long)size);
	ck_assert_int_eq(proto_request_parse(span_of(text, (size_t)len), &request), 0);
	sbuf_init(&reply, reply_mem, sizeof(reply_mem));
	/* One in fifty was stamped before others that came first. */
	int64_t late = random_next(w) % 50 == 0 ? (int64_t)(random_next(w) % 600000) : 0;
	int64_t now = w->true_ms + w->boot_offset_ms + JOURNAL_CLOCK_BIAS_MS;
	session_request(&w->s, conn, &request, now - late, w->true_ms + w->wall_offset_ms, &reply, &w->outcome);
	w->asked++;
	w->repeated += w->outcome.repeated;
	w->refused += w->outcome.action != PROTO_DUNNO;
	return w->outcome.action == PROTO_DUNNO;
}

static void message_begin(struct world *w, struct sender *x)
{
	*x = (struct sender){.conn = x->conn, .instance = w->next_instance++,
			     .client = (unsigned)(random_next(w) % CLIENTS), .account = (unsigned)(random_next(w) % ACCOUNTS)};
	x->open = ask(w, x, &x->conn, false, ++x->recipients, 0);
	x->granted = x->open;
}

static void message_finish(struct world *w, struct sender *x)
{
	struct entry e = {.amounts = {1, x->granted, 1 + random_next(w) % SIZE_MAX_BYTES}};
	x->open = false;
	if (!ask(w, x, &x->conn, true, 1, e.amounts[2]))
		return;
	/* A step back of its clock is no time for the session. */
	e.at_ms = w->s.now_ms - JOURNAL_CLOCK_BIAS_MS - w->boot_offset_ms;
	ck_assert(w->outcome.committed && !w->outcome.repeated);
	journal_message_add(w->outcome.digest, w->outcome.charges, w->outcome.charge_count, batch_begin(w));
	w->accepted++;
	log_add(w, &w->logs[x->client], false, &e);
	if (x->account > 0)
		log_add(w, &w->logs[CLIENTS + x->account], true, &e);
	/* The same again, on whatever connection, is not charged again. */
	if (random_next(w) % 4 == 0) {
		ck_assert(ask(w, x, &w->senders[random_next(w) % CONNS].conn, true, 1, e.amounts[2]));
		ck_assert(w->outcome.repeated && !w->outcome.committed);
	}
}

static void clocks_move(struct world *w)
{
	uint64_t r = random_next(w);
	w->true_ms += (int64_t)(r >> 20) % (r % 500 == 0 ? 2 * 3600000 : r % 100 < 60 ? 20 : 4000);
	if (r % 97 == 0) {
		w->wall_offset_ms += (int64_t)(r >> 24) % (4 * DAY_MS) - 2 * DAY_MS;
		w->steps++;
	}
}

static void event(struct world *w)
{
	uint64_t r = random_next(w);
	struct sender *x = &w->senders[r % CONNS];
	unsigned what = (unsigned)(r >> 8) % 100;
	if (what < 3) {
		session_client_done(&w->s, &x->conn, w->true_ms + w->boot_offset_ms + JOURNAL_CLOCK_BIAS_MS);
		x->open = x->open && what == 0; /* some go on, on a new connection */
	} else if (!x->open || what < 20) {
		message_begin(w, x);
	} else if (what < 45) {
		x->granted += ask(w, x, &x->conn, false, ++x->recipients, 0);
	} else if (what < 55) {
		/* Again, while the connection lives or after it; the answer stays. */
		(void)ask(w, x, &x->conn, false, x->recipients, 0);
	} else {
		message_finish(w, x);
	}
}

static void figures_print(const struct world *w, unsigned long events)
{
	printf("FIGURES promise: %lu events, %lu requests, %lu messages accepted, %lu requests refused, %lu repeated, "
	       "%lu messages refunded\n", events, w->asked, w->accepted, w->refused, w->repeated, w->refunds);
	printf("FIGURES promise: %lu steps of the wall clock, %lu reloads, %lu restarts, %lu of them in another boot\n",
	       w->steps, w->reloads, w->restarts, w->reboots);
	for (size_t i = 0; i < WINDOWS; i++)
		printf("FIGURES promise: %s: the fullest window held %llu\n", windows[i].text, (unsigned long long)w->fullest[i]);
}

START_TEST(at_most_n_in_every_window)
{
	static struct world w;
	const char *wanted = getenv("PROMISE_EVENTS");
	unsigned long events = wanted != NULL ? strtoul(wanted, NULL, 10) : EVENTS;
	w = (struct world){.seed = 0x2545f4914f6cdd1d, .true_ms = 5000000, .wall_offset_ms = WALL, .boot_id = 11,
			   .next_instance = 1};
	session_begin(&w);
	for (unsigned long i = 1; i <= events; i++) {
		clocks_move(&w);
		event(&w);
		if (i % RESTART_EVERY == 0)
			restart(&w);
		if (i % 1000 == 500) {
			ck_assert_int_eq(session_set_rules(&w.s, rules_make(w.reloads++ % 2 == 0)), 0);
			session_tick(&w.s, w.true_ms + w.boot_offset_ms + JOURNAL_CLOCK_BIAS_MS);
		}
		ck_assert_uint_le(table_bytes(w.s.table), TABLE_BYTES);
	}
	session_end(&w);
	batches_drop(&w);
	figures_print(&w, events);
	ck_assert_uint_gt(w.accepted, events / 10);
	/* Not useless either: each limit can be used up, but for the last message's size. */
	for (size_t i = 0; i < WINDOWS; i++)
		ck_assert_uint_ge(w.fullest[i], windows[i].max * 9 / 10);
	for (int i = 0; i < KEYS; i++)
		free(w.logs[i].entries);
	free(w.batches);
}
END_TEST

static const TTest *const *const tests[] = {&at_most_n_in_every_window, NULL};

TEST_MAIN("policyd_promise", tests)
