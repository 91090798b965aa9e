/*
 * Invariants: every descriptor in the epoll set is armed for one event, so one thread
 * at a time has a connection, and whoever has it arms it again or closes it.  The lock
 * guards the list of connections and the counts of threads; no handler runs under it.
 */
#include "milter-dkim/server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/loop.h"
#include "lib/run/metrics_common.h"
#include "lib/run/worker.h"

#define STACK_BYTES (1u << 20)
#define SPARE_WAIT_MS 2000   /* how long a thread that nobody needs waits for work */
#define TALK_WAIT_US 5000    /* how long a thread stays with a connection that says nothing */
#define ACCEPT_PAUSE_MS 100  /* without descriptors */
#define LAST_REPLIES_MS 1000 /* how long the end waits for those who take replies slowly */
#define BUFFER_BYTES (1u << 17)
#define GROW_BYTES (1u << 12) /* by which a buffer that is full grows at least */
#define WRITE_BYTES (1u << 16) /* replies that are gathered before they are written */

enum kind { LISTENER, LINK, STOP };

/* What an epoll event points to. */
struct source {
	enum kind kind;
	int fd;
};

/* What has come and is no whole packet yet. */
struct input {
	char *ptr; /* owned */
	size_t len, size;
	size_t missing; /* for what has begun, at least */
};

struct link {
	struct source source; /* first: an event points to it */
	struct link *next, *prev;
	void *state;
	struct input rest;	 /* of a packet at which it rested, until that is whole */
	atomic_llong late_at_ms; /* when the packet that has begun is late; 0: none has */
};

struct server {
	struct server_limits limits;
	const struct server_handler *handler;
	void *arg;
	int epoll_fd;
	struct source listeners[LISTEN_MAX], stop;
	size_t listener_count;
	pthread_attr_t thread_attr;

	pthread_mutex_t lock;
	pthread_cond_t thread_ended;
	struct link *links;
	size_t link_count;
	size_t threads, waiting; /* of the threads, those that have nothing to do */
	bool paused, stopping;
};

/* One thread's buffers. */
struct thread {
	struct server *server;
	struct input in;
	struct sbuf out;
};

static void *work(void *arg);

/* ---- threads ---- */

/* Lock held. */
static int start_thread(struct server *s)
{
	pthread_t thread;
	errno = pthread_create(&thread, &s->thread_attr, work, s);
	if (errno != 0)
		return ERR_TEMP;
	s->threads++;
	s->waiting++;
	return 0;
}

/*
 * This thread has something to do now: another one waits instead.  Where none can be
 * made, the others are enough to go on with.
 */
static void begin_work(struct server *s)
{
	pthread_mutex_lock(&s->lock);
	if (--s->waiting == 0 && s->threads < s->limits.threads && !s->stopping)
		IGNORE_RESULT(start_thread(s));
	pthread_mutex_unlock(&s->lock);
}

/* ---- connections ---- */

static bool arm(const struct server *s, struct source *source, int operation)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.ptr = source};
	return epoll_ctl(s->epoll_fd, operation, source->fd, &event) == 0;
}

static void close_link(struct server *s, struct link *l)
{
	pthread_mutex_lock(&s->lock);
	if (l->next != NULL)
		l->next->prev = l->prev;
	if (l->prev != NULL)
		l->prev->next = l->next;
	else
		s->links = l->next;
	s->link_count--;
	pthread_mutex_unlock(&s->lock);
	metrics_dec(METRIC_CONNECTIONS);
	s->handler->close(l->state);
	close(l->source.fd);
	free(l->rest.ptr);
	free(l);
}

