/*
 * The queue between the front, the parsers and the writer.  What waits here is
 * small: the content of a delivery is kept only up to index_memory, beyond it
 * is read back from the spool when its turn comes.
 */
#include "index.h"

#include "lib/run/http.h"
#include "lib/run/secret.h"
#include "lib/run/worker.h"
#include "lmtp-indexer/events.h"
#include "lmtp-indexer/index_internal.h"

void index_finish(struct index *ix, struct delivery *d)
{
	spool_done(ix->spool, d);
	flight_end(ix->flight, &d->id);
	delivery_free(&d);
}

/* Keeps the memory of what waits in bounds. */
static void admit(struct index *ix, struct delivery *d)
{
	if (ix->memory + d->content.len > ix->memory_max)
		delivery_drop_content(d);
	if (d->seq == 0) { /* nobody else has its content */
		ix->unkept++;
		d->bare = d->content.len == 0;
	}
	ix->memory += d->content.len;
	ix->waiting++;
}

/* In the order of the spool, which is read forwards.  Transactions end nearly
 * in the order in which they were noted, so the place is close to the end. */
static void insert(struct index *ix, struct delivery *d)
{
	struct delivery *before = ix->last;
	while (before != NULL && d->seq != 0 && before->seq > d->seq)
		before = before->prev;
	d->prev = before;
	d->next = before != NULL ? before->next : ix->first;
	*(before != NULL ? &before->next : &ix->first) = d;
	*(d->next != NULL ? &d->next->prev : &ix->last) = d;
}

void index_enqueue(struct index *ix, struct delivery *d)
{
	if (!delivery_wanted(d)) {
		index_finish(ix, d);
		return;
	}
	pthread_mutex_lock(&ix->lock);
	if (d->seq == 0 && ix->unkept >= INDEX_UNKEPT_MAX) {
		pthread_mutex_unlock(&ix->lock);
		flight_end(ix->flight, &d->id);
		delivery_free(&d); /* was logged as a gap */
		return;
	}
	admit(ix, d);
	insert(ix, d);
	pthread_mutex_unlock(&ix->lock);
	pthread_cond_signal(&ix->to_parse);
}

void index_expect(struct index *ix, const struct ulid *id)
{
	flight_begin(ix->flight, id);
}

static void on_settled(void *arg, struct delivery *d)
{
	index_enqueue(arg, d);
}

void index_submit(struct index *ix, struct delivery *d)
{
	if (d->seq != 0 && delivery_has_unknown(d)) {
		delivery_drop_content(d);
		settle_add(ix->settle, d);
	} else {
		index_enqueue(ix, d);
	}
}

static int open_webhook(struct index *ix, struct skel *skel, struct sbuf *error)
{
	const struct indexer_config *c = skel->config;
	char secrets[SECRET_MAX], dir[1024];
	struct sbuf b;
	if (c->webhook_url[0] == '\0')
		return 0;
	if (!ix->has_database) {
		sbuf_adds(error, "webhook_url needs a database");
		return ERR_PERM;
	}
	sbuf_init(&b, dir, sizeof(dir));
	sbuf_addf(&b, "%s/webhook", skel->state_dir);
	int rc = secret_read(c->webhook_secret_file, secrets, error);
	if (rc < 0)
		return rc;
	struct webhook_config config = {.url = c->webhook_url, .secrets = secrets, .dir = dir,
					.timeout_ms = c->webhook_timeout, .give_up_ms = c->webhook_give_up,
					.refused_max = (unsigned)c->webhook_refused_max, .db = db_clone(ix->db)};
	rc = webhook_open(&config, &ix->webhook, error);
	if (rc < 0)
		db_free(&config.db);
	return rc;
}

static int open_settle(struct index *ix, struct skel *skel, struct sbuf *error)
{
	const struct indexer_config *c = skel->config;
	char key[SECRET_MAX];
	int rc = secret_read(c->mailbox_api_key_file, key, error);
	if (rc < 0)
		return rc;
	key[strcspn(key, "\r\n")] = '\0';
	struct settle_config config = {.api = c->mailbox_api, .key = key, .trace_name = c->trace_header,
				       .delimiter = c->recipient_delimiter, .after_ms = c->settle_after,
				       .spool = ix->spool, .settled = on_settled, .arg = ix};
	ix->settle = settle_new(&config);
	return 0;
}

