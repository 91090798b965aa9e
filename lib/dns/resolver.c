/*
 * The thread, and the only use of c-ares.  The thread alone touches the
 * channel; it never calls into it with the lock held, because callbacks take
 * the lock.  c-ares bounds the time of each question; the set bounds the time
 * of its message, whatever becomes of the question.
 */
#include "lib/dns/resolver_internal.h"

/* What Debian 13's c-ares would have instead, Debian 12's has not. */
#define CARES_NO_DEPRECATED
#include <ares.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "lib/base/num.h"
#include "lib/dns/dnsmsg.h"
#include "lib/mail/dnsname.h"
#include "lib/run/loop.h"

#define DEFAULT_TIMEOUT_MS 5000
#define DEFAULT_CACHE_ENTRIES 20000
#define DEFAULT_CACHE_BYTES (8u << 20)
#define DEFAULT_TTL_MAX_S 86400
#define DEFAULT_TTL_NEGATIVE_MAX_S 300
#define FAILED_TTL_S 1 /* so that a burst of mail asks a dead server once */
#define REPLY_ARENA_BYTES (1u << 20)
#define DNS_PORT 53

static void tell_waiters(struct dnscache_entry *entry)
{
	struct slot *slot = entry->waiters;
	entry->waiters = NULL;
	while (slot != NULL) {
		struct slot *next = slot->next_waiter;
		slot->next_waiter = NULL;
		if (--slot->set->pending == 0)
			pthread_cond_signal(&slot->set->answered);
		slot = next;
	}
}

static void finish(struct query *q, struct dns_answer *answer)
{
	struct resolver *r = q->resolver;
	const struct resolver_config *config = &r->config;
	size_t bytes;
	uint32_t cap = answer->status == DNS_OK	      ? config->ttl_max_s
		       : answer->status == DNS_FAILED ? FAILED_TTL_S
						      : config->ttl_negative_max_s;
	if (answer->status == DNS_FAILED || answer->ttl_s > cap)
		answer->ttl_s = cap;
	if (q->ttl_s < answer->ttl_s)
		answer->ttl_s = q->ttl_s;
	answer->authenticated = answer->authenticated && q->authenticated && r->trust_ad;
	answer->aliases += q->hops;
	struct dns_answer *copy = dnsmsg_answer_dup(answer, &bytes);
	int64_t now = clock_mono_us();
	if (config->observe != NULL)
		config->observe(config->observe_arg, answer->status, now - q->sent_us);
	pthread_mutex_lock(&r->lock);
	r->stats.inflight--;
	dnscache_set(&r->cache, q->entry, copy, bytes, now + (int64_t)answer->ttl_s * 1000000);
	tell_waiters(q->entry);
	dnscache_release(q->entry);
	pthread_mutex_unlock(&r->lock);
	free(q);
}

static void finish_failed(struct query *q)
{
	struct dns_answer answer = {.status = DNS_FAILED};
	finish(q, &answer);
}

static void send_query(struct query *q);

/* The name turned out to be an alias that the reply does not resolve. */
static void follow_alias(struct query *q, const struct dnsmsg_reply *reply)
{
	if (++q->aliases > RESOLVER_CNAME_MAX || reply->alias.len > sizeof(q->name)) {
		finish_failed(q);
		return;
	}
	q->hops += reply->answer.aliases;
	q->authenticated = q->authenticated && reply->answer.authenticated;
	if (reply->answer.ttl_s < q->ttl_s)
		q->ttl_s = reply->answer.ttl_s;
	memcpy(q->name, reply->alias.ptr, reply->alias.len);
	q->name_len = reply->alias.len;
	send_query(q);
}

