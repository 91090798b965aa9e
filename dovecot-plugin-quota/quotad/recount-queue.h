/*
 * Whom Dovecot shall count, and when.  A user is asked for once the settling time has
 * passed, and again each two seconds while the usage stays in doubt.  After
 * RECOUNT_QUICK_TRIES that becomes each five minutes, without an end: what is in doubt
 * heals by itself, whenever its cause is gone.  Where nobody counts at all everybody
 * waits, and that is nobody's try.
 *
 * Pure: the time is an argument.  Not thread-safe.
 */
#ifndef QUOTAD_RECOUNT_QUEUE_H
#define QUOTAD_RECOUNT_QUEUE_H

#include "lib/quota/proto.h"

#define RECOUNT_QUEUE_MAX 10000 /* users; more wait until there is room */
#define RECOUNT_QUICK_TRIES 30
#define RECOUNT_SETTLE_MS 500
#define RECOUNT_AGAIN_MS 2000
#define RECOUNT_LATER_MS 300000

enum recount_pace { RECOUNT_AT_ONCE, RECOUNT_SETTLE, RECOUNT_AGAIN, RECOUNT_LATER, RECOUNT_PACES };

struct recount_item {
	struct recount_item *next;
	int64_t due_ms;
	unsigned tries;
	bool thorough; /* somebody waits for it: no settling, no second pace */
	char user[QUOTA_USER_MAX + 1];
};

struct recount_queue {
	struct recount_line { /* a pace has one delay, so its items are in order of time */
		struct recount_item *first, **last;
	} lines[RECOUNT_PACES];
	size_t count; /* those that were taken and not given back included */
	int64_t held_until_ms;
};

void recount_queue_init(struct recount_queue *q);
void recount_queue_done(struct recount_queue *q);

bool recount_queue_has_room(const struct recount_queue *q);
/* ERR_LIMIT: it is full, or USER is no name. */
int recount_queue_add(struct recount_queue *q, struct span user, bool thorough, int64_t now_ms) MUST_CHECK;

/* Takes the one that is due first, for the caller to give back by one of the three below; NULL: nobody is. */
struct recount_item *recount_queue_take(struct recount_queue *q, int64_t now_ms);

/* It is counted, or nobody's any more. */
void recount_queue_drop(struct recount_queue *q, struct recount_item *item);

enum recount_fate {
	RECOUNT_SOON,
	RECOUNT_POSTPONED, /* from now on it is asked for each five minutes */
	RECOUNT_STILL,	   /* it is one of those */
	RECOUNT_GIVEN_UP,  /* the item is gone: it was not to last, there was no room, or an older one of
			    * this user comes each five minutes already */
};
/* The try changed nothing.  LASTS: the user has a mailbox, as far as is known. */
enum recount_fate recount_queue_again(struct recount_queue *q, struct recount_item *item, bool lasts, int64_t now_ms);

/* Nobody answered: everything waits for two seconds.  False: the item is gone. */
bool recount_queue_hold(struct recount_queue *q, struct recount_item *item, int64_t now_ms);

#endif