static int start_follow(struct index *ix, struct skel *skel, struct sbuf *error)
{
	const struct indexer_config *c = skel->config;
	char password[SECRET_MAX];
	if (c->mailbox_server[0] == '\0' || !ix->has_database)
		return 0;
	int rc = secret_read(c->mailbox_api_key_file, password, error);
	if (rc < 0)
		return rc;
	password[strcspn(password, "\r\n")] = '\0';
	struct follow_config config = {.server = c->mailbox_server, .password = password, .trace_name = c->trace_header,
				       .delimiter = c->recipient_delimiter, .user_query = c->user_query,
				       .users_query = c->users_query, .marker_dir = c->hints_marker_dir, .work_dir = skel->state_dir,
				       .delay_ms = c->follow_delay, .gap_ms = c->follow_gap, .sweep_ms = c->follow_sweep,
				       .limits = ix->limits, .parser = parser_of(ix->pool, (size_t)c->index_threads), .db = ix->db, .flight = ix->flight, .webhook = ix->webhook,
				       .seal = ix->seal, .order = &ix->order};
	ix->follow = follow_new(&config);
	return 0;
}

static void start_threads(struct index *ix, const struct indexer_config *c)
{
	ix->reader = spool_reader_new(ix->spool);
	if (!ix->has_database)
		return;
	ix->writer = writer_new(ix->db, c->user_query, c->recipient_delimiter);
	writer_keep_order(ix->writer, &ix->order);
	ix->db = NULL;
	if (pthread_create(&ix->writer_thread, NULL, index_write_run, ix) != 0)
		PANIC("cannot start a thread");
	for (; ix->parser_count < (size_t)c->index_threads; ix->parser_count++)
		if (pthread_create(&ix->parsers[ix->parser_count], NULL, index_parse_run, ix) != 0)
			PANIC("cannot start a thread");
}

static void init_locks(struct index *ix)
{
	pthread_mutex_init(&ix->lock, NULL);
	pthread_mutex_init(&ix->reader_lock, NULL);
	pthread_mutex_init(&ix->order, NULL);
	worker_cond_init(&ix->to_parse);
	worker_cond_init(&ix->to_write);
	worker_cond_init(&ix->parsed_less);
}

static struct extract_limits limits_of(const struct indexer_config *c)
{
	return (struct extract_limits){.depth_max = (unsigned)c->mime_depth_max,
				       .parts_max = (unsigned)c->mime_parts_max,
				       .text_max_bytes = (size_t)c->text_max};
}

int index_parsers_open(const struct indexer_config *c, const char *authserv_id, struct parser_pool **pool_out,
		       struct sbuf *error)
{
	struct parser_config config = {.limits = limits_of(c), .authserv_id = authserv_id,
				       .count = (size_t)c->index_threads + 1 /* the follower's */, .content_max = SESSION_CHUNK,
				       .memory_bytes = (uint64_t)c->parse_memory, .timeout_ms = c->parse_timeout};
	return parser_pool_open(&config, pool_out, error);
}

int index_open(struct skel *skel, struct spool *spool, const struct delivery_table *found, struct parser_pool *parsers,
	       struct index **index_out, struct sbuf *error)
{
	const struct indexer_config *c = skel->config;
	struct index *ix = mem_zalloc(sizeof(*ix));
	ix->spool = spool;
	ix->flight = flight_new(INDEX_FLIGHT_MAX);
	for (const struct delivery *d = found->first; d != NULL; d = d->next)
		flight_begin(ix->flight, &d->id);
	ix->limits = limits_of(c);
	ix->pool = parsers;
	ix->linger_ms = c->index_linger;
	ix->memory_max = (size_t)c->index_memory;
	ix->parsed_end = &ix->parsed;
	init_locks(ix);
	http_start();
	int rc = db_new_from_conf(&indexer_conf, c, &ix->db, error);
	ix->has_database = rc == 0;
	rc = rc == ERR_NOT_FOUND ? 0 : rc;
	if (rc == 0)
		rc = open_webhook(ix, skel, error);
	if (rc == 0)
		rc = open_settle(ix, skel, error);
	if (rc == 0 && ix->has_database)
		ix->seal = seal_new(db_clone(ix->db));
	if (rc == 0)
		rc = start_follow(ix, skel, error);
	if (rc < 0) {
		seal_close(&ix->seal);
		settle_close(&ix->settle);
		webhook_close(&ix->webhook, 0);
		db_free(&ix->db);
		flight_free(&ix->flight);
		free(ix);
		return rc;
	}
	start_threads(ix, c);
	*index_out = ix;
	return 0;
}

