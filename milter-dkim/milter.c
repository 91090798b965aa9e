/*
 * Invariants: consecutive callbacks of one connection come on different threads,
 * but never two at once; all state of a connection is in its private pointer, no
 * lock is held when a callback returns, and nothing is thread-local.  A message
 * counts as active from MAIL FROM until its end or abort.
 */
#include "milter.h"

#include <errno.h>
#include <fcntl.h>
#include <libmilter/mfapi.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "milter-dkim/report.h"

#define KEYCACHE_KEYS 4096
#define ACCEPT_PAUSE_MS 100
/* What a thread and a message may ask for at once. */
#define MEMORY_NEEDED (16u << 20)

struct milter {
	pthread_mutex_t lock;
	struct settings *settings;
	struct keysource *source;
	struct results *results;
	struct keycache *cache;
	atomic_uint active;
	atomic_bool paused;
	int fd;
	char host_name[256];
};

/* libmilter passes no pointer of ours to a new connection. */
static struct milter *the_milter;

struct connection {
	struct session *session;
	unsigned long no_reply; /* SMFIP_NR_* that the MTA agreed to */
	struct ip ip;
	/* of the message */
	bool active;
	struct settings *settings;
	struct keyset keys;
	struct resolver_set *questions;
};

/*
 * libmilter starts a thread that waits for SIGHUP and SIGTERM and ends the milter
 * on either.  Signals belong to the skeleton, so its wait, which finds this
 * function first, never ends.
 */
/* NOLINTNEXTLINE(readability-non-const-parameter) the type is that of POSIX */
int sigwait(const sigset_t *set, int *number_out)
{
	(void)set;
	(void)number_out;
	for (;;)
		pause();
}

/*
 * libmilter takes this one, too, for its listening socket: it tries again at once
 * while there are no descriptors, and would burn a whole CPU until there are.
 */
int accept(int fd, __SOCKADDR_ARG address, socklen_t *length)
{
	int accepted = accept4(fd, address.__sockaddr__, length, SOCK_CLOEXEC), why = errno;
	if (accepted < 0 && (why == EMFILE || why == ENFILE || why == ENOMEM || why == ENOBUFS)) {
		poll(NULL, 0, ACCEPT_PAUSE_MS);
		errno = why;
	}
	return accepted;
}

static struct connection *connection_of(SMFICTX *ctx)
{
	return smfi_getpriv(ctx);
}

