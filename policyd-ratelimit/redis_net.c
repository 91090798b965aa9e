/*
 * A call waits in one list, oldest first, until its answer or its time-out; one
 * that was given up lives on, without a function, until hiredis returns it.
 */
#include "redis_net_internal.h"

#include <netdb.h>

#include "lib/base/ip.h"

#define TICK_S 0.02
#define HUNG_MS 1000 /* a server that owes answers and gives none for so long is left */

/* ---- calls ---- */

static void call_unlink(struct redis_call *c)
{
	struct redis_net *net = c->net;
	*(c->prev != NULL ? &c->prev->next : &net->first) = c->next;
	*(c->next != NULL ? &c->next->prev : &net->last) = c->prev;
	net->waiting--;
}

static void call_link(struct redis_call *c)
{
	struct redis_net *net = c->net;
	c->prev = net->last;
	*(net->last != NULL ? &net->last->next : &net->first) = c;
	net->last = c;
	net->waiting++;
}

/* Tells the caller; the call itself goes where nobody else refers to it. */
static void call_end(struct redis_call *c, const struct redisReply *answer, bool referred)
{
	redis_net_fn *fn = c->fn;
	void *arg = c->arg;
	struct redis_clock *clock = &c->net->nodes[c->node < REDIS_NODES_MAX ? c->node : 0].clock;
	if (fn != NULL)
		call_unlink(c);
	c->fn = NULL;
	if (!referred)
		free(c);
	if (fn != NULL)
		fn(arg, answer, clock);
}

static void call_send(struct redis_call *c);

void redis_net_trouble_set(struct redis_net *net, struct span text)
{
	snprintf(net->trouble, sizeof(net->trouble), "%.*s", (int)(text.len < 200 ? text.len : 200), text.ptr);
}

/* Sends the call elsewhere, or again, where the error says so; false: it failed. */
static bool call_follow(struct redis_call *c, struct span error)
{
	struct redis_net *net = c->net;
	struct redis_node *node = &net->nodes[c->node];
	struct redis_redirect to;
	if (c->fn == NULL || c->redirects++ >= REDIS_REDIRECTS_MAX)
		return false;
	if (c->script != NULL && !c->whole && span_starts(error, SPAN_LIT("NOSCRIPT"))) {
		node->shas[c->script->number][0] = '\0';
		call_send(c);
		return true;
	}
	if (net->config.spec.kind != REDIS_CLUSTER || redis_redirect_parse(error, &node->server, &to) < 0)
		return false;
	unsigned at = redis_node_find(net, &to.to);
	if (at == NODE_NONE)
		return false;
	c->node = (uint8_t)at;
	if (!to.ask) {
		net->slots[to.slot] = (uint8_t)at;
		redis_guide_want(net);
	}
	struct redis_link *link = redis_node_link(net, at);
	static const struct span asking = SPAN_LIT("ASKING");
	if (to.ask && (link == NULL || redis_link_send(link, &asking, 1, NULL, NULL) < 0))
		return false;
	call_send(c);
	return true;
}

static bool error_is(struct span error, const char *word)
{
	return span_starts(error, span_str(word));
}

/* What the server's refusal tells of the server. */
static void error_note(struct redis_net *net, unsigned at, struct span error)
{
	redis_net_trouble_set(net, error);
	if (error_is(error, "READONLY") || error_is(error, "MASTERDOWN") || error_is(error, "LOADING") ||
	    span_find(error, SPAN_LIT("READONLY")) != SPAN_NPOS)
		redis_node_drop(net, at, "the server takes no writes");
	else if (error_is(error, "CLUSTERDOWN"))
		redis_guide_want(net);
}

/* Where a node of a cluster is away another one knows who has its slots now. */
static bool call_elsewhere(struct redis_call *c)
{
	struct redis_net *net = c->net;
	if (net->closing || net->config.spec.kind != REDIS_CLUSTER || c->fn == NULL || c->redirects++ >= REDIS_REDIRECTS_MAX)
		return false;
	redis_guide_want(net);
	for (unsigned i = 0; i < net->node_count; i++)
		if (i != c->node && net->nodes[i].was_up) {
			c->node = (uint8_t)i;
			return true;
		}
	return false;
}