static void free_queues(struct index *ix)
{
	while (ix->first != NULL) {
		struct delivery *d = ix->first;
		ix->first = d->next;
		delivery_free(&d);
	}
	while (ix->parsed != NULL) {
		struct writer_item *item = ix->parsed;
		ix->parsed = item->next;
		delivery_free(&item->d);
		extract_free(&item->x);
		free(item);
	}
}

void index_close(struct index **index)
{
	struct index *ix = *index;
	if (ix == NULL)
		return;
	settle_close(&ix->settle);
	pthread_mutex_lock(&ix->lock);
	ix->stopping = true;
	pthread_cond_broadcast(&ix->to_parse);
	pthread_cond_broadcast(&ix->parsed_less);
	pthread_cond_broadcast(&ix->to_write);
	pthread_mutex_unlock(&ix->lock);
	if (ix->follow != NULL)
		follow_stop(ix->follow);
	parser_pool_interrupt(ix->pool);
	for (size_t i = 0; i < ix->parser_count; i++)
		pthread_join(ix->parsers[i], NULL);
	if (ix->has_database)
		pthread_join(ix->writer_thread, NULL);
	follow_close(&ix->follow);
	webhook_close(&ix->webhook, 1000);
	seal_close(&ix->seal);
	writer_free(&ix->writer);
	spool_reader_free(&ix->reader);
	free_queues(ix);
	flight_free(&ix->flight);
	free(ix);
	*index = NULL;
}

int index_erase_webhooks(struct index *ix, struct span email, struct span delivery, uint64_t *count_out)
{
	*count_out = 0;
	return ix->webhook == NULL ? 0 : webhook_erase(ix->webhook, email, delivery, count_out);
}

void index_hint(struct index *ix, const struct hint *hint)
{
	/* A MOVE is a copy and an expunge: what shows one alone waits for the other. */
	enum follow_why why = hint->kinds == HINT_SAVE		      ? FOLLOW_NEW
			      : (hint->kinds & HINT_MOVE) != 0	      ? (hint->kinds & HINT_COPY) != 0 ? FOLLOW_MOVED : FOLLOW_MOVE
			      : (hint->kinds & HINT_EXPUNGE) != 0 ? FOLLOW_EXPUNGE
								  : FOLLOW_CHANGE;
	if (ix->follow != NULL)
		follow_touch(ix->follow, hint->user, why);
}

struct follow *index_follow(struct index *ix)
{
	return ix->follow;
}

void index_status(struct index *ix, json_t *object)
{
	struct outbox_stats hooks = {0};
	pthread_mutex_lock(&ix->lock);
	size_t waiting = ix->waiting, parsed = ix->parsed_count;
	pthread_mutex_unlock(&ix->lock);
	size_t settling = settle_count(ix->settle);
	if (ix->follow != NULL)
		follow_status(ix->follow, object);
	if (ix->webhook != NULL)
		webhook_stats(ix->webhook, &hooks);
	metrics_set(METRIC_SETTLING, (int64_t)settling);
	json_object_set_new(object, "index",
			    json_pack("{s:I, s:I, s:I, s:b, s:I}", "waiting", (json_int_t)waiting, "parsed",
				      (json_int_t)parsed, "settling", (json_int_t)settling, "database_away",
				      atomic_load(&ix->behind) ? 1 : 0, "webhooks_waiting", (json_int_t)hooks.records));
}
