/*
 * What a set says is read strictly: a field that is not of the grammar of RFC
 * 8601 says nothing.
 */
#include "milter-dkim/override.h"

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/authres.h"
#include "milter-dkim/authres_read.h"

#define VALUE_MAX 1024 /* bytes of a property */

/* The address or domain VALUE is of DOMAIN (A-labels, lower case). */
static bool is_of(struct span value, struct span domain)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	value = span_skip(value, span_rchr(value, '@') + 1);
	return idn_to_ascii(dnsname_trim(value), &ascii) == 0 && sbuf_ok(&ascii) && span_eq(sbuf_span(&ascii), domain);
}

static bool property_is_of(const struct authres_item *item, const char *property, struct span domain)
{
	char mem[VALUE_MAX];
	struct sbuf value;
	sbuf_init(&value, mem, sizeof(mem));
	return authres_get(item, property, &value) == 0 && is_of(sbuf_span(&value), domain);
}

/*
 * dmarc=pass for DOMAIN; or, from those who do not evaluate DMARC, what would
 * have been one by the identical domain.
 */
static bool says_authentic(struct span results, struct span domain)
{
	struct authres_item item;
	bool dmarc = false, identical = false;
	int rc;
	while ((rc = authres_next(&results, &item)) == 0) {
		bool passes = item.result == AUTH_PASS;
		if (item.result == AUTH_RESULTS)
			return false;
		if (span_ieq(item.method, SPAN_LIT("dmarc"))) {
			dmarc = passes && property_is_of(&item, "header.from", domain);
			if (!dmarc)
				return false;
		} else if (span_ieq(item.method, SPAN_LIT("dkim"))) {
			identical = identical || (passes && property_is_of(&item, "header.d", domain));
		} else if (span_ieq(item.method, SPAN_LIT("spf"))) {
			identical = identical || (passes && property_is_of(&item, "smtp.mailfrom", domain));
		}
	}
	return rc == ERR_NOT_FOUND && (dmarc || identical);
}

/* Results of set N (1-based): behind the instance and the authserv-id. */
static struct span results_of(const struct arc *arc, unsigned n)
{
	return authres_results(authres_results(arc->header->fields[arc->sets[n - 1].results].value));
}

static bool sealers_speak_for(const struct override_trust *trust, const struct inbound *in)
{
	const struct arc *arc = &in->arc;
	const struct ip none = {0};
	if (arc->result != AUTH_PASS || !arc->signs_from)
		return false;
	for (unsigned n = arc->count; n > 0 && hostset_has(trust->sealers, &none, arc->seals[n - 1].domain); n--)
		if (says_authentic(results_of(arc, n), in->dmarc.author_domain))
			return true;
	return false;
}

/* As in RFC 8617 section 7.2.2: the sealers from the newest on, and the client of
 * the first one. */
static void describe_chain(const struct arc *arc, struct sbuf *out)
{
	char mem[VALUE_MAX];
	struct sbuf value;
	struct span results = results_of(arc, 1);
	struct authres_item item;
	struct ip ip;
	sbuf_adds(out, "arc=pass");
	for (unsigned n = arc->count; n > 0; n--)
		sbuf_addf(out, " as[%u].d=%.*s as[%u].s=%.*s", n, SPAN_ARG(arc->seals[n - 1].domain), n,
			  SPAN_ARG(arc->seals[n - 1].selector));
	sbuf_init(&value, mem, sizeof(mem));
	while (authres_next(&results, &item) == 0) {
		if (authres_get(&item, "smtp.remote-ip", &value) < 0 || ip_parse(sbuf_span(&value), &ip) < 0)
			continue;
		sbuf_adds(out, " remote-ip[1]=");
		ip_format(&ip, out);
		return;
	}
}

void override_decide(const struct override_trust *trust, const struct inbound *in, struct span name,
		     struct override *override_out)
{
	char mem[OVERRIDE_COMMENT_MAX];
	struct sbuf comment;
	const struct dmarc_verdict *v = &in->dmarc;
	struct override o = {.by = OVERRIDE_NONE};
	*override_out = o;
	if (v->result != AUTH_FAIL || v->disposition == DMARC_NONE || author_problem(&in->author) != NULL)
		return;
	sbuf_init(&comment, mem, sizeof(mem));
	if (hostset_has(trust->forwarders, &in->request.ip, name)) {
		o = (struct override){.by = OVERRIDE_FORWARDER, .type = "trusted_forwarder"};
		sbuf_adds(&comment, "client ");
		ip_format(&in->request.ip, &comment);
	} else if (sealers_speak_for(trust, in)) {
		o = (struct override){.by = OVERRIDE_ARC, .type = "local_policy"};
		describe_chain(&in->arc, &comment);
	} else {
		return;
	}
	/* A comment that does not fit ends where it does. */
	o.comment = arena_strdup(in->arena, sbuf_span(&comment));
	if (o.comment == NULL)
		o.comment = o.by == OVERRIDE_ARC ? "arc=pass" : "client";
	*override_out = o;
}
