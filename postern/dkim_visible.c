/*
 * A server is a resolver of its own, so that none answers for another.  What one
 * of them does not show, is not visible.
 */
#include "postern/dkim_visible.h"

#include <stdio.h>

#include "lib/dns/resolver.h"
#include "postern/rotation.h"

#define QUESTION_MS 3000
#define CHECK_MS 7000          /* for all answers about one key of one server */
#define NEGATIVE_MAX_S 86400   /* RFC 2308 section 5 */

struct dkim_servers {
	struct resolver *resolvers[DKIM_SERVERS_MAX];
	char addresses[DKIM_SERVERS_MAX][128];
	size_t count;
};

static int open_one(struct cli *cli, struct dkim_servers *s, struct span address)
{
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	if (s->count == DKIM_SERVERS_MAX)
		return cli_fail(cli, EX_USAGE, "at most %d DNS servers are asked", DKIM_SERVERS_MAX);
	if (span_copy_cstr(address, s->addresses[s->count], sizeof(s->addresses[0])) < 0)
		return cli_fail(cli, EX_USAGE, "\"%.*s\" is no address", SPAN_ARG(address));
	struct resolver_config config = {
		.servers = s->addresses[s->count],
		.timeout_ms = QUESTION_MS,
		.ttl_max_s = ROTATION_ABSENT_MAX_S,
		.ttl_negative_max_s = NEGATIVE_MAX_S,
	};
	if (resolver_open(&config, &s->resolvers[s->count], &error) < 0)
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

static void check_one(struct resolver *resolver, const char *domain, const char *selector,
		      const struct crypto_key *key, struct keycheck *check_out, uint32_t *absent_out)
{
	resolver_flush(resolver);
	struct resolver_set *set = resolver_set_new(resolver, CHECK_MS);
	struct dns_view view = resolver_set_view(set);
	while (keycheck_run(check_out, &view, span_str(domain), span_str(selector), key) == ERR_AGAIN)
		resolver_set_wait(set);
	bool wrong = check_out->state != KEYCHECK_OK && check_out->state != KEYCHECK_TEMPERROR;
	*absent_out = wrong ? check_out->answer->ttl_s : 0;
	resolver_set_free(&set);
}

void dkim_servers_check(struct dkim_servers *servers, const char *domain, const char *selector,
			const struct crypto_key *key, struct dkim_visibility *visibility_out)
{
	struct dkim_visibility v = {.state = KEYCHECK_OK};
	for (size_t i = 0; i < servers->count; i++) {
		struct keycheck check;
		uint32_t absent;
		check_one(servers->resolvers[i], domain, selector, key, &check, &absent);
		if (absent > v.absent_s)
			v.absent_s = absent;
		/* A server that says what is wrong is worth more than one that says nothing. */
		if (check.state == KEYCHECK_OK || (v.state != KEYCHECK_OK && v.state != KEYCHECK_TEMPERROR) ||
		    (v.state == KEYCHECK_TEMPERROR && check.state == KEYCHECK_TEMPERROR))
			continue;
		v.state = check.state;
		snprintf(v.problem, sizeof(v.problem), "%s%s%.200s", servers->addresses[i],
			 servers->addresses[i][0] == '\0' ? "" : ": ", check.problem);
	}
	*visibility_out = v;
}
