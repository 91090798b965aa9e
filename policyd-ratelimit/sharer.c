/*
 * Tokens.  A lease that is being asked for, or that a request waits for, is never
 * forgotten (lease.h), so calls may refer to it.  A waiter is in two lists, that
 * of its lease and that of all, or in none.
 */
#include "sharer_internal.h"

#include "policyd-ratelimit/subject.h"

#define FLUSH_S 0.02
#define SYNCS_MAX 1000      /* on their way at once, of those that nobody waits for */
#define RETRY_MS 3          /* first pause before tokens that others hold are asked for again */
#define FRESH_MS 200        /* numbers of others that are told without asking */

struct span sharer_key(const struct sharer *s, const char *name, struct sbuf *mem)
{
	sbuf_reset(mem);
	sbuf_adds(mem, s->prefix);
	sbuf_adds(mem, name);
	return sbuf_span(mem);
}

/* ---- waiting ---- */

void sharer_wait_end(struct sharer *s, struct lease_waiter *w)
{
	if (w->lease == NULL)
		return;
	*w->self = w->next;
	if (w->next != NULL)
		w->next->self = w->self;
	*w->earlier = w->later;
	if (w->later != NULL)
		w->later->earlier = w->earlier;
	else
		s->waiters_last = w->earlier;
	w->lease = NULL;
}

static void wait_begin(struct sharer *s, struct lease_waiter *w, struct lease *l, uint64_t amount, int64_t now_ms)
{
	w->lease = l;
	w->amount = amount;
	w->since_ms = w->since_ms != 0 ? w->since_ms : now_ms;
	w->next = l->waiters;
	w->self = &l->waiters;
	if (w->next != NULL)
		w->next->self = &w->next;
	l->waiters = w;
	w->later = NULL;
	w->earlier = s->waiters_last;
	*s->waiters_last = w;
	s->waiters_last = &w->later;
}

static void wake(struct sharer *s, struct lease_waiter *w)
{
	sharer_wait_end(s, w);
	w->wake(w->arg);
}

static void wake_lease(struct sharer *s, struct lease *l)
{
	while (l->waiters != NULL)
		wake(s, l->waiters);
}

void sharer_wake_all(struct sharer *s)
{
	while (s->waiters_first != NULL)
		wake(s, s->waiters_first);
}

/* ---- syncs ---- */

struct asked {
	struct sharer *s;
	struct lease *lease;
	uint64_t need;
	int64_t since_us;
};

static size_t numbers_of(const struct redisReply *answer, int64_t *numbers, size_t max)
{
	size_t count = redis_answer_count(answer);
	if (count > max)
		return 0;
	for (size_t i = 0; i < count; i++) {
		const struct redisReply *item = redis_answer_item(answer, i);
		if (redis_answer_kind(item) != REDIS_NUMBER)
			return 0;
		numbers[i] = redis_answer_number(item);
	}
	return count;
}

static void on_synced(void *arg, const struct redisReply *answer, struct redis_clock *clock)
{
	struct asked *a = arg;
	struct sharer *s = a->s;
	struct lease *l = a->lease;
	int64_t now = policyd_now_ms(), numbers[WIRE_SYNC_REPLY];
	struct wire_sync_reply reply;
	uint64_t need = a->need;
	s->syncs--;
	metrics_observe(METRIC_REDIS_LATENCY, (double)(clock_mono_us() - a->since_us) / 1e6);
	free(a);
	if (answer == NULL || wire_sync_reply(numbers, numbers_of(answer, numbers, WIRE_SYNC_REPLY), &reply) < 0 ||
	    reply.stale) {
		metrics_inc(METRIC_REDIS_SYNC_FAILED);
		leases_sync_failed(&s->leases, l, now);
		wake_lease(s, l);
		return;
	}
	leases_sync_done(&s->leases, l, &reply.grant, need, now);
	sharer_house_clock(s, reply.server_ms, clock);
	if (need == 0 || reply.grant.granted >= need) {
		metrics_inc(METRIC_REDIS_SYNC_GRANTED);
		wake_lease(s, l);
	} else if (reply.grant.others_leased == 0) {
		metrics_inc(METRIC_REDIS_SYNC_REFUSED);
		wake_lease(s, l);
	} else if (l->waiters != NULL && !ev_is_active(&s->retry)) {
		ev_timer_set(&s->retry, RETRY_MS / 1000.0, 0);
		ev_timer_start(loop_ev(s->p->skel->loop), &s->retry);
	}
}

