/*
 * The limits as configured, and who is exempt from them.  Pure.
 *
 *   limit   = SCOPE UNIT COUNT/WINDOW {"," COUNT/WINDOW} [ACTION] {option}
 *   SCOPE   = client_ip | client_net | account | sender | sender_domain |
 *             account_domain | recipient | recipient_domain | global
 *   UNIT    = messages | recipients | bytes
 *   COUNT   = digits, for bytes with K, M, G or T
 *   WINDOW  = digits with s, m, h, d or w
 *   ACTION  = DEFER | REJECT | HOLD                         DEFER if absent
 *   option  = "when" ATTRIBUTE ("=" | "!=") VALUE
 *           | "shadow" "=" ("yes" | "no")
 *           | "ipv4_prefix" "=" 0..32 | "ipv6_prefix" "=" 0..128
 *           | "text" "=" VALUE
 *           | "smooth" "=" ("yes" | "no") | "burst" "=" COUNT
 *   VALUE   = word without white space | "quoted text"
 *
 * Several conditions must all hold; an attribute that Postfix did not send is
 * empty.  `smooth` spreads what the first window N/W allows: besides at most N in
 * every W, at most `burst` pass in every W * burst / N (whole seconds, rounded up),
 * which is one more window of the limit.  In a text, {limit}, {key}, {wait} and {until} are replaced.
 */
#ifndef POLICYD_RULES_H
#define POLICYD_RULES_H

#include "lib/base/htab.h"
#include "policyd-ratelimit/netmap.h"
#include "policyd-ratelimit/proto.h"
#include "policyd-ratelimit/window.h"

#define RULES_MAX 64            /* limits */
#define RULES_EXTRA_MAX 32      /* further ones that overrides make */
#define RULES_WINDOWS_MAX 8     /* windows of one limit */
#define RULES_CONDITIONS_MAX 8  /* conditions of one limit */
#define RULES_ALLOW_MAX 65536   /* networks, and as many accounts */
#define RULES_SPF_MAX 64        /* domains whose SPF records say who is exempt */
#define RULES_TEXT_MAX 256      /* bytes of an own text */
#define RULES_LINE_MAX 2048     /* bytes of one limit */

enum rule_scope {
	SCOPE_CLIENT_IP,
	SCOPE_CLIENT_NET,
	SCOPE_ACCOUNT,
	SCOPE_SENDER,
	SCOPE_SENDER_DOMAIN,
	SCOPE_ACCOUNT_DOMAIN,
	SCOPE_RECIPIENT,
	SCOPE_RECIPIENT_DOMAIN,
	SCOPE_GLOBAL,
	SCOPE_COUNT,
};

enum rule_unit { UNIT_MESSAGES, UNIT_RECIPIENTS, UNIT_BYTES, UNIT_COUNT };

struct rule_window {
	uint64_t max;
	int64_t length_ms;
	/*
	 * Tells the counters of this window from all others, across restarts.
	 * It depends on what is counted (scope, unit, length, prefixes,
	 * conditions, shadow) and not on the maximum, action or text, so that
	 * changing those keeps the counts.
	 */
	uint64_t id;
	unsigned class; /* of the table; set by the session */
	bool smooth;    /* spreads what windows[0] allows */
};

struct rule_condition {
	char *name, *value;
	int attr; /* of enum proto_attr; below 0: none of them */
	bool negated;
};

struct rule {
	enum rule_scope scope;
	enum rule_unit unit;
	enum proto_action action;
	bool shadow;
	bool extra; /* made by rules_add_extra() */
	/* What it counts depends on the recipient, whom Postfix does not name at the end
	 * of a message to several: by its scope or by a condition. */
	bool by_recipient;
	bool smooth;
	uint64_t burst; /* of smooth; 0: the default */
	uint8_t ipv4_prefix, ipv6_prefix;
	struct rule_window windows[RULES_WINDOWS_MAX];
	size_t window_count;
	struct rule_condition conditions[RULES_CONDITIONS_MAX];
	size_t condition_count;
	char *text;   /* NULL: the standard one */
	char *source; /* as it was written */
};

struct rules {
	struct rule items[RULES_MAX + RULES_EXTRA_MAX]; /* those that overrides make last */
	size_t count, extra_count;
	struct netmap allow_nets;
	struct htab allow_accounts; /* "user@domain" or "@domain", owned */
	char *spf_domains[RULES_SPF_MAX]; /* lower case, owned */
	size_t spf_count;
	struct netmap spf_nets;     /* what their records name; value: number of the domain + 1 */
	char delimiter;             /* of address extensions; NUL: none */
	unsigned scopes;            /* a bit for each that some limit has */
};

struct rules *rules_new(void);
void rules_free(struct rules **rules);

/* Adds one limit. On failure REASON says why; RULES is unchanged. */
int rules_add_limit(struct rules *rules, struct span text, struct sbuf *reason) MUST_CHECK;
/* Adds exemptions, separated by commas or white space: ADDRESS, ADDRESS/PREFIX,
 * account:USER, account:@DOMAIN or spf:DOMAIN. */
int rules_add_allow(struct rules *rules, struct span text, struct sbuf *reason) MUST_CHECK;
/*
 * Adds a limit without a maximum of its own: it counts only keys that have an
 * override.  ERR_EXISTS where some limit has that scope, unit and length,
 * ERR_LIMIT at RULES_EXTRA_MAX.
 */
int rules_add_extra(struct rules *rules, enum rule_scope scope, enum rule_unit unit, int64_t length_ms) MUST_CHECK;
/* Takes the last one that was added so away; all, where ALL. */
void rules_drop_extra(struct rules *rules, bool all);
/* After the last limit and exemption. */
void rules_seal(struct rules *rules);
/* Takes the content of NETS as what the records of the domains name now. */
void rules_set_spf(struct rules *rules, struct netmap *nets);

/* Whether all conditions of RULE hold; it has some. */
bool rule_conditions_hold(const struct rule *rule, const struct proto_request *request);
static inline bool rule_applies(const struct rule *rule, const struct proto_request *request)
{
	return rule->condition_count == 0 || rule_conditions_hold(rule, request);
}

static inline bool rule_scope_is_recipient(enum rule_scope scope)
{
	return scope == SCOPE_RECIPIENT || scope == SCOPE_RECIPIENT_DOMAIN;
}

/* Words of the grammar, for messages and lookups. NULL past the end. */
const char *rule_scope_name(enum rule_scope scope);
const char *rule_unit_name(enum rule_unit unit);
const char *rule_action_name(enum proto_action action);
int rule_scope_find(struct span name, enum rule_scope *scope_out) MUST_CHECK;
int rule_unit_find(struct span name, enum rule_unit *unit_out) MUST_CHECK;
int rule_action_find(struct span name, enum proto_action *action_out) MUST_CHECK;

/* 90s as "90s", 3600s as "1h": the largest unit without a rest. */
void rule_length_format(int64_t length_ms, struct sbuf *out);

#endif