/* The reply to a step that the MTA may not wait for. */
static sfsistat go_on(const struct connection *c, unsigned long flag)
{
	return c != NULL && (c->no_reply & flag) != 0 ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

/* Questions are only set up for messages that ask any. */
static const struct dns_answer *lookup(void *arg, struct span name, enum dns_type type)
{
	struct connection *c = arg;
	if (c->questions == NULL)
		c->questions = settings_questions(c->settings);
	struct dns_view view = resolver_set_view(c->questions);
	return dns_lookup(&view, name, type);
}

static struct dns_view view_of(struct connection *c)
{
	return (struct dns_view){.lookup = lookup, .arg = c};
}

/* The message is over, in whatever way. */
static void end_message(struct connection *c)
{
	session_reset(c->session);
	resolver_set_free(&c->questions);
	keyset_release(&c->keys);
	settings_unref(&c->settings);
	if (c->active)
		atomic_fetch_sub(&the_milter->active, 1);
	c->active = false;
}

/*
 * Where libmilter gets no memory, or no thread, it drops the connection, logs to
 * nobody and goes on so for good.  A new process gets what this one cannot.
 */
void milter_check_memory(void)
{
	void *probe = mmap(NULL, MEMORY_NEEDED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (probe != MAP_FAILED) {
		munmap(probe, MEMORY_NEEDED);
		return;
	}
	LOG_EVENT(LOG_ERR, &ev_libmilter_failed, "there is no memory left",
		  LOG_FIELD_STR("REASON", "a limit on memory is reached"));
	_exit(EXIT_FAILURE);
}

/* libmilter takes texts without const, and does not change them. */
static char *text(const char *s)
{
	return (char *)(uintptr_t)s;
}

/* What we read, instead of what Postfix sends unasked; it takes an empty list for none. */
static bool choose_macros(SMFICTX *ctx)
{
	return smfi_setsymlist(ctx, SMFIM_CONNECT, text("j {daemon_name}")) == MI_SUCCESS &&
	       smfi_setsymlist(ctx, SMFIM_ENVFROM, text("{auth_authen}")) == MI_SUCCESS &&
	       smfi_setsymlist(ctx, SMFIM_EOM, text("i")) == MI_SUCCESS;
}

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long f2,
			     unsigned long f3, unsigned long *actions_out, unsigned long *steps_out,
			     unsigned long *f2_out, unsigned long *f3_out)
{
	const unsigned long needed = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_QUARANTINE;
	/*
	 * Postfix keeps steps without reply in a buffer.  MAIL FROM has one, so that
	 * it comes at once: DNS is asked while the client still talks, and a stop
	 * knows of the message.
	 */
	const unsigned long no_reply = SMFIP_NR_CONN | SMFIP_NR_HELO | SMFIP_NR_HDR | SMFIP_NR_EOH |
				       SMFIP_NR_BODY;
	/* The body begins where the header ends: libmilter takes five system calls for each packet.
	 * A client that tells the end all the same gets no reply that it does not wait for. */
	const unsigned long no_step = SMFIP_NORCPT | SMFIP_NODATA | SMFIP_NOUNKNOWN | SMFIP_NOEOH;
	(void)f2;
	(void)f3;
	if ((actions & needed) != needed || (steps & SMFIP_HDR_LEADSPC) == 0) {
		LOG_EVENT(LOG_ERR, &ev_libmilter_failed, "the mail server cannot work with this milter",
			  LOG_FIELD_STR("REASON", "it does not offer version 6 of the protocol"));
		return SMFIS_REJECT;
	}
	struct connection *c = mem_zalloc(sizeof(*c));
	c->session = session_new();
	c->no_reply = steps & no_reply;
	smfi_setpriv(ctx, c);
	metrics_inc(METRIC_CONNECTIONS);
	*actions_out = needed;
	if ((actions & SMFIF_SETSYMLIST) != 0 && choose_macros(ctx))
		*actions_out |= SMFIF_SETSYMLIST;
	*steps_out = steps & (no_reply | no_step | SMFIP_HDR_LEADSPC);
	*f2_out = *f3_out = 0;
	return SMFIS_CONTINUE;
}

/*
 * Postfix passes mail of sendmail and its own bounces as from its loopback
 * address and port 0, which no client has.
 */
static bool read_address(const _SOCK_ADDR *address, struct ip *ip_out)
{
	struct ip ip = {0};
	in_port_t port = 0;
	if (address != NULL && address->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
		ip.bits = 32;
		memcpy(ip.bytes, &in->sin_addr, 4);
		port = in->sin_port;
	} else if (address != NULL && address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)(const void *)address;
		bool mapped = IN6_IS_ADDR_V4MAPPED(&in->sin6_addr);
		ip.bits = mapped ? 32 : 128;
		memcpy(ip.bytes, in->sin6_addr.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 16);
		port = in->sin6_port;
	}
	*ip_out = ip;
	static const uint8_t loopback6[16] = {[15] = 1};
	bool loopback = ip.bits == 32 ? ip.bytes[0] == 127 : memcmp(ip.bytes, loopback6, 16) == 0;
	return ip.bits == 0 || (loopback && port == 0);
}

static sfsistat on_connect(SMFICTX *ctx, char *name, _SOCK_ADDR *address)
{
	struct connection *c = connection_of(ctx);
	if (c == NULL)
		return SMFIS_TEMPFAIL;
	bool local = read_address(address, &c->ip);
	session_connect(c->session, span_str(name), &c->ip, local);
	return go_on(c, SMFIP_NR_CONN);
}

static sfsistat on_helo(SMFICTX *ctx, char *name)
{
	struct connection *c = connection_of(ctx);
	if (c != NULL)
		session_helo(c->session, span_str(name));
	return go_on(c, SMFIP_NR_HELO);
}

static struct span macro(SMFICTX *ctx, const char *name)
{
	char copy[32];
	if (span_copy_cstr(span_str(name), copy, sizeof(copy)) < 0)
		return SPAN_EMPTY;
	return span_str(smfi_getsymval(ctx, copy));
}

static struct span strip_brackets(struct span address)
{
	if (address.len >= 2 && address.ptr[0] == '<' && address.ptr[address.len - 1] == '>')
		return span_of(address.ptr + 1, address.len - 2);
	return address;
}

