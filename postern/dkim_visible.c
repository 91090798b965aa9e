/*
 * A server is a resolver of its own, so that none answers for another.  What one
 * of them does not show, is not visible.
 */
#include "postern/dkim_visible.h"

#include <stdio.h>

#include "lib/dns/resolver.h"
#include "postern/dkim_authority.h"
#include "postern/rotation.h"

#define QUESTION_MS 3000
#define CHECK_MS 7000          /* for all answers about one key of one server */
#define NEGATIVE_MAX_S 86400   /* RFC 2308 section 5 */

struct dkim_servers {
	struct resolver *resolvers[DKIM_SERVERS_MAX];
	char addresses[DKIM_SERVERS_MAX][128];
	size_t count;
	bool follows; /* the NS records */
};

static int open_resolver(const char *servers, struct resolver **resolver_out, struct sbuf *error)
{
	struct resolver_config config = {
		.servers = servers,
		.timeout_ms = QUESTION_MS,
		.ttl_max_s = ROTATION_ABSENT_MAX_S,
		.ttl_negative_max_s = NEGATIVE_MAX_S,
	};
	return resolver_open(&config, resolver_out, error);
}

static int open_one(struct cli *cli, struct dkim_servers *s, struct span address)
{
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	if (s->count == DKIM_SERVERS_MAX)
		return cli_fail(cli, EX_USAGE, "at most %d DNS servers are asked", DKIM_SERVERS_MAX);
	if (span_copy_cstr(address, s->addresses[s->count], sizeof(s->addresses[0])) < 0)
		return cli_fail(cli, EX_USAGE, "\"%.*s\" is no address", SPAN_ARG(address));
	if (open_resolver(s->addresses[s->count], &s->resolvers[s->count], &error) < 0)
		return cli_fail(cli, EX_USAGE, "%s", sbuf_cstr(&error));
	s->count++;
	return EX_OK;
}

int dkim_servers_open(struct cli *cli, const char *list, struct dkim_servers **servers_out)
{
	struct dkim_servers *s = mem_zalloc(sizeof(*s));
	struct span rest = span_str(list), address;
	bool more = true;
	int status = EX_OK;
	s->follows = list[0] == '\0';
	while (more && status == EX_OK) {
		more = span_cut(&rest, ',', &address);
		status = open_one(cli, s, span_trim(address));
	}
	if (status == EX_OK)
		*servers_out = s;
	else
		dkim_servers_close(&s);
	return status;
}

void dkim_servers_close(struct dkim_servers **servers)
{
	struct dkim_servers *s = *servers;
	*servers = NULL;
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->count; i++)
		resolver_close(&s->resolvers[i]);
	free(s);
}

/* What is asked for. */
struct record {
	const char *domain, *selector;
	const struct crypto_key *key;
	bool alias; /* some server says that it is one */
};

/* A server that says what is wrong is worth more than one that says nothing. */
static void add_problem(struct dkim_visibility *v, const char *server, enum keycheck_state state, const char *problem)
{
	if (state == KEYCHECK_OK || (v->state != KEYCHECK_OK && v->state != KEYCHECK_TEMPERROR) ||
	    (v->state == KEYCHECK_TEMPERROR && state == KEYCHECK_TEMPERROR))
		return;
	v->state = state;
	snprintf(v->problem, sizeof(v->problem), "%.100s%s%.150s", server, server[0] == '\0' ? "" : ": ", problem);
}

static void check_one(struct resolver *resolver, const char *server, struct record *record, struct dkim_visibility *v)
{
	struct keycheck check;
	resolver_flush(resolver);
	struct resolver_set *set = resolver_set_new(resolver, CHECK_MS);
	struct dns_view view = resolver_set_view(set);
	while (keycheck_run(&check, &view, span_str(record->domain), span_str(record->selector), record->key) == ERR_AGAIN)
		resolver_set_wait(set);
	bool wrong = check.state != KEYCHECK_OK && check.state != KEYCHECK_TEMPERROR;
	if (wrong && check.answer->ttl_s > v->absent_s)
		v->absent_s = check.answer->ttl_s;
	record->alias = record->alias || check.answer->aliases > 0;
	resolver_set_free(&set);
	add_problem(v, server, check.state, check.problem);
}

static int find_authority(struct resolver *resolver, const struct record *record, struct dkim_authority *authority_out)
{
	char mem[512];
	struct sbuf name;
	int rc;
	sbuf_init(&name, mem, sizeof(mem));
	sbuf_addf(&name, "%s._domainkey.%s", record->selector, record->domain);
	struct resolver_set *set = resolver_set_new(resolver, CHECK_MS);
	struct dns_view view = resolver_set_view(set);
	while ((rc = dkim_authority_find(&view, sbuf_span(&name), authority_out)) == ERR_AGAIN)
		resolver_set_wait(set);
	resolver_set_free(&set);
	return rc;
}

static void check_authority(struct resolver *resolver, struct record *record, struct dkim_visibility *v)
{
	char mem[256];
	struct sbuf error;
	struct dkim_authority authority;
	struct resolver *server;
	if (find_authority(resolver, record, &authority) < 0) {
		add_problem(v, "", KEYCHECK_TEMPERROR, "the servers of its zone (NS records) cannot be found");
		return;
	}
	for (size_t i = 0; i < authority.count; i++) {
		sbuf_init(&error, mem, sizeof(mem));
		if (open_resolver(authority.servers[i].addresses, &server, &error) < 0) {
			add_problem(v, authority.servers[i].name, KEYCHECK_TEMPERROR, sbuf_cstr(&error));
			continue;
		}
		check_one(server, authority.servers[i].name, record, v);
		resolver_close(&server);
	}
}

void dkim_servers_check(struct dkim_servers *servers, const char *domain, const char *selector,
			const struct crypto_key *key, struct dkim_visibility *visibility_out)
{
	struct dkim_visibility v = {.state = KEYCHECK_OK};
	struct record record = {domain, selector, key, false};
	for (size_t i = 0; i < servers->count; i++)
		check_one(servers->resolvers[i], servers->addresses[i], &record, &v);
	if (servers->follows && !record.alias)
		check_authority(servers->resolvers[0], &record, &v);
	*visibility_out = v;
}
