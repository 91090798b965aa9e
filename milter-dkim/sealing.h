/*
 * The ARC set that the daemon adds to a message it has judged (RFC 8617 section
 * 5.1), so that those whom it is forwarded to can see what we saw.  Pure.
 *
 * A key that cannot be used leaves the message unsealed and says so: unlike our
 * own signature, nobody demands the seal, and mail of others is not held up for
 * it.
 */
#ifndef MILTER_SEALING_H
#define MILTER_SEALING_H

#include "milter-dkim/arc.h"
#include "milter-dkim/edits.h"
#include "milter-dkim/keyring.h"
#include "milter-dkim/keytable.h"

#define SEALING_KEYS_MAX 4 /* of a domain that are looked at */

struct sealing_settings {
	bool on;
	const char *domain;
	const char *selector; /* "": any */
	struct signkey *key;  /* NULL: the domain's from the tables or from SQL */
};

enum sealing_state {
	SEALING_OFF,
	SEALING_READY,  /* a key is there */
	SEALING_DONE,   /* a set was added */
	SEALING_LEFT,   /* the chain takes no more sets */
	SEALING_FAILED, /* see reason */
};

struct sealing {
	enum sealing_state state;
	const char *reason; /* static */
	/* inside */
	const struct sealing_settings *settings;
	struct signkey *key;
	struct crypto_key *parsed;
	unsigned body;
};

/* Finds the key and asks BODIES for the hash, before others do.  TABLE and RING may
 * be NULL.  SETTINGS is borrowed. */
void sealing_begin(struct sealing *sealing, const struct sealing_settings *settings, struct keytable *table,
		   const struct keyring *ring, struct bodyhash *bodies, struct arena *a);

struct sealing_message {
	const struct mail_header *header;
	const struct bodyhash *bodies; /* finished */
	const struct arc *arc;         /* decided */
	struct span authserv_id;
	struct span authres; /* the value of our Authentication-Results */
	int64_t now;
};

/* Adds the three fields to EDITS: all or none.  No effect unless READY. */
void sealing_run(struct sealing *sealing, const struct sealing_message *message, struct edits *edits);
/* Gives the key back; also of one that is zero. */
void sealing_done(struct sealing *sealing);

#endif
