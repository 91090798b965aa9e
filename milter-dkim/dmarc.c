/*
 * One struct check lives for one run.  A walk notes which names had a valid
 * record; policy discovery and Organizational Domains are then read off the
 * notes.  The walk from the Author Domain serves both, as its names are those
 * of policy discovery (section 4.10.1 starts at the parent only because the
 * Author Domain itself was asked before).
 */
#include "milter-dkim/dmarc.h"

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"

#define PREFIX "_dmarc."
#define DOMAIN_MAX 1024 /* bytes of a name before it is checked */

struct found {
	struct span domain;
	struct dmarc_record record;
};

struct walk {
	struct span start;
	struct found found[DMARC_WALK_MAX]; /* longest name first */
	size_t count;
};

struct check {
	const struct dns_view *view;
	struct arena *arena;
	const struct dmarc_request *request;
	struct dmarc_verdict v;
	struct span *queries;
	size_t queries_size;
	struct walk author;
	bool walked; /* the author's walk is complete */
	bool several; /* some name has more than one record, so none */
};

static int note_query(struct check *c, struct span name)
{
	for (size_t i = 0; i < c->v.query_count; i++)
		if (span_eq(c->queries[i], name))
			return 0;
	if (c->v.query_count == DMARC_QUERIES_MAX)
		return ERR_LIMIT;
	struct span *queries = arena_grow(c->arena, c->queries, c->v.query_count, &c->queries_size, sizeof(*queries));
	if (queries == NULL)
		return ERR_LIMIT;
	c->v.queries = c->queries = queries;
	c->queries[c->v.query_count++] = name;
	return 0;
}

/*
 * Asks for the one record of DOMAIN and adds it to WALK.  0, ERR_NOT_FOUND,
 * ERR_TEMP, ERR_AGAIN or ERR_LIMIT.
 */
static int ask(struct check *c, struct span domain, struct walk *walk)
{
	char *text = arena_alloc(c->arena, sizeof(PREFIX) + domain.len);
	if (text == NULL)
		return ERR_LIMIT;
	memcpy(text, PREFIX, sizeof(PREFIX) - 1);
	memcpy(text + sizeof(PREFIX) - 1, domain.ptr, domain.len);
	struct span name = span_of(text, sizeof(PREFIX) - 1 + domain.len);
	int rc = note_query(c, name);
	if (rc < 0)
		return rc;
	const struct dns_answer *answer = dns_lookup(c->view, name, DNS_TXT);
	if (answer == NULL)
		return ERR_AGAIN;
	if (answer->status == DNS_FAILED)
		return ERR_TEMP;
	struct dmarc_record record, last = {.p = DMARC_NONE};
	size_t count = 0;
	for (size_t i = 0; i < answer->count; i++) {
		if (dmarc_record_parse(answer->records[i].text, &record) == 0) {
			last = record;
			count++;
		}
	}
	c->several = c->several || count > 1;
	if (count != 1)
		return ERR_NOT_FOUND;
	walk->found[walk->count++] = (struct found){domain, last};
	return 0;
}

/* Section 4.10 from the name behind WALK's start on, which was asked before. */
static int walk_up(struct check *c, struct walk *walk)
{
	size_t labels = dnsname_labels(walk->start);
	struct span name = dnsname_tail(walk->start, labels < DMARC_WALK_MAX ? labels - 1 : DMARC_WALK_MAX - 1);
	for (; name.len > 0; name = dnsname_parent(name)) {
		if (walk->count > 0 && walk->found[walk->count - 1].record.psd != DMARC_PSD_UNKNOWN)
			return 0;
		int rc = ask(c, name, walk);
		if (rc < 0 && rc != ERR_NOT_FOUND)
			return rc;
	}
	return 0;
}

/* Section 4.10.2. */
static struct span organizational_domain(const struct walk *walk)
{
	for (size_t i = 0; i < walk->count; i++) {
		const struct found *f = &walk->found[i];
		if (f->record.psd == DMARC_PSD_NO)
			return f->domain;
		if (f->record.psd == DMARC_PSD_YES && f->domain.len != walk->start.len)
			return dnsname_tail(walk->start, dnsname_labels(f->domain) + 1);
	}
	return walk->count > 0 ? walk->found[walk->count - 1].domain : walk->start;
}

