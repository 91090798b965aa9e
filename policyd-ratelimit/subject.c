/*
 * Normalisation happens once a request, into the subject's own memory; keys are
 * parts of that, but for those of clients, which each rule masks.  A binary key of an
 * address begins with its family and prefix, so that a /64 and a /128 differ.
 */
#include "subject.h"

#include "lib/base/utf8.h"

#define NULL_SENDER_IPV4_PREFIX 32
#define NULL_SENDER_IPV6_PREFIX 64

static struct span lower_into(char *mem, struct span s)
{
	s = span_take(s, PROTO_LINE_MAX);
	span_lower(s, mem);
	return span_of(mem, s.len);
}

static struct span final_dot_cut(struct span domain)
{
	return domain.len > 0 && domain.ptr[domain.len - 1] == '.' ? span_take(domain, domain.len - 1) : domain;
}

static void account_set(struct subject *s, char *mem, struct span account)
{
	s->account = lower_into(mem, account);
	size_t at = span_rchr(s->account, '@');
	s->account_domain = at == SPAN_NPOS ? SPAN_EMPTY : final_dot_cut(span_skip(s->account, at + 1));
}

/* ADDRESS as it is delivered, made in MEM: Postfix takes a dot off the end of its domain,
 * and user+tag@domain is user@domain. */
static void address_set(char *mem, struct span address, char delimiter, struct span *address_out,
			struct span *domain_out)
{
	*address_out = *domain_out = SPAN_EMPTY;
	if (address.len == 0)
		return;
	struct span a = lower_into(mem, address);
	size_t at = span_rchr(a, '@');
	const bool bare = at == SPAN_NPOS;
	if (bare)
		at = a.len;
	else if (at + 2 < a.len)
		a = final_dot_cut(a);
	size_t cut = delimiter == '\0' ? SPAN_NPOS : span_chr(span_take(a, at), delimiter);
	if (cut != SPAN_NPOS && cut > 0) {
		memmove(mem + cut, mem + at, a.len - at);
		a.len -= at - cut;
		at = cut;
	}
	*address_out = a;
	if (!bare)
		*domain_out = final_dot_cut(span_skip(a, at + 1));
}

static void subject_set(struct subject *s, struct span account, struct span sender,
			struct span recipient, char delimiter)
{
	account_set(s, s->mem, account);
	address_set(s->mem + PROTO_LINE_MAX, sender, delimiter, &s->sender, &s->sender_domain);
	address_set(s->mem + 2 * PROTO_LINE_MAX, recipient, delimiter, &s->recipient, &s->recipient_domain);
}

void subject_init(struct subject *subject, const struct proto_request *request, unsigned scopes, char delimiter)
{
	const unsigned senders = 1u << SCOPE_SENDER | 1u << SCOPE_SENDER_DOMAIN;
	const unsigned recipients = 1u << SCOPE_RECIPIENT | 1u << SCOPE_RECIPIENT_DOMAIN;
	struct ip client;
	if (ip_parse(request->attr[PROTO_CLIENT_ADDRESS], &client) < 0)
		client = (struct ip){0};
	subject->client = client;
	subject_set(subject, request->attr[PROTO_SASL_USERNAME],
		    (scopes & senders) != 0 ? request->attr[PROTO_SENDER] : SPAN_EMPTY,
		    (scopes & recipients) != 0 ? request->attr[PROTO_RECIPIENT] : SPAN_EMPTY, delimiter);
}

int subject_init_text(struct subject *subject, enum rule_scope scope, struct span text, char delimiter)
{
	struct span address = SPAN_EMPTY, *domain = NULL;
	struct ip_net net = {0};
	if (text.len > PROTO_LINE_MAX)
		return ERR_SYNTAX;
	if (scope == SCOPE_CLIENT_IP || scope == SCOPE_CLIENT_NET) {
		if (!span_ieq(text, SPAN_LIT("unknown")) && ip_net_parse(text, &net) < 0)
			return ERR_SYNTAX;
	} else if (scope != SCOPE_GLOBAL) {
		if (text.len == 0)
			return ERR_SYNTAX;
		address = text;
	}
	subject->client = net.base;
	bool is_account = scope == SCOPE_ACCOUNT || scope == SCOPE_ACCOUNT_DOMAIN;
	bool is_recipient = rule_scope_is_recipient(scope);
	subject_set(subject, is_account ? address : SPAN_EMPTY,
		    is_account || is_recipient ? SPAN_EMPTY : address,
		    is_recipient ? address : SPAN_EMPTY, delimiter);
	/* A domain may be given bare. */
	if (scope == SCOPE_ACCOUNT_DOMAIN)
		domain = &subject->account_domain;
	else if (scope == SCOPE_SENDER_DOMAIN)
		domain = &subject->sender_domain;
	else if (scope == SCOPE_RECIPIENT_DOMAIN)
		domain = &subject->recipient_domain;
	if (domain != NULL && span_chr(text, '@') == SPAN_NPOS)
		*domain = final_dot_cut(is_account ? subject->account : is_recipient ? subject->recipient
								      : subject->sender);
	return 0;
}