static void begin_message(SMFICTX *ctx, struct connection *c, char **args)
{
	struct span host = macro(ctx, "j");
	struct session_envelope envelope = {
		.mail_from = strip_brackets(span_str(args[0])),
		.login = macro(ctx, "{auth_authen}"),
		.daemon_name = macro(ctx, "{daemon_name}"),
		.host_name = host.len > 0 ? host : span_str(the_milter->host_name),
		.now = clock_wall_ms() / 1000,
	};
	c->settings = milter_settings(the_milter);
	keysource_take(the_milter->source, &c->keys);
	struct dns_view view = view_of(c);
	session_begin(c->session, settings_session(c->settings), &c->keys.keys, &envelope,
		      the_milter->cache, &view);
}

static sfsistat on_mail(SMFICTX *ctx, char **args)
{
	struct connection *c = connection_of(ctx);
	if (c == NULL)
		return SMFIS_TEMPFAIL;
	end_message(c);
	if (atomic_load(&the_milter->paused))
		return SMFIS_TEMPFAIL;
	c->active = true;
	atomic_fetch_add(&the_milter->active, 1);
	begin_message(ctx, c, args);
	return SMFIS_CONTINUE;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
	struct connection *c = connection_of(ctx);
	if (c != NULL && c->active)
		session_header(c->session, span_str(name), span_str(value));
	return go_on(c, SMFIP_NR_HDR);
}

static void end_header(struct connection *c)
{
	struct dns_view view = view_of(c);
	session_header_end(c->session, &view);
}

static sfsistat on_header_end(SMFICTX *ctx)
{
	struct connection *c = connection_of(ctx);
	if (c != NULL && c->active)
		end_header(c);
	return go_on(c, SMFIP_NR_EOH);
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *bytes, size_t len)
{
	struct connection *c = connection_of(ctx);
	if (c != NULL && c->active) {
		end_header(c);
		session_body(c->session, span_of(bytes, len));
	}
	return go_on(c, SMFIP_NR_BODY);
}

/* NULL, or what the MTA refused. */
static const char *apply(SMFICTX *ctx, const struct session_outcome *outcome)
{
	const struct edits *edits = &outcome->edits;
	if (outcome->hold != NULL && smfi_quarantine(ctx, text(outcome->hold)) != MI_SUCCESS)
		return "the message could not be put on hold";
	for (size_t i = 0; i < edits->count; i++) {
		const struct edit *e = &edits->items[i];
		int rc = e->value == NULL ? smfi_chgheader(ctx, text(e->name), (int)e->ordinal, NULL)
					  : smfi_insheader(ctx, 0, text(e->name), text(e->value));
		if (rc != MI_SUCCESS)
			return e->value == NULL ? "a field could not be removed" : "a field could not be added";
	}
	return NULL;
}

static sfsistat reply(SMFICTX *ctx, const struct session_outcome *outcome)
{
	switch (outcome->action) {
	case SESSION_ACCEPT:
		return SMFIS_CONTINUE;
	case SESSION_TEMPFAIL:
		smfi_setreply(ctx, text(outcome->code), text(outcome->status), text(outcome->reason));
		return SMFIS_TEMPFAIL;
	case SESSION_REJECT:
		break;
	}
	smfi_setreply(ctx, text(outcome->code), text(outcome->status), text(outcome->reason));
	return SMFIS_REJECT;
}

static sfsistat on_end(SMFICTX *ctx)
{
	struct connection *c = connection_of(ctx);
	const struct session_outcome *outcome;
	if (c == NULL || !c->active)
		return SMFIS_TEMPFAIL;
	int64_t from_us = clock_mono_us();
	struct dns_view view = view_of(c);
	while (session_end(c->session, &view, &outcome) == ERR_AGAIN)
		resolver_set_wait(c->questions);
	struct span queue_id = macro(ctx, "i");
	const char *refused = outcome->action == SESSION_ACCEPT ? apply(ctx, outcome) : NULL;
	sfsistat status = SMFIS_TEMPFAIL;
	if (refused != NULL) {
		LOG_EVENT(LOG_ERR, &ev_libmilter_failed, "the mail server refused a change",
			  LOG_FIELD("QUEUE_ID", queue_id), LOG_FIELD_STR("REASON", refused));
	} else {
		report_outcome(outcome, queue_id, &c->ip);
		results_add(the_milter->results, outcome, &view, queue_id, &c->ip);
		status = reply(ctx, outcome);
	}
	metrics_observe(METRIC_END_OF_MESSAGE, (double)(clock_mono_us() - from_us) / 1e6);
	end_message(c);
	return status;
}