static void on_answer(void *arg, const struct redisReply *answer)
{
	struct redis_call *c = arg;
	struct redis_net *net = c->net;
	struct redis_node *node = &net->nodes[c->node];
	node->in_flight -= node->in_flight > 0;
	if (answer == NULL) {
		if (call_elsewhere(c))
			call_send(c);
		else
			call_end(c, NULL, false);
		return;
	}
	node->answered_ms = clock_boot_ms();
	node->failures = 0;
	node->was_up = true;
	if (redis_answer_kind(answer) != REDIS_ERROR) {
		call_end(c, answer, false);
		return;
	}
	struct span error = redis_answer_text(answer);
	unsigned at = c->node;
	if (call_follow(c, error))
		return;
	error_note(net, at, error);
	call_end(c, NULL, false);
}

static bool call_try(struct redis_call *c)
{
	struct redis_net *net = c->net;
	struct redis_node *node = &net->nodes[c->node];
	struct redis_link *link = redis_node_link(net, c->node);
	struct span *words = c->words;
	if (c->script != NULL) {
		const char *sha = node->shas[c->script->number];
		c->whole = sha[0] == '\0';
		words[0] = c->whole ? SPAN_LIT("EVAL") : SPAN_LIT("EVALSHA");
		words[1] = c->whole ? span_str(c->script->body) : span_str(sha);
	}
	if (node->in_flight == 0)
		node->answered_ms = clock_boot_ms(); /* it owed nothing until now */
	if (link == NULL || redis_link_send(link, words, c->count, on_answer, c) < 0)
		return false;
	node->in_flight++;
	return true;
}

static void call_send(struct redis_call *c)
{
	while (!call_try(c))
		if (!call_elsewhere(c)) {
			call_end(c, NULL, false);
			return;
		}
}

/* A call with room for WORDS and a copy of their bytes; the first SKIP are set later. */
static struct redis_call *call_new(struct redis_net *net, const struct span *words, size_t count, size_t skip)
{
	size_t bytes = 0;
	for (size_t i = 0; i < count; i++)
		bytes += words[i].len;
	size_t head = sizeof(struct redis_call) + (count + skip) * sizeof(struct span);
	struct redis_call *c = mem_alloc(head + bytes);
	*c = (struct redis_call){.net = net, .count = count + skip};
	char *at = (char *)c + head;
	for (size_t i = 0; i < count; i++) {
		if (words[i].len > 0)
			memcpy(at, words[i].ptr, words[i].len);
		c->words[skip + i] = span_of(at, words[i].len);
		at += words[i].len;
	}
	return c;
}

static void call_begin(struct redis_net *net, struct redis_call *c, struct span key, redis_net_fn *fn, void *arg)
{
	c->fn = fn;
	c->arg = arg;
	c->deadline_ms = clock_boot_ms() + net->config.timeout_ms;
	c->slot = net->config.spec.kind == REDIS_CLUSTER ? redis_slot(key) : 0;
	unsigned at = net->waiting < REDIS_CALLS_MAX ? redis_node_of_slot(net, c->slot) : NODE_NONE;
	c->node = (uint8_t)at;
	call_link(c);
	if (at == NODE_NONE) {
		redis_guide_want(net);
		call_end(c, NULL, false);
		return;
	}
	call_send(c);
}

void redis_net_script(struct redis_net *net, const struct wire_script *script, struct span key,
		      const struct span *args, size_t count, redis_net_fn *fn, void *arg)
{
	struct span words[2 + WIRE_ARGS_MAX] = {SPAN_LIT("1"), key};
	if (count > WIRE_ARGS_MAX)
		PANIC("too many arguments of a script");
	memcpy(words + 2, args, count * sizeof(*args));
	struct redis_call *c = call_new(net, words, count + 2, 2);
	c->script = script;
	call_begin(net, c, key, fn, arg);
}

