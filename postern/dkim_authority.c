/* All addresses are asked for before the first one is looked at. */
#include "postern/dkim_authority.h"

#include "lib/mail/dnsname.h"

/* Adds the addresses in ANSWER, up to the cap. */
static void add_addresses(const struct dns_answer *answer, size_t *count, struct sbuf *out)
{
	for (size_t i = 0; i < answer->count && *count < DKIM_AUTHORITY_ADDRESSES_MAX; i++) {
		sbuf_adds(out, ++*count > 1 ? ", " : "");
		ip_format(&answer->records[i].address, out);
	}
}

/* One server with its addresses; one that has none is left out, as resolvers do. */
static int add_server(const struct dns_view *view, struct span name, struct dkim_authority *authority)
{
	const struct dns_answer *four = dns_lookup(view, name, DNS_A), *six = dns_lookup(view, name, DNS_AAAA);
	struct sbuf addresses;
	size_t count = 0;
	if (four == NULL || six == NULL)
		return ERR_AGAIN;
	sbuf_init(&addresses, authority->servers[authority->count].addresses, sizeof(authority->servers[0].addresses));
	add_addresses(four, &count, &addresses);
	add_addresses(six, &count, &addresses);
	if (count == 0)
		return four->status == DNS_FAILED || six->status == DNS_FAILED ? ERR_TEMP : 0;
	int rc = span_copy_cstr(name, authority->servers[authority->count].name, sizeof(authority->servers[0].name));
	authority->count += rc == 0;
	return rc;
}

static int add_servers(const struct dns_view *view, const struct dns_answer *ns, struct dkim_authority *authority)
{
	bool missing = false;
	if (ns->count > DKIM_AUTHORITY_MAX)
		return ERR_LIMIT;
	for (size_t i = 0; i < ns->count; i++) {
		int rc = add_server(view, ns->records[i].text, authority);
		if (rc < 0 && rc != ERR_AGAIN)
			return rc;
		missing = missing || rc == ERR_AGAIN;
	}
	return missing ? ERR_AGAIN : authority->count == 0 ? ERR_NOT_FOUND : 0;
}

int dkim_authority_find(const struct dns_view *view, struct span name, struct dkim_authority *authority_out)
{
	for (struct span zone = name; zone.len > 0; zone = dnsname_parent(zone)) {
		const struct dns_answer *ns = dns_lookup(view, zone, DNS_NS);
		if (ns == NULL)
			return ERR_AGAIN;
		if (ns->status == DNS_FAILED)
			return ERR_TEMP;
		/* The NS records behind an alias are those of another zone. */
		if (ns->status != DNS_OK || ns->aliases > 0)
			continue;
		authority_out->count = 0;
		return add_servers(view, ns, authority_out);
	}
	return ERR_NOT_FOUND;
}
