/*
 * The servers.  One of a plain configuration is nodes[0] for ever; with Sentinel
 * nodes[0] is the master, whose address changes; the nodes of a cluster are found
 * and stay.  The guide is a connection of its own to whoever tells where they are.
 */
#include "redis_net_internal.h"

#include "lib/base/ip.h"

#define RETRY_MS 100       /* after the first failure; doubled up to */
#define RETRY_MAX_MS 2000
#define GUIDE_WAIT_MS 500  /* a guide that does not answer for so long is left for the next */
#define GUIDE_EVERY_MS 5000 /* also when all seems well: a master may have been replaced unseen */
#define NEWS_RETRY_MS 250

/* ---- connections ---- */

void redis_node_drop(struct redis_net *net, unsigned at, const char *why)
{
	struct redis_node *node = &net->nodes[at];
	if (node->link == NULL)
		return;
	redis_net_trouble_set(net, span_str(why));
	node->failures += node->failures < 8;
	int64_t pause = RETRY_MS << (node->failures - 1);
	node->retry_ms = clock_boot_ms() + (pause < RETRY_MAX_MS ? pause : RETRY_MAX_MS);
	bool was_up = node->was_up;
	node->was_up = false;
	memset(node->shas, 0, sizeof(node->shas));
	redis_link_free(&node->link);
	redis_link_free(&net->news); /* it may be as dead, without an end */
	redis_guide_want(net);
	if (was_up)
		net->config.lost(net->config.arg, net->trouble);
}

static void on_node_down(void *arg, const char *why)
{
	struct redis_node *node = arg;
	redis_node_drop(node->net, (unsigned)(node - node->net->nodes), why);
}

struct loading {
	struct redis_node *node;
	unsigned script;
};

static void on_loaded(void *arg, const struct redisReply *answer)
{
	struct loading *l = arg;
	struct span sha = answer != NULL && redis_answer_kind(answer) == REDIS_TEXT ? redis_answer_text(answer) : SPAN_EMPTY;
	if (sha.len == SHA_SIZE - 1 && l->node->link != NULL)
		memcpy(l->node->shas[l->script], sha.ptr, SHA_SIZE - 1);
	free(l);
}

static void on_role(void *arg, const struct redisReply *answer)
{
	struct redis_node *node = arg;
	if (answer == NULL || redis_answer_count(answer) == 0 || node->link == NULL)
		return;
	const struct redisReply *role = redis_answer_item(answer, 0);
	if (redis_answer_kind(role) == REDIS_TEXT && !span_eq(redis_answer_text(role), SPAN_LIT("master")))
		redis_node_drop(node->net, (unsigned)(node - node->net->nodes), "the server is no master");
}

/* What each new connection begins with: the scripts, and who answers. */
static void node_greet(struct redis_node *node)
{
	for (unsigned i = 0; i < WIRE_SCRIPTS; i++) {
		struct loading *l = mem_alloc(sizeof(*l));
		const struct span words[] = {SPAN_LIT("SCRIPT"), SPAN_LIT("LOAD"), span_str(wire_scripts[i].body)};
		*l = (struct loading){node, i};
		if (redis_link_send(node->link, words, 3, on_loaded, l) < 0)
			free(l);
	}
	static const struct span role = SPAN_LIT("ROLE");
	if (node->net->config.spec.kind == REDIS_SENTINEL && redis_link_send(node->link, &role, 1, on_role, node) < 0)
		return; /* on_node_down() follows */
}

static struct redis_link_config link_config(struct redis_net *net, void (*down)(void *, const char *), void *arg)
{
	const struct redis_net_config *c = &net->config;
	return (struct redis_link_config){.loop = c->loop, .user = c->user, .password = c->password,
					  .database = c->database, .down = down, .arg = arg};
}

struct redis_link *redis_node_link(struct redis_net *net, unsigned at)
{
	struct redis_node *node = &net->nodes[at];
	if (node->link == NULL && clock_boot_ms() >= node->retry_ms) {
		const struct redis_link_config config = link_config(net, on_node_down, node);
		node->link = redis_link_new(&config, &node->server);
		node->answered_ms = clock_boot_ms();
		node_greet(node);
	}
	return node->link;
}

