/*
 * check_host() of RFC 7208 section 4.  One struct check lives for one run; its
 * counters begin at 0 in each run, so that a run that was cut short by a
 * missing answer leaves nothing behind.  Recursion (include, redirect) is
 * bounded by SPF_LOOKUPS_MAX.
 *
 * Internal codes: 1 match, 0 no match, ERR_AGAIN, and ERR_TEMP or ERR_PERM for
 * a result of temperror or permerror with `problem` set.
 */
#include "lib/spf/spf.h"

#include "lib/mail/addr.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "lib/spf/spf_macro.h"
#include "lib/spf/spf_record.h"

#define EXPANDED_MAX 4096 /* bytes of a name before it is cut to its last labels */

struct check {
	const struct dns_view *view;
	struct arena *arena;
	struct spf_macro_values values; /* domain: the one at hand */
	unsigned lookups, voids;
	bool uncounted; /* the verdict stands: the explanation is free of limits */
	bool validated; /* %{p} was looked for */
	const char *problem;
	struct span problem_at;
	struct span mechanism;
	struct spf_term exp; /* of the record that gave the result */
	struct span exp_domain;
};

static int problem(struct check *c, int code, const char *why, struct span at)
{
	c->problem = why;
	c->problem_at = at;
	return code;
}

/* 0 with records, ERR_NOT_FOUND without, or another code.  A name that macros have made
 * and nobody can ask for is no DNS query, so none that stays without an answer (section
 * 4.6.4). */
static int ask(struct check *c, struct span name, enum dns_type type, const struct dns_answer **answer_out)
{
	if (!dnsname_valid(dnsname_trim(name)))
		return ERR_NOT_FOUND;
	const struct dns_answer *answer = dns_lookup(c->view, dnsname_trim(name), type);
	if (answer == NULL)
		return ERR_AGAIN;
	switch (answer->status) {
	case DNS_OK:
		*answer_out = answer;
		return 0;
	case DNS_FAILED:
		return problem(c, ERR_TEMP, "DNS query failed", name);
	default:
		if (!c->uncounted && ++c->voids > SPF_VOID_MAX)
			return problem(c, ERR_PERM, "too many DNS answers without records", name);
		return ERR_NOT_FOUND;
	}
}

static enum dns_type address_type(const struct check *c)
{
	return c->values.ip.bits == 32 ? DNS_A : DNS_AAAA;
}

static bool answer_has(const struct check *c, const struct dns_answer *answer, unsigned prefix)
{
	for (size_t i = 0; i < answer->count; i++) {
		const struct ip *ip = &answer->records[i].address;
		struct ip_net net = ip_net_of(ip, prefix);
		if (ip->bits == c->values.ip.bits && ip_net_has(&net, &c->values.ip))
			return true;
	}
	return false;
}

static unsigned term_prefix(const struct check *c, const struct spf_term *term)
{
	return c->values.ip.bits == 32 ? term->prefix4 : term->prefix6;
}

/* The name of the PTR query for the client. */
static struct span reverse_name(const struct check *c, struct sbuf *out)
{
	spf_macro_expand(SPAN_LIT("%{ir}.%{v}.arpa"), &c->values, out);
	return sbuf_span(out);
}

/*
 * Finds a name of the client that resolves back to it: the best one for
 * TARGET (equal, then below it, then any where ANY).  Only ERR_AGAIN, ERR_PERM,
 * 0 and 1 come back: a DNS failure is no match here (section 5.5).
 */
static int validated_name(struct check *c, struct span target, bool any, struct span *name_out)
{
	char mem[128];
	struct sbuf b;
	const struct dns_answer *ptr, *addresses;
	sbuf_init(&b, mem, sizeof(mem));
	int rc = ask(c, reverse_name(c, &b), DNS_PTR, &ptr);
	if (rc < 0)
		return rc == ERR_AGAIN || rc == ERR_PERM ? rc : 0;
	int best = 0, waiting = 0;
	for (size_t i = 0; i < ptr->count && i < SPF_NAMES_MAX; i++) {
		struct span name = ptr->records[i].text;
		int rank = span_ieq(name, target) ? 3 : dnsname_under(name, target) ? 2 : any ? 1 : 0;
		if (rank <= best)
			continue;
		rc = ask(c, name, address_type(c), &addresses);
		if (rc == ERR_PERM)
			return rc;
		if (rc == ERR_AGAIN)
			waiting = rc;
		if (rc < 0 || !answer_has(c, addresses, 128))
			continue;
		best = rank;
		*name_out = name;
	}
	return waiting < 0 ? waiting : best > 0;
}

/* Fills %{p} where TEXT uses it.  However often that is, the client's name is looked for
 * once: only the first time do answers without records count. */