void redis_net_command(struct redis_net *net, const struct span *words, size_t count, redis_net_fn *fn, void *arg)
{
	call_begin(net, call_new(net, words, count, 0), words[1], fn, arg);
}

/* ---- time ---- */

static void on_tick(struct ev_loop *ev, struct ev_timer *w, int events)
{
	(void)ev;
	(void)events;
	struct redis_net *net = w->data;
	int64_t now = clock_boot_ms();
	while (net->first != NULL && net->first->deadline_ms <= now) {
		redis_net_trouble_set(net, SPAN_LIT("no answer within redis_timeout"));
		call_end(net->first, NULL, true);
	}
	for (unsigned i = 0; i < net->node_count; i++)
		if (net->nodes[i].link != NULL && net->nodes[i].in_flight > 0 && now - net->nodes[i].answered_ms > HUNG_MS)
			redis_node_drop(net, i, "the server does not answer");
	redis_nodes_tick(net, now);
}

void redis_net_set_timeout(struct redis_net *net, int64_t timeout_ms)
{
	net->config.timeout_ms = timeout_ms;
}

const char *redis_net_trouble(const struct redis_net *net)
{
	return net->trouble;
}

size_t redis_net_waiting(const struct redis_net *net)
{
	return net->waiting;
}

void redis_net_describe(const struct redis_net *net, struct sbuf *out)
{
	if (net->config.spec.kind == REDIS_CLUSTER)
		sbuf_adds(out, "cluster ");
	else if (net->config.spec.kind == REDIS_SENTINEL)
		sbuf_addf(out, "%s of sentinel ", net->config.spec.master);
	redis_server_format(net->node_count > 0 ? &net->nodes[0].server : &net->config.spec.servers[0], out);
}

/* ---- life ---- */

/* A host name becomes an address here, once, since a look-up blocks. */
static int server_resolve(struct redis_server *server, struct sbuf *error)
{
	static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found = NULL;
	struct ip ip;
	if (server->port == 0 || ip_parse(span_str(server->host), &ip) == 0)
		return 0;
	int rc = getaddrinfo(server->host, NULL, &hints, &found);
	char text[IP_TEXT_SIZE + 16]; /* with a zone */
	if (rc == 0)
		rc = getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
	if (found != NULL)
		freeaddrinfo(found);
	if (rc != 0) {
		sbuf_addf(error, "redis: %s: %s", server->host, gai_strerror(rc));
		return ERR_TEMP;
	}
	snprintf(server->host, sizeof(server->host), "%s", text);
	return 0;
}

int redis_net_open(const struct redis_net_config *config, struct redis_net **net_out, struct sbuf *error)
{
	struct redis_spec spec = config->spec;
	for (size_t i = 0; i < spec.count; i++)
		if (server_resolve(&spec.servers[i], error) < 0)
			return ERR_TEMP;
	struct redis_net *net = mem_zalloc(sizeof(*net));
	net->config = *config;
	net->config.spec = spec;
	memset(net->slots, NODE_NONE, sizeof(net->slots));
	net->guide_wanted = spec.kind != REDIS_PLAIN;
	for (size_t i = 0; i < spec.count && spec.kind != REDIS_SENTINEL; i++)
		(void)redis_node_find(net, &spec.servers[i]);
	ev_timer_init(&net->tick, on_tick, 0, TICK_S);
	net->tick.data = net;
	ev_timer_start(loop_ev(config->loop), &net->tick);
	*net_out = net;
	return 0;
}

void redis_net_close(struct redis_net **net)
{
	struct redis_net *n = *net;
	if (n == NULL)
		return;
	n->closing = true;
	ev_timer_stop(loop_ev(n->config.loop), &n->tick);
	redis_nodes_close(n); /* ends all calls */
	free(n);
	*net = NULL;
}
