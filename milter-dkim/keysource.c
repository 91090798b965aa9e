/*
 * Invariants, under the lock: `table` and `ring` are complete sets that are
 * swapped whole; `ring` is NULL only as long as neither SQL nor the disk ever
 * gave one.  The thread alone uses the database handle that it has taken.
 */
#include "keysource.h"

#include <malloc.h>
#include <pthread.h>
#include <unistd.h>

#include "lib/run/db.h"
#include "lib/run/loop.h"
#include "milter-dkim/keycopy.h"
#include "milter-dkim/keytable_spec.h"

#define TABLE_BYTES_MAX (256u << 20)
#define VERSION_MAX 256
#define CONFIRM_MS 1000 /* until an answer without keys is asked for again */

struct sql {
	struct db *db; /* NULL: no SQL */
	char *query, *version_query;
	int64_t poll_ms;
};

struct keysource {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool stop;
	struct keytable *table;
	struct keyring *ring;
	struct sql next; /* for the thread to take over */
	bool next_is_there, uses_sql;
	int64_t answered_ms; /* boot clock of the last answer of the database; 0: never */
	char *dir;
	struct signkey_cache *cache;
	/* the thread's own */
	struct sql sql;
	char version[VERSION_MAX];
	bool current, failing;
	bool empty_seen; /* the last answer held no key although we have some */
};

static void sql_done(struct sql *sql)
{
	db_free(&sql->db);
	free(sql->query);
	free(sql->version_query);
	*sql = (struct sql){0};
}

static int sql_init(const struct milter_config *config, struct sql *sql_out, struct sbuf *error)
{
	struct sql sql = {.poll_ms = config->dkim_keys_poll};
	int rc = db_new_from_conf(&milter_conf, config, &sql.db, error);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return rc;
	sql.query = mem_strdup(config->dkim_keys_query);
	sql.version_query = mem_strdup(config->dkim_keys_version_query);
	*sql_out = sql;
	return 0;
}

/* Names of the tables, for messages. */
struct reporting {
	const char *names[2];
};

static void report_line(void *arg, bool signing, unsigned line, const char *reason)
{
	const struct reporting *r = arg;
	char number[16];
	snprintf(number, sizeof(number), "%u", line);
	metrics_inc(METRIC_KEYS_BROKEN);
	LOG_EVENT(LOG_ERR, &ev_table_line_broken, "a line of a key table is broken",
		  LOG_FIELD_STR("TABLE", r->names[signing]), LOG_FIELD_STR("LINE", number),
		  LOG_FIELD_STR("REASON", reason));
}

static int check_key(void *arg, const char *path)
{
	(void)arg;
	return access(path, R_OK) == 0 ? 0 : ERR_PERM;
}

/* Adds the lines of the table that the option NAME says; *PATTERNS_OUT where it is
 * a refile. */
static int read_table(const char *name, const char *value, struct sbuf *text, bool *patterns_out,
		      const char **path_out, struct sbuf *error)
{
	struct keytable_spec spec;
	int rc = keytable_spec_parse(value, &spec, error);
	if (rc < 0)
		return rc;
	*patterns_out = spec.kind == KEYTABLE_PATTERNS;
	*path_out = spec.kind == KEYTABLE_LIST ? name : spec.path;
	if (spec.kind == KEYTABLE_LIST)
		keytable_spec_lines(spec.path, text);
	else if ((rc = read_file(NULL, spec.path, text)) < 0)
		sbuf_addf(error, "%s: %s: %s", name, spec.path, err_text(rc));
	return rc < 0 ? rc : sbuf_ok(text) ? 0 : ERR_LIMIT;
}