static int prepare_validated(struct check *c, struct span text)
{
	if (!spf_macro_uses(text, 'p'))
		return 0;
	struct span name = SPAN_LIT("unknown");
	bool uncounted = c->uncounted;
	c->uncounted = uncounted || c->validated;
	int rc = validated_name(c, c->values.domain, true, &name);
	c->uncounted = uncounted;
	c->validated = true;
	c->values.validated = name;
	return rc < 0 ? rc : 0;
}

/* The target name of TERM: its expanded domain-spec, or the current domain. */
static int target_name(struct check *c, const struct spf_term *term, struct span *name_out)
{
	if (term->domain_spec.len == 0) {
		*name_out = c->values.domain;
		return 0;
	}
	int rc = prepare_validated(c, term->domain_spec);
	if (rc < 0)
		return rc;
	char mem[EXPANDED_MAX];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	spf_macro_expand(term->domain_spec, &c->values, &b);
	struct span name = dnsname_trim(sbuf_span(&b));
	if (!sbuf_ok(&b))
		return problem(c, ERR_PERM, "expanded name is too long", term->text);
	while (name.len > DNSNAME_MAX && span_chr(name, '.') != SPAN_NPOS)
		name = dnsname_parent(name);
	return arena_dup(c->arena, name, name_out);
}

static int match_mx(struct check *c, const struct spf_term *term, struct span name)
{
	const struct dns_answer *mx, *addresses;
	int rc = ask(c, name, DNS_MX, &mx);
	if (rc < 0)
		return rc == ERR_NOT_FOUND ? 0 : rc;
	if (mx->count > SPF_NAMES_MAX)
		return problem(c, ERR_PERM, "too many MX records", name);
	int waiting = 0;
	for (size_t i = 0; i < mx->count; i++) {
		if (mx->records[i].text.len == 0)
			continue;
		rc = ask(c, mx->records[i].text, address_type(c), &addresses);
		if (rc == ERR_AGAIN)
			waiting = rc;
		else if (rc == ERR_TEMP || rc == ERR_PERM)
			return waiting < 0 ? waiting : rc;
		else if (rc == 0 && waiting == 0 && answer_has(c, addresses, term_prefix(c, term)))
			return 1;
	}
	return waiting;
}

static int match_address(struct check *c, const struct spf_term *term, struct span name)
{
	const struct dns_answer *answer;
	int rc = ask(c, name, term->kind == SPF_EXISTS ? DNS_A : address_type(c), &answer);
	if (rc < 0)
		return rc == ERR_NOT_FOUND ? 0 : rc;
	return term->kind == SPF_EXISTS || answer_has(c, answer, term_prefix(c, term));
}

static int check_domain(struct check *c, struct span domain, bool included, enum auth_result *result_out);

static int match_include(struct check *c, const struct spf_term *term, struct span name)
{
	enum auth_result result;
	struct span outer = c->values.domain, mechanism = c->mechanism;
	int rc = check_domain(c, name, true, &result);
	c->values.domain = outer;
	c->mechanism = mechanism;
	if (rc < 0)
		return rc;
	switch (result) {
	case AUTH_PASS:
		return 1;
	case AUTH_TEMPERROR:
		return ERR_TEMP;
	case AUTH_PERMERROR:
		return ERR_PERM;
	case AUTH_NONE:
		return problem(c, ERR_PERM, "included domain has no SPF record", term->text);
	default:
		return 0;
	}
}

static bool asks_dns(enum spf_kind kind)
{
	return kind == SPF_INCLUDE || kind == SPF_A || kind == SPF_MX || kind == SPF_PTR ||
	       kind == SPF_EXISTS || kind == SPF_REDIRECT;
}

static int count_lookup(struct check *c, const struct spf_term *term)
{
	if (asks_dns(term->kind) && ++c->lookups > SPF_LOOKUPS_MAX)
		return problem(c, ERR_PERM, "too many terms that ask the DNS", term->text);
	return 0;
}

static int match(struct check *c, const struct spf_term *term)
{
	struct span name = SPAN_EMPTY, validated;
	if (term->kind == SPF_REDIRECT)
		return 0; /* follow_redirect() counts it, if nothing matches */
	int rc = count_lookup(c, term);
	if (rc == 0 && asks_dns(term->kind))
		rc = target_name(c, term, &name);
	if (rc < 0)
		return rc;
	switch (term->kind) {
	case SPF_ALL:
		return 1;
	case SPF_IP4:
	case SPF_IP6:
		return term->net.base.bits == c->values.ip.bits && ip_net_has(&term->net, &c->values.ip);
	case SPF_A:
	case SPF_EXISTS:
		return match_address(c, term, name);
	case SPF_MX:
		return match_mx(c, term, name);
	case SPF_PTR:
		return validated_name(c, name, false, &validated);
	case SPF_INCLUDE:
		return match_include(c, term, name);
	default:
		return 0;
	}
}

