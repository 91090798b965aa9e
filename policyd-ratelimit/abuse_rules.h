/*
 * What makes a key suspicious, and what then happens to it.  Pure.
 *
 *   abuse   = SCOPE MEASURE COUNT/WINDOW STEP {"," COUNT/WINDOW STEP} {option}
 *   SCOPE   = account | account_domain | sender | sender_domain |
 *             client_ip | client_net
 *   MEASURE = networks         distinct networks of clients; not for scopes of clients
 *           | new_recipients   recipients not written to within `memory`
 *           | rejects          share of recipients that were refused, COUNT as N%
 *   STEP    = WARN | THROTTLE | HOLD | SUSPEND
 *   option  = "ipv4_prefix" "=" 0..32 | "ipv6_prefix" "=" 0..128
 *                              of the networks that are told apart (24 and 48) or of
 *                              the scope's clients (32 and 64; client_net: 24 and 48)
 *           | "memory" "=" WINDOW       of new_recipients (30d)
 *           | "minimum" "=" N           rejects are judged from so many recipients on (20)
 *           | "throttle" "=" N/WINDOW   messages that THROTTLE lets through (10/1h)
 *           | "for" "=" WINDOW          a step ends by itself after so long
 *
 * A step is taken when more than COUNT is counted in some window.  All steps of
 * a rule have the same window, and rise in count and severity.  Without `for`
 * WARN ends after one window and the others when they are released.
 */
#ifndef POLICYD_ABUSE_RULES_H
#define POLICYD_ABUSE_RULES_H

#include "policyd-ratelimit/rules.h"

#define ABUSE_RULES_MAX 16
#define ABUSE_COUNT_MAX 1000000
#define ABUSE_LINE_MAX 1024 /* bytes of one rule */

enum abuse_measure { ABUSE_NETWORKS, ABUSE_NEW_RECIPIENTS, ABUSE_REJECTS };
enum abuse_step { ABUSE_NONE, ABUSE_WARN, ABUSE_THROTTLE, ABUSE_HOLD, ABUSE_SUSPEND, ABUSE_STEPS };

struct abuse_rule {
	struct rule key;                  /* whose scope and prefixes say who is counted */
	enum abuse_measure measure;
	uint64_t counts[ABUSE_STEPS];     /* of each step; percent for rejects */
	unsigned steps;                   /* a bit for each step that the rule has */
	int64_t length_ms, memory_ms, throttle_ms;
	int64_t for_ms;                   /* 0: until it is released */
	uint64_t minimum, throttle;
	uint8_t ipv4_prefix, ipv6_prefix; /* of the networks that are told apart */
	uint64_t id;                      /* of scope, measure, window and prefixes */
	unsigned class, memory_class, throttle_class; /* of the table; set by abuse_set_rules() */
	char source[ABUSE_LINE_MAX + 1];  /* as it was written */
};

struct abuse_rules {
	struct abuse_rule items[ABUSE_RULES_MAX];
	size_t count;
};

/* Adds one rule. On failure REASON says why; RULES is unchanged. */
int abuse_rules_add(struct abuse_rules *rules, struct span text, struct sbuf *reason) MUST_CHECK;

const char *abuse_measure_name(enum abuse_measure measure);
const char *abuse_step_name(enum abuse_step step);

#endif