static const struct found *find_record(const struct walk *walk, struct span domain)
{
	for (size_t i = 0; i < walk->count; i++)
		if (span_eq(walk->found[i].domain, domain))
			return &walk->found[i];
	return NULL;
}

static int walk_author(struct check *c)
{
	if (c->walked)
		return 0;
	/* A walk that could not be ended is begun anew by the next identifier:
	 * what it found must not stay, or the notes overflow. */
	size_t known = c->author.count;
	int rc = walk_up(c, &c->author);
	if (rc < 0) {
		c->author.count = known;
		return rc;
	}
	c->walked = true;
	c->v.organizational_domain = organizational_domain(&c->author);
	return 0;
}

/* The old way: the record of the registered domain. */
static int ask_registered(struct check *c, const struct found **record_out)
{
	const struct dmarc_psl *psl = c->request->psl;
	c->v.organizational_domain = psl->organizational(psl->arg, c->v.author_domain);
	c->walked = true;
	if (c->author.count > 0) {
		*record_out = &c->author.found[0];
		return 0;
	}
	if (c->v.organizational_domain.len == c->v.author_domain.len)
		return ERR_NOT_FOUND;
	int rc = ask(c, c->v.organizational_domain, &c->author);
	if (rc == 0)
		*record_out = &c->author.found[0];
	return rc;
}

/* Section 4.10.1: which record governs. */
static int discover(struct check *c, const struct found **record_out)
{
	int rc = ask(c, c->v.author_domain, &c->author);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return rc;
	if (c->request->psl != NULL)
		return ask_registered(c, record_out);
	if (rc == 0) {
		*record_out = &c->author.found[0];
		return 0;
	}
	rc = walk_author(c);
	if (rc < 0)
		return rc;
	const struct found *found = find_record(&c->author, c->v.organizational_domain);
	if (found == NULL && c->author.count > 0 && c->author.found[c->author.count - 1].record.psd == DMARC_PSD_YES)
		found = &c->author.found[c->author.count - 1];
	if (found == NULL)
		return ERR_NOT_FOUND;
	*record_out = found;
	return 0;
}

/* Whether the Author Domain exists is asked only where that decides; 0,
 * ERR_AGAIN, or ERR_TEMP after taking it for one that exists. */
static int choose_policy(struct check *c)
{
	const struct dmarc_record *r = &c->v.record;
	int rc = 0;
	c->v.published = r->sp;
	if (span_eq(c->v.policy_domain, c->v.author_domain)) {
		c->v.published = r->p;
	} else if (r->np != r->sp) {
		const struct dns_answer *answer = dns_lookup(c->view, c->v.author_domain, DNS_A);
		if (answer == NULL)
			return ERR_AGAIN;
		if (answer->status == DNS_NXDOMAIN)
			c->v.published = r->np;
		rc = answer->status == DNS_FAILED ? ERR_TEMP : 0;
	}
	c->v.policy = c->v.published;
	if (r->testing && c->v.policy > DMARC_NONE)
		c->v.policy--;
	return rc;
}

static bool is_strict(const struct check *c, enum dmarc_mechanism mechanism)
{
	return mechanism == DMARC_SPF ? c->v.record.strict_spf : c->v.record.strict_dkim;
}

static int walk_from(struct check *c, struct span domain, struct span *organizational_out)
{
	struct walk walk = {.start = domain};
	int rc = ask(c, domain, &walk);
	if (rc == 0 || rc == ERR_NOT_FOUND)
		rc = walk_up(c, &walk);
	if (rc == 0)
		*organizational_out = organizational_domain(&walk);
	return rc;
}