/*
 * While an answer is awaited, asks what the terms behind will need, as far as
 * the limit allows and their names are written out.
 */
static void ask_ahead(struct check *c, struct span rest)
{
	struct spf_term term;
	unsigned budget = SPF_LOOKUPS_MAX - (c->lookups > SPF_LOOKUPS_MAX ? SPF_LOOKUPS_MAX : c->lookups);
	while (budget > 0 && spf_term_next(&rest, &term) > 0) {
		if (!asks_dns(term.kind))
			continue;
		budget--;
		struct span name = term.domain_spec.len > 0 ? term.domain_spec : c->values.domain;
		if (term.kind == SPF_PTR || span_chr(name, '%') != SPAN_NPOS)
			continue;
		enum dns_type type = term.kind == SPF_MX       ? DNS_MX
				     : term.kind == SPF_A      ? address_type(c)
				     : term.kind == SPF_EXISTS ? DNS_A
							       : DNS_TXT;
		(void)dns_lookup(c->view, dnsname_trim(name), type);
	}
}

static enum auth_result qualifier_result(char qualifier)
{
	switch (qualifier) {
	case '-':
		return AUTH_FAIL;
	case '~':
		return AUTH_SOFTFAIL;
	case '?':
		return AUTH_NEUTRAL;
	default:
		return AUTH_PASS;
	}
}

/* Finds the one record among the TXT records of the current domain. */
static int find_record(struct check *c, struct span *record_out)
{
	const struct dns_answer *answer = dns_lookup(c->view, c->values.domain, DNS_TXT);
	if (answer == NULL)
		return ERR_AGAIN;
	if (answer->status == DNS_FAILED)
		return problem(c, ERR_TEMP, "DNS query failed", c->values.domain);
	size_t found = 0;
	for (size_t i = 0; i < answer->count; i++) {
		if (spf_record_is(answer->records[i].text)) {
			*record_out = answer->records[i].text;
			found++;
		}
	}
	if (found > 1)
		return problem(c, ERR_PERM, "more than one SPF record", c->values.domain);
	return found == 1 ? 0 : ERR_NOT_FOUND;
}

static int follow_redirect(struct check *c, const struct spf_term *term, bool included,
			   enum auth_result *result_out)
{
	struct span name;
	int rc = count_lookup(c, term);
	if (rc == 0)
		rc = target_name(c, term, &name);
	if (rc == 0)
		rc = check_domain(c, name, included, result_out);
	if (rc == 0 && *result_out == AUTH_NONE)
		return problem(c, ERR_PERM, "redirect to a domain without an SPF record", term->text);
	return rc;
}

/* Evaluates RECORD for the current domain; codes as in match(). */
static int evaluate(struct check *c, struct span record, bool included, enum auth_result *result_out)
{
	struct spf_term term, redirect, exp;
	struct span rest = span_skip(record, strlen("v=spf1")), bad;
	if (spf_record_check(record, &redirect, &exp, &bad) < 0)
		return problem(c, ERR_PERM, "syntax error in the SPF record", bad);
	while (spf_term_next(&rest, &term) > 0) {
		int rc = match(c, &term);
		if (rc == ERR_AGAIN && !included)
			ask_ahead(c, rest);
		if (rc < 0)
			return rc;
		if (rc == 0)
			continue;
		*result_out = qualifier_result(term.qualifier);
		c->mechanism = term.text;
		c->exp = exp;
		c->exp_domain = c->values.domain;
		return 0;
	}
	if (redirect.text.len > 0)
		return follow_redirect(c, &redirect, included, result_out);
	*result_out = AUTH_NEUTRAL;
	return 0;
}

/* check_host() without the explanation; 0 or ERR_AGAIN, ERR_LIMIT. */
static int check_domain(struct check *c, struct span domain, bool included, enum auth_result *result_out)
{
	struct span record = SPAN_EMPTY;
	c->values.domain = domain;
	int rc = find_record(c, &record);
	if (rc == 0)
		rc = evaluate(c, record, included, result_out);
	switch (rc) {
	case ERR_NOT_FOUND:
		*result_out = AUTH_NONE;
		return 0;
	case ERR_TEMP:
		*result_out = AUTH_TEMPERROR;
		return 0;
	case ERR_PERM:
		*result_out = AUTH_PERMERROR;
		return 0;
	default:
		return rc;
	}
}

static bool printable(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.ptr[i] < 0x20 || s.ptr[i] > 0x7e)
			return false;
	return true;
}