/* *TABLE_OUT is NULL where no tables are configured. */
static int read_tables(const struct milter_config *config, struct signkey_cache *cache,
		       struct keytable **table_out, struct sbuf *error)
{
	*table_out = NULL;
	if (config->key_table[0] == '\0')
		return 0;
	struct reporting reporting;
	struct keytable_source source = {
		.multiple = config->multiple_signatures, .folder = config->key_directory, .cache = cache,
		.read = read_file, .check = check_key, .broken = report_line, .arg = &reporting,
	};
	struct sbuf keys, signing;
	sbuf_init_heap(&keys, TABLE_BYTES_MAX);
	sbuf_init_heap(&signing, TABLE_BYTES_MAX);
	int rc = read_table("key_table", config->key_table, &keys, &source.key_patterns, &reporting.names[0], error);
	if (rc == 0)
		rc = read_table("signing_table", config->signing_table, &signing, &source.patterns,
				&reporting.names[1], error);
	if (rc == 0) {
		source.keys = sbuf_span(&keys);
		source.signing = sbuf_span(&signing);
		rc = keytable_load(&source, table_out);
		if (rc < 0)
			sbuf_addf(error, "key_table: %s", err_text(rc));
	}
	if (keys.ptr != NULL)
		explicit_bzero(keys.ptr, keys.size);
	sbuf_done(&keys);
	sbuf_done(&signing);
	return rc;
}

static void log_count(int level, const struct log_event *event, const char *text, size_t count)
{
	char number[24];
	snprintf(number, sizeof(number), "%zu", count);
	log_event_write(level, event, text, &LOG_FIELD_STR("COUNT", number), 1);
}

static void save(const struct keysource *source, const struct keyring *ring)
{
	int rc = keycopy_save(source->dir, ring);
	if (rc < 0)
		LOG_EVENT(LOG_ERR, &ev_keys_not_saved, "the signing keys could not be saved",
			  LOG_FIELD_STR("REASON", err_text(rc)));
}

static void load_saved(struct keysource *source)
{
	int rc = keycopy_load(source->dir, source->cache, &source->ring);
	if (rc == 0)
		log_count(LOG_INFO, &ev_keys_from_disk, "the signing keys were read from disk",
			  keyring_count(source->ring));
	else if (rc != ERR_NOT_FOUND)
		LOG_EVENT(LOG_ERR, &ev_keys_copy_damaged, "the copy of the signing keys is damaged",
			  LOG_FIELD_STR("REASON", err_text(rc)));
}

struct filling {
	struct keyring *ring;
	const struct keyring *old;
};

static int add_row(void *arg, const struct db_value *values, size_t count)
{
	struct filling *f = arg;
	if (count < 4)
		return ERR_SYNTAX;
	enum crypto_alg alg = span_istarts(values[2].text, SPAN_LIT("ed25519")) ? CRYPTO_ED25519_SHA256
										 : CRYPTO_RSA_SHA256;
	int rc = keyring_add(f->ring, f->old, values[0].text, values[1].text, alg, values[3].text);
	if (rc == ERR_SYNTAX || rc > 0)
		LOG_EVENT(LOG_ERR, &ev_key_row_broken, "a row of the signing keys is broken",
			  LOG_FIELD("DOMAIN", values[0].text), LOG_FIELD("SELECTOR", values[1].text),
			  LOG_FIELD_STR("RESULT", rc == KEYRING_KEPT	 ? "the key as it was is used on"
						  : rc == KEYRING_BROKEN ? "mail of the domain is deferred"
									 : "the row is left out"));
	return rc == ERR_SYNTAX || rc > 0 ? 0 : rc;
}

/* Takes RING; a reload may have ended the use of SQL meanwhile. */
static void swap_ring(struct keysource *source, struct keyring *ring)
{
	pthread_mutex_lock(&source->lock);
	struct keyring *old = source->uses_sql ? source->ring : ring;
	if (source->uses_sql)
		source->ring = ring;
	pthread_mutex_unlock(&source->lock);
	keyring_unref(&old);
}

static struct keyring *take_ring(struct keysource *source)
{
	pthread_mutex_lock(&source->lock);
	struct keyring *ring = source->ring == NULL ? NULL : keyring_ref(source->ring);
	pthread_mutex_unlock(&source->lock);
	return ring;
}