/* BYTES: what a server said; empty where it said nothing of use. */
static void on_end(struct query *q, enum direct_end how, struct span bytes)
{
	struct resolver *r = q->resolver;
	struct dnsmsg_reply reply;
	pthread_mutex_lock(&r->lock);
	r->stats.answered += how == DIRECT_REPLY;
	r->stats.unreachable += how == DIRECT_UNREACHABLE;
	pthread_mutex_unlock(&r->lock);
	arena_reset(&r->arena);
	if (bytes.len == 0 ||
	    dnsmsg_parse(bytes, span_of(q->name, q->name_len), q->entry->type, &r->arena, &reply) < 0)
		finish_failed(q);
	else if (reply.alias.len > 0)
		follow_alias(q, &reply);
	else
		finish(q, &reply.answer);
}

/* c-ares 1.34 hands on only what it could have written itself. */
static bool is_unreadable(int status)
{
	return status == ARES_EBADRESP || status == ARES_EBADNAME || status == ARES_EBADSTR;
}

static void on_reply(void *arg, int status, int timeouts, unsigned char *bytes, int len)
{
	struct query *q = arg;
	(void)timeouts;
	if (is_unreadable(status)) {
		q->direct = true;
		send_query(q);
		return;
	}
	bool usable = status == ARES_SUCCESS && bytes != NULL && len > 0;
	bool unreachable = status == ARES_ECONNREFUSED || status == ARES_ENOTINITIALIZED || status == ARES_ENOMEM;
	on_end(q, unreachable ? DIRECT_UNREACHABLE : status == ARES_ETIMEOUT ? DIRECT_SILENT : DIRECT_REPLY,
	       usable ? span_of(bytes, (size_t)len) : SPAN_EMPTY);
}

/* A server that only says by UDP that TCP is needed has not answered, but is there. */
static void note_sign_of_life(struct resolver *r)
{
	if (r->heard)
		return;
	r->heard = true;
	pthread_mutex_lock(&r->lock);
	r->stats.heard = true;
	pthread_mutex_unlock(&r->lock);
}

static void on_direct(void *arg, enum direct_end how, struct span reply)
{
	struct query *q = arg;
	if (how == DIRECT_REPLY)
		note_sign_of_life(q->resolver);
	on_end(q, how, reply);
}

static void send_query(struct query *q)
{
	struct resolver *r = q->resolver;
	char mem[DNSMSG_QUERY_MAX];
	struct sbuf message;
	uint16_t id;
	sbuf_init(&message, mem, sizeof(mem));
	if (getrandom(&id, sizeof(id), 0) != sizeof(id) ||
	    dnsmsg_query(span_of(q->name, q->name_len), q->entry->type, id, &message) < 0) {
		finish_failed(q);
		return;
	}
	pthread_mutex_lock(&r->lock);
	r->stats.sent++;
	pthread_mutex_unlock(&r->lock);
	if (!q->direct && !direct_wants(span_of(q->name, q->name_len)))
		ares_send(r->channel, (const unsigned char *)mem, (int)message.len, on_reply, q);
	else if (direct_send(r->direct, sbuf_span(&message), on_direct, q) < 0)
		finish_failed(q);
}

static void on_socket(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolver *r = arg;
	nfds_t i = 1;
	while (i < r->socket_count && r->sockets[i].fd != fd)
		i++;
	if (!readable && !writable) {
		if (i < r->socket_count)
			r->sockets[i] = r->sockets[--r->socket_count];
		return;
	}
	if (i == SOCKETS_MAX)
		return; /* c-ares has one UDP and one TCP socket a server */
	if (i == r->socket_count)
		r->socket_count++;
	r->sockets[i] = (struct pollfd){.fd = fd, .events = (short)((readable ? POLLIN : 0) | (writable ? POLLOUT : 0))};
}

static bool send_queued(struct resolver *r)
{
	pthread_mutex_lock(&r->lock);
	bool stopping = r->stopping;
	struct query *q = r->queue;
	r->queue = NULL;
	r->queue_end = &r->queue;
	pthread_mutex_unlock(&r->lock);
	while (q != NULL) {
		struct query *next = q->next;
		q->sent_us = clock_mono_us();
		send_query(q);
		q = next;
	}
	return !stopping;
}

