/*
 * The loop's thread keeps the queue; the worker takes one user at a time, because
 * a count reads all mailboxes of a user and mail comes first.  A user is asked for
 * once the settling time has passed: by then the next delivery or login has mostly
 * done it.  What is still in doubt after an attempt comes again, a little later.
 */
#include "dovecot-plugin-quota/quotad/recount.h"

#include <errno.h>
#include <ev.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/run/worker.h"

#define SETTLE_MS 500
#define AGAIN_MS 2000
#define TRIES_MAX 30
#define TICK_S 0.25
#define ANSWER_TIMEOUT_MS 60000
#define STOP_LOOK_MS 100 /* how often a wait for Dovecot looks whether we shall end */

struct item {
	struct item *next;
	int64_t due_ms;
	unsigned tries;
	bool thorough;
	char user[QUOTA_USER_MAX + 1];
};

struct recount {
	struct skel *skel;
	struct ledger *ledger;
	struct sockaddr_un addr;
	bool usable;
	struct ev_timer tick;
	struct item *first, **last; /* of the loop */
	size_t count;
	bool busy; /* the worker has an item */
	bool told; /* that nobody answers */
	struct worker worker;
	struct item *work; /* under its lock */
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

/* Dovecot's protocol for scripts: a version, no reply wanted, one argument a line.
 * A name of the protocol holds no control character, so none can add a line. */
static bool run_doveadm(struct recount *r, const struct item *item)
{
	char mem[QUOTA_USER_MAX + 128];
	struct sbuf request;
	const int fd = connect_to(&r->addr);
	if (fd < 0)
		return false;
	sbuf_init(&request, mem, sizeof(mem));
	sbuf_addf(&request, "VERSION\tscript\t4\t0\nnoreply\n%s\n-u\n%s\n\n",
		  item->thorough ? "recalc" : "get", item->user);
	const bool done = sbuf_ok(&request) &&
			  send(fd, request.ptr, request.len, MSG_NOSIGNAL) == (ssize_t)request.len &&
			  drain(r, fd);
	close(fd);
	return done;
}

struct outcome {
	struct recount *recount;
	struct item *item;
	bool done;
};

static void run_outcome(void *arg);

static void *worker_run(void *arg)
{
	struct recount *r = arg;
	for (;;) {
		pthread_mutex_lock(&r->worker.lock);
		while (r->work == NULL && !r->worker.stopping)
			worker_wait(&r->worker, -1);
		struct item *item = r->work;
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
		o->done = run_doveadm(r, item);
		loop_post(r->skel->loop, run_outcome, o);
	}
}

/* ---- the loop ---- */

static int enqueue(struct recount *r, struct item *item, int64_t delay_ms)
{
	if (r->count >= RECOUNT_QUEUE_MAX) {
		free(item);
		return ERR_LIMIT;
	}
	item->due_ms = clock_boot_ms() + delay_ms;
	item->next = NULL;
	*r->last = item;
	r->last = &item->next;
	r->count++;
	if (!ev_is_active(&r->tick))
		ev_timer_again(loop_ev(r->skel->loop), &r->tick);
	return 0;
}

static struct item *item_new(struct span user, bool thorough)
{
	struct item *item = mem_zalloc(sizeof(*item));
	item->thorough = thorough;
	if (span_copy_cstr(user, item->user, sizeof(item->user)) < 0) {
		free(item);
		return NULL;
	}
	return item;
}

static struct item *dequeue(struct recount *r)
{
	struct item *item = r->first;
	r->first = item->next;
	if (r->first == NULL)
		r->last = &r->first;
	r->count--;
	return item;
}

static bool is_urgent(const struct recount *r, const struct item *item)
{
	const struct ledger_user *u = ledger_peek(r->ledger, span_str(item->user));
	return item->thorough || (u != NULL && u->urgent);
}

static void hand_over(struct recount *r, struct item *item)
{
	r->busy = true;
	pthread_mutex_lock(&r->worker.lock);
	r->work = item;
	pthread_cond_signal(&r->worker.wake);
	pthread_mutex_unlock(&r->worker.lock);
}

static void go_on(struct recount *r)
{
	while (!r->busy && r->first != NULL && r->first->due_ms <= clock_boot_ms()) {
		struct item *item = dequeue(r);
		if (is_urgent(r, item))
			hand_over(r, item);
		else
			free(item);
	}
	if (r->first == NULL)
		ev_timer_stop(loop_ev(r->skel->loop), &r->tick);
}

static void run_outcome(void *arg)
{
	struct outcome *o = arg;
	struct recount *r = o->recount;
	r->busy = false;
	if (!o->done && !r->told)
		LOG_EVENT(LOG_WARNING, &ev_recount_failed, "Dovecot counts no mailbox for us");
	r->told = !o->done;
	metrics_inc(o->done ? METRIC_OWN_RECOUNTS : METRIC_OWN_RECOUNTS_FAILED);
	const bool again = o->item->thorough ? !o->done : is_urgent(r, o->item);
	if (again && ++o->item->tries < TRIES_MAX)
		(void)enqueue(r, o->item, AGAIN_MS);
	else
		free(o->item);
	free(o);
	go_on(r);
}

static void on_tick(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	go_on(w->data);
}

void recount_look(struct recount *r)
{
	struct ledger_user *u;
	while ((u = ledger_next_urgent(r->ledger)) != NULL) {
		struct item *item = r->usable ? item_new(span_str(u->name), false) : NULL;
		if (item != NULL)
			(void)enqueue(r, item, SETTLE_MS);
	}
}

int recount_thoroughly(struct recount *r, struct span user)
{
	if (!r->usable)
		return ERR_NOT_FOUND;
	struct item *item = item_new(user, true);
	const int rc = item != NULL ? enqueue(r, item, 0) : ERR_LIMIT;
	go_on(r);
	return rc;
}

/* ---- life ---- */

struct recount *recount_new(struct skel *skel, struct ledger *ledger)
{
	const struct quotad_config *config = skel->config;
	struct recount *r = mem_zalloc(sizeof(*r));
	r->skel = skel;
	r->ledger = ledger;
	r->addr.sun_family = AF_UNIX;
	r->usable = config->recount_socket[0] != '\0' &&
		    span_copy_cstr(span_str(config->recount_socket), r->addr.sun_path,
				   sizeof(r->addr.sun_path)) == 0;
	r->last = &r->first;
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
	while (r->first != NULL)
		free(dequeue(r));
	ev_timer_stop(loop_ev(r->skel->loop), &r->tick);
	free(r);
	*recount = NULL;
}
