/*
 * The other daemons.  A beat a second says that this one is here, and hears how
 * many are.  Whatever may have made the store forget (a server lost, another in
 * its place, a clock that was set) sends this daemon from shared to joining: all
 * that it counts is sent anew, under the local share, until the others have done
 * the same or had time to.
 *
 * What must survive a restart is one line in the state directory: the daemon's
 * name in the store, how many daemons there were, the last order taken over.
 */
#include "sharer_internal.h"

#include <fcntl.h>
#include <unistd.h>

#include "lib/base/num.h"
#include "policyd-ratelimit/keyops.h"

#define BEAT_MS 1000
#define BEAT_SOON_MS 50       /* while away or joining */
#define MISSED_MAX 3          /* beats without an answer: away */
#define ALIVE_MS 30000        /* a daemon that was heard of within so long is there */
#define REJOIN_MS 5000        /* the others have so long to send what they count */
#define CLOCK_STEP_MS 1000
#define LOOK_MS 3000          /* orders are looked for at least so often */
#define STATE_FILE "redis"

/* ---- state on disk ---- */

static void state_write(const struct sharer *s)
{
	char text[WIRE_ID_MAX + 64], path[640];
	int len = snprintf(text, sizeof(text), "%s %u %llu\n", s->id, s->leases.daemons, (unsigned long long)s->version);
	snprintf(path, sizeof(path), "%s.new", s->state_path);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return; /* the next change tries again; until then a restart knows older numbers */
	bool ok = write(fd, text, (size_t)len) == len;
	ok = close(fd) == 0 && ok;
	if (ok)
		IGNORE_RESULT(rename(path, s->state_path)); /* likewise */
}

/* A name that no other daemon has: of this host, with a number of its own. */
static void id_make(struct sharer *s)
{
	char host[64] = "host";
	struct hash_key random = hash_key_random();
	if (gethostname(host, sizeof(host) - 1) < 0)
		snprintf(host, sizeof(host), "host");
	host[sizeof(host) - 1] = '\0';
	for (char *c = host; *c != '\0'; c++)
		if (!ascii_isalnum(*c) && *c != '-' && *c != '.')
			*c = '-';
	snprintf(s->id, sizeof(s->id), "%s-%08x", host, (unsigned)(random.k0 & 0xffffffff));
}

static bool state_parse(struct sharer *s, struct span text)
{
	struct span id, daemons;
	uint64_t count, version;
	text = span_trim(text);
	if (!span_cut(&text, ' ', &id) || !span_cut(&text, ' ', &daemons) || id.len == 0 ||
	    num_parse_u64(daemons, UINT16_MAX, &count) < 0 || num_parse_u64(text, INT64_MAX, &version) < 0 ||
	    span_copy_cstr(id, s->id, sizeof(s->id)) < 0)
		return false;
	s->leases.daemons = count > 0 ? (unsigned)count : 1;
	s->version = version;
	return true;
}

static void state_read(struct sharer *s)
{
	char text[256];
	int fd = open(s->state_path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof(text));
	if (fd >= 0)
		close(fd);
	if (got <= 0 || !state_parse(s, span_of(text, (size_t)got))) {
		id_make(s);
		s->newcomer = true;
		state_write(s);
	}
	s->expected = s->leases.daemons;
}

/* ---- what administrators do ---- */

static void on_ordered(void *arg, const struct redisReply *answer, struct redis_clock *clock)
{
	(void)arg;
	(void)clock;
	if (answer == NULL)
		metrics_inc(METRIC_REDIS_ORDERS_LOST);
}

static void order_send(struct sharer *s, const struct wire_order *order)
{
	static char field_mem[SUBJECT_KEY_MAX + 64];
	char name_mem[PREFIX_MAX + 16];
	struct wire_args args;
	struct sbuf field, name;
	sbuf_init(&field, field_mem, sizeof(field_mem));
	sbuf_init(&name, name_mem, sizeof(name_mem));
	wire_order_field_add(order, &field);
	wire_order_args(order, &s->daemon, sbuf_span(&field), &args);
	redis_net_script(s->net, &wire_scripts[WIRE_COMMAND], sharer_key(s, "commands", &name), args.args, args.count,
			 on_ordered, s);
}

static void orders_send(struct sharer *s)
{
	for (size_t i = 0; i < s->order_count; i++) {
		const struct waiting_order *w = &s->orders[i];
		order_send(s, &(struct wire_order){.verb = w->verb, .scope = w->scope, .key = span_str(w->key)});
		free(w->key);
	}
	s->order_count = 0;
}

void sharer_order(struct sharer *s, enum wire_verb verb, enum rule_scope scope, struct span key)
{
	if (s == NULL)
		return;
	if (s->state != SHARER_AWAY) {
		order_send(s, &(struct wire_order){.verb = verb, .scope = scope, .key = key});
		return;
	}
	if (s->order_count == ORDERS_WAITING_MAX) {
		metrics_inc(METRIC_REDIS_ORDERS_LOST);
		return;
	}
	s->orders[s->order_count++] = (struct waiting_order){verb, scope, span_dup(key)};
}

