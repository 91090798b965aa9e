/*
 * The decision: one request in, one reply out.  Pure: clocks are arguments,
 * what must be kept on disk is given back as data.  One thread.
 *
 * A message is a transaction, known by Postfix's `instance`.  Each RCPT (also
 * MAIL and DATA) reserves what it will cost; END-OF-MESSAGE takes the
 * reservation back and charges the final amounts at that time, so that what is
 * counted is what was accepted, when it was.  Refused and abandoned messages
 * cost nothing: a new instance on the same connection, the end of the
 * connection and a timeout refund.  All counters of a message are charged, or
 * none.  A message to several recipients is one message.
 *
 * The same request again (same client, instance, state, recipient) gets the
 * same verdict and costs nothing, on whatever connection.
 *
 * Without an instance (CONNECT, EHLO, VRFY) the answer is DUNNO.
 *
 * At END-OF-MESSAGE of a message with several recipients Postfix does not name
 * them: limits by recipient, and those with a condition on it, are then charged for
 * all that were reserved, and so count a recipient that a later restriction refused.
 */
#ifndef POLICYD_SESSION_H
#define POLICYD_SESSION_H

#include "policyd-ratelimit/abuse.h"
#include "policyd-ratelimit/blocks.h"
#include "policyd-ratelimit/lease.h"
#include "policyd-ratelimit/overrides.h"
#include "policyd-ratelimit/txn.h"
#include "policyd-ratelimit/wiring.h"

#define SESSION_REFUSALS_MAX 8  /* refusals reported of one request */
#define SESSION_KEY_TEXT_MAX 128 /* bytes of a key in replies and logs */
#define SESSION_LIMITED_MAX 4096 /* refused keys that are remembered for listing */
#define SESSION_LOG_EVERY_MS 60000 /* a key's refusals are reported once in so long */
#define SESSION_ENDED_KEEP_MS 600000 /* an ended transaction knows its verdict so long */

/* A connection, as the session sees it; embed it, zeroed, in the adapter's. */
struct session_client {
	uint64_t digest; /* of the transaction that it spoke of last; 0: none */
};

/* A refusal, to be logged, and remembered for `limits list`. */
struct session_refusal {
	const struct rule *rule; /* NULL: blocked by the administrator */
	enum rule_scope scope;
	uint64_t max;
	int64_t length_ms;
	int64_t until_ms; /* boot time; INT64_MAX: it does not end */
	enum proto_action action;
	bool shadow;
	bool fresh; /* none was reported for this key lately */
	char key[SESSION_KEY_TEXT_MAX];
};

struct session_limited {
	uint64_t hash; /* of the counter; 0: none */
	struct session_refusal last;
	char source[64]; /* begin of the limit's text */
	int64_t first_ms, last_ms, logged_ms;
	uint64_t times;
};

struct session_outcome {
	enum proto_action action;
	enum rule_scope refused_scope;
	bool repeated; /* the verdict of an earlier, equal request */
	/* A message was charged: to be kept on disk before the reply goes. */
	bool committed;
	uint64_t digest;
	const struct table_mark *charges;
	size_t charge_count;
	struct session_refusal refusals[SESSION_REFUSALS_MAX];
	size_t refusal_count;
	bool first_of_message; /* it began a transaction */
	bool end_of_message;
};

struct session_stats {
	uint64_t transactions, refunds;
};

/* A counter that a request would be charged to. */
struct session_item {
	uint64_t hash, amount, max;
	uint16_t rule, window;
	enum proto_action action;
	bool shadow, by_recipient;
	bool over; /* set by the check */
};

#define SESSION_ITEMS_MAX ((RULES_MAX + RULES_EXTRA_MAX) * RULES_WINDOWS_MAX + TXN_HOLDS_MAX)

struct session {
	struct table *table;     /* borrowed */
	struct rules *rules;     /* owned */
	struct overrides *overrides; /* owned; NULL: none */
	struct blocks blocks;
	struct abuse abuse; /* looked at beside the session: guard.c */
	struct txn_table txns;
	struct leases *leases; /* borrowed; NULL: nothing is shared with other daemons */
	struct session_stats stats;
	struct wiring wiring; /* the caller sets its sample */
	struct session_limited *limited; /* by hash; a newer key may displace one */
	struct session_item *items;      /* of the request in hand */
	size_t item_count;
	struct table_mark *marks;
	struct subject subject;
	char *digest_mem; /* for what a digest is made of */
	int64_t now_ms, timeout_ms;
	bool full;      /* the request in hand passed a cap */
};

/* Takes RULES; ERR_LIMIT where the table has no class left. TABLE is borrowed. */
int session_init(struct session *s, struct table *table, struct rules *rules, size_t txn_max,
		 int64_t timeout_ms) MUST_CHECK;
void session_done(struct session *s);
/* Gives the windows of RULES their classes; ERR_LIMIT where there is none left. */
int session_bind_rules(struct table *table, struct rules *rules) MUST_CHECK;
/*
 * Takes the new rules; on failure the old ones stay and RULES stays the caller's.
 * Open transactions go on with what they hold of windows that are in both.
 */
int session_set_rules(struct session *s, struct rules *rules) MUST_CHECK;
/*
 * Takes the new overrides (may be NULL).  Those of a scope, unit and window that
 * no limit is configured for become limits that count their keys only, with the
 * prefixes that limits have by default; returns the number of kinds that found no
 * place.
 */
size_t session_set_overrides(struct session *s, struct overrides *overrides);

/*
 * Judges REQUEST, which came on CLIENT at boot time NOW_MS and wall time
 * WALL_MS, and adds the reply to OUT.  *OUTCOME_OUT borrows from the session
 * until its next call.
 */
void session_request(struct session *s, struct session_client *client, const struct proto_request *request,
		     int64_t now_ms, int64_t wall_ms, struct sbuf *out, struct session_outcome *outcome_out);
/*
 * REQUEST came on CLIENT and was answered without the session: the message that the
 * connection spoke of before has ended if this is another one.  Returns the message's
 * digest, 0 where the request belongs to none.
 */
uint64_t session_moves_on(struct session *s, struct session_client *client, const struct proto_request *request,
			  int64_t now_ms);
/*
 * What REQUEST would need: s->items, with the amounts beyond what its message has
 * reserved; returns their number. Changes nothing else; for a caller that fetches
 * tokens (lease.h) before the request is judged. The subject is s->subject.
 */
size_t session_peek(struct session *s, const struct proto_request *request, int64_t now_ms);
/* When AMOUNT more of the counter HASH fits under MAX; INT64_MAX: never. */
int64_t session_free_at(struct session *s, uint64_t hash, unsigned class, uint64_t amount, uint64_t max);
/* The connection is gone. */
void session_client_done(struct session *s, struct session_client *client, int64_t now_ms);
/* Refunds what timed out; call it about once a second. */
void session_tick(struct session *s, int64_t now_ms);

/* After a restart: this transaction was charged already. */
void session_restore_ended(struct session *s, uint64_t digest, int64_t now_ms);

/* The hash of the counter of RULE's WINDOW for SUBJECT; ERR_NOT_FOUND where
 * the rule counts nothing of it. */
int session_hash(const struct session *s, const struct rule *rule, const struct rule_window *window,
		 const struct subject *subject, uint64_t *hash_out) MUST_CHECK;

#endif
