/*
 * Each connection of the log is a client of the session.  Session time is the
 * recorded time moved so that the log begins at a fixed point; it never goes
 * back, as the daemon's own clock does not.
 */
#include "replay.h"

#include <stdlib.h>

#include "lib/base/htab.h"
#include "lib/base/num.h"

#define REPLY_MAX 1024
#define TICK_EVERY_MS 1000
#define SWEEP_ARRAYS 16
#define CLOCK_START_MS (2 * WINDOW_LENGTH_MAX_MS)
#define ID_MAX (SESSION_KEY_TEXT_MAX + 64)

/* A connection and the message that it speaks of. */
struct replay_conn {
	uint64_t id;
	struct session_client client;
	uint64_t message, instance; /* number of the message; hash of its instance, 0: none */
	unsigned granted, refused;  /* requests at RCPT */
	bool counted;
};

struct replay {
	struct table *table;
	struct session session;
	struct htab conns, rows;
	struct replay_stats stats;
	struct session_outcome outcome;
	int64_t first_ms, last_ms, ticked_ms; /* wall clock; 0: no record yet */
	uint64_t message;
};

int replay_new(const struct replay_config *config, struct replay **replay_out)
{
	static const struct hash_key fixed = {1, 2};
	struct rules *rules = config->rules;
	struct replay *r = mem_zalloc(sizeof(*r));
	r->table = table_new(&fixed, config->max_memory);
	int rc = session_init(&r->session, r->table, rules, config->max_transactions, config->timeout_ms);
	if (rc < 0) {
		table_free(&r->table);
		rules_free(&rules);
		free(r);
		return rc;
	}
	htab_init(&r->conns, REPLAY_CONNS_MAX);
	htab_init(&r->rows, REPLAY_ROWS_MAX);
	*replay_out = r;
	return 0;
}

static void row_free(void *value)
{
	struct replay_row *row = value;
	free(row->id);
	free(row);
}

void replay_free(struct replay **replay)
{
	struct replay *r = *replay;
	if (r == NULL)
		return;
	htab_done(&r->rows, row_free);
	session_done(&r->session);
	htab_done(&r->conns, free);
	table_free(&r->table);
	free(r);
	*replay = NULL;
}

static struct span id_span(const uint64_t *id)
{
	return span_of(id, sizeof(*id));
}

static int conn_find(struct replay *r, uint64_t id, struct replay_conn **conn_out)
{
	struct replay_conn *conn = htab_get(&r->conns, id_span(&id));
	if (conn == NULL) {
		conn = mem_zalloc(sizeof(*conn));
		conn->id = id;
		int rc = htab_put(&r->conns, id_span(&conn->id), conn, NULL);
		if (rc < 0) {
			free(conn);
			return rc;
		}
	}
	*conn_out = conn;
	return 0;
}

static void conn_end(struct replay *r, uint64_t id, int64_t now_ms)
{
	struct replay_conn *conn = htab_del(&r->conns, id_span(&id));
	if (conn != NULL)
		session_client_done(&r->session, &conn->client, now_ms);
	free(conn);
}

/* ---- who was limited ---- */

static struct replay_row *row_find(struct replay *r, const struct session_refusal *refusal, int64_t wall_ms)
{
	char mem[ID_MAX];
	struct sbuf id;
	sbuf_init(&id, mem, sizeof(mem));
	sbuf_addf(&id, "%zu %lld %s", (size_t)(refusal->rule - r->session.rules->items),
		  (long long)refusal->length_ms, refusal->key);
	struct replay_row *row = htab_get(&r->rows, sbuf_span(&id));
	if (row != NULL)
		return row;
	row = mem_zalloc(sizeof(*row));
	row->id = span_dup(sbuf_span(&id));
	row->rule = refusal->rule;
	row->refusal = *refusal;
	row->first_ms = wall_ms;
	if (htab_put(&r->rows, span_str(row->id), row, NULL) == 0)
		return row;
	row_free(row);
	return NULL;
}

static void refusals_count(struct replay *r, const struct replay_conn *conn, int64_t wall_ms)
{
	for (size_t i = 0; i < r->outcome.refusal_count; i++) {
		struct replay_row *row = row_find(r, &r->outcome.refusals[i], wall_ms);
		if (row == NULL) {
			r->stats.rows_lost++;
			continue;
		}
		row->requests++;
		row->messages += row->last_message != conn->message;
		row->last_message = conn->message;
		row->last_ms = wall_ms;
	}
}