/* NULL where there are too many, or the server stops. */
static struct link *open_link(struct server *s, int fd)
{
	struct link *l = mem_zalloc(sizeof(*l));
	l->source = (struct source){LINK, fd};
	pthread_mutex_lock(&s->lock);
	bool taken = s->link_count < s->limits.connections && !s->stopping;
	if (taken) {
		l->next = s->links;
		if (l->next != NULL)
			l->next->prev = l;
		s->links = l;
		s->link_count++;
	}
	pthread_mutex_unlock(&s->lock);
	if (!taken) {
		free(l);
		return NULL;
	}
	metrics_inc(METRIC_CONNECTIONS);
	l->state = s->handler->open(s->arg);
	return l;
}

static void set_options(const struct server *s, int fd)
{
	const int on = 1;
	const struct timeval talk = {.tv_usec = TALK_WAIT_US};
	const struct timeval reply = {.tv_sec = s->limits.packet_timeout_ms / 1000,
				      .tv_usec = s->limits.packet_timeout_ms % 1000 * 1000};
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &talk, sizeof(talk)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &reply, sizeof(reply)) < 0)
		PANIC("setsockopt");
	/* For TCP only: a mail server that is gone is found out, a reply is not held back. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* A new connection, or NULL. */
static struct link *accept_link(struct server *s, struct source *listener)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC), why = errno;
	if (fd < 0 && (why == EMFILE || why == ENFILE || why == ENOMEM || why == ENOBUFS)) {
		metrics_inc(METRIC_ACCEPT_PAUSES);
		poll(NULL, 0, ACCEPT_PAUSE_MS);
	}
	/* It may have been taken away meanwhile: see server_pause(). */
	IGNORE_RESULT(arm(s, listener, EPOLL_CTL_MOD));
	if (fd < 0)
		return NULL;
	set_options(s, fd);
	struct link *l = open_link(s, fd);
	if (l == NULL) {
		metrics_inc(METRIC_CONNECTIONS_REFUSED);
		close(fd);
	}
	return l;
}

/* ---- what a thread does with a connection ---- */

static bool write_replies(struct thread *t, const struct link *l)
{
	struct span rest = sbuf_span(&t->out);
	bool ok = sbuf_ok(&t->out);
	while (ok && rest.len > 0) {
		ssize_t n = send(l->source.fd, rest.ptr, rest.len, MSG_NOSIGNAL);
		ok = n > 0 || (n < 0 && errno == EINTR);
		if (n > 0)
			rest = span_skip(rest, (size_t)n);
	}
	if (t->out.size > WRITE_BYTES) {
		sbuf_done(&t->out);
		sbuf_init_heap(&t->out, SERVER_REPLIES_MAX);
	}
	sbuf_reset(&t->out);
	if (ok)
		t->server->handler->replied(l->state);
	return ok;
}

/*
 * Room behind what is there, which doubles: were a packet that comes in small pieces
 * copied for each of them, a few slow peers would keep a processor busy.
 */
static void make_room(struct input *in)
{
	if (in->len < in->size)
		return;
	size_t more = in->len < GROW_BYTES ? GROW_BYTES : in->len;
	in->size += more < in->missing ? more : in->missing;
	in->ptr = mem_realloc(in->ptr, in->size);
}

static const char *error_text(int rc)
{
	return rc == ERR_LIMIT ? "a packet is too long" : "a packet is empty";
}

/* Moves LEFT, which is the end of what is in IN, to the front. */
static void keep_left(struct input *in, struct span left)
{
	if (left.len > 0 && left.ptr != in->ptr)
		memmove(in->ptr, left.ptr, left.len);
	in->len = left.len;
}

/* Hands over the packets that are whole; the rest moves to the front.  False: the
 * connection ends. */
static bool handle_packets(struct thread *t, const struct link *l, struct input *in)
{
	const struct server_handler *handler = t->server->handler;
	struct span left = span_of(in->ptr, in->len);
	struct wire_packet packet;
	bool go_on = true;
	int rc = 0;
	while (go_on && (rc = wire_next(&left, &packet, &in->missing)) == 0) {
		go_on = handler->packet(l->state, &packet, &t->out);
		if (t->out.len >= WRITE_BYTES && !write_replies(t, l))
			return false;
	}
	if (go_on && rc != ERR_AGAIN) {
		handler->malformed(l->state, error_text(rc));
		go_on = false;
	}
	if (!write_replies(t, l) || !go_on)
		return false;
	keep_left(in, left);
	return true;
}