static void sync_send(struct sharer *s, struct lease *l, uint64_t need)
{
	static struct lease_sync sync;
	static struct wire_args args;
	char mem[PREFIX_MAX + LEASE_NAME_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	struct asked *a = mem_alloc(sizeof(*a));
	*a = (struct asked){s, l, need, clock_mono_us()};
	leases_sync_begin(&s->leases, l, s->p->table, need, policyd_now_ms(), &sync);
	wire_sync_args(&sync, &s->daemon, ++s->seq, &args);
	s->syncs++;
	redis_net_script(s->net, &wire_scripts[WIRE_SYNC], sharer_key(s, l->name, &name), args.args, args.count,
			 on_synced, a);
}

/* Sends what is due, as far as that is for nobody who waits. */
static void flush(struct sharer *s)
{
	struct lease *l;
	if (s->state == SHARER_AWAY)
		return;
	while (s->syncs < SYNCS_MAX && (l = leases_next_dirty(&s->leases, policyd_now_ms())) != NULL) {
		sync_send(s, l, 0);
		if (s->state == SHARER_AWAY)
			return; /* it failed at once */
	}
}

void sharer_round(struct sharer *s)
{
	if (s == NULL || !s->leases.any_low)
		return;
	s->leases.any_low = false;
	flush(s);
}

/* Asks again for those whose tokens others hold, less and less often. */
static void on_retry(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)events;
	struct sharer *s = w->data;
	int64_t now = policyd_now_ms();
	bool more = false;
	struct lease_waiter *next;
	for (struct lease_waiter *x = s->waiters_first; x != NULL && s->state == SHARER_SHARED; x = next) {
		next = x->later;
		more = true;
		if (x->lease->asking || now - x->since_ms < (int64_t)RETRY_MS << x->tries)
			continue;
		x->tries += x->tries < 10;
		sync_send(s, x->lease, x->amount);
		next = s->waiters_first; /* a failure wakes those who wait */
	}
	if (more) {
		ev_timer_set(w, RETRY_MS / 1000.0, 0);
		ev_timer_start(ev, w);
	}
}

static void on_flush(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	struct sharer *s = w->data;
	int64_t now = policyd_now_ms();
	while (s->waiters_first != NULL && now - s->waiters_first->since_ms >= s->timeout_ms) {
		leases_sync_late(s->waiters_first->lease, s->waiters_first->amount, now);
		wake(s, s->waiters_first);
	}
	flush(s);
	sharer_house_tick(s, now);
}

/* ---- requests ---- */