/* The network of the client as family, prefix and masked bytes, behind HEAD in MEM. */
static struct span client_key(const struct subject *s, struct span head, uint8_t ipv4_prefix, uint8_t ipv6_prefix,
			      char mem[SUBJECT_CLIENT_KEY_MAX])
{
	static const char unknown[] = "unknown";
	char *at = mem;
	if (head.len > 0)
		memcpy(at, head.ptr, head.len);
	at += head.len;
	if (s->client.bits == 0) {
		memcpy(at, unknown, sizeof(unknown) - 1);
		return span_of(mem, head.len + sizeof(unknown) - 1);
	}
	struct ip_net net = ip_net_of(&s->client, s->client.bits == 32 ? ipv4_prefix : ipv6_prefix);
	const size_t len = net.base.bits / 8u;
	*at++ = (char)net.base.bits;
	*at++ = (char)net.prefix;
	memcpy(at, net.base.bytes, len);
	return span_of(mem, head.len + 2 + len);
}

struct span subject_name(const struct subject *s, enum rule_scope scope)
{
	switch (scope) {
	case SCOPE_ACCOUNT:
		return s->account;
	case SCOPE_ACCOUNT_DOMAIN:
		return s->account_domain;
	case SCOPE_SENDER:
		return s->sender;
	case SCOPE_SENDER_DOMAIN:
		return s->sender_domain;
	case SCOPE_RECIPIENT:
		return s->recipient;
	case SCOPE_RECIPIENT_DOMAIN:
		return s->recipient_domain;
	default:
		return SPAN_EMPTY;
	}
}

int subject_key(const struct subject *subject, const struct rule *rule, char mem[SUBJECT_CLIENT_KEY_MAX],
		struct span *key_out)
{
	struct span name = subject_name(subject, rule->scope);
	switch (rule->scope) {
	case SCOPE_CLIENT_IP:
	case SCOPE_CLIENT_NET:
		name = client_key(subject, SPAN_EMPTY, rule->ipv4_prefix, rule->ipv6_prefix, mem);
		break;
	case SCOPE_SENDER:
	case SCOPE_SENDER_DOMAIN:
		/* Neither "<>" nor a bare name is one sender: count by client. */
		if (name.len == 0)
			name = client_key(subject, SPAN_LIT("<>"), NULL_SENDER_IPV4_PREFIX, NULL_SENDER_IPV6_PREFIX, mem);
		break;
	case SCOPE_RECIPIENT_DOMAIN:
		if (name.len == 0 && subject->recipient.len > 0)
			name = SPAN_LIT("<>");
		break;
	case SCOPE_GLOBAL:
		name = SPAN_LIT("global");
		break;
	default:
		break;
	}
	if (name.len == 0)
		return ERR_NOT_FOUND;
	*key_out = name;
	return 0;
}

static void printable_add(struct sbuf *out, struct span s)
{
	while (s.len > 0) {
		size_t len = utf8_length(s);
		if (len > 1 || (len == 1 && s.ptr[0] >= 0x20 && s.ptr[0] < 0x7f))
			sbuf_add(out, span_take(s, len));
		else
			sbuf_addc(out, '?');
		s = span_skip(s, len > 0 ? len : 1);
	}
}

static void client_format(const struct subject *s, uint8_t ipv4_prefix, uint8_t ipv6_prefix, struct sbuf *out)
{
	struct ip_net net = ip_net_of(&s->client, s->client.bits == 32 ? ipv4_prefix : ipv6_prefix);
	if (net.prefix == s->client.bits)
		ip_format(&net.base, out);
	else
		ip_net_format(&net, out);
}

void subject_format(const struct subject *subject, const struct rule *rule, struct sbuf *out)
{
	struct span name = subject_name(subject, rule->scope);
	bool is_sender = rule->scope == SCOPE_SENDER || rule->scope == SCOPE_SENDER_DOMAIN;
	if (rule->scope == SCOPE_CLIENT_IP || rule->scope == SCOPE_CLIENT_NET) {
		client_format(subject, rule->ipv4_prefix, rule->ipv6_prefix, out);
	} else if (is_sender && name.len == 0) {
		sbuf_adds(out, "<>,");
		client_format(subject, NULL_SENDER_IPV4_PREFIX, NULL_SENDER_IPV6_PREFIX, out);
	} else if (rule->scope == SCOPE_GLOBAL) {
		sbuf_adds(out, "global");
	} else if (name.len == 0) {
		sbuf_adds(out, "<>");
	} else {
		printable_add(out, name);
	}
}

void subject_text(const struct subject *subject, const struct rule *rule, char *out, size_t size)
{
	char mem[SUBJECT_KEY_MAX];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	subject_format(subject, rule, &b);
	size_t len = b.len < size ? b.len : size - 1;
	while (len < b.len && len > 0 && ((unsigned char)mem[len] & 0xc0) == 0x80)
		len--;
	memcpy(out, mem, len);
	out[len] = '\0';
}

const char *subject_spf_domain(const struct subject *subject, const struct rules *rules)
{
	uint32_t number;
	if (subject->account.len > 0 || subject->client.bits == 0 ||
	    netmap_find(&rules->spf_nets, &subject->client, &number) < 0)
		return NULL;
	return rules->spf_domains[number - 1];
}

bool subject_is_allowed(const struct subject *subject, const struct rules *rules)
{
	uint32_t value;
	if (subject->client.bits != 0 && netmap_find(&rules->allow_nets, &subject->client, &value) == 0)
		return true;
	if (subject->account.len == 0)
		return subject_spf_domain(subject, rules) != NULL;
	if (rules->allow_accounts.count == 0)
		return false;
	if (htab_get(&rules->allow_accounts, subject->account) != NULL)
		return true;
	size_t at = span_rchr(subject->account, '@');
	return at != SPAN_NPOS && htab_get(&rules->allow_accounts, span_skip(subject->account, at)) != NULL;
}