/* A packet that is not whole moves to a buffer of the connection's own, once. */
static void keep_rest(struct thread *t, struct link *l)
{
	if (l->rest.len > 0)
		return;
	free(l->rest.ptr);
	l->rest = t->in;
	l->rest.size = t->in.len;
	l->rest.ptr = NULL;
	if (t->in.len > 0) {
		l->rest.ptr = mem_alloc(t->in.len);
		memcpy(l->rest.ptr, t->in.ptr, t->in.len);
	}
}

/*
 * It says nothing just now: whoever is free waits for it.  The next thread may have it
 * at once, and takes the lock before it looks into it: under the lock, then, this one is done
 * with it first.  The kernel would see to that, but neither C nor ThreadSanitizer knows.
 */
static bool let_rest(struct thread *t, struct link *l, bool known)
{
	struct server *s = t->server;
	keep_rest(t, l);
	if (l->rest.len > 0)
		atomic_store(&l->late_at_ms, clock_boot_ms() + s->limits.packet_timeout_ms);
	pthread_mutex_lock(&s->lock);
	bool ok = arm(s, &l->source, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
	pthread_mutex_unlock(&s->lock);
	return ok;
}

/* False where it has ended. */
static bool talk(struct thread *t, struct link *l)
{
	for (;;) {
		struct input *in = l->rest.len > 0 ? &l->rest : &t->in;
		make_room(in);
		ssize_t n = recv(l->source.fd, in->ptr + in->len, in->size - in->len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n <= 0)
			return false;
		in->len += (size_t)n;
		if (!handle_packets(t, l, in))
			return false;
	}
}

/* KNOWN: it is in the epoll set. */
static void serve(struct thread *t, struct link *l, bool known)
{
	atomic_store(&l->late_at_ms, 0);
	/* Once it rests another thread may have it, or have closed it. */
	if (!talk(t, l) || !let_rest(t, l, known))
		close_link(t->server, l);
	t->in.len = 0;
	if (t->in.size > BUFFER_BYTES) {
		t->in.ptr = mem_realloc(t->in.ptr, BUFFER_BYTES);
		t->in.size = BUFFER_BYTES;
	}
}

/* ---- a thread's life ---- */

static void handle(struct thread *t, struct source *source)
{
	struct link *l;
	begin_work(t->server);
	if (source->kind == LINK) {
		serve(t, (struct link *)(void *)source, true);
	} else {
		l = accept_link(t->server, source);
		if (l != NULL)
			serve(t, l, false);
	}
}

/* The thread has done what it had to: false where it is not needed any more. */
static bool end_work(struct server *s, bool was_idle)
{
	pthread_mutex_lock(&s->lock);
	s->waiting += !was_idle;
	bool ends = s->stopping || (was_idle && s->waiting > SERVER_SPARE_THREADS);
	if (ends) {
		s->waiting--;
		s->threads--;
		pthread_cond_signal(&s->thread_ended);
	}
	pthread_mutex_unlock(&s->lock);
	return !ends;
}

static void *work(void *arg)
{
	struct server *s = arg;
	struct thread t = {.server = s, .in = {.ptr = mem_alloc(BUFFER_BYTES), .size = BUFFER_BYTES}};
	bool idle;
	sbuf_init_heap(&t.out, SERVER_REPLIES_MAX);
	do {
		struct epoll_event event;
		int n = epoll_wait(s->epoll_fd, &event, 1, SPARE_WAIT_MS);
		if (n < 0 && errno != EINTR)
			PANIC("epoll_wait");
		struct source *source = n == 1 ? event.data.ptr : NULL;
		idle = source == NULL || source->kind == STOP;
		if (!idle)
			handle(&t, source);
	} while (end_work(s, idle));
	sbuf_done(&t.out);
	free(t.in.ptr);
	return NULL;
}

/* ---- the server ---- */

static int begin(struct server *s)
{
	for (size_t i = 0; i < s->listener_count; i++)
		if (!arm(s, &s->listeners[i], EPOLL_CTL_ADD))
			return ERR_TEMP;
	pthread_mutex_lock(&s->lock);
	int rc = start_thread(s);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

int server_new(const struct listen_set *set, const struct server_limits *limits,
	       const struct server_handler *handler, void *arg, struct server **server_out, struct sbuf *error)
{
	struct server *s = mem_zalloc(sizeof(*s));
	s->limits = *limits;
	s->handler = handler;
	s->arg = arg;
	s->listener_count = set->count;
	for (size_t i = 0; i < set->count; i++)
		s->listeners[i] = (struct source){LISTENER, set->fds[i]};
	pthread_mutex_init(&s->lock, NULL);
	worker_cond_init(&s->thread_ended);
	pthread_attr_init(&s->thread_attr);
	pthread_attr_setstacksize(&s->thread_attr, STACK_BYTES);
	pthread_attr_setdetachstate(&s->thread_attr, PTHREAD_CREATE_DETACHED);
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->stop = (struct source){STOP, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	if (s->epoll_fd < 0 || s->stop.fd < 0 || begin(s) < 0) {
		sbuf_addf(error, "cannot start to serve: %s", strerror(errno));
		server_free(&s);
		return ERR_TEMP;
	}
	*server_out = s;
	return 0;
}

void server_pause(struct server *s)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->listener_count && !s->paused; i++)
		epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, s->listeners[i].fd, NULL);
	s->paused = true;
	pthread_mutex_unlock(&s->lock);
}