/* The lease of an item of the request in hand; NULL: it cannot be shared. */
static struct lease *lease_of(struct sharer *s, const struct session_item *item, int64_t now_ms)
{
	const struct session *session = &s->p->session;
	const struct rule *rule = &session->rules->items[item->rule];
	const struct rule_window *w = &rule->windows[item->window];
	struct lease_kind kind = {item->hash, rule->unit, w->class, w->length_ms};
	char mem[LEASE_NAME_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	struct lease *l = leases_find(&s->leases, item->hash);
	if (l == NULL && lease_name_add(&session->subject, rule, w, &name) < 0)
		return NULL;
	l = leases_make(&s->leases, &kind, sbuf_span(&name), now_ms);
	if (l != NULL)
		l->max = item->max;
	return l;
}

bool sharer_ready(struct sharer *s, struct lease_waiter *w, const struct proto_request *request, int64_t now_ms)
{
	struct session *session = &s->p->session;
	size_t count = session_peek(session, request, now_ms);
	struct lease *wanted = NULL;
	uint64_t amount = 0;
	bool late = w->since_ms != 0 && now_ms - w->since_ms >= s->timeout_ms;
	for (size_t i = 0; i < count; i++) {
		const struct session_item *item = &session->items[i];
		struct lease *l = item->max == UINT64_MAX ? NULL : lease_of(s, item, now_ms);
		enum lease_answer answer = l == NULL ? LEASE_LOCAL : leases_check(&s->leases, l, item->amount, now_ms);
		/* A refusal is certain: no tokens are needed. */
		if (answer == LEASE_DENIED && !item->shadow) {
			wanted = NULL;
			break;
		}
		if (answer != LEASE_ASK || late)
			continue;
		if (!l->asking)
			sync_send(s, l, item->amount);
		/* A send that fails at once leaves the local share. */
		if (l->asking) {
			wanted = l;
			amount = item->amount;
		}
	}
	if (wanted == NULL) {
		w->since_ms = 0;
		w->tries = 0;
		return true;
	}
	metrics_add(METRIC_REDIS_WAITED, w->since_ms == 0);
	wait_begin(s, w, wanted, amount, now_ms);
	return false;
}

/* ---- administration ---- */

static struct lease *lease_named(struct sharer *s, const struct subject *subject, const struct rule *rule,
				 const struct rule_window *w, uint64_t hash)
{
	const struct lease_kind kind = {hash, rule->unit, w->class, w->length_ms};
	char mem[LEASE_NAME_MAX + 1];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	if (lease_name_add(subject, rule, w, &name) < 0)
		return NULL;
	return leases_make(&s->leases, &kind, sbuf_span(&name), policyd_now_ms());
}

static void on_deleted(void *arg, const struct redisReply *answer, struct redis_clock *clock)
{
	(void)arg;
	(void)answer; /* where it failed, the daemons that live empty their parts */
	(void)clock;
}

void sharer_reset(struct sharer *s, const struct subject *subject, const struct rule *rule,
		  const struct rule_window *window, uint64_t hash, bool everywhere)
{
	char mem[PREFIX_MAX + LEASE_NAME_MAX + 1];
	struct sbuf key;
	struct lease *l = s != NULL ? lease_named(s, subject, rule, window, hash) : NULL;
	if (l == NULL)
		return;
	leases_forget(&s->leases, l, policyd_now_ms());
	if (!everywhere)
		return;
	sbuf_init(&key, mem, sizeof(mem));
	const struct span words[] = {SPAN_LIT("DEL"), sharer_key(s, l->name, &key)};
	redis_net_command(s->net, words, 2, on_deleted, NULL);
}

bool sharer_describe_window(struct sharer *s, const struct subject *subject, const struct rule *rule,
			    const struct rule_window *window, uint64_t hash, uint64_t max, json_t *object)
{
	struct lease *l = s != NULL ? lease_named(s, subject, rule, window, hash) : NULL;
	int64_t now = policyd_now_ms();
	if (l == NULL)
		return false;
	l->max = max;
	bool fresh = l->others_ms != 0 && now - l->others_ms < FRESH_MS;
	if (!fresh && s->state == SHARER_SHARED && !l->asking && max != UINT64_MAX)
		sync_send(s, l, 0);
	uint64_t here = table_used(s->p->table, hash, window->class, now), others = leases_others(&s->leases, hash, now);
	uint64_t leased = others > 0 ? l->others_leased : 0, mine = now < l->expires_ms ? l->left : 0;
	uint64_t all = here + (others > leased ? others - leased : 0), held = leased + mine;
	json_object_set_new(object, "used", json_integer((json_int_t)all));
	json_object_set_new(object, "used_here", json_integer((json_int_t)here));
	json_object_set_new(object, "leased", json_integer((json_int_t)held));
	json_object_set_new(object, "leased_here", json_integer((json_int_t)mine));
	if (max != UINT64_MAX)
		json_object_set_new(object, "left", json_integer((json_int_t)(all < max ? max - all : 0)));
	return !fresh && l->asking;
}

static const char *const state_words[] = {[SHARER_AWAY] = "away", [SHARER_JOINING] = "joining", [SHARER_SHARED] = "shared"};

json_t *sharer_describe(const struct sharer *s)
{
	char mem[512];
	struct sbuf server;
	sbuf_init(&server, mem, sizeof(mem));
	redis_net_describe(s->net, &server);
	json_t *o = json_object();
	json_object_set_new(o, "kind", json_string("redis"));
	json_object_set_new(o, "state", json_string(state_words[s->state]));
	json_object_set_new(o, "server", json_string(sbuf_cstr(&server)));
	json_object_set_new(o, "daemons", json_integer(s->leases.daemons));
	json_object_set_new(o, "this", json_string(s->id));
	json_object_set_new(o, "trouble", s->state == SHARER_SHARED ? json_null() : json_string(redis_net_trouble(s->net)));
	return o;
}

void sharer_collect(struct sharer *s)
{
	uint64_t tokens[UNIT_COUNT];
	if (s == NULL)
		return;
	leases_outstanding(&s->leases, policyd_now_ms(), tokens);
	metrics_set(METRIC_REDIS_UP, s->state == SHARER_SHARED);
	metrics_set(METRIC_REDIS_DAEMONS, s->leases.daemons);
	metrics_set(METRIC_REDIS_KEYS, (int64_t)s->leases.count);
	metrics_set(METRIC_REDIS_UNSENT, (int64_t)s->leases.dirty_count);
	metrics_set(METRIC_REDIS_EVICTED, (int64_t)s->leases.evicted);
	metrics_set(METRIC_REDIS_BY_SHARE, (int64_t)s->leases.by_share);
	metrics_set(METRIC_LEASED_MESSAGES, (int64_t)tokens[UNIT_MESSAGES]);
	metrics_set(METRIC_LEASED_RECIPIENTS, (int64_t)tokens[UNIT_RECIPIENTS]);
	metrics_set(METRIC_LEASED_BYTES, (int64_t)tokens[UNIT_BYTES]);
}

void sharer_second(struct sharer *s)
{
	if (s != NULL)
		leases_sweep(&s->leases, policyd_now_ms());
}

/* ---- life ---- */

static struct lease_settings settings_of(const struct policyd_config *config)
{
	return (struct lease_settings){.lease_ms = config->redis_lease_time,
				       .share_percent = (unsigned)config->redis_lease_share,
				       .max_percent = (unsigned)config->redis_lease_max,
				       .local_percent = (unsigned)config->redis_local_share,
				       .max_keys = (size_t)config->redis_max_keys};
}

void sharer_reload(struct sharer *s, const struct policyd_config *config)
{
	if (s == NULL)
		return;
	s->leases.settings = settings_of(config);
	s->timeout_ms = config->redis_timeout;
	redis_net_set_timeout(s->net, config->redis_timeout);
}

static void on_news(void *arg, struct span message)
{
	struct sharer *s = arg;
	struct span word, name = message, prefix = span_str(s->prefix);
	(void)span_cut(&name, ' ', &word);
	if (span_eq(word, SPAN_LIT("commands"))) {
		sharer_house_look(s);
	} else if (span_eq(word, SPAN_LIT("recall")) && span_starts(name, prefix)) {
		struct lease *l = leases_find_name(&s->leases, span_skip(name, prefix.len));
		if (l != NULL && (l->left > 0 || l->dirty) && l->waiters == NULL)
			leases_recall(&s->leases, l, policyd_now_ms());
		sharer_round(s);
	}
}

/* The first line of the file. */
static int password_read(const char *path, char out[SECRET_MAX], struct sbuf *error)
{
	int rc = secret_read(path, out, error);
	if (rc == 0)
		out[strcspn(out, "\r\n")] = '\0';
	return rc;
}

static void timers_start(struct sharer *s)
{
	struct ev_loop *ev = loop_ev(s->p->skel->loop);
	ev_timer_init(&s->flush, on_flush, FLUSH_S, FLUSH_S);
	ev_timer_init(&s->retry, on_retry, 0, 0);
	s->flush.data = s->retry.data = s;
	ev_timer_start(ev, &s->flush);
}

int sharer_open(struct policyd *p, const struct policyd_config *config, struct sharer **sharer_out, struct sbuf *error)
{
	*sharer_out = NULL;
	if (config->store != POLICYD_STORE_REDIS)
		return 0;
	struct sharer *s = mem_zalloc(sizeof(*s));
	const struct lease_settings settings = settings_of(config);
	s->p = p;
	s->timeout_ms = config->redis_timeout;
	s->waiters_last = &s->waiters_first;
	snprintf(s->prefix, sizeof(s->prefix), "%s", config->redis_prefix);
	snprintf(s->channel, sizeof(s->channel), "%snews", s->prefix);
	snprintf(s->user, sizeof(s->user), "%s", config->redis_user);
	leases_init(&s->leases, &settings);
	struct redis_net_config net = {.loop = p->skel->loop, .user = s->user, .password = s->password,
				       .database = (int)config->redis_database, .timeout_ms = config->redis_timeout,
				       .channel = span_str(s->channel), .news = on_news, .lost = sharer_house_lost, .arg = s};
	int rc = password_read(config->redis_password_file, s->password, error);
	if (rc == 0)
		rc = redis_spec_parse(span_str(config->redis), &net.spec, error);
	if (rc == 0)
		rc = sharer_house_open(s, error);
	if (rc == 0)
		rc = redis_net_open(&net, &s->net, error);
	if (rc < 0) {
		leases_done(&s->leases);
		free(s);
		return rc;
	}
	timers_start(s);
	p->session.leases = &s->leases;
	*sharer_out = s;
	return 0;
}

void sharer_leave(struct sharer *s)
{
	if (s == NULL)
		return;
	leases_give_up(&s->leases, policyd_now_ms());
	sharer_house_leave(s);
	sharer_round(s);
}

bool sharer_idle(const struct sharer *s)
{
	return s == NULL || s->state != SHARER_SHARED || (s->leases.dirty_count == 0 && s->syncs == 0);
}

void sharer_close(struct sharer **sharer)
{
	struct sharer *s = *sharer;
	if (s == NULL)
		return;
	struct ev_loop *ev = loop_ev(s->p->skel->loop);
	ev_timer_stop(ev, &s->flush);
	ev_timer_stop(ev, &s->retry);
	s->state = SHARER_AWAY;
	redis_net_close(&s->net);
	sharer_house_close(s);
	s->p->session.leases = NULL;
	leases_done(&s->leases);
	explicit_bzero(s->password, sizeof(s->password));
	free(s);
	*sharer = NULL;
}