static int by_version(const void *a, const void *b)
{
	const struct wire_order *x = a, *y = b;
	return x->version < y->version ? -1 : x->version > y->version;
}

static void orders_apply(struct sharer *s, struct wire_order *orders, size_t count)
{
	qsort(orders, count, sizeof(*orders), by_version);
	for (size_t i = 0; i < count; i++) {
		const struct wire_order *o = &orders[i];
		if (o->version <= s->version)
			continue;
		s->version = o->version;
		/* What was reset before this daemon ever was here is not its own. */
		if (!span_eq(o->by, span_str(s->id)) && !(s->newcomer && o->verb != WIRE_BLOCK))
			keyops_apply(s->p, o->verb, o->scope, o->key);
	}
	if (count > 0)
		state_write(s);
	s->newcomer = false;
}

static void on_orders(void *arg, const struct redisReply *answer, struct redis_clock *clock)
{
	struct sharer *s = arg;
	(void)clock;
	s->looking = false;
	size_t fields = answer != NULL ? redis_answer_count(answer) / 2 : 0, count = 0;
	if (answer == NULL || fields > WIRE_ORDERS_MAX * 2)
		return;
	struct wire_order *orders = mem_alloc((fields + 1) * sizeof(*orders));
	for (size_t i = 0; i < fields; i++)
		if (wire_order_parse(redis_answer_text(redis_answer_item(answer, 2 * i)),
				     redis_answer_text(redis_answer_item(answer, 2 * i + 1)), &orders[count]) == 0)
			count++;
	orders_apply(s, orders, count);
	free(orders);
}

static void on_version(void *arg, const struct redisReply *answer, struct redis_clock *clock)
{
	struct sharer *s = arg;
	uint64_t version;
	(void)clock;
	s->looking = false;
	if (answer == NULL || redis_answer_kind(answer) != REDIS_TEXT ||
	    num_parse_u64(redis_answer_text(answer), INT64_MAX, &version) < 0 || version == s->version)
		return;
	/* A store that has forgotten begins with 1 again. */
	if (version < s->version)
		s->version = 0;
	sharer_house_look(s);
}

void sharer_house_look(struct sharer *s)
{
	char mem[PREFIX_MAX + 16];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	if (s->looking || s->state == SHARER_AWAY)
		return;
	const struct span words[] = {SPAN_LIT("HGETALL"), sharer_key(s, "commands", &name)};
	s->looking = true;
	s->looked_ms = policyd_now_ms();
	redis_net_command(s->net, words, 2, on_orders, s);
}

static void version_look(struct sharer *s)
{
	char mem[PREFIX_MAX + 16];
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	const struct span words[] = {SPAN_LIT("HGET"), sharer_key(s, "commands", &name), SPAN_LIT("version")};
	s->looking = true;
	s->looked_ms = policyd_now_ms();
	redis_net_command(s->net, words, 3, on_version, s);
}

/* ---- states ---- */

static void go_away(struct sharer *s, const char *why)
{
	bool was = s->state != SHARER_AWAY;
	s->state = SHARER_AWAY;
	s->leases.shared = s->ready = false;
	s->away_ms = was ? policyd_now_ms() : s->away_ms;
	if (!s->told_away && !s->leaving) {
		char share[64];
		s->told_away = true;
		snprintf(share, sizeof(share), "%llu", (unsigned long long)leases_share_of(&s->leases, 100));
		metrics_inc(METRIC_REDIS_LOST);
		LOG_EVENT(LOG_ERR, &ev_redis_away, "Redis is away: limits hold by this daemon's share",
			  LOG_FIELD_STR("REASON", why), LOG_FIELD_STR("SHARE_PERCENT", share));
	}
	sharer_wake_all(s);
}

static void join(struct sharer *s)
{
	s->state = SHARER_JOINING;
	s->leases.shared = s->ready = false;
	s->joining_ms = policyd_now_ms();
	leases_mark_all(&s->leases, s->joining_ms);
	orders_send(s);
	s->looking = false;
	sharer_house_look(s);
}

static void share(struct sharer *s)
{
	char away[24], keys[24], daemons[24];
	s->state = SHARER_SHARED;
	s->leases.shared = true;
	if (!s->told_away)
		return;
	s->told_away = false;
	snprintf(away, sizeof(away), "%lld", (long long)((policyd_now_ms() - s->away_ms) / 1000));
	snprintf(keys, sizeof(keys), "%zu", s->leases.count);
	snprintf(daemons, sizeof(daemons), "%u", s->leases.daemons);
	LOG_EVENT(LOG_NOTICE, &ev_redis_back, "Redis is back: what was counted meanwhile is shared",
		  LOG_FIELD_STR("AWAY_S", away), LOG_FIELD_STR("COUNTERS", keys), LOG_FIELD_STR("DAEMONS", daemons));
}