/* Milliseconds until a timeout of c-ares or of a question that goes past it. */
static int wait_of(struct resolver *r)
{
	struct timeval limit = {.tv_sec = 60}, next;
	struct timeval *tv = ares_timeout(r->channel, &limit, &next);
	int wait_ms = (int)(tv->tv_sec * 1000 + (tv->tv_usec + 999) / 1000);
	int64_t direct_ms = direct_wait_ms(r->direct);
	return direct_ms >= 0 && direct_ms < wait_ms ? (int)direct_ms : wait_ms;
}

static void serve_channel(struct resolver *r, const struct pollfd *ready, nfds_t count)
{
	bool any = false;
	for (nfds_t i = 1; i < count; i++) {
		short got = ready[i].revents;
		if ((got & (POLLIN | POLLERR)) == POLLIN)
			note_sign_of_life(r);
		any = any || got != 0;
		if (got != 0)
			ares_process_fd(r->channel, (got & ~POLLOUT) != 0 ? ready[i].fd : ARES_SOCKET_BAD,
					(got & POLLOUT) != 0 ? ready[i].fd : ARES_SOCKET_BAD);
	}
	if (!any)
		ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD); /* its timeouts */
}

static void serve_sockets(struct resolver *r)
{
	struct pollfd ready[SOCKETS_MAX + DIRECT_MAX];
	nfds_t count = r->socket_count;
	memcpy(ready, r->sockets, sizeof(ready[0]) * count);
	nfds_t direct = direct_polls(r->direct, ready + count);
	if (poll(ready, count + direct, wait_of(r)) < 0)
		for (nfds_t i = 0; i < count + direct; i++)
			ready[i].revents = 0;
	if (ready[0].revents != 0) {
		uint64_t wakes;
		if (read(r->wake_fd, &wakes, sizeof(wakes)) < 0 && errno != EAGAIN)
			PANIC("cannot read the eventfd");
	}
	serve_channel(r, ready, count);
	direct_serve(r->direct, ready + count, direct);
}

static void *run_thread(void *arg)
{
	struct resolver *r = arg;
	while (send_queued(r))
		serve_sockets(r);
	/* Ends what is on its way with ARES_EDESTRUCTION. */
	ares_destroy(r->channel);
	direct_free(&r->direct);
	return NULL;
}

/* HOST, HOST:PORT, [V6]:PORT or a bare IPv6 address. */
static int parse_server(struct span text, struct ares_addr_port_node *node, struct sbuf *error)
{
	uint64_t port = DNS_PORT;
	struct span host = text;
	size_t colon = span_rchr(text, ':');
	bool bracket = text.len > 0 && text.ptr[0] == '[';
	if (colon != SPAN_NPOS && (bracket ? text.ptr[colon - 1] == ']' : span_chr(text, ':') == colon)) {
		host = span_take(text, colon);
		if (num_parse_u64(span_skip(text, colon + 1), 65535, &port) < 0 || port == 0)
			goto bad;
	}
	if (bracket && host.len > 2 && host.ptr[host.len - 1] == ']')
		host = span_skip(span_take(host, host.len - 1), 1);
	char name[DNSNAME_MAX + 1];
	struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *found;
	if (span_copy_cstr(host, name, sizeof(name)) < 0 || host.len == 0 || getaddrinfo(name, NULL, &hints, &found) != 0)
		goto bad;
	*node = (struct ares_addr_port_node){.family = found->ai_family, .udp_port = (int)port, .tcp_port = (int)port};
	if (found->ai_family == AF_INET)
		node->addr.addr4 = ((struct sockaddr_in *)(void *)found->ai_addr)->sin_addr;
	else
		memcpy(&node->addr.addr6, &((struct sockaddr_in6 *)(void *)found->ai_addr)->sin6_addr,
		       sizeof(node->addr.addr6));
	freeaddrinfo(found);
	return 0;
bad:
	sbuf_addf(error, "\"%.*s\" is no address of a DNS server", SPAN_ARG(text));
	return ERR_SYNTAX;
}

