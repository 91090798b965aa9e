/*
 * The parser of lib/mail/addr reports every domain that a reader could take
 * for the author's; this file decides what more than one of them means.
 */
#include "milter-dkim/author.h"

#include "lib/mail/addr.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"

static int add_domain(struct author *author, struct span domain, struct arena *a)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	domain = dnsname_trim(domain);
	bool is_name = idn_to_ascii(domain, &ascii) == 0 && sbuf_ok(&ascii);
	if (is_name)
		domain = sbuf_span(&ascii);
	for (size_t i = 0; i < author->count; i++)
		if (span_ieq(author->domains[i], domain))
			return 0;
	if (author->count == AUTHOR_DOMAINS_MAX) {
		author->more = true;
		return 0;
	}
	if (is_name && arena_dup(a, domain, &domain) < 0)
		return ERR_LIMIT;
	author->domains[author->count++] = domain;
	return 0;
}

/* Whether DNS can be asked about DOMAIN, whose U-labels may be longer than any A-label. */
static bool can_be_asked(struct span domain)
{
	char mem[DNSNAME_MAX + 1];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	return idn_to_ascii(domain, &ascii) == 0 && sbuf_ok(&ascii) && dnsname_host_valid(sbuf_span(&ascii));
}

/*
 * DNS cannot be asked about a domain that is no name ("x-.bank.example", or with a
 * label of 64 bytes), but who reads the field sees whose it is: what stands behind
 * such labels is judged, too.
 */
static int add_owner(struct author *author, struct span domain, struct arena *a)
{
	domain = dnsname_trim(domain);
	if (can_be_asked(domain))
		return 0;
	for (domain = dnsname_tail(domain, DMARC_WALK_MAX); dnsname_labels(domain) >= 2; domain = dnsname_parent(domain))
		if (can_be_asked(domain))
			return add_domain(author, domain, a);
	return 0;
}

/* Those of LIST that are hints, or those that are not. */
static int add_list(struct author *author, const struct addr_list *list, bool hints, struct arena *a)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < list->count; i++) {
		if (list->items[i].hint != hints)
			continue;
		rc = add_domain(author, list->items[i].domain, a);
		if (rc == 0 && !list->items[i].literal)
			rc = add_owner(author, list->items[i].domain, a);
	}
	author->more = author->more || list->truncated;
	return rc;
}

int author_add(struct author *author, struct span value, struct arena *a)
{
	struct addr_list list, careless;
	int rc = addr_list_parse(value, a, &list);
	if (rc == 0)
		rc = addr_list_careless(value, a, &careless);
	if (rc == 0)
		rc = add_list(author, &list, false, a);
	if (rc == 0)
		rc = add_list(author, &list, true, a);
	if (rc == 0)
		rc = add_list(author, &careless, true, a);
	if (rc < 0)
		return rc;
	author->fields++;
	author->malformed = author->malformed || list.malformed;
	return 0;
}

/* From fields behind a lone CR in VALUE. */
static int add_smuggled(struct author *author, struct span value, struct arena *a)
{
	size_t cr;
	int rc = 0;
	while (rc == 0 && author->fields <= AUTHOR_DOMAINS_MAX && (cr = span_chr(value, '\r')) != SPAN_NPOS) {
		struct span name, rest = value = span_skip(value, cr + 1);
		if (span_istarts(value, SPAN_LIT("From")) && span_cut(&rest, ':', &name) &&
		    span_trim(name).len == strlen("From"))
			rc = author_add(author, rest, a);
	}
	return rc;
}

int author_find(const struct mail_header *header, struct arena *a, struct author *author_out)
{
	struct author author = {.count = 0};
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < header->count; i++) {
		const struct mail_field *f = &header->fields[i];
		/* What many fields would tell is no more than that they are many. */
		if (author.fields > AUTHOR_DOMAINS_MAX) {
			author.more = true;
			break;
		}
		if (span_ieq(f->name, SPAN_LIT("From")))
			rc = author_add(&author, f->value, a);
		if (rc == 0)
			rc = add_smuggled(&author, f->value, a);
	}
	if (rc == 0)
		*author_out = author;
	return rc;
}

const char *author_problem(const struct author *author)
{
	if (author->fields == 0)
		return "it has no From field";
	if (author->fields > 1)
		return "it has more than one From field";
	if (author->malformed)
		return "its From field is malformed";
	if (author->count == 0)
		return "its From field names no author";
	if (author->count > 1 || author->more)
		return "its From field names more than one domain, or can be read so";
	/* A U-label that is none could not be made an A-label. */
	bool name = dnsname_mail_valid(author->domains[0]) && idn_is_ascii(author->domains[0]);
	return name ? NULL : "its From field has no domain name";
}

unsigned author_relevance(const struct author *author, struct span domain)
{
	unsigned best = AUTHOR_RELEVANCES - 1;
	for (size_t i = 0; i < author->count; i++) {
		struct span d = author->domains[i];
		unsigned n = span_ieq(d, domain) ? 0
			     : dnsname_under(d, domain) || dnsname_under(domain, d) ? 1
			     : span_ieq(dnsname_tail(d, 2), dnsname_tail(domain, 2)) ? 2 : 3;
		best = n < best ? n : best;
	}
	return best;
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

/* The names that were asked for all of the domains, each once. */
struct asked {
	struct span *names;
	size_t count;
};

static void add_queries(struct asked *asked, const struct dmarc_verdict *v)
{
	for (size_t i = 0; i < v->query_count; i++) {
		size_t at = 0;
		while (at < asked->count && !span_eq(asked->names[at], v->queries[i]))
			at++;
		if (at == asked->count)
			asked->names[asked->count++] = v->queries[i];
	}
}

static int judge_several(const struct author *author, struct dmarc_request *request, const struct dns_view *view,
			 struct arena *a, struct dmarc_verdict *verdict_out)
{
	struct dmarc_verdict worst = {.result = AUTH_NONE}, v;
	struct asked asked = {arena_calloc(a, AUTHOR_DOMAINS_MAX * DMARC_QUERIES_MAX, sizeof(struct span)), 0};
	bool waiting = false;
	if (asked.names == NULL)
		return ERR_LIMIT;
	for (size_t i = 0; i < author->count; i++) {
		request->author_domain = author->domains[i];
		int rc = dmarc_check(request, view, a, &v);
		if (rc < 0 && rc != ERR_AGAIN)
			return rc;
		waiting = waiting || rc == ERR_AGAIN;
		if (rc == 0 && (i == 0 || weight(&v) > weight(&worst)))
			worst = v;
		if (rc == 0)
			add_queries(&asked, &v);
	}
	if (waiting)
		return ERR_AGAIN;
	worst.queries = asked.names;
	worst.query_count = asked.count;
	if (worst.result == AUTH_PASS) {
		worst.result = AUTH_PERMERROR;
		worst.aligned[DMARC_SPF] = worst.aligned[DMARC_DKIM] = SPAN_EMPTY;
	}
	worst.reason = author->fields > 1 ? "more than one From field" : "more than one author domain";
	/* Among those that were not looked at there may be one with a policy. */
	if (author->more) {
		worst.result = AUTH_FAIL;
		worst.disposition = DMARC_REJECT;
		worst.aligned[DMARC_SPF] = worst.aligned[DMARC_DKIM] = SPAN_EMPTY;
		worst.reason = "more author domains than are judged";
	}
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