static sfsistat on_abort(SMFICTX *ctx)
{
	struct connection *c = connection_of(ctx);
	if (c == NULL)
		return SMFIS_CONTINUE;
	if (c->active) {
		milter_check_memory();
		metrics_inc(METRIC_MESSAGES_ABORTED);
	}
	end_message(c);
	return SMFIS_CONTINUE;
}

static sfsistat on_close(SMFICTX *ctx)
{
	struct connection *c = connection_of(ctx);
	if (c == NULL)
		return SMFIS_CONTINUE;
	if (c->active)
		milter_check_memory();
	smfi_setpriv(ctx, NULL);
	metrics_dec(METRIC_CONNECTIONS);
	end_message(c);
	session_free(&c->session);
	free(c);
	return SMFIS_CONTINUE;
}

static void *run(void *arg)
{
	(void)arg;
	int rc = smfi_main();
	LOG_EVENT(LOG_ERR, &ev_libmilter_failed, "libmilter has ended",
		  LOG_FIELD_STR("REASON", rc == MI_SUCCESS ? "it was told to" : "it cannot accept"));
	_exit(EXIT_FAILURE); /* to be started again; clients wait in the backlog */
}

static int start(struct milter *m, int64_t packet_timeout_ms, struct sbuf *error)
{
	static char name[] = "milter-dkim";
	static struct smfiDesc description = {
		.xxfi_name = name,
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_QUARANTINE,
		.xxfi_connect = on_connect,
		.xxfi_helo = on_helo,
		.xxfi_envfrom = on_mail,
		.xxfi_header = on_header,
		.xxfi_eoh = on_header_end,
		.xxfi_body = on_body,
		.xxfi_eom = on_end,
		.xxfi_abort = on_abort,
		.xxfi_close = on_close,
		.xxfi_negotiate = on_negotiate,
	};
	char address[32];
	snprintf(address, sizeof(address), "fd:%d", m->fd);
	if (smfi_register(description) != MI_SUCCESS || smfi_setconn(address) != MI_SUCCESS ||
	    smfi_settimeout((int)(packet_timeout_ms / 1000)) != MI_SUCCESS ||
	    smfi_opensocket(false) != MI_SUCCESS) {
		sbuf_adds(error, "libmilter does not take the socket");
		return ERR_PERM;
	}
	pthread_t thread;
	if (pthread_create(&thread, NULL, run, NULL) != 0) {
		sbuf_adds(error, "cannot start a thread");
		return ERR_TEMP;
	}
	pthread_detach(thread);
	return 0;
}

int milter_open(int fd, int64_t packet_timeout_ms, struct settings *settings, struct keysource *source,
		struct results *results, struct milter **milter_out, struct sbuf *error)
{
	struct milter *m = mem_zalloc(sizeof(*m));
	pthread_mutex_init(&m->lock, NULL);
	m->settings = settings;
	m->source = source;
	m->results = results;
	m->cache = keycache_new(KEYCACHE_KEYS);
	m->fd = fd;
	if (gethostname(m->host_name, sizeof(m->host_name) - 1) < 0)
		m->host_name[0] = '\0';
	the_milter = m;
	int rc = start(m, packet_timeout_ms, error);
	if (rc < 0) {
		the_milter = NULL;
		settings_unref(&m->settings);
		keycache_free(&m->cache);
		pthread_mutex_destroy(&m->lock);
		free(m);
		return rc;
	}
	*milter_out = m;
	return 0;
}

void milter_use(struct milter *milter, struct settings *settings)
{
	pthread_mutex_lock(&milter->lock);
	struct settings *old = milter->settings;
	milter->settings = settings;
	pthread_mutex_unlock(&milter->lock);
	settings_unref(&old);
}

struct settings *milter_settings(struct milter *milter)
{
	pthread_mutex_lock(&milter->lock);
	struct settings *settings = settings_ref(milter->settings);
	pthread_mutex_unlock(&milter->lock);
	return settings;
}

/*
 * libmilter polls the number of the descriptor, so another socket is put under
 * it: one that nobody knows the address of.
 */
void milter_pause(struct milter *milter)
{
	struct sockaddr_un nobody = {.sun_family = AF_UNIX};
	atomic_store(&milter->paused, true);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	/* An address of the family alone lets the kernel choose one. */
	if (bind(fd, (struct sockaddr *)&nobody, sizeof(sa_family_t)) == 0 && listen(fd, 1) == 0)
		dup3(fd, milter->fd, O_CLOEXEC);
	close(fd);
}

unsigned milter_active(const struct milter *milter)
{
	return atomic_load(&milter->active);
}