static int set_servers(struct resolver *r, struct span list, struct sbuf *error)
{
	struct ares_addr_port_node nodes[RESOLVER_SERVERS_MAX];
	size_t count = 0;
	bool more = true;
	while (more) {
		struct span item;
		more = span_cut(&list, ',', &item);
		item = span_trim(item);
		if (item.len == 0)
			continue;
		if (count == RESOLVER_SERVERS_MAX) {
			sbuf_addf(error, "more than %d DNS servers", RESOLVER_SERVERS_MAX);
			return ERR_SYNTAX;
		}
		if (parse_server(item, &nodes[count], error) < 0)
			return ERR_SYNTAX;
		if (count > 0)
			nodes[count - 1].next = &nodes[count];
		count++;
	}
	if (count > 0 && ares_set_servers_ports(r->channel, nodes) != ARES_SUCCESS) {
		sbuf_adds(error, "cannot set the DNS servers");
		return ERR_TEMP;
	}
	return 0;
}

static bool listed(struct span list, const struct ip *ip)
{
	bool more = true;
	while (more) {
		struct span item;
		struct ip_net net;
		more = span_cut(&list, ',', &item);
		if (ip_net_parse(span_trim(item), &net) == 0 && ip_net_has(&net, ip))
			return true;
	}
	return false;
}

/* AD counts only where every server may be believed: c-ares does not tell
 * which of them has answered. */
static bool servers_trusted(struct resolver *r, int *count_out)
{
	static const char loopback[] = "127.0.0.0/8, ::1";
	struct ares_addr_port_node *servers = NULL;
	bool trusted = ares_get_servers_ports(r->channel, &servers) == ARES_SUCCESS;
	*count_out = 0;
	for (struct ares_addr_port_node *s = servers; s != NULL; s = s->next) {
		struct ip ip = {.bits = s->family == AF_INET ? 32 : 128};
		memcpy(ip.bytes, &s->addr, ip.bits / 8);
		trusted = trusted && (listed(span_str(loopback), &ip) || listed(span_str(r->config.trusted), &ip));
		++*count_out;
	}
	ares_free_data(servers);
	return trusted && *count_out > 0;
}

/* Gives `direct` the servers of the channel. */
static void open_direct(struct resolver *r, int64_t patience_ms)
{
	struct ares_addr_port_node *servers = NULL;
	r->direct = direct_new(patience_ms);
	if (ares_get_servers_ports(r->channel, &servers) != ARES_SUCCESS)
		return;
	for (struct ares_addr_port_node *s = servers; s != NULL; s = s->next) {
		uint16_t port = htons((uint16_t)(s->udp_port != 0 ? s->udp_port : DNS_PORT));
		struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = port, .sin_addr = s->addr.addr4};
		struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port};
		memcpy(&v6.sin6_addr, &s->addr.addr6, sizeof(v6.sin6_addr));
		/* Past the first eight, c-ares has more to turn to. */
		if (s->family == AF_INET)
			IGNORE_RESULT(direct_server_add(r->direct, (const struct sockaddr *)&v4, sizeof(v4)));
		else
			IGNORE_RESULT(direct_server_add(r->direct, (const struct sockaddr *)&v6, sizeof(v6)));
	}
	ares_free_data(servers);
}

/* From 1.31 on c-ares keeps answers by itself, for as long as they say; ours have caps, and
 * some who ask want what is there now. */
#ifdef ARES_OPT_QUERY_CACHE
#define NO_CACHE_OF_ITS_OWN ARES_OPT_QUERY_CACHE /* with a time of 0, which is none */
#else
#define NO_CACHE_OF_ITS_OWN 0
#endif

/*
 * Two rounds over all servers, the second one twice as patient, together
 * timeout_ms: with N servers each try of the first round takes a third of an
 * N-th.
 */