/* 1 aligned, 0 not, or an error. */
static int aligned(struct check *c, enum dmarc_mechanism mechanism, struct span domain)
{
	const struct dmarc_psl *psl = c->request->psl;
	if (span_eq(domain, c->v.author_domain))
		return 1;
	if (is_strict(c, mechanism))
		return 0;
	if (psl != NULL)
		return span_eq(psl->organizational(psl->arg, domain), c->v.organizational_domain);
	int rc = walk_author(c);
	if (rc < 0)
		return rc;
	struct span organizational = SPAN_EMPTY;
	rc = walk_from(c, domain, &organizational);
	/* Whoever sends a message chooses where his own names fail: that counts
	 * only for those that could be aligned at all. */
	if (rc == ERR_TEMP && !dnsname_under(domain, c->v.organizational_domain))
		return 0;
	return rc < 0 ? rc : span_eq(organizational, c->v.organizational_domain);
}

static int normalise(struct check *c, struct span domain, struct span *domain_out)
{
	char mem[DOMAIN_MAX];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	domain = dnsname_trim(domain);
	/* A lone label has no record, as a rule, but is no malformed name. */
	if (!dnsname_host_valid(domain) || idn_to_ascii(domain, &b) < 0 || !sbuf_ok(&b) ||
	    !dnsname_valid(sbuf_span(&b)))
		return ERR_SYNTAX;
	return arena_dup(c->arena, sbuf_span(&b), domain_out);
}

/* Past the cap only names are looked at that can be aligned: those within the
 * Organizational Domain of the author, whose walks share most of their queries. */
static bool worth_a_look(const struct check *c, struct span domain, size_t looked_at)
{
	return looked_at < DMARC_IDENTIFIERS_MAX ||
	       (looked_at < 2 * DMARC_IDENTIFIERS_MAX && c->v.organizational_domain.len > 0 &&
		dnsname_under(domain, c->v.organizational_domain));
}

/*
 * Looks at the identifiers, in two rounds, so that those equal to the Author
 * Domain are seen even where there are many others.
 */
static int align(struct check *c)
{
	int trouble = 0;
	size_t looked_at = 0;
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < c->request->identifier_count; i++) {
			const struct dmarc_identifier *id = &c->request->identifiers[i];
			struct span domain;
			int rc = normalise(c, id->domain, &domain);
			if (rc == ERR_LIMIT)
				return rc;
			if (rc < 0 || id->unknown || c->v.aligned[id->mechanism].len > 0 ||
			    span_eq(domain, c->v.author_domain) != (round == 0) ||
			    !worth_a_look(c, domain, looked_at))
				continue;
			looked_at++;
			rc = aligned(c, id->mechanism, domain);
			if (rc == 1)
				c->v.aligned[id->mechanism] = domain;
			else if (rc < 0)
				trouble = rc == ERR_TEMP && trouble < 0 ? trouble : rc;
			if (rc == ERR_LIMIT)
				return rc;
		}
	}
	return trouble;
}

/* ERR_TEMP where an identifier that is unknown for now could be aligned. */
static int look_at_unknown(struct check *c)
{
	for (size_t i = 0; i < c->request->identifier_count; i++) {
		const struct dmarc_identifier *id = &c->request->identifiers[i];
		struct span domain;
		int rc = id->unknown ? normalise(c, id->domain, &domain) : ERR_SYNTAX;
		if (rc == ERR_LIMIT)
			return rc;
		if (rc < 0)
			continue;
		if (span_eq(domain, c->v.author_domain))
			return ERR_TEMP;
		if (is_strict(c, id->mechanism))
			continue;
		rc = walk_author(c);
		if (rc < 0)
			return rc;
		if (dnsname_under(domain, c->v.organizational_domain))
			return ERR_TEMP;
	}
	return 0;
}

static bool any_aligned(const struct check *c)
{
	return c->v.aligned[DMARC_SPF].len > 0 || c->v.aligned[DMARC_DKIM].len > 0;
}