static bool has_slots(const struct redis_net *net, unsigned at)
{
	for (unsigned i = 0; i < REDIS_SLOTS; i++)
		if (net->slots[i] == at)
			return true;
	return false;
}

unsigned redis_node_find(struct redis_net *net, const struct redis_server *server)
{
	struct ip ip;
	unsigned at;
	for (at = 0; at < net->node_count; at++)
		if (redis_server_eq(&net->nodes[at].server, server))
			return at;
	/* A name from a server would have to be looked up, which blocks. */
	if (server->port != 0 && ip_parse(span_str(server->host), &ip) < 0)
		return NODE_NONE;
	if (at == REDIS_NODES_MAX) {
		for (at = 0; at < REDIS_NODES_MAX; at++)
			if (net->nodes[at].link == NULL && net->nodes[at].in_flight == 0 && !has_slots(net, at))
				break;
		if (at == REDIS_NODES_MAX)
			return NODE_NONE;
	} else {
		net->node_count++;
	}
	net->nodes[at] = (struct redis_node){.net = net, .server = *server};
	return at;
}

unsigned redis_node_of_slot(const struct redis_net *net, unsigned slot)
{
	if (net->config.spec.kind != REDIS_CLUSTER)
		return net->node_count > 0 ? 0 : NODE_NONE;
	if (net->slots[slot] != NODE_NONE)
		return net->slots[slot];
	/* Any node knows where a key is. */
	for (unsigned i = 0; i < net->node_count; i++)
		if (net->nodes[i].link != NULL)
			return i;
	return net->node_count > 0 ? slot % net->node_count : NODE_NONE;
}

/* ---- the guide ---- */

void redis_guide_want(struct redis_net *net)
{
	net->guide_wanted = net->config.spec.kind != REDIS_PLAIN;
}

static void guide_end(struct redis_net *net, bool told)
{
	redis_link_free(&net->guide);
	net->guide_at += !told;
	net->guide_wanted = !told;
	net->guided_ms = clock_boot_ms();
}

static void on_guide_down(void *arg, const char *why)
{
	struct redis_net *net = arg;
	redis_net_trouble_set(net, span_str(why));
	guide_end(net, false);
}

/* Sentinel's [address, port] of the master. */
static bool master_take(struct redis_net *net, const struct redisReply *answer)
{
	struct redis_server server;
	if (redis_answer_count(answer) != 2)
		return false;
	struct span host = redis_answer_text(redis_answer_item(answer, 0)), port = redis_answer_text(redis_answer_item(answer, 1));
	int64_t number = 0;
	for (size_t i = 0; i < port.len && i < 6 && ascii_isdigit(port.ptr[i]); i++)
		number = number * 10 + (port.ptr[i] - '0');
	struct ip ip;
	if (ip_parse(host, &ip) < 0 || redis_server_set(host, number, &server) < 0)
		return false;
	if (net->node_count == 0) {
		(void)redis_node_find(net, &server);
	} else if (!redis_server_eq(&net->nodes[0].server, &server)) {
		redis_node_drop(net, 0, "another server is the master now");
		net->nodes[0].server = server;
		net->nodes[0].retry_ms = 0;
		net->nodes[0].clock = (struct redis_clock){0};
	}
	return true;
}

static int64_t item_number(const struct redisReply *list, size_t at)
{
	return at < redis_answer_count(list) ? redis_answer_number(redis_answer_item(list, at)) : -1;
}

/* One of CLUSTER SLOTS: [first, last, [address, port, ...], replicas...]. */
static bool slots_take(struct redis_net *net, const struct redisReply *range)
{
	struct redis_server server;
	int64_t first = item_number(range, 0), last = item_number(range, 1);
	if (redis_answer_count(range) < 3 || first < 0 || last < first || last >= REDIS_SLOTS)
		return false;
	const struct redisReply *master = redis_answer_item(range, 2);
	if (redis_answer_count(master) < 2)
		return false;
	struct span host = redis_answer_text(redis_answer_item(master, 0));
	if (host.len == 0) /* that of who says it */
		host = span_str(net->nodes[net->guide_at % net->node_count].server.host);
	if (redis_server_set(host, item_number(master, 1), &server) < 0)
		return false;
	unsigned at = redis_node_find(net, &server);
	for (int64_t slot = first; slot <= last; slot++)
		net->slots[slot] = (uint8_t)at;
	return at != NODE_NONE;
}