void sharer_house_lost(void *arg, const char *why)
{
	struct sharer *s = arg;
	go_away(s, why);
}

void sharer_house_clock(struct sharer *s, int64_t server_ms, struct redis_clock *clock)
{
	int64_t offset = server_ms - policyd_now_ms(), before = clock->offset_ms;
	clock->offset_ms = offset;
	if (before == 0 || (offset - before <= CLOCK_STEP_MS && before - offset <= CLOCK_STEP_MS))
		return;
	char text[24];
	snprintf(text, sizeof(text), "%lld", (long long)(offset - before));
	LOG_EVENT(LOG_WARNING, &ev_redis_clock, "the clock of Redis was set: counts are sent anew",
		  LOG_FIELD_STR("STEP_MS", text));
	if (s->state == SHARER_SHARED)
		join(s);
}

/* ---- beats ---- */

static void beat_take(struct sharer *s, const struct wire_beat_reply *r)
{
	if (s->leases.daemons != r->daemons && (s->state == SHARER_SHARED || r->daemons > s->leases.daemons)) {
		s->leases.daemons = r->daemons;
		state_write(s);
	}
	/* A store that has forgotten us may have forgotten more. */
	if (s->state == SHARER_AWAY || (s->state == SHARER_SHARED && !r->was_known))
		join(s);
	else if (s->state == SHARER_JOINING && s->ready &&
		 ((r->unready == 0 && r->daemons >= s->expected) || policyd_now_ms() - s->ready_ms >= REJOIN_MS))
		share(s);
	if (s->state == SHARER_SHARED)
		s->expected = r->daemons;
}

static void on_beat(void *arg, const struct redisReply *answer, struct redis_clock *clock)
{
	struct sharer *s = arg;
	int64_t numbers[WIRE_BEAT_REPLY];
	struct wire_beat_reply reply;
	size_t count = answer != NULL ? redis_answer_count(answer) : 0;
	s->beating = false;
	for (size_t i = 0; i < count && i < WIRE_BEAT_REPLY; i++)
		numbers[i] = redis_answer_number(redis_answer_item(answer, i));
	if (answer == NULL || wire_beat_reply(numbers, count, &reply) < 0) {
		if (++s->missed >= MISSED_MAX)
			go_away(s, answer == NULL ? redis_net_trouble(s->net) : "the server gives no such answer");
		return;
	}
	s->missed = 0;
	if (s->leaving)
		return;
	sharer_house_clock(s, reply.server_ms, clock);
	beat_take(s, &reply);
}

static void beat_send(struct sharer *s)
{
	char mem[PREFIX_MAX + 16];
	struct wire_args args;
	struct sbuf name;
	sbuf_init(&name, mem, sizeof(mem));
	wire_beat_args(&s->daemon, s->ready, s->leaving, ALIVE_MS, &args);
	s->beating = true;
	redis_net_script(s->net, &wire_scripts[WIRE_BEAT], sharer_key(s, "daemons", &name), args.args, args.count,
			 on_beat, s);
}

static void on_beat_timer(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)events;
	struct sharer *s = w->data;
	if (!s->beating && !s->leaving)
		beat_send(s);
	ev_timer_set(w, (s->state == SHARER_SHARED && s->missed == 0 ? BEAT_MS : BEAT_SOON_MS) / 1000.0, 0);
	ev_timer_start(ev, w);
}

void sharer_house_tick(struct sharer *s, int64_t now_ms)
{
	if (s->state == SHARER_JOINING && !s->ready && s->syncs == 0 && leases_all_sent(&s->leases, s->joining_ms)) {
		s->ready = true;
		s->ready_ms = now_ms;
	}
	if (s->state == SHARER_SHARED && !s->looking && now_ms - s->looked_ms >= LOOK_MS)
		version_look(s);
}

void sharer_house_leave(struct sharer *s)
{
	s->leaving = true;
	if (s->state != SHARER_AWAY)
		beat_send(s);
}

int sharer_house_open(struct sharer *s, struct sbuf *error)
{
	int len = snprintf(s->state_path, sizeof(s->state_path), "%s/%s", s->p->skel->state_dir, STATE_FILE);
	if (len < 0 || (size_t)len >= sizeof(s->state_path)) {
		sbuf_adds(error, "state_dir is too long");
		return ERR_PERM;
	}
	state_read(s);
	s->daemon = (struct wire_daemon){span_str(s->id), span_str(s->channel), hash_key_random().k0};
	s->away_ms = policyd_now_ms();
	ev_timer_init(&s->beat, on_beat_timer, 0, 0);
	s->beat.data = s;
	ev_timer_start(loop_ev(s->p->skel->loop), &s->beat);
	return 0;
}

void sharer_house_close(struct sharer *s)
{
	ev_timer_stop(loop_ev(s->p->skel->loop), &s->beat);
	for (size_t i = 0; i < s->order_count; i++)
		free(s->orders[i].key);
}
