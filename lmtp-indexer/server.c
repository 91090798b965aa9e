/*
 * Opens and closes the parts in order: spool, relay, index, then the socket.
 * What a restart finds in the spool goes where a live delivery would go.
 */
#include "server.h"

#include <unistd.h>

#include "lmtp-indexer/eraser.h"
#include "lmtp-indexer/front.h"
#include "lmtp-indexer/hints.h"
#include "lmtp-indexer/route.h"

#define CLIENT_OUT_MAX (1u << 20)
/* Who may come near is decided by the directory of the socket. */
#define LISTEN_MODE 0666

struct server {
	struct skel *skel;
	struct front_shared shared;
	struct parser_pool *parsers;
	char *authserv_id;
	struct listen_set listen;
	struct conn_server *conns;
	struct conn_limits limits;
	struct hints *hints;
	struct eraser *eraser;
};

static struct relay_config relay_config_of(const struct server *s, const struct indexer_config *c)
{
	return (struct relay_config){
		.backend = c->backend,
		.host = s->shared.host,
		.connect_timeout_ms = c->backend_connect_timeout,
		.reply_timeout_ms = c->backend_timeout,
		.keep_idle_ms = c->backend_keep_idle,
		.keep_max = (size_t)c->backend_keep,
	};
}

/* What was open when the daemon ended. */
static void resume(struct server *s, struct delivery_table *table)
{
	struct delivery *d = table->first;
	table->first = table->last = NULL;
	while (d != NULL) {
		struct delivery *next = d->next;
		d->next = d->prev = NULL;
		index_submit(s->shared.index, d);
		d = next;
	}
	delivery_table_done(table);
}

static int open_spool(struct server *s, struct delivery_table *table, struct sbuf *error)
{
	const struct indexer_config *c = s->skel->config;
	char dir[512];
	struct sbuf b;
	sbuf_init(&b, dir, sizeof(dir));
	sbuf_addf(&b, "%s/spool", s->skel->state_dir);
	struct spool_config config = {.dir = dir, .max_bytes = (uint64_t)c->spool_max, .loop = s->skel->loop};
	return spool_open(&config, &s->shared.spool, table, error);
}

static void collect(void *arg)
{
	struct server *s = arg;
	struct spool_stats st;
	spool_stats(s->shared.spool, &st);
	metrics_set(METRIC_OUTBOX_RECORDS, (int64_t)st.open);
	metrics_set(METRIC_OUTBOX_BYTES, (int64_t)st.bytes);
	metrics_set(METRIC_OUTBOX_LAG, st.oldest_ms == 0 ? 0 : (clock_wall_ms() - st.oldest_ms) / 1000);
	metrics_set(METRIC_SPOOL_GROUPS, (int64_t)st.groups);
	metrics_set(METRIC_SPOOL_FAILURES, (int64_t)st.failures);
	metrics_set(METRIC_CONNECTIONS, s->conns == NULL ? 0 : (int64_t)conn_server_count(s->conns));
}

static void on_emptied(void *arg)
{
	skel_stopped(arg);
}

static char *name_or_host(const char *name)
{
	char host[256] = "localhost";
	if (name[0] == '\0' && gethostname(host, sizeof(host) - 1) < 0)
		PANIC("the machine has no name");
	return mem_strdup(name[0] != '\0' ? name : host);
}

static int open_route(struct server *s, struct sbuf *error)
{
	const struct indexer_config *c = s->skel->config;
	struct db *db = NULL;
	if (c->backend_query[0] == '\0')
		return 0;
	int rc = db_new_from_conf(&indexer_conf, c, &db, error);
	if (rc == ERR_NOT_FOUND)
		sbuf_adds(error, "backend_query needs a database");
	if (rc < 0)
		return ERR_PERM;
	struct route_config config = {.loop = s->skel->loop, .query = c->backend_query, .backend = c->backend,
				      .keep_ms = c->backend_query_keep, .wait_ms = c->backend_query_timeout};
	s->shared.route = route_new(db, &config);
	return 0;
}

static void on_hint(void *arg, const struct hint *hint)
{
	struct server *s = arg;
	index_hint(s->shared.index, hint);
}

static int open_parts(struct server *s, struct sbuf *error)
{
	const struct indexer_config *c = s->skel->config;
	struct delivery_table table;
	int rc = index_parsers_open(c, s->authserv_id, &s->parsers, error);
	if (rc < 0)
		return rc;
	rc = listen_open(c->listen, "listen", LISTEN_MODE, &s->listen, error);
	if (rc < 0)
		return rc;
	rc = open_spool(s, &table, error);
	if (rc < 0)
		return rc;
	rc = index_open(s->skel, s->shared.spool, &table, s->parsers, &s->shared.index, error);
	if (rc < 0) {
		delivery_table_done(&table);
		return rc;
	}
	s->eraser = eraser_new(s->shared.spool, s->shared.index, c->recipient_delimiter);
	struct relay_config relay = relay_config_of(s, c);
	front_configure(&s->shared, &relay);
	resume(s, &table);
	rc = open_route(s, error);
	if (rc < 0 || c->hints_listen[0] == '\0')
		return rc;
	return hints_open(s->skel->loop, c->hints_listen, on_hint, s, &s->hints, error);
}

