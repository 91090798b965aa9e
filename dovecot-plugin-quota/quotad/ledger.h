/*
 * Who uses how much, in memory: users, the domains they share a limit in,
 * reservations of connections.  Pure: requests in, replies and changes to be
 * journalled out; the time is an argument.  Not thread-safe.
 *
 * Sizes are virtual sizes in bytes.  A limit of 0 means none.  Names are kept
 * in lower case (ASCII).
 *
 * The invariants:
 *  - a reservation is granted only while used + reserved + new <= limit, in bytes
 *    and in messages, for the user and for a complete domain, except under
 *    QUOTA_FORCE, within the grace of the user's last message, and for a MOVE
 *    whose source is at least as large (its space is freed right after);
 *  - a recount is taken only when no other connection had anything open from
 *    its beginning to its end, so it never counts what is counted elsewhere;
 *  - a connection that ends with anything open leaves the user stale, and a
 *    stale user is never refused before a recount was asked for.
 */
#ifndef QUOTAD_LEDGER_H
#define QUOTAD_LEDGER_H

#include "dovecot-plugin-quota/quotad/once.h"
#include "lib/quota/proto.h"

struct ledger_caps {
	size_t users;	  /* in memory; idle ones make room */
	size_t per_owner; /* reservations of one connection */
	size_t credits;	  /* remembered sources of a MOVE */
	size_t ops;	  /* remembered operation ids */
};

#define LEDGER_CREDITS 100000
#define LEDGER_OPS 65536
#define LEDGER_CREDIT_MS (600 * 1000) /* how long a source of a MOVE is remembered */

/* Where used, reserved and messages of a user end, so that no sum overflows. */
#define LEDGER_USE_MAX (QUOTA_NUMBER_MAX / 4)

struct ledger_time {
	int64_t boot_ms;  /* for expiry */
	uint64_t wall_us; /* for versions, which must grow over a restart */
};

struct ledger_domain {
	char *name;
	/* Usage: sums over the members in memory. */
	uint64_t limit, used, reserved;
	uint64_t message_limit, messages, reserved_messages;
	size_t members;
	bool complete; /* all its users are in memory, so the sums are true */
};

struct ledger_user {
	struct ledger_domain *domain; /* NULL for a name without @ */
	struct ledger_user *older, *newer;
	uint64_t limit, used, reserved;
	uint64_t message_limit, messages, reserved_messages;
	uint64_t seq;	    /* grows with everything that disturbs a recount */
	uint64_t version;   /* of used and messages, for the database; 0: never changed */
	uint64_t delivered; /* version that the database has */
	size_t open;	    /* reservations and intents */
	uint64_t scan;	    /* the last scan of all users that it was seen in */
	uint64_t written_in; /* the scan that was under way when the database last got it; 0: none was */
	bool limit_known;   /* the database was asked */
	bool exists;	    /* ... and has this user */
	bool counted;	    /* used and messages come from somewhere */
	bool changed;	    /* here, since it came into memory */
	bool stale;	    /* a recount is wanted */
	bool urgent;	    /* ... without waiting for a contact */
	bool examined;	    /* the next recount is only looked at */
	bool listed;	    /* in the list of urgent users */
	bool counted_soon;  /* taken from there, and asked for again and again */
	struct ledger_user *next_urgent;
	size_t pending; /* changes that are not on disk, kept by the server */
	uint32_t slot;	/* where the server notes that something is in the air; 0: nowhere */
	char name[];
};

/* What the database says of a user. */
struct ledger_row {
	uint64_t limit, message_limit;
	bool has_usage;
	uint64_t used, messages, version;
};

/* The new absolute state of a user, to be journalled. */
struct ledger_change {
	const char *user; /* borrows from the ledger until its next call */
	uint64_t version, used, messages;
	uint64_t instance, op; /* 0: a recount */
};

struct ledger_result {
	struct quota_reply reply;
	bool changed; /* CHANGE is set: journal it before the reply goes out */
	struct ledger_change change;
	bool examined; /* a recount was looked at, and nothing changed */
	bool drifted;  /* a recount that was taken over found other numbers than these */
	uint64_t drift_used, drift_messages;
};

struct ledger_hold;

/* The state of one connection. */
struct ledger_owner {
	uint64_t instance; /* from HELLO; 0: none yet */
	struct ledger_hold *holds;
	size_t count;
	/* Its last change, and the usage right after it. */
	uint64_t last_op, last_used, last_messages;
};

