/*
 * Who behaves like a stolen account, and what is done about it.
 *
 * All counts live in the table of the limits, so they are bounded by its memory
 * and come back after a restart as the others do:
 *
 *   networks        one counter for each (key, network) remembers when it was last
 *                   seen, in one bucket; the key's counter holds one event for each
 *                   of them in the same bucket.  The count is exact, but that a
 *                   network is remembered up to a 64th of the window too long, and
 *                   that two networks whose 64-bit hashes are equal are one.
 *   new_recipients  the same for (key, recipient) over `memory`; only the first time
 *                   is counted in the key's counter.
 *   rejects         two counters: recipients that we let pass at RCPT, and those of
 *                   them that were in a message at its end.
 *
 * At the cap of memory a displaced (key, network) or (key, recipient) counts as new
 * when it comes again: too much is counted then, never too little.
 *
 * A key that took a step is held: ABUSE_HELD_MAX of them, a new one takes the
 * place of the oldest of the mildest step.  Pure; one thread.
 */
#ifndef POLICYD_ABUSE_H
#define POLICYD_ABUSE_H

#include "policyd-ratelimit/abuse_rules.h"
#include "policyd-ratelimit/subject.h"
#include "policyd-ratelimit/table.h"

#define ABUSE_HELD_MAX 4096
#define ABUSE_KEY_TEXT_MAX 128

struct abuse_held {
	uint64_t hash;    /* of key and rule */
	uint64_t rule_id;
	enum abuse_step step;
	int64_t since_ms, until_ms; /* boot time; INT64_MAX: until it is released */
	uint64_t count;             /* what was counted when it took the step */
	char key[ABUSE_KEY_TEXT_MAX];
};

struct abuse {
	struct table *table; /* borrowed */
	struct abuse_rules rules;
	struct abuse_held *held[ABUSE_HELD_MAX];
	size_t held_count;
	struct htab held_index; /* by hash */
	/* A counter has changed and is to be kept; may be NULL, as the next. */
	void (*counted)(void *arg, const struct table_state *state);
	/* A key took a step, after HELD was changed. */
	void (*stepped)(void *arg, const struct abuse_rule *rule, const struct abuse_held *held);
	void *arg;
};

/* A message that is under way on one connection; embed it, zeroed. */
struct abuse_message {
	uint64_t keys[ABUSE_RULES_MAX]; /* of the rules of rejects; 0: does not apply */
	uint32_t asked;                 /* recipients that we let pass */
};

struct abuse_verdict {
	enum abuse_step step; /* THROTTLE: only where no message is left now */
	const struct abuse_rule *rule;
	const struct abuse_held *held;
	int64_t until_ms; /* when that ends; INT64_MAX: when it is released */
};

void abuse_init(struct abuse *abuse, struct table *table);
void abuse_done(struct abuse *abuse);
/* Takes over RULES.  Keys held by rules that are gone are let go.  ERR_LIMIT
 * where the table has no class left: nothing has changed then. */
int abuse_set_rules(struct abuse *abuse, const struct abuse_rules *rules) MUST_CHECK;

/* The hardest step that SUBJECT is held at. */
void abuse_judge(struct abuse *abuse, const struct subject *subject, int64_t now_ms,
		 struct abuse_verdict *verdict_out);
/* A recipient of SUBJECT passed at RCPT: counts, and takes steps. */
void abuse_recipient(struct abuse *abuse, const struct subject *subject, struct abuse_message *message,
		     int64_t now_ms);
/* A message was accepted with so many recipients; MESSAGE begins anew. */
void abuse_accepted(struct abuse *abuse, const struct subject *subject, struct abuse_message *message,
		    uint64_t recipients, int64_t now_ms);
/* The message was abandoned; MESSAGE begins anew. */
void abuse_abandoned(struct abuse *abuse, struct abuse_message *message, int64_t now_ms);

/* What RULE counts of SUBJECT now: a number, a percentage for rejects. */
uint64_t abuse_count(struct abuse *abuse, const struct abuse_rule *rule, const struct subject *subject,
		     int64_t now_ms);
/* The held entry of SUBJECT under RULE, or NULL. */
const struct abuse_held *abuse_find(const struct abuse *abuse, const struct abuse_rule *rule,
				    const struct subject *subject, int64_t now_ms);
/* Lets SUBJECT go under RULE and forgets what was counted, or it would be held
 * again at once.  ERR_NOT_FOUND where it was not held. */
int abuse_release(struct abuse *abuse, const struct abuse_rule *rule, const struct subject *subject,
		  int64_t now_ms) MUST_CHECK;

/* After a restart: puts an entry back, or removes it (step NONE). */
void abuse_restore(struct abuse *abuse, const struct abuse_held *held);
/* Removes all entries. */
void abuse_clear(struct abuse *abuse);

#endif