int server_open(struct skel *skel, struct server **server_out, struct sbuf *error)
{
	const struct indexer_config *c = skel->config;
	struct server *s = mem_zalloc(sizeof(*s));
	s->skel = skel;
	s->shared = (struct front_shared){.loop = skel->loop, .host = name_or_host(c->hostname),
					  .trace_name = mem_strdup(c->trace_header),
					  .delimiter = mem_strdup(c->recipient_delimiter),
					  .emptied = on_emptied, .emptied_arg = skel};
	s->authserv_id = name_or_host(c->authserv_id);
	s->limits = (struct conn_limits){.in_max_bytes = 64u << 10, .out_max_bytes = CLIENT_OUT_MAX,
					 .max_conns = (size_t)c->max_connections, .idle_ms = c->client_timeout};
	cork_list_init(&s->shared.corks, skel->loop);
	int rc = open_parts(s, error);
	if (rc < 0) {
		server_close(&s);
		return rc;
	}
	s->conns = conn_server_new(skel->loop, &s->listen, &s->limits, &front_handler, &s->shared);
	metrics_on_collect(collect, s);
	*server_out = s;
	return 0;
}

int server_reload(struct server *s, const struct indexer_config *c, struct sbuf *error)
{
	(void)error;
	struct relay_config relay = relay_config_of(s, c);
	front_configure(&s->shared, &relay);
	s->limits.max_conns = (size_t)c->max_connections;
	s->limits.idle_ms = c->client_timeout;
	return 0;
}

void server_stop(struct server *s)
{
	s->shared.stopping = true;
	conn_server_pause(s->conns);
	if (s->shared.count == 0)
		skel_stopped(s->skel);
	else
		conn_server_each(s->conns, front_stop, NULL);
}

void server_close(struct server **server)
{
	struct server *s = *server;
	if (s == NULL)
		return;
	conn_server_free(&s->conns);
	hints_close(&s->hints);
	cork_list_done(&s->shared.corks);
	listen_close(&s->listen);
	front_done(&s->shared);
	route_free(&s->shared.route);
	eraser_close(&s->eraser);
	index_close(&s->shared.index);
	spool_close(&s->shared.spool);
	parser_pool_close(&s->parsers);
	free(s->authserv_id);
	free(s->shared.host);
	free(s->shared.trace_name);
	free(s->shared.delimiter);
	free(s);
	*server = NULL;
}

json_t *server_erase(struct server *s, const struct span *args, size_t count, struct sbuf *error)
{
	bool complete = count == 2 || count == 3, user = complete && span_eq(args[0], SPAN_LIT("user"));
	if (!user && (!complete || !span_eq(args[0], SPAN_LIT("delivery")))) {
		sbuf_adds(error, "user EMAIL or delivery ID is wanted");
		return NULL;
	}
	return eraser_run(s->eraser, user ? args[1] : SPAN_EMPTY, user ? SPAN_EMPTY : args[1],
			  count == 3 ? args[2] : SPAN_EMPTY, error);
}

static struct follow *follow_of(struct server *s, struct sbuf *error)
{
	struct follow *follow = index_follow(s->shared.index);
	if (follow == NULL)
		sbuf_adds(error, "mailboxes are not followed: set mailbox_server and the database");
	return follow;
}

json_t *server_rebuild(struct server *s, const struct span *args, size_t count, struct sbuf *error)
{
	struct follow *follow = follow_of(s, error);
	if (follow == NULL || follow_rebuild(follow, count > 0 ? args[0] : SPAN_EMPTY, error) < 0)
		return NULL;
	return follow_progress(follow);
}

json_t *server_progress(struct server *s, struct sbuf *error)
{
	struct follow *follow = follow_of(s, error);
	return follow == NULL ? NULL : follow_progress(follow);
}

void server_status(struct server *s, json_t *object)
{
	struct spool_stats st;
	spool_stats(s->shared.spool, &st);
	json_object_set_new(object, "spool",
			    json_pack("{s:I, s:I, s:I, s:I, s:I}", "open", (json_int_t)st.open, "bytes",
				      (json_int_t)st.bytes, "oldest_ms", (json_int_t)st.oldest_ms, "groups",
				      (json_int_t)st.groups, "failures", (json_int_t)st.failures));
	index_status(s->shared.index, object);
}
