/*
 * The thread alone uses the database handle.  What it has loaded travels to
 * the loop in a message that the loop frees.  A row without effect is told once, not
 * at each look: the lines of a look are told where they differ from those of the
 * last one.
 */
#include "overrides_sql.h"

#include <pthread.h>
#include <stdatomic.h>

#include "lib/base/num.h"
#include "policyd-ratelimit/policyd.h"

#define COLUMNS 7 /* and the row's number, where the query gives it */
#define WINDOW_MAX_S 400000000u
#define FAULTS_MAX 20 /* rows of one look that are told one by one */

struct overrides_loader {
	struct overrides_loader_config config;
	struct db *db;
	char *query, *version_query;
	int64_t refresh_ms;
	_Atomic char delimiter;
	uint64_t faults; /* digest of those told last; the thread's own */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stop; /* under the lock */
};

struct message {
	struct overrides_loader *loader;
	struct overrides *overrides; /* NULL: only asked */
	size_t ignored;
	bool away;
	char text[256];
};

static void deliver(void *arg)
{
	struct message *m = arg;
	struct overrides_loader *l = m->loader;
	l->config.asked(l->config.arg, m->away, m->text);
	if (m->overrides != NULL)
		l->config.loaded(l->config.arg, m->overrides, m->ignored);
	free(m);
}

struct fault {
	char row[24], scope[32], key[128];
	const char *reason;
};

struct loading {
	struct overrides *overrides;
	size_t ignored;
	char delimiter;
	uint64_t digest;
	struct fault faults[FAULTS_MAX];
};

/* What is wrong with the row; NULL: it is in O. */
static const char *row_parse(const struct db_value *v, struct override *o)
{
	uint64_t seconds = 0, shadow = 0;
	o->max = OVERRIDE_UNLIMITED;
	if (rule_scope_find(v[0].text, &o->scope) < 0)
		return "no such scope";
	if (rule_unit_find(v[2].text, &o->unit) < 0)
		return "no such unit";
	if (!v[3].null && num_parse_u64(v[3].text, UINT64_MAX - 1, &o->max) < 0)
		return "the count is none";
	if (num_parse_u64(v[4].text, WINDOW_MAX_S, &seconds) < 0)
		return "the window is none";
	if (rule_action_find(v[5].text, &o->action) < 0)
		return "no such action";
	if (num_parse_u64(v[6].text, 1, &shadow) < 0)
		return "shadow is 0 or 1";
	o->length_ms = (int64_t)seconds * 1000;
	o->shadow = shadow != 0;
	return NULL;
}

static const char *row_take(struct loading *loading, const struct db_value *values)
{
	struct override o = {0};
	const char *fault = row_parse(values, &o);
	if (fault == NULL)
		fault = overrides_fault(&o, values[1].text, loading->delimiter);
	if (fault != NULL)
		return fault;
	int rc = overrides_add(loading->overrides, &o, values[1].text);
	return rc == 0 ? NULL : rc == ERR_LIMIT ? "too many rows, or kinds of them" : "the key is none of its scope";
}

static void text_take(char *out, size_t size, struct span text)
{
	snprintf(out, size, "%.*s", (int)(text.len < size ? text.len : size), text.len > 0 ? text.ptr : "");
}

static int row_add(void *arg, const struct db_value *values, size_t count)
{
	static const struct hash_key fixed = {3, 4};
	struct loading *loading = arg;
	if (count < COLUMNS)
		return ERR_PERM;
	const char *reason = row_take(loading, values);
	if (reason == NULL)
		return 0;
	struct fault f = {.reason = reason};
	if (count > COLUMNS)
		text_take(f.row, sizeof(f.row), values[COLUMNS].text);
	text_take(f.scope, sizeof(f.scope), values[0].text);
	text_take(f.key, sizeof(f.key), values[1].text);
	if (loading->ignored < FAULTS_MAX)
		loading->faults[loading->ignored] = f;
	loading->ignored++;
	loading->digest = hash_siphash(&fixed, span_str(f.row)) + hash_siphash(&fixed, span_str(f.key)) * 3 +
			  hash_siphash(&fixed, span_str(f.scope)) * 5 + loading->digest * 7;
	return 0;
}