/* The Organizational Domain for the report where alignment did not need it. */
static int complete_organizational(struct check *c)
{
	bool strict = c->v.record.strict_dkim && c->v.record.strict_spf;
	if (c->walked)
		return 0;
	/* Section 4.10.2: the common domain is its own Organizational Domain. */
	if (any_aligned(c)) {
		c->v.organizational_domain = c->v.author_domain;
		return 0;
	}
	if (strict && !c->request->tells_organizational)
		return 0;
	int rc = walk_author(c);
	/* It decides nothing any more. */
	return rc == ERR_TEMP ? 0 : rc;
}

static void conclude(struct check *c, enum auth_result result, const char *reason)
{
	c->v.result = result;
	c->v.reason = reason;
	c->v.disposition = result == AUTH_FAIL ? c->v.policy : DMARC_NONE;
}

static int evaluate(struct check *c)
{
	const struct found *found = NULL;
	int rc = discover(c, &found);
	if (rc == ERR_NOT_FOUND) {
		conclude(c, AUTH_NONE, c->several ? "more than one DMARC record at one name: none counts" : "no DMARC record");
		return 0;
	}
	if (rc != 0)
		return rc;
	c->v.policy_domain = found->domain;
	c->v.record = found->record;
	if (found->record.invalid) {
		conclude(c, AUTH_PERMERROR, "the policy of the DMARC record is not valid");
		return 0;
	}
	c->v.has_policy = true;
	rc = align(c);
	if (rc == 0 && !any_aligned(c))
		rc = look_at_unknown(c);
	int chosen = choose_policy(c);
	if (rc == ERR_AGAIN || rc == ERR_LIMIT)
		return rc;
	if (chosen == ERR_AGAIN)
		return chosen;
	if (any_aligned(c))
		conclude(c, AUTH_PASS, NULL);
	else if (rc < 0 || chosen < 0)
		return ERR_TEMP;
	else
		conclude(c, AUTH_FAIL, c->request->identifier_count == 0 ? "no authenticated identifier"
									 : "no identifier is aligned");
	return complete_organizational(c);
}

static struct check *new_check(const struct dns_view *view, struct arena *a)
{
	struct check *c = arena_alloc(a, sizeof(*c));
	if (c == NULL)
		return NULL;
	*c = (struct check){.view = view, .arena = a};
	return c;
}

int dmarc_organizational(struct span domain, const struct dmarc_psl *psl, const struct dns_view *view,
			 struct arena *a, struct span *organizational_out)
{
	struct check *c = new_check(view, a);
	if (c == NULL)
		return ERR_LIMIT;
	int rc = normalise(c, domain, &domain);
	if (rc < 0)
		return rc;
	if (psl == NULL)
		return walk_from(c, domain, organizational_out);
	*organizational_out = psl->organizational(psl->arg, domain);
	return 0;
}

int dmarc_check(const struct dmarc_request *request, const struct dns_view *view, struct arena *a,
		struct dmarc_verdict *verdict_out)
{
	struct check *c = new_check(view, a);
	if (c == NULL)
		return ERR_LIMIT;
	c->request = request;
	int rc = normalise(c, request->author_domain, &c->v.author_domain);
	if (rc == ERR_SYNTAX) {
		c->v.author_domain = request->author_domain;
		conclude(c, AUTH_PERMERROR, "the Author Domain is not a domain name");
		*verdict_out = c->v;
		return 0;
	}
	c->author.start = c->v.author_domain;
	if (rc == 0)
		rc = evaluate(c);
	if (rc == ERR_TEMP) {
		conclude(c, AUTH_TEMPERROR, "DNS query failed");
		rc = 0;
	}
	if (rc == 0)
		*verdict_out = c->v;
	return rc;
}

bool dmarc_could_align(const struct dmarc_verdict *v, enum dmarc_mechanism mechanism, struct span domain)
{
	bool strict = mechanism == DMARC_SPF ? v->record.strict_spf : v->record.strict_dkim;
	if (domain.len == 0)
		return false;
	if (span_ieq(domain, v->author_domain) || span_ieq(domain, v->aligned[mechanism]))
		return true;
	return v->has_policy && !strict && v->organizational_domain.len > 0 &&
	       dnsname_under(domain, v->organizational_domain);
}
