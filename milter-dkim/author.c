/*
 * The parser of lib/mail/addr reports every domain that a reader could take
 * for the author's; this file decides what more than one of them means.
 */
#include "milter-dkim/author.h"

#include "lib/mail/addr.h"
#include "lib/mail/dnsname.h"

static void add_domain(struct author *author, struct span domain)
{
	domain = dnsname_trim(domain);
	for (size_t i = 0; i < author->count; i++)
		if (span_ieq(author->domains[i], domain))
			return;
	if (author->count == AUTHOR_DOMAINS_MAX)
		author->more = true;
	else
		author->domains[author->count++] = domain;
}

int author_add(struct author *author, struct span value, struct arena *a)
{
	struct addr_list list;
	int rc = addr_list_parse(value, a, &list);
	if (rc < 0)
		return rc;
	author->fields++;
	author->malformed = author->malformed || list.malformed;
	author->more = author->more || list.truncated;
	for (size_t i = 0; i < list.count; i++)
		add_domain(author, list.items[i].domain);
	return 0;
}

int author_find(const struct mail_header *header, struct arena *a, struct author *author_out)
{
	struct author author = {.count = 0};
	struct span name = SPAN_LIT("From");
	for (size_t at = mail_header_find(header, name, 0); at != SPAN_NPOS;
	     at = mail_header_find(header, name, at + 1)) {
		/* What many fields would tell is no more than that they are many. */
		if (author.fields > AUTHOR_DOMAINS_MAX) {
			author.more = true;
			break;
		}
		int rc = author_add(&author, header->fields[at].value, a);
		if (rc < 0)
			return rc;
	}
	*author_out = author;
	return 0;
}

/* How much a verdict weighs where several are to become one. */
static int weight(const struct dmarc_verdict *v)
{
	switch (v->result) {
	case AUTH_FAIL:
		return 10 + (int)v->policy;
	case AUTH_TEMPERROR:
		return 3;
	case AUTH_PASS:
	case AUTH_PERMERROR:
		return 2;
	default:
		return 1;
	}
}

static int judge_several(const struct author *author, struct dmarc_request *request, const struct dns_view *view,
			 struct arena *a, struct dmarc_verdict *verdict_out)
{
	struct dmarc_verdict worst = {.result = AUTH_NONE}, v;
	bool waiting = false;
	for (size_t i = 0; i < author->count; i++) {
		request->author_domain = author->domains[i];
		int rc = dmarc_check(request, view, a, &v);
		if (rc < 0 && rc != ERR_AGAIN)
			return rc;
		waiting = waiting || rc == ERR_AGAIN;
		if (rc == 0 && (i == 0 || weight(&v) > weight(&worst)))
			worst = v;
	}
	if (waiting)
		return ERR_AGAIN;
	/* Among those that were not looked at there may be one with a policy. */
	if (worst.result == AUTH_PASS || (worst.result == AUTH_NONE && author->more)) {
		worst.result = AUTH_PERMERROR;
		worst.aligned[DMARC_SPF] = worst.aligned[DMARC_DKIM] = SPAN_EMPTY;
	}
	worst.reason = author->fields > 1 ? "more than one From field" : "more than one author domain";
	*verdict_out = worst;
	return 0;
}

int author_dmarc(const struct author *author, const struct dmarc_request *request, const struct dns_view *view,
		 struct arena *a, struct dmarc_verdict *verdict_out)
{
	struct dmarc_request each = *request;
	if (author->count == 0) {
		*verdict_out = (struct dmarc_verdict){
			.result = AUTH_PERMERROR,
			.reason = author->fields == 0 ? "no From field" : "no domain in the From field",
		};
		return 0;
	}
	if (author->count > 1 || author->fields > 1 || author->more)
		return judge_several(author, &each, view, a, verdict_out);
	each.author_domain = author->domains[0];
	return dmarc_check(&each, view, a, verdict_out);
}