static int open_channel(struct resolver *r, struct sbuf *error)
{
	int count = 1;
	for (int round = 0; round < 2; round++) {
		/* SERVFAIL goes to the next server; without one, it is the answer. */
		int only_one = count == 1 ? ARES_FLAG_NOCHECKRESP : 0;
		struct ares_options options = {
			.flags = ARES_FLAG_EDNS | ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | only_one,
			.ednspsz = DNSMSG_UDP_SIZE,
			.timeout = (int)(r->config.timeout_ms / (3 * count)) + 1,
			.tries = 2,
			.sock_state_cb = on_socket,
			.sock_state_cb_data = r,
		};
		int mask = ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
			   ARES_OPT_SOCK_STATE_CB | NO_CACHE_OF_ITS_OWN;
		if (ares_init_options(&r->channel, &options, mask) != ARES_SUCCESS) {
			sbuf_adds(error, "cannot set up DNS");
			return ERR_TEMP;
		}
		int rc = set_servers(r, span_str(r->config.servers), error);
		if (rc < 0) {
			ares_destroy(r->channel);
			return rc;
		}
		int before = count;
		r->trust_ad = servers_trusted(r, &count);
		count = count < 1 ? 1 : count;
		if (count == before)
			break;
		if (round == 0)
			ares_destroy(r->channel);
	}
	open_direct(r, r->config.timeout_ms / (3 * count) + 1);
	return 0;
}

static void apply_defaults(struct resolver_config *config)
{
	if (config->timeout_ms <= 0)
		config->timeout_ms = DEFAULT_TIMEOUT_MS;
	if (config->cache_entries == 0)
		config->cache_entries = DEFAULT_CACHE_ENTRIES;
	if (config->cache_bytes == 0)
		config->cache_bytes = DEFAULT_CACHE_BYTES;
	if (config->ttl_max_s == 0)
		config->ttl_max_s = DEFAULT_TTL_MAX_S;
	if (config->ttl_negative_max_s == 0)
		config->ttl_negative_max_s = DEFAULT_TTL_NEGATIVE_MAX_S;
}

int resolver_open(const struct resolver_config *config, struct resolver **resolver_out, struct sbuf *error)
{
	struct resolver *r = mem_zalloc(sizeof(*r));
	r->config = *config;
	apply_defaults(&r->config);
	r->queue_end = &r->queue;
	arena_init(&r->arena, REPLY_ARENA_BYTES);
	int rc = ERR_TEMP;
	r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->sockets[0] = (struct pollfd){.fd = r->wake_fd, .events = POLLIN};
	r->socket_count = 1;
	if (r->wake_fd < 0 || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
		sbuf_adds(error, "cannot set up DNS");
	else
		rc = open_channel(r, error);
	if (rc < 0) {
		if (r->wake_fd >= 0)
			close(r->wake_fd);
		free(r);
		return rc;
	}
	/* Only the pointers' contents as of now were needed. */
	r->config.servers = r->config.trusted = NULL;
	dnscache_init(&r->cache, r->config.cache_entries, r->config.cache_bytes);
	pthread_mutex_init(&r->lock, NULL);
	if (pthread_create(&r->thread, NULL, run_thread, r) != 0)
		PANIC("cannot start the resolver's thread");
	*resolver_out = r;
	return 0;
}

void resolver_close(struct resolver **resolver)
{
	struct resolver *r = *resolver;
	if (r == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	pthread_mutex_unlock(&r->lock);
	resolver_wake(r);
	pthread_join(r->thread, NULL);
	dnscache_done(&r->cache);
	arena_done(&r->arena);
	pthread_mutex_destroy(&r->lock);
	close(r->wake_fd);
	ares_library_cleanup();
	free(r);
	*resolver = NULL;
}

void resolver_stats(struct resolver *r, struct resolver_stats *stats_out)
{
	pthread_mutex_lock(&r->lock);
	*stats_out = r->stats;
	stats_out->entries = r->cache.table.count;
	stats_out->bytes = r->cache.bytes;
	pthread_mutex_unlock(&r->lock);
}

void resolver_flush(struct resolver *r)
{
	pthread_mutex_lock(&r->lock);
	dnscache_flush(&r->cache);
	pthread_mutex_unlock(&r->lock);
}
