/*
 * Whose mailboxes are to be compared, and when.  Pure; time is an argument.
 *
 * A user stands in it once, for the most pressing reason, however often touched.  What only a quiet moment
 * makes whole (a MOVE is a copy and an expunge) waits for `delay`; two passes
 * over one user begin at least `gap` apart, so one busy user costs no more than
 * many quiet ones.
 */
#ifndef INDEXER_FOLLOW_QUEUE_H
#define INDEXER_FOLLOW_QUEUE_H

#include "lib/base/htab.h"

#define FOLLOW_USERS_MAX 100000
#define FOLLOW_AGE_MS 1000	 /* Dovecot tells the age of mails in seconds */
#define FOLLOW_MOVE_MS 30000	 /* that a MOVE may take to its copies, and from them to the expunge */
#define FOLLOW_MOVE_AGE_MS 3600000 /* of such a mail: all copies can be seen at once, when the last one is made */

/* Why a user stands in it, the most pressing first. */
enum follow_why {
	FOLLOW_NEW,    /* new mail: at once */
	FOLLOW_CHANGE, /* after `delay` */
	FOLLOW_MOVE,	/* the same, and an expunge completes it; it stands as FOLLOW_CHANGE */
	FOLLOW_MOVED,	/* the copies of a MOVE that was told of are there: its expunge is next */
	FOLLOW_EXPUNGE, /* the same, and it may complete a MOVE */
	FOLLOW_PLACE,  /* a delivery whose row only lacks its place: behind those, when the caller allows */
	FOLLOW_TURN,   /* it is the user's turn, or a rebuild's: behind all others, when the caller allows */
};

enum follow_state {
	FOLLOW_WAITING, /* due at due_ms */
	FOLLOW_RUNNING, /* a pass is under way */
	FOLLOW_COOLING, /* done; remembered so that the next pass keeps its distance */
};

struct follow_user {
	struct follow_user *prev, *next;
	enum follow_state state;
	char *name;
	int64_t due_ms;	       /* WAITING; COOLING: forgotten then */
	int64_t not_before_ms; /* of the next pass */
	int64_t whole_ms;      /* what users have changed, as far as it was told, is whole by then */
	int64_t half_ms;       /* of age: what is older was whole before */
	unsigned moves;	       /* whose expunge was not told yet */
	enum follow_why why; /* WAITING, RUNNING: what brought it */
	bool again;   /* RUNNING: touched meanwhile */
	enum follow_why again_why;
	bool rebuild;
	bool rebuild_waited; /* a pass has left it to the next one */
	unsigned failures;	  /* passes in a row that this user's mailboxes refused */
};

struct follow_list {
	struct follow_user *first, *last;
};

struct follow_queue {
	struct htab users;
	struct follow_list waiting, placing, turns, cooling; /* by due_ms */
	int64_t delay_ms, gap_ms;
	size_t running; /* users whose pass is under way */
};

void follow_queue_init(struct follow_queue *q, int64_t delay_ms, int64_t gap_ms, size_t users_max);
void follow_queue_done(struct follow_queue *q);
/* ERR_LIMIT where the queue is full: the caller must look at everybody. */
int follow_queue_touch(struct follow_queue *q, struct span name, int64_t now_ms, enum follow_why why, bool rebuild) MUST_CHECK;
/* The next user whose time has come, now RUNNING; or NULL.  PLACE, TURN: also of those that wait for that only. */
struct follow_user *follow_queue_take(struct follow_queue *q, int64_t now_ms, bool place, bool turn);
/* Whether the pass of U shall rebuild: not for what waits to be seen soon, after which it is U's turn again; but
 * only once, or U's changes or a mailbox that refuses would put it off for ever. */
bool follow_queue_take_rebuild(struct follow_user *u);
/* Milliseconds until somebody of those is due; -1: nobody waits. */
int64_t follow_queue_wait(const struct follow_queue *q, int64_t now_ms, bool place, bool turn);
/* Whether a running pass may look at the mailboxes anew, for what users have done. */
bool follow_queue_is_pressed(const struct follow_user *u, int64_t now_ms);
/* A look at the mailboxes that began at LOOK_MS may have seen half a change of users: of mails up to this age, in
 * milliseconds.  0: it saw all. */
int64_t follow_queue_half_ms(const struct follow_user *u, int64_t look_ms);
/* A running pass looks at the mailboxes anew: what was touched is seen to. */
bool follow_queue_again(struct follow_user *u, int64_t now_ms);
/* The pass is over.  RETRY_MS > 0: the user must be looked at again by then. */
void follow_queue_end(struct follow_queue *q, struct follow_user *u, int64_t now_ms, int64_t retry_ms);
/* The pass is over for now: what is left of it waits for the user's turn. */
void follow_queue_put_off(struct follow_queue *q, struct follow_user *u, int64_t now_ms);

#endif
