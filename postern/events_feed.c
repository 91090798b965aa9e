/*
 * The database is asked for the last numbers of the feeds; where one has grown,
 * for the events in between.  Numbers grow without gaps in the order of
 * commits, so nothing is missed.  A database that goes away is waited for.
 */
#include "postern/events_feed.h"

#include <time.h>

#include "lib/base/htab.h"
#include "lib/base/num.h"
#include "lib/run/db.h"
#include "postern/lookup.h"

#define POLL_MS 200
#define AWAY_MS 2000
#define USERS_MAX 1000000
#define PORTION 1000 /* events read at once */

struct feed {
	uint64_t user_id, last; /* printed up to */
};

struct grown {
	uint64_t user_id, last;
};

struct follower {
	struct cli *cli;
	const struct events_follow *f;
	struct htab feeds;
	struct grown *grown;
	size_t grown_count, grown_size;
	bool first; /* the first look finds where the feeds stand */
	uint64_t printed;
};

/* The payload is JSON; what could not be read stays a text. */
static void unpack(json_t *row)
{
	const char *text = json_string_value(json_object_get(row, "payload"));
	json_t *payload = text == NULL ? NULL : json_loads(text, 0, NULL);
	if (payload != NULL) {
		json_t *subject = json_object_get(json_object_get(payload, "data"), "subject");
		json_object_set(row, "subject", subject == NULL ? json_null() : subject);
		json_object_set_new(row, "payload", payload);
	}
}

int events_read(struct cli *cli, uint64_t user_id, uint64_t after, uint64_t limit, json_t **rows_out)
{
	static const char *const keys[] = {"user", "seq#", "type", "created_at", "event_key", "webhook", "payload", NULL};
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(after), DB_P_UINT(limit)};
	int status = lookup_rows(
		cli,
		"SELECT u.email, e.seq, e.type, e.created_at, e.event_key, d.state, e.payload FROM events e "
		"JOIN virtual_users u ON u.id = e.user_id "
		"LEFT JOIN webhook_deliveries d ON d.user_id = e.user_id AND d.event_key = e.event_key "
		"WHERE e.user_id = ? AND e.seq > ? ORDER BY e.seq LIMIT ?",
		params, 3, keys, rows_out);
	if (status != EX_OK)
		return status;
	for (size_t i = 0; i < json_array_size(*rows_out); i++)
		unpack(json_array_get(*rows_out, i));
	return EX_OK;
}

/* ---- Following ---- */

static void sleep_ms(long ms)
{
	const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	nanosleep(&pause, NULL);
}

static struct feed *feed_of(struct follower *fo, uint64_t user_id)
{
	struct feed *feed = htab_get(&fo->feeds, span_of(&user_id, sizeof(user_id)));
	if (feed != NULL)
		return feed;
	feed = mem_zalloc(sizeof(*feed));
	feed->user_id = user_id;
	feed->last = fo->f->from_after ? fo->f->after : 0;
	if (htab_put(&fo->feeds, span_of(&feed->user_id, sizeof(feed->user_id)), feed, NULL) == 0)
		return feed;
	free(feed);
	return NULL;
}

static int take_last(void *arg, const struct db_value *v, size_t count)
{
	struct follower *fo = arg;
	struct grown g;
	if (count != 2 || num_parse_u64(v[0].text, UINT64_MAX, &g.user_id) < 0 ||
	    num_parse_u64(v[1].text, UINT64_MAX, &g.last) < 0)
		return 0;
	struct feed *feed = feed_of(fo, g.user_id);
	if (feed == NULL)
		return ERR_LIMIT;
	if (fo->first && !fo->f->from_after)
		feed->last = g.last;
	if (g.last <= feed->last)
		return 0;
	if (fo->grown_count == fo->grown_size) {
		fo->grown_size = fo->grown_size == 0 ? 64 : fo->grown_size * 2;
		fo->grown = mem_realloc(fo->grown, fo->grown_size * sizeof(*fo->grown));
	}
	fo->grown[fo->grown_count++] = g;
	return 0;
}

/* One column of a table is enough here: nothing of an event may steer a terminal. */
static void print_event(struct follower *fo, const json_t *row)
{
	char mem[1024];
	struct sbuf line;
	if (fo->cli->json) {
		json_dumpf(row, fo->cli->out, JSON_COMPACT);
		fputc('\n', fo->cli->out);
	} else {
		sbuf_init(&line, mem, sizeof(mem));
		sbuf_addf(&line, "%s %s %lld %s ", json_string_value(json_object_get(row, "created_at")),
			  json_string_value(json_object_get(row, "user")),
			  (long long)json_integer_value(json_object_get(row, "seq")),
			  json_string_value(json_object_get(row, "type")));
		const char *subject = json_string_value(json_object_get(row, "subject"));
		struct span text = span_str(subject == NULL ? "-" : subject);
		if (table_is_plain(text))
			sbuf_add(&line, span_take(text, sizeof(mem) - line.len - 1));
		else
			sbuf_add_escaped(&line, span_take(text, 200));
		fprintf(fo->cli->out, "%s\n", sbuf_cstr(&line));
	}
	fo->printed++;
}

static bool is_over(const struct follower *fo)
{
	return (fo->f->limit > 0 && fo->printed >= fo->f->limit) || ferror(fo->cli->out);
}

static int print_feed(struct follower *fo, const struct grown *g)
{
	struct feed *feed = feed_of(fo, g->user_id);
	int status = EX_OK;
	while (feed != NULL && status == EX_OK && feed->last < g->last && !is_over(fo)) {
		json_t *rows = NULL, *row;
		size_t i;
		status = events_read(fo->cli, g->user_id, feed->last, PORTION, &rows);
		if (status != EX_OK)
			break;
		/* What was erased leaves a gap. */
		if (json_array_size(rows) == 0)
			feed->last = g->last;
		json_array_foreach(rows, i, row) {
			if (is_over(fo))
				break;
			print_event(fo, row);
			feed->last = (uint64_t)json_integer_value(json_object_get(row, "seq"));
		}
		json_decref(rows);
		fflush(fo->cli->out);
	}
	return status;
}

static int look(struct follower *fo)
{
	const struct db_param params[] = {DB_P_UINT(fo->f->user_id), DB_P_UINT(fo->f->user_id)};
	fo->grown_count = 0;
	int rc = db_query(fo->cli->db, "SELECT user_id, last_seq FROM event_sequences WHERE ? = 0 OR user_id = ?", params, 2,
			  take_last, fo);
	fo->first = fo->first && rc < 0;
	return rc;
}

int events_follow_run(struct cli *cli, const struct events_follow *f)
{
	struct follower fo = {.cli = cli, .f = f, .first = true};
	int status = EX_OK;
	htab_init(&fo.feeds, USERS_MAX);
	while (status == EX_OK && !is_over(&fo)) {
		int rc = look(&fo);
		if (rc == ERR_TEMP) {
			fprintf(cli->err, "postern: the database is away: %s\n", db_error(cli->db));
			sleep_ms(AWAY_MS);
			continue;
		}
		if (rc < 0)
			status = rc == ERR_LIMIT ? cli_fail(cli, EX_SOFTWARE, "too many users") : cli_fail_db(cli, rc);
		for (size_t i = 0; i < fo.grown_count && status == EX_OK; i++)
			status = print_feed(&fo, &fo.grown[i]);
		if (status == EX_OK && fo.grown_count == 0)
			sleep_ms(POLL_MS);
	}
	htab_done(&fo.feeds, free);
	free(fo.grown);
	return status;
}