void server_sweep(struct server *s)
{
	int64_t now = clock_boot_ms();
	pthread_mutex_lock(&s->lock);
	for (struct link *l = s->links; l != NULL; l = l->next) {
		int64_t late_at = atomic_load(&l->late_at_ms);
		if (late_at != 0 && now >= late_at)
			shutdown(l->source.fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&s->lock);
}

/* Lock held. */
static void shut_links(struct server *s, int how)
{
	for (struct link *l = s->links; l != NULL; l = l->next)
		shutdown(l->source.fd, how);
}

/*
 * All threads see the descriptor, which is armed for more than one event.  Nobody is
 * listened to any more; who does not take a reply soon does not get it.
 */
static void end_threads(struct server *s)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &s->stop};
	const uint64_t one = 1;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	shut_links(s, SHUT_RD);
	if (s->threads > 0 && (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->stop.fd, &event) < 0 ||
			       write(s->stop.fd, &one, sizeof(one)) < 0))
		PANIC("cannot tell the threads to end");
	int64_t until_ms = clock_boot_ms() + LAST_REPLIES_MS;
	while (s->threads > 0) {
		int64_t left_ms = until_ms - clock_boot_ms();
		if (left_ms <= 0)
			shut_links(s, SHUT_RDWR);
		worker_cond_wait(&s->thread_ended, &s->lock, left_ms > 0 ? left_ms : LAST_REPLIES_MS);
	}
	pthread_mutex_unlock(&s->lock);
}

void server_free(struct server **server)
{
	struct server *s = *server;
	if (s == NULL)
		return;
	server_pause(s);
	end_threads(s);
	while (s->links != NULL)
		close_link(s, s->links);
	if (s->epoll_fd >= 0)
		close(s->epoll_fd);
	if (s->stop.fd >= 0)
		close(s->stop.fd);
	pthread_attr_destroy(&s->thread_attr);
	pthread_cond_destroy(&s->thread_ended);
	pthread_mutex_destroy(&s->lock);
	free(s);
	*server = NULL;
}
