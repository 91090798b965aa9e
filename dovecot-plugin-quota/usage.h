/*
 * What a mail process does about a user's quota, whatever the version of
 * Dovecot: reserve, commit, release, free, recount, and what happens while
 * quotad is away.  The adapter gives a function that counts the mailbox.
 * No failure of quotad ever refuses a mail: only a limit does, and only by numbers that are certain.
 */
#ifndef QUOTA_USAGE_H
#define QUOTA_USAGE_H

#include "dovecot-plugin-quota/client.h"

/* One quota root of one user. */
struct usage {
	struct quota_client *client; /* borrows */
	const char *user;	     /* borrows */
	/* What is in the mailbox; ERR_TEMP where it cannot be counted now, ERR_PERM where it never will be. */
	int (*count)(void *arg, uint64_t *bytes_out, uint64_t *messages_out);
	void *arg;
	bool counting;	    /* within count(), which may come back here */
	bool examining;	    /* ... which shall only look */
	bool known;	    /* STATE is what quotad said last */
	bool wants_recount; /* ... and it asked for a recount */
	struct quota_reply state;
};

enum usage_verdict {
	USAGE_OK,
	USAGE_OVER,  /* more than what is left */
	USAGE_BIG,   /* more than the whole limit */
	USAGE_DOUBT, /* perhaps more than what is left, and others keep the mailbox from being counted: later */
};

/* What one transaction of a mailbox has saved so far. */
struct usage_save {
	uint64_t id;   /* reservation; 0: none */
	uint64_t link; /* of the connection that all of it was granted on; 0: not so, or the user was in doubt */
	uint64_t bytes, messages;
	enum usage_verdict refusal; /* of one of its messages: nothing of it may be committed */
	bool unseen;		    /* something was saved that quotad does not know */
	bool waited;		    /* for a count, which one transaction does once */
};

/* What the rules of a mailbox give beside the user's limits. */
struct usage_allowance {
	int64_t bytes, messages; /* more than the limit, or less */
	uint64_t grace;		 /* bytes that a message which finds some room may take more */
};

/* A message about to be saved. */
struct usage_mail {
	uint64_t bytes;	 /* virtual size */
	uint64_t credit; /* will be freed by the MOVE that brings it; 0: none */
	const char *key; /* names the source of the MOVE; "" where CREDIT is 0 */
	bool force;	 /* whatever the limit: replication, or it is not enforced */
	struct usage_allowance allowance;
};

/* Reserves the space of one more message of SAVE. What is not USAGE_OK refuses all of SAVE. */
enum usage_verdict usage_reserve(struct usage *u, struct usage_save *save,
				 const struct usage_mail *mail);
/* A message is in SAVE whose size could not be had. */
void usage_unsized(struct usage_save *save);
/* The storage has committed (rolled back) SAVE; it is empty afterwards. */
void usage_commit(struct usage *u, struct usage_save *save);
void usage_release(struct usage *u, struct usage_save *save);

/* Messages are about to be expunged; then usage_freed() or usage_recount(). */
void usage_intent(struct usage *u);
void usage_freed(struct usage *u, uint64_t bytes, uint64_t messages);
/* Something changed in a way that is not known. */
void usage_stale(struct usage *u);
/* A session begins; it waits for nothing, whoever has to count. */
void usage_login(const struct usage *u);

/*
 * Counts the mailbox and tells quotad.  ERR_AGAIN where others went on changing
 * it: the user stays marked and is counted at a later contact.  ERR_TEMP where
 * quotad is not available or the mailbox cannot be counted now, ERR_PERM where it never will be.
 */
int usage_recount(struct usage *u);
/* Recounts if quotad asked for it; call it where a count is allowed. */
void usage_settle(struct usage *u);

/* A folder whose index says other numbers than are on disk. */
struct usage_folder {
	const char *name; /* is cut where it is longer than the protocol takes */
	uint64_t indexed_bytes, indexed_messages, found_bytes, found_messages;
};
void usage_folder_differs(struct usage *u, const struct usage_folder *folder);

/*
 * Asks quotad for the state, recounts if it wants that, and falls back to
 * Dovecot's count and the limit known last.  Always gives numbers.
 */
void usage_lookup(struct usage *u);

/* The same only if nothing is known yet. */
void usage_know(struct usage *u);
/*
 * The usage right after the last change that was told from here, in an order
 * of all changes that all processes see alike.
 */
void usage_after_change(struct usage *u, uint64_t *bytes_out, uint64_t *messages_out);

/*
 * Sets new limits (bytes, messages; 0: none).  ERR_NOT_FOUND for a user that is
 * not in the database, ERR_TEMP where it cannot be done now.
 */
int usage_set_limits(struct quota_client *client, const char *user, uint64_t limit,
		     uint64_t messages, struct quota_reply *reply_out) MUST_CHECK;

/*
 * Whether BYTES more would fit.  Unless it shall be PRECISE, what is known of this
 * user is enough to say yes, and nothing known means yes.
 */
enum usage_verdict usage_check(struct usage *u, uint64_t bytes,
			       const struct usage_allowance *allowance, bool precise);

#endif
