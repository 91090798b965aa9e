/* What is counted is a table of queries, one a kind of row. */
#include "postern/erase.h"

#include <time.h>
#include <unistd.h>

#include "lib/run/conf.h"
#include "lib/run/control.h"
#include "lib/run/db.h"
#include "lib/run/loop.h"
#include "postern/quota.h"

#define ERROR_MAX 512
#define SPEC_MAX 512
#define TRIES 50 /* while mail is on its way into the index */
#define PAUSE_MS 200
#define RUNNING_PAUSE_MS 50 /* while the daemon is at it */
#define RUNNING_MAX (10 * 60 * 1000 / RUNNING_PAUSE_MS)

#define OF_MESSAGE " t JOIN messages m ON m.id = t.message_id WHERE m.user_id = ? AND (? = 0 OR m.id = ?)"
#define OF_EVENT                                                                                   \
	"SELECT COUNT(*) FROM webhook_deliveries d WHERE d.user_id = ? AND (? = 0 OR d.event_key IN "  \
	"(SELECT e.event_key FROM events e WHERE e.user_id = d.user_id AND e.message_id = ?))"

static const struct {
	const char *name, *sql;
} kinds[] = {
	{"messages", "SELECT COUNT(*) FROM messages m WHERE m.user_id = ? AND (? = 0 OR m.id = ?)"},
	{"message_addresses", "SELECT COUNT(*) FROM message_addresses" OF_MESSAGE},
	{"message_texts", "SELECT COUNT(*) FROM message_texts" OF_MESSAGE},
	{"attachments", "SELECT COUNT(*) FROM attachments" OF_MESSAGE},
	{"events", "SELECT COUNT(*) FROM events t WHERE t.user_id = ? AND (? = 0 OR t.message_id = ?)"},
	{"webhook_deliveries", OF_EVENT},
};

static void add(json_t *counts, const char *name, json_int_t more)
{
	json_int_t before = json_integer_value(json_object_get(counts, name));
	json_object_set_new(counts, name, json_integer(before + more));
}

int erase_count(struct cli *cli, uint64_t user_id, uint64_t message, json_t *counts)
{
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(message), DB_P_UINT(message)};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		uint64_t count = 0;
		int rc = db_query_u64(cli->db, kinds[i].sql, params, 3, &count);
		if (rc < 0)
			return cli_fail_db(cli, rc);
		add(counts, kinds[i].name, (json_int_t)count);
	}
	return EX_OK;
}

static void pause_ms(long ms)
{
	const struct timespec pause = {.tv_nsec = ms * 1000000L};
	nanosleep(&pause, NULL);
}

/* One call; the daemon works at it behind its loop, so that mail goes on. */
static int ask(struct cli *cli, const char *what, const char *which, const char *ticket, json_t **result_out,
	       struct sbuf *error)
{
	char spec_mem[SPEC_MAX];
	struct sbuf spec;
	const char *words[] = {"erase", what, which, ticket};
	sbuf_init(&spec, spec_mem, sizeof(spec_mem));
	sbuf_addf(&spec, "unix:%s/lmtp-indexer.control.sock", conf_get_string(cli->conf, cli->config, "runtime_dir"));
	return sbuf_ok(&spec) ? control_call(sbuf_cstr(&spec), words, 4,
					     conf_get_number(cli->conf, cli->config, "control_timeout"), result_out, error)
			      : ERR_LIMIT;
}

/* Until it is through; *WAITING_OUT deliveries are not in the index yet. */
static int call(struct cli *cli, const char *what, const char *which, json_t *counts, json_int_t *waiting_out,
		struct sbuf *error)
{
	json_t *result = NULL;
	char ticket[48]; /* of this call: the daemon may still have the end of one that was given up */
	snprintf(ticket, sizeof(ticket), "%ld-%lld", (long)getpid(), (long long)clock_mono_us());
	int rc = ask(cli, what, which, ticket, &result, error);
	for (int i = 0; rc == 0 && json_is_true(json_object_get(result, "running")); i++) {
		json_decref(result);
		if (i == RUNNING_MAX) {
			sbuf_adds(error, "the erasure takes too long");
			return ERR_TEMP;
		}
		pause_ms(RUNNING_PAUSE_MS);
		rc = ask(cli, what, which, ticket, &result, error);
	}
	if (rc < 0)
		return rc;
	*waiting_out = json_integer_value(json_object_get(result, "waiting"));
	add(counts, "spool", json_integer_value(json_object_get(result, "spool")));
	add(counts, "outbox", json_integer_value(json_object_get(result, "webhooks")));
	json_decref(result);
	return 0;
}

int erase_in_daemon(struct cli *cli, const char *email, const char *delivery, bool required, json_t *counts)
{
	char mem[ERROR_MAX];
	struct sbuf error;
	json_int_t waiting = 1;
	sbuf_init(&error, mem, sizeof(mem));
	for (int i = 0; i < TRIES && waiting > 0; i++) {
		if (i > 0)
			pause_ms(PAUSE_MS);
		int rc = call(cli, delivery != NULL ? "delivery" : "user", delivery != NULL ? delivery : email, counts,
			      &waiting, &error);
		if (rc < 0 && required)
			return cli_fail(cli, EX_UNAVAILABLE, "lmtp-indexer cannot be told, its spool may hold mail: %s",
					sbuf_cstr(&error));
		if (rc < 0) {
			fprintf(cli->err, "postern: lmtp-indexer cannot be told: %s; if it has a spool, run index erase %s "
					  "when it is up\n", sbuf_cstr(&error), email);
			return EX_OK;
		}
	}
	if (waiting > 0)
		return cli_fail(cli, EX_TEMPFAIL, "%lld deliveries wait in the spool for the index: run index erase %s later",
				(long long)waiting, email);
	return EX_OK;
}

void erase_in_quotad(struct cli *cli, const char *email, json_t *counts)
{
	const char *words[] = {"quota", "erase", email};
	char error[QUOTA_ERROR_MAX];
	json_t *result = NULL;
	if (quota_call(cli, words, 3, &result, error) < 0) {
		fprintf(cli->err, "postern: quotad cannot be told: %s; if it counts, its journal may name %s until it is written on\n",
			error, email);
		return;
	}
	add(counts, "journal", json_integer_value(json_object_get(result, "journal")));
	json_decref(result);
}

void erase_describe(struct sbuf *out, const json_t *counts)
{
	const char *name;
	json_t *value;
	union { const json_t *in; json_t *arg; } c = {.in = counts}; /* the macro reads only */
	json_object_foreach(c.arg, name, value) {
		if (json_integer_value(value) > 0)
			sbuf_addf(out, "%s%lld %s", out->len > 0 ? ", " : "", (long long)json_integer_value(value), name);
	}
	if (out->len == 0)
		sbuf_adds(out, "nothing");
	for (size_t i = 0; i < out->len; i++)
		if (out->ptr[i] == '_')
			out->ptr[i] = ' ';
}