/* Tells of rows without effect, where others were told before. */
static void faults_tell(struct overrides_loader *l, const struct loading *loading)
{
	bool news = l->faults != loading->digest;
	l->faults = loading->digest;
	for (size_t i = 0; news && i < loading->ignored && i < FAULTS_MAX; i++) {
		const struct fault *f = &loading->faults[i];
		LOG_EVENT(LOG_WARNING, &ev_override_ignored, "an override in the database has no effect",
			  LOG_FIELD_STR("ROW", f->row), LOG_FIELD_STR("SCOPE", f->scope), LOG_FIELD_STR("KEY", f->key),
			  LOG_FIELD_STR("REASON", f->reason));
	}
}

static int load(struct overrides_loader *l, struct message *m)
{
	struct loading loading = {.overrides = overrides_new(), .delimiter = l->delimiter};
	int rc = db_query(l->db, l->query, NULL, 0, row_add, &loading);
	if (rc < 0) {
		overrides_free(&loading.overrides);
		return rc;
	}
	faults_tell(l, &loading);
	overrides_seal(loading.overrides);
	m->overrides = loading.overrides;
	m->ignored = loading.ignored;
	return 0;
}

/* Whether the overrides may have changed since *VERSION. */
static int version_read(struct overrides_loader *l, struct sbuf *version, bool *changed_out)
{
	char mem[128];
	struct sbuf now;
	*changed_out = true;
	if (l->version_query[0] == '\0')
		return 0;
	sbuf_init(&now, mem, sizeof(mem));
	int rc = db_query_text(l->db, l->version_query, NULL, 0, &now);
	if (rc < 0)
		return rc;
	*changed_out = !span_eq(sbuf_span(&now), sbuf_span(version));
	sbuf_reset(version);
	sbuf_add(version, sbuf_span(&now));
	return 0;
}

/* One look at the database; true where the version in hand stays valid. */
static bool look(struct overrides_loader *l, struct sbuf *version)
{
	struct message *m = mem_zalloc(sizeof(*m));
	bool changed = false;
	m->loader = l;
	int rc = version_read(l, version, &changed);
	if (rc == 0 && changed)
		rc = load(l, m);
	m->away = rc < 0;
	if (m->away)
		snprintf(m->text, sizeof(m->text), "%s", db_error(l->db));
	loop_post(l->config.loop, deliver, m);
	return rc == 0;
}

/* True where it is time to end. */
static bool pause_for(struct overrides_loader *l, int64_t ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t ns = until.tv_nsec + ms % 1000 * 1000000;
	until.tv_sec += ms / 1000 + ns / 1000000000;
	until.tv_nsec = ns % 1000000000;
	pthread_mutex_lock(&l->lock);
	while (!l->stop && pthread_cond_timedwait(&l->wake, &l->lock, &until) == 0)
		;
	bool stop = l->stop;
	pthread_mutex_unlock(&l->lock);
	return stop;
}

static void *loader_run(void *arg)
{
	struct overrides_loader *l = arg;
	char mem[128];
	struct sbuf version;
	sbuf_init(&version, mem, sizeof(mem));
	do {
		if (!look(l, &version))
			sbuf_reset(&version); /* load anew when it is back */
	} while (!pause_for(l, l->refresh_ms));
	return NULL;
}

struct overrides_loader *overrides_loader_start(const struct overrides_loader_config *config, struct db *db)
{
	struct overrides_loader *l = mem_zalloc(sizeof(*l));
	pthread_condattr_t attr;
	l->config = *config;
	l->config.config = NULL;
	l->db = db;
	l->query = mem_strdup(config->config->limits_query);
	l->version_query = mem_strdup(config->config->limits_version_query);
	l->refresh_ms = config->config->limits_refresh;
	l->delimiter = config->config->address_delimiter[0];
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->wake, &attr);
	pthread_condattr_destroy(&attr);
	if (pthread_create(&l->thread, NULL, loader_run, l) != 0)
		PANIC("no thread for the overrides");
	return l;
}

void overrides_loader_reload(struct overrides_loader *loader, const struct policyd_config *config)
{
	if (loader != NULL)
		loader->delimiter = config->address_delimiter[0];
}

void overrides_loader_stop(struct overrides_loader **loader)
{
	struct overrides_loader *l = *loader;
	if (l == NULL)
		return;
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	db_free(&l->db);
	free(l->query);
	free(l->version_query);
	pthread_cond_destroy(&l->wake);
	pthread_mutex_destroy(&l->lock);
	free(l);
	*loader = NULL;
}
