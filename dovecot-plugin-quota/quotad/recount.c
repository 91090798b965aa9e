/*
 * The loop's thread keeps the queue (recount-queue.h); the worker takes one user at a
 * time, because a count reads all mailboxes of a user and mail comes first.  By the
 * time that a user is asked for the next delivery or login has mostly done it.
 */
#include "dovecot-plugin-quota/quotad/recount.h"

#include <errno.h>
#include <ev.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dovecot-plugin-quota/quotad/recount-queue.h"
#include "lib/run/worker.h"

#define TICK_S 0.25
#define ANSWER_TIMEOUT_MS 60000
#define STOP_LOOK_MS 100 /* how often a wait for Dovecot looks whether we shall end */

struct recount {
	struct skel *skel;
	struct ledger *ledger;
	struct sockaddr_un addr;
	bool usable;
	struct ev_timer tick;
	struct recount_queue queue; /* of the loop */
	bool busy;		    /* the worker has an item */
	bool told;		    /* that nobody answers */
	void (*settled)(void *arg, struct ledger_user *user);
	void *arg;
	struct worker worker;
	struct recount_item *work; /* under its lock */
};

/* ---- the worker ---- */

/* Waits for nobody: where Dovecot takes no connection, it is asked again later. */
static int connect_to(const struct sockaddr_un *addr)
{
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Waits for the end of what doveadm prints, which nobody needs. */
static bool drain(struct recount *r, int fd)
{
	const int64_t deadline_ms = clock_boot_ms() + ANSWER_TIMEOUT_MS;
	char text[1024];
	while (clock_boot_ms() < deadline_ms && !worker_is_stopping(&r->worker)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (poll(&p, 1, STOP_LOOK_MS) < 0 && errno != EINTR)
			return false;
		const ssize_t n = read(fd, text, sizeof(text));
		if (n == 0)
			return true;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return false;
	}
	return false;
}

enum answer { ANSWER_DONE, ANSWER_BROKEN, ANSWER_NOBODY };

/* Dovecot's protocol for scripts: a version, no reply wanted, one argument a line.
 * A name of the protocol holds no control character, so none can add a line. */
static enum answer run_doveadm(struct recount *r, const struct recount_item *item)
{
	char mem[QUOTA_USER_MAX + 128];
	struct sbuf request;
	const int fd = connect_to(&r->addr);
	if (fd < 0)
		return ANSWER_NOBODY;
	sbuf_init(&request, mem, sizeof(mem));
	sbuf_addf(&request, "VERSION\tscript\t4\t0\nnoreply\n%s\n-u\n%s\n\n",
		  item->thorough ? "recalc" : "get", item->user);
	const bool done = sbuf_ok(&request) &&
			  send(fd, request.ptr, request.len, MSG_NOSIGNAL) == (ssize_t)request.len &&
			  drain(r, fd);
	close(fd);
	return done ? ANSWER_DONE : ANSWER_BROKEN;
}

struct outcome {
	struct recount *recount;
	struct recount_item *item;
	enum answer answer;
};

static void run_outcome(void *arg);

static void *worker_run(void *arg)
{
	struct recount *r = arg;
	for (;;) {
		pthread_mutex_lock(&r->worker.lock);
		while (r->work == NULL && !r->worker.stopping)
			worker_wait(&r->worker, -1);
		struct recount_item *item = r->work;
		const bool stopping = r->worker.stopping;
		r->work = NULL;
		pthread_mutex_unlock(&r->worker.lock);
		if (stopping) {
			free(item);
			return NULL;
		}
		struct outcome *o = mem_zalloc(sizeof(*o));
		o->recount = r;
		o->item = item;
		o->answer = run_doveadm(r, item);
		loop_post(r->skel->loop, run_outcome, o);
	}
}

/* ---- the loop ---- */

static struct ledger_user *user_of(const struct recount *r, const struct recount_item *item)
{
	return ledger_peek(r->ledger, span_str(item->user));
}

static bool is_quick(const struct recount_item *item)
{
	return !item->thorough && item->tries < RECOUNT_QUICK_TRIES;
}

/* One that comes each five minutes has nothing to do while a newer doubt is looked after. */
static bool is_wanted(const struct recount_item *item, const struct ledger_user *u)
{
	return item->thorough || (u != NULL && u->urgent && (is_quick(item) || !u->counted_soon));
}

static void drop(struct recount *r, struct recount_item *item)
{
	struct ledger_user *u = user_of(r, item);
	if (u != NULL && is_quick(item))
		u->counted_soon = false;
	recount_queue_drop(&r->queue, item);
}

static void hand_over(struct recount *r, struct recount_item *item)
{
	r->busy = true;
	pthread_mutex_lock(&r->worker.lock);
	r->work = item;
	pthread_cond_signal(&r->worker.wake);
	pthread_mutex_unlock(&r->worker.lock);
}

static void go_on(struct recount *r)
{
	struct recount_item *item;
	while (!r->busy && (item = recount_queue_take(&r->queue, clock_boot_ms())) != NULL) {
		if (is_wanted(item, user_of(r, item)))
			hand_over(r, item);
		else
			drop(r, item);
	}
	recount_look(r);
	if (r->queue.count == 0)
		ev_timer_stop(loop_ev(r->skel->loop), &r->tick);
}

static void still_in_doubt(struct recount *r, struct recount_item *item)
{
	char name[QUOTA_USER_MAX + 1];
	struct ledger_user *u = user_of(r, item);
	const bool lasts = u != NULL && ledger_may_have_mail(u), quick = is_quick(item);

	memcpy(name, item->user, sizeof(name)); /* the item may be gone next */
	const enum recount_fate fate = recount_queue_again(&r->queue, item, lasts, clock_boot_ms());
	if (fate == RECOUNT_POSTPONED) {
		metrics_inc(METRIC_RECOUNTS_POSTPONED);
		LOG_EVENT(LOG_WARNING, &ev_recount_postponed, "the mailbox cannot be counted",
			  LOG_FIELD("ACCOUNT", span_str(name)));
	}
	if (u == NULL || !quick || fate == RECOUNT_SOON)
		return;
	u->counted_soon = false;
	if (!lasts) {
		u->urgent = false;
		r->settled(r->arg, u);
	}
}

static void run_outcome(void *arg)
{
	struct outcome *o = arg;
	struct recount *r = o->recount;
	const bool done = o->answer == ANSWER_DONE;
	r->busy = false;
	if (!done && !r->told)
		LOG_EVENT(LOG_WARNING, &ev_recount_failed, "Dovecot counts no mailbox for us");
	r->told = !done;
	metrics_inc(done ? METRIC_OWN_RECOUNTS : METRIC_OWN_RECOUNTS_FAILED);
	if (o->answer == ANSWER_NOBODY)
		(void)recount_queue_hold(&r->queue, o->item, clock_boot_ms());
	else if (o->item->thorough ? !done : is_wanted(o->item, user_of(r, o->item)))
		still_in_doubt(r, o->item);
	else
		drop(r, o->item);
	free(o);
	go_on(r);
}

static void on_tick(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	go_on(w->data);
}

static int enqueue(struct recount *r, struct span user, bool thorough)
{
	const int rc = recount_queue_add(&r->queue, user, thorough, clock_boot_ms());
	if (rc == 0 && !ev_is_active(&r->tick))
		ev_timer_again(loop_ev(r->skel->loop), &r->tick);
	return rc;
}

void recount_look(struct recount *r)
{
	struct ledger_user *u;
	while (recount_queue_has_room(&r->queue) && (u = ledger_next_urgent(r->ledger)) != NULL)
		if (r->usable && !u->counted_soon)
			u->counted_soon = enqueue(r, span_str(u->name), false) == 0;
}

int recount_thoroughly(struct recount *r, struct span user)
{
	if (!r->usable)
		return ERR_NOT_FOUND;
	const int rc = enqueue(r, user, true);
	go_on(r);
	return rc;
}

size_t recount_waiting(const struct recount *r)
{
	return r->queue.count;
}

/* ---- life ---- */

struct recount *recount_new(struct skel *skel, struct ledger *ledger,
			    void (*settled)(void *arg, struct ledger_user *user), void *arg)
{
	const struct quotad_config *config = skel->config;
	struct recount *r = mem_zalloc(sizeof(*r));
	r->skel = skel;
	r->ledger = ledger;
	r->addr.sun_family = AF_UNIX;
	r->usable = config->recount_socket[0] != '\0' &&
		    span_copy_cstr(span_str(config->recount_socket), r->addr.sun_path,
				   sizeof(r->addr.sun_path)) == 0;
	r->settled = settled;
	r->arg = arg;
	recount_queue_init(&r->queue);
	ev_timer_init(&r->tick, on_tick, 0, TICK_S);
	r->tick.data = r;
	worker_start(&r->worker, worker_run, r);
	return r;
}

void recount_free(struct recount **recount)
{
	struct recount *r = *recount;
	if (r == NULL)
		return;
	worker_stop(&r->worker);
	recount_queue_done(&r->queue);
	ev_timer_stop(loop_ev(r->skel->loop), &r->tick);
	free(r);
	*recount = NULL;
}