/* Section 6.2: whatever goes wrong, there is just no explanation. */
static int explain(struct check *c, struct span *text_out)
{
	struct span name;
	c->uncounted = true;
	c->values.domain = c->exp_domain;
	int rc = target_name(c, &c->exp, &name);
	if (rc < 0)
		return rc == ERR_AGAIN ? rc : 0;
	const struct dns_answer *answer = dns_lookup(c->view, name, DNS_TXT);
	if (answer == NULL)
		return ERR_AGAIN;
	if (answer->status != DNS_OK || answer->count != 1)
		return 0;
	struct span text = answer->records[0].text;
	if (!spf_macro_valid(text, true))
		return 0;
	rc = prepare_validated(c, text);
	if (rc < 0)
		return rc == ERR_AGAIN ? rc : 0;
	char mem[SPF_EXPLANATION_MAX + 1];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	spf_macro_expand(text, &c->values, &b);
	if (!sbuf_ok(&b) || !printable(sbuf_span(&b)))
		return 0;
	return arena_dup(c->arena, sbuf_span(&b), text_out);
}

/* The sender of the macros: local part, or postmaster, @ domain. */
static int set_sender(struct check *c, struct span local, struct span domain)
{
	struct span at = SPAN_LIT("@");
	if (local.len == 0)
		local = SPAN_LIT("postmaster");
	char *text = arena_alloc(c->arena, local.len + at.len + domain.len + 1);
	if (text == NULL)
		return ERR_LIMIT;
	memcpy(text, local.ptr, local.len);
	text[local.len] = '@';
	memcpy(text + local.len + 1, domain.ptr, domain.len);
	c->values.sender = span_of(text, local.len + 1 + domain.len);
	c->values.local = span_take(c->values.sender, local.len);
	c->values.sender_domain = span_skip(c->values.sender, local.len + 1);
	return 0;
}

/* Lower case, A-labels, no final dot; ERR_NOT_FOUND where it cannot be judged. */
static int judged_domain(struct check *c, struct span domain, struct span *domain_out)
{
	char mem[SPF_SENDER_MAX];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	domain = dnsname_trim(domain);
	if (domain.len > SPF_SENDER_MAX || !dnsname_mail_valid(domain))
		return ERR_NOT_FOUND;
	if (idn_to_ascii(domain, &b) < 0 || !sbuf_ok(&b) || !dnsname_valid(sbuf_span(&b)))
		return ERR_NOT_FOUND;
	return arena_dup(c->arena, sbuf_span(&b), domain_out);
}

/* What the macros show: the domain in the letters in which it was said, where it
 * is no U-label. */
static struct span shown_domain(struct span said, struct span judged)
{
	said = dnsname_trim(said);
	return span_ieq(said, judged) ? said : judged;
}

static int run(struct check *c, struct spf_verdict *v)
{
	int rc = check_domain(c, c->values.sender_domain, false, &v->result);
	if (rc == 0 && v->result == AUTH_FAIL && c->exp.text.len > 0)
		rc = explain(c, &v->explanation);
	return rc;
}

int spf_check(const struct spf_request *request, const struct dns_view *view, struct arena *a,
	      struct spf_verdict *verdict_out)
{
	struct span local, domain;
	struct spf_verdict v = {.identity = request->mail_from.len == 0 ? SPF_HELO : SPF_MAILFROM};
	struct check c = {.view = view, .arena = a};
	addr_split(request->mail_from, &local, &domain);
	if (v.identity == SPF_HELO)
		domain = request->helo;
	c.values.helo = span_take(request->helo, SPF_SENDER_MAX);
	c.values.receiver = request->receiver;
	c.values.ip = request->ip;
	c.values.now = request->now;
	v.domain = domain;
	int rc = request->mail_from.len > SPF_SENDER_MAX ? ERR_NOT_FOUND : judged_domain(&c, domain, &v.domain);
	if (rc == ERR_NOT_FOUND) {
		v.problem = v.identity == SPF_HELO ? "the HELO name is not a domain name"
						   : "the sender has no valid domain";
		*verdict_out = v;
		return 0;
	}
	if (rc == 0)
		rc = set_sender(&c, local, shown_domain(domain, v.domain));
	if (rc == 0)
		rc = run(&c, &v);
	if (rc < 0)
		return rc;
	bool error = v.result == AUTH_TEMPERROR || v.result == AUTH_PERMERROR;
	v.problem = error ? c.problem : NULL;
	v.problem_at = error ? c.problem_at : SPAN_EMPTY;
	v.mechanism = error || v.result == AUTH_NONE ? SPAN_EMPTY : c.mechanism;
	v.lookups = c.lookups > SPF_LOOKUPS_MAX ? SPF_LOOKUPS_MAX : c.lookups;
	v.void_lookups = c.voids;
	*verdict_out = v;
	return 0;
}

const char *spf_identity_text(enum spf_identity identity)
{
	return identity == SPF_HELO ? "helo" : "mailfrom";
}