static void on_guided(void *arg, const struct redisReply *answer)
{
	struct redis_net *net = arg;
	if (answer == NULL || net->guide == NULL)
		return; /* on_guide_down() follows */
	bool told = false;
	if (redis_answer_kind(answer) == REDIS_ERROR)
		redis_net_trouble_set(net, redis_answer_text(answer));
	if (net->config.spec.kind == REDIS_SENTINEL) {
		told = master_take(net, answer);
		if (!told && redis_answer_kind(answer) != REDIS_ERROR)
			redis_net_trouble_set(net, SPAN_LIT("the sentinel does not know that master"));
	} else {
		for (size_t i = 0; i < redis_answer_count(answer); i++)
			told = slots_take(net, redis_answer_item(answer, i)) || told;
	}
	guide_end(net, told);
}

static void guide_begin(struct redis_net *net)
{
	struct redis_link_config config = link_config(net, on_guide_down, net);
	const struct redis_spec *spec = &net->config.spec;
	net->guide_since_ms = clock_boot_ms();
	int rc;
	if (spec->kind == REDIS_SENTINEL) {
		const struct span words[] = {SPAN_LIT("SENTINEL"), SPAN_LIT("GET-MASTER-ADDR-BY-NAME"), span_str(spec->master)};
		config.user = config.password = "";
		config.database = 0;
		net->guide = redis_link_new(&config, &spec->servers[net->guide_at % spec->count]);
		rc = redis_link_send(net->guide, words, 3, on_guided, net);
	} else {
		static const struct span words[] = {SPAN_LIT("CLUSTER"), SPAN_LIT("SLOTS")};
		net->guide = redis_link_new(&config, &net->nodes[net->guide_at % net->node_count].server);
		rc = redis_link_send(net->guide, words, 2, on_guided, net);
	}
	if (rc < 0)
		return; /* on_guide_down() follows */
}

static void guide_tick(struct redis_net *net, int64_t now_ms)
{
	if (net->config.spec.kind == REDIS_PLAIN)
		return;
	if (net->guide != NULL) {
		if (now_ms - net->guide_since_ms > GUIDE_WAIT_MS) {
			redis_net_trouble_set(net, SPAN_LIT("no answer about where to ask"));
			guide_end(net, false);
		}
		return;
	}
	int64_t pause = net->guide_wanted ? RETRY_MS : GUIDE_EVERY_MS;
	if (net->guided_ms == 0 || now_ms - net->guided_ms >= pause)
		guide_begin(net);
}

/* ---- news ---- */

static void on_news_down(void *arg, const char *why)
{
	struct redis_net *net = arg;
	(void)why; /* the other connections tell the same */
	redis_link_free(&net->news);
}

static void on_news(void *arg, struct span message)
{
	struct redis_net *net = arg;
	net->config.news(net->config.arg, message);
}

static void news_tick(struct redis_net *net, int64_t now_ms)
{
	unsigned at;
	if (net->news != NULL || now_ms < net->news_retry_ms)
		return;
	/* Where a connection works, so will another. */
	for (at = 0; at < net->node_count; at++)
		if (net->nodes[at].link != NULL && net->nodes[at].failures == 0)
			break;
	if (at == net->node_count)
		return;
	net->news_retry_ms = now_ms + NEWS_RETRY_MS;
	const struct redis_link_config config = link_config(net, on_news_down, net);
	net->news = redis_link_new(&config, &net->nodes[at].server);
	if (redis_link_listen(net->news, net->config.channel, on_news, net) < 0)
		return; /* on_news_down() follows */
}

void redis_nodes_tick(struct redis_net *net, int64_t now_ms)
{
	guide_tick(net, now_ms);
	news_tick(net, now_ms);
}

void redis_nodes_close(struct redis_net *net)
{
	redis_link_free(&net->guide);
	redis_link_free(&net->news);
	for (unsigned i = 0; i < net->node_count; i++)
		redis_link_free(&net->nodes[i].link);
}