/* Reads all keys; *SAME_OUT tells that they are those we have. */
static int read_keys(struct keysource *source, struct keyring **ring_out, bool *same_out)
{
	struct keyring *old = take_ring(source);
	struct filling f = {.ring = keyring_new(source->cache, KEYRING_KEYS_MAX), .old = old};
	int rc = db_stream(source->sql.db, source->sql.query, NULL, 0, add_row, &f);
	if (rc < 0) {
		keyring_unref(&f.ring);
	} else {
		*same_out = old != NULL && keyring_same(old, f.ring);
		*ring_out = f.ring;
	}
	keyring_unref(&old);
	return rc;
}

static int read_version(struct keysource *source, struct sbuf *version)
{
	if (source->sql.version_query[0] == '\0')
		return 0;
	int rc = db_query_text(source->sql.db, source->sql.version_query, NULL, 0, version);
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

static bool have_keys(struct keysource *source)
{
	pthread_mutex_lock(&source->lock);
	bool have = source->ring != NULL && keyring_count(source->ring) > 0;
	pthread_mutex_unlock(&source->lock);
	return have;
}

/* Reads the keys where they have changed. */
static int poll_keys(struct keysource *source)
{
	char mem[VERSION_MAX];
	struct sbuf version;
	sbuf_init(&version, mem, sizeof(mem));
	int rc = read_version(source, &version);
	if (rc < 0)
		return rc;
	/* Read before the keys: what changes in between is seen at the next poll. */
	if (source->current && version.len > 0 && strcmp(sbuf_cstr(&version), source->version) == 0)
		return 0;
	struct keyring *ring;
	bool same = false, first = !source->current;
	rc = read_keys(source, &ring, &same);
	if (rc < 0)
		return rc;
	/* A table that is being restored is empty for a moment: only a second answer
	 * of that kind is believed. */
	if (keyring_count(ring) == 0 && have_keys(source) && !source->empty_seen) {
		source->empty_seen = true;
		source->current = false;
		keyring_unref(&ring);
		return 0;
	}
	source->empty_seen = false;
	memcpy(source->version, mem, sizeof(mem));
	source->current = true;
	if (first || !same)
		log_count(LOG_INFO, &ev_keys_read, "the signing keys were read", keyring_count(ring));
	/* In use first: a large set takes a while to be on the disk. */
	struct keyring *kept = same ? NULL : keyring_ref(ring);
	swap_ring(source, ring);
	/* The set before took as much memory once more. */
	if (!same)
		malloc_trim(0);
	if (kept != NULL)
		save(source, kept);
	keyring_unref(&kept);
	return 0;
}

static void poll_once(struct keysource *source)
{
	int rc = poll_keys(source);
	if (rc == 0) {
		pthread_mutex_lock(&source->lock);
		source->answered_ms = clock_boot_ms();
		pthread_mutex_unlock(&source->lock);
		source->failing = false;
		return;
	}
	metrics_inc(METRIC_DB_ERRORS);
	if (!source->failing)
		LOG_EVENT(LOG_ERR, &ev_keys_unreachable, "the signing keys cannot be read",
			  LOG_FIELD_STR("REASON", rc == ERR_SYNTAX ? "dkim_keys_query has fewer than four columns" :
								     db_error(source->sql.db)));
	source->failing = true;
}

/* With the lock held; waits for the next poll, a reload or the end. */
static void wait_for_poll(struct keysource *source)
{
	struct timespec until;
	int64_t wait_ms = source->empty_seen ? CONFIRM_MS : source->sql.poll_ms;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += wait_ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	int rc = 0;
	while (!source->stop && !source->next_is_there && rc == 0)
		rc = pthread_cond_timedwait(&source->wake, &source->lock, &until);
}

static void *run(void *arg)
{
	struct keysource *source = arg;
	pthread_mutex_lock(&source->lock);
	while (!source->stop) {
		if (source->next_is_there) {
			sql_done(&source->sql);
			source->sql = source->next;
			source->next = (struct sql){0};
			source->next_is_there = source->current = false;
		}
		pthread_mutex_unlock(&source->lock);
		if (source->sql.db != NULL)
			poll_once(source);
		pthread_mutex_lock(&source->lock);
		wait_for_poll(source);
	}
	pthread_mutex_unlock(&source->lock);
	return NULL;
}

static void free_source(struct keysource *source)
{
	sql_done(&source->sql);
	sql_done(&source->next);
	keytable_unref(&source->table);
	keyring_unref(&source->ring);
	pthread_cond_destroy(&source->wake);
	pthread_mutex_destroy(&source->lock);
	signkey_cache_unref(&source->cache);
	free(source->dir);
	free(source);
}

static struct keysource *new_source(const char *state_dir)
{
	struct keysource *source = mem_zalloc(sizeof(*source));
	pthread_condattr_t attr;
	pthread_mutex_init(&source->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&source->wake, &attr);
	pthread_condattr_destroy(&attr);
	source->cache = signkey_cache_new(SIGNKEY_CACHE_DEFAULT);
	source->dir = mem_strdup(state_dir);
	return source;
}

int keysource_open(const struct milter_config *config, const char *state_dir,
		   struct keysource **source_out, struct sbuf *error)
{
	struct keysource *source = new_source(state_dir);
	int rc = keysource_reload(source, config, error);
	if (rc == 0 && source->uses_sql)
		load_saved(source);
	if (rc == 0 && pthread_create(&source->thread, NULL, run, source) != 0) {
		sbuf_adds(error, "cannot start a thread");
		rc = ERR_TEMP;
	}
	if (rc < 0)
		free_source(source);
	else
		*source_out = source;
	return rc;
}

int keysource_reload(struct keysource *source, const struct milter_config *config, struct sbuf *error)
{
	struct keytable *table;
	struct sql sql;
	int rc = read_tables(config, source->cache, &table, error);
	if (rc < 0)
		return rc;
	rc = sql_init(config, &sql, error);
	if (rc < 0) {
		keytable_unref(&table);
		return rc;
	}
	pthread_mutex_lock(&source->lock);
	struct keytable *old = source->table;
	source->table = table;
	sql_done(&source->next);
	source->uses_sql = sql.db != NULL;
	source->next = sql;
	source->next_is_there = true;
	if (!source->uses_sql)
		keyring_unref(&source->ring);
	pthread_cond_signal(&source->wake);
	pthread_mutex_unlock(&source->lock);
	keytable_unref(&old);
	return 0;
}

void keysource_close(struct keysource **source)
{
	if (*source == NULL)
		return;
	pthread_mutex_lock(&(*source)->lock);
	(*source)->stop = true;
	pthread_cond_signal(&(*source)->wake);
	pthread_mutex_unlock(&(*source)->lock);
	pthread_join((*source)->thread, NULL);
	free_source(*source);
	*source = NULL;
}

void keysource_take(struct keysource *source, struct keyset *set_out)
{
	pthread_mutex_lock(&source->lock);
	struct keyset set = {
		.table = source->table == NULL ? NULL : keytable_ref(source->table),
		.ring = source->ring == NULL ? NULL : keyring_ref(source->ring),
	};
	set.keys.missing = source->uses_sql && source->ring == NULL;
	pthread_mutex_unlock(&source->lock);
	set.keys.table = set.table;
	set.keys.ring = set.ring;
	*set_out = set;
}

void keyset_release(struct keyset *set)
{
	keytable_unref(&set->table);
	keyring_unref(&set->ring);
	set->keys = (struct session_keys){0};
}

void keysource_collect(void *arg)
{
	struct keysource *source = arg;
	pthread_mutex_lock(&source->lock);
	size_t files = source->table == NULL ? 0 : keytable_count(source->table);
	size_t sql = source->ring == NULL ? 0 : keyring_count(source->ring);
	int64_t age = source->answered_ms == 0 ? 0 : (clock_boot_ms() - source->answered_ms) / 1000;
	pthread_mutex_unlock(&source->lock);
	metrics_set(METRIC_KEYS_FILES, (int64_t)files);
	metrics_set(METRIC_KEYS_SQL, (int64_t)sql);
	metrics_set(METRIC_KEYS_AGE, age);
}