struct ledger {
	struct ledger_caps caps;
	struct htab users, domains;
	struct once credits, ops;
	struct ledger_user *oldest, *newest; /* by last use */
	struct ledger_user *urgent; /* since the last ledger_next_urgent() */
	uint64_t last_id;
	uint64_t scan; /* number of the current or last scan */
	bool scanning;
	size_t open;   /* reservations and intents of all connections */
};

struct ledger *ledger_new(const struct ledger_caps *caps);
void ledger_free(struct ledger **ledger);

/* Marks it as used. NULL where it is not in memory. */
struct ledger_user *ledger_find(struct ledger *l, struct span name);
/*
 * Finds or adds, with nothing known; makes room by dropping the user that was
 * idle longest, has nothing open and is in the database.  NULL where there is
 * no room, or the name is empty or over QUOTA_USER_MAX.
 */
struct ledger_user *ledger_add(struct ledger *l, struct span name);

/*
 * Takes over what the database says; ROW NULL: it has no such user.  Usage
 * from there does not replace what changed here.  Where a row of usage that was
 * written is gone, the account was removed, perhaps made anew: a recount is due.
 */
void ledger_load(struct ledger *l, struct ledger_user *user, const struct ledger_row *row);
/*
 * Around the loading of all users that the database has, the beginning before it is asked: those that were not
 * loaded in between are no longer there.  What it got in between it need not have told yet.
 */
void ledger_scan_begin(struct ledger *l);
void ledger_scan_end(struct ledger *l);
/* Takes over a journalled state; an older version than the known is ignored. */
void ledger_replay(struct ledger *l, struct ledger_user *user, const struct ledger_change *change);
/* The database has VERSION of this user. */
void ledger_delivered(struct ledger *l, struct span name, uint64_t version);

/* The same as ledger_find() without marking it as used. */
struct ledger_user *ledger_peek(const struct ledger *l, struct span name);
/* Trust no more what is known of the user: it is written again after a recount. */
void ledger_distrust(struct ledger *l, struct span name);

/* Something about the user is in doubt: a recount is urgent. */
void ledger_suspect(struct ledger *l, struct ledger_user *user);
/* The same, and a count that is under way may not have seen what it is about. */
void ledger_unseen(struct ledger *l, struct ledger_user *user);
/* One who became urgent, and is still; NULL when all were told. */
struct ledger_user *ledger_next_urgent(struct ledger *l);

/* A domain in memory (one of its users is), or NULL. */
struct ledger_domain *ledger_domain_find(const struct ledger *l, struct span name);
/* That of a user who need not be in memory. */
struct ledger_domain *ledger_domain_of(const struct ledger *l, struct span user);
/* The limits of the domain in the database. */
void ledger_domain_load(struct ledger_domain *domain, uint64_t limit, uint64_t message_limit);
/* All users of the domain were added; a limit has no force before. */
void ledger_domain_complete(struct ledger_domain *domain);
/* Whether there is any limit. */
bool ledger_domain_limited(const struct ledger_domain *domain);
/* The user's domain, if all of it must be read for its limit to hold; else NULL. */
const char *ledger_domain_to_load(const struct ledger_user *user);
/* False where the database was asked and has no such user. */
bool ledger_may_have_mail(const struct ledger_user *user);
/* Whether all limits that bind the user are known. */
bool ledger_is_known(const struct ledger_user *user);

/*
 * Executes any request but HELLO, SYNC and CHANNEL.  USER is that of the request, or NULL where
 * the ledger is full: then everything is granted and nothing counted.
 */
void ledger_request(struct ledger *l, struct ledger_owner *owner, struct ledger_user *user,
		    const struct quota_request *request, const struct ledger_time *now,
		    struct ledger_result *result_out);

/* Whether the connection has anything of the user open. */
bool ledger_owner_has(const struct ledger_owner *owner, const struct ledger_user *user);
/* Ends what the connection has open. */
void ledger_owner_gone(struct ledger *l, struct ledger_owner *owner);

/* Whether the operation was seen before; remembers it. */
bool ledger_op_seen(struct ledger *l, uint64_t instance, uint64_t op);

/* For ledger-request.c: sets what the user uses, up to LEDGER_USE_MAX; reserves
 * and gives back.  The domain follows. */
void ledger_use(struct ledger_user *user, uint64_t used, uint64_t messages);
void ledger_reserve(struct ledger_user *user, uint64_t bytes, uint64_t messages);
void ledger_unreserve(struct ledger_user *user, uint64_t bytes, uint64_t messages);

#endif