static void outcome_count(struct replay *r, struct replay_conn *conn, int64_t wall_ms)
{
	const struct session_outcome *o = &r->outcome;
	refusals_count(r, conn, wall_ms);
	r->stats.messages += o->committed;
	if (o->action == PROTO_DUNNO || conn->counted)
		return;
	conn->counted = true;
	if (o->action == PROTO_HOLD)
		r->stats.held++;
	else
		r->stats.limited++;
}

/* ---- a request ---- */

/* Notes which message CONN speaks of now. */
static void message_note(struct replay *r, struct replay_conn *conn, const struct proto_request *request)
{
	uint64_t instance = hash_siphash(&r->table->key, request->attr[PROTO_INSTANCE]);
	if (request->attr[PROTO_INSTANCE].len == 0 || instance == conn->instance)
		return;
	conn->instance = instance;
	conn->message = ++r->message;
	conn->granted = conn->refused = 0;
	conn->counted = false;
}

static bool state_is(const struct proto_request *request, struct span state)
{
	return span_eq(request->attr[PROTO_STATE], state);
}

static void judge(struct replay *r, struct replay_conn *conn, const struct proto_request *from, int64_t now_ms,
		  int64_t wall_ms)
{
	char reply_mem[REPLY_MAX], count_text[16];
	struct sbuf reply;
	struct proto_request request = *from;
	struct span *count = &request.attr[PROTO_RECIPIENT_COUNT];
	uint64_t recipients = 0;
	bool is_rcpt = state_is(&request, SPAN_LIT("RCPT"));
	message_note(r, conn, &request);
	if (!is_rcpt && conn->refused > 0) {
		if (conn->granted == 0) {
			r->stats.left_out++;
			return;
		}
		if (num_parse_u64(*count, UINT32_MAX, &recipients) == 0 && recipients > conn->granted) {
			snprintf(count_text, sizeof(count_text), "%u", conn->granted);
			*count = span_str(count_text);
		}
	}
	sbuf_init(&reply, reply_mem, sizeof(reply_mem));
	session_request(&r->session, &conn->client, &request, now_ms, wall_ms, &reply, &r->outcome);
	bool passes = r->outcome.action == PROTO_DUNNO || r->outcome.action == PROTO_HOLD;
	conn->granted += is_rcpt && passes && !r->outcome.repeated;
	conn->refused += is_rcpt && !passes && !r->outcome.repeated;
	outcome_count(r, conn, wall_ms);
}

int replay_record(struct replay *r, const struct reqlog_record *record)
{
	struct replay_conn *conn;
	int64_t wall_ms = record->wall_ms;
	if (r->first_ms == 0)
		r->first_ms = r->last_ms = r->ticked_ms = wall_ms;
	if (wall_ms - r->first_ms > REPLAY_SPAN_MAX_MS)
		return ERR_LIMIT;
	if (wall_ms < r->last_ms) {
		r->stats.times_back++;
		wall_ms = r->last_ms;
	}
	r->last_ms = wall_ms;
	int64_t now_ms = CLOCK_START_MS + (wall_ms - r->first_ms);
	if (wall_ms - r->ticked_ms >= TICK_EVERY_MS) {
		session_tick(&r->session, now_ms);
		table_sweep(r->table, SWEEP_ARRAYS, now_ms);
		r->ticked_ms = wall_ms;
	}
	if (record->is_end) {
		conn_end(r, record->connection, now_ms);
		return 0;
	}
	int rc = conn_find(r, record->connection, &conn);
	if (rc < 0)
		return rc;
	r->stats.requests++;
	judge(r, conn, &record->request, now_ms, wall_ms);
	return 0;
}

const struct replay_stats *replay_stats(const struct replay *replay)
{
	return &replay->stats;
}

static int row_compare(const void *a, const void *b)
{
	const struct replay_row *const *x = a, *const *y = b;
	if ((*x)->messages != (*y)->messages)
		return (*x)->messages < (*y)->messages ? 1 : -1;
	return strcmp((*x)->id, (*y)->id);
}

const struct replay_row **replay_rows(const struct replay *replay, size_t *count_out)
{
	size_t count = 0, pos = 0;
	const struct replay_row **rows = mem_alloc((replay->rows.count + 1) * sizeof(struct replay_row *)), *row;
	while ((row = htab_next(&replay->rows, &pos)) != NULL)
		rows[count++] = row;
	if (count > 1)
		qsort(rows, count, sizeof(struct replay_row *), row_compare);
	*count_out = count;
	return rows;
}
