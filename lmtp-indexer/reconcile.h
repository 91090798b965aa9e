/*
 * What the index must do so that it says what the mailbox says.  Pure: mails as
 * Dovecot lists them and rows as SQL has them in, one action for each mail out.
 *
 * A mail has its row by (mailbox GUID, UIDVALIDITY, UID).  Where it has none:
 *
 *   - a row whose mail has vanished elsewhere and had the same mail GUID, which
 *     Dovecot keeps on MOVE, follows the mail;
 *   - a delivery of ours (by its id in the trace field) whose mail was not yet
 *     seen is that mail;
 *   - a delivery id whose rows are all placed makes it a copy, and one that
 *     nobody knows a delivery whose row never came: both get a new row;
 *   - so does everything else (APPEND, COPY, other ways into the mailbox).
 *
 * Half a move looks like a copy: what was saved a moment ago, amid changes, gets its
 * new row only when it is whole.
 */
#ifndef INDEXER_RECONCILE_H
#define INDEXER_RECONCILE_H

#include "lib/base/htab.h"
#include "lib/base/sbuf.h"

#define RECONCILE_FLAGS_MAX 255 /* characters of the column */
#define RECONCILE_GUID_LEN 16
#define RECONCILE_GONE_MAX 200000 /* rows of vanished mails that a pass can match; others are deleted unmatched */

enum reconcile_action {
	RECONCILE_KEEP,
	RECONCILE_FLAGS,   /* the row has other flags */
	RECONCILE_NAME,	   /* the row names another mailbox */
	RECONCILE_RESTORE, /* the row has a tombstone, and the mail is back */
	RECONCILE_ADOPT,   /* message_id is a delivery without a place: it is this mail */
	RECONCILE_MOVE,    /* message_id is a row whose mail was moved here */
	RECONCILE_NEW,	   /* there is no row */
	RECONCILE_FILL,	   /* the same, and its trace is the id of a delivery of ours */
	RECONCILE_WAIT,	   /* the row of its delivery, or the other half of its move, may still come */
};

struct reconcile_mail {
	uint32_t uid;
	uint8_t guid[RECONCILE_GUID_LEN];
	struct span flags; /* canonical */
	struct span trace; /* "" without one */
	bool may_come;	   /* the delivery of that trace is on its way into the index */
	bool may_be_half;  /* of a move: saved so lately, amid changes that have just been told */
	int64_t received_s, saved_s;
	uint64_t size_bytes;
	enum reconcile_action action;
	uint64_t message_id; /* 0 with NEW, FILL, WAIT */
	bool pending;	     /* the row lacks the content of the mail */
	struct reconcile_gone *moved; /* with MOVE */
};

/* A row at a UID that is looked at. */
struct reconcile_row {
	uint32_t uid;
	uint64_t id;
	struct span flags, box_name;
	bool deleted, pending;
};

/* A row that has the delivery id of a trace field. */
struct reconcile_delivery {
	struct span id;
	uint64_t message_id;
	bool placed, pending;
};

/* A row whose mail has vanished from its mailbox. */
struct reconcile_gone {
	struct reconcile_gone *next; /* of the same mail GUID */
	uint8_t guid[RECONCILE_GUID_LEN];
	uint64_t message_id;
	size_t box; /* the caller's number of the mailbox */
	uint32_t uid;
	uint32_t scan;	   /* the caller's number of the look that missed the mail */
	bool known, taken; /* KNOWN: the row has a mail GUID; TAKEN: its mail is somewhere after all */
};

/* All vanished rows of a pass. */
struct reconcile_lost {
	struct reconcile_gone **items; /* owned */
	size_t count, size;
	struct htab by_guid, by_id;
};

void reconcile_lost_init(struct reconcile_lost *l);
void reconcile_lost_done(struct reconcile_lost *l);
/* Copies GONE; a row that is among them with this place is not added again.  ERR_LIMIT past RECONCILE_GONE_MAX. */
int reconcile_lost_add(struct reconcile_lost *l, const struct reconcile_gone *gone) MUST_CHECK;

struct reconcile {
	struct span box_name;
	struct reconcile_mail *mails; /* by UID */
	size_t mail_count;
	const struct reconcile_row *rows;
	size_t row_count;
	struct reconcile_delivery *deliveries;
	size_t delivery_count;
	struct reconcile_lost *lost; /* NULL: none */
};

/* Decides the action of each mail. */
void reconcile_plan(struct reconcile *r);

/*
 * Flags as Dovecot prints them in the form of the column: system flags in a
 * fixed order, then keywords in byte order, no \Recent; whole words only up to
 * RECONCILE_FLAGS_MAX characters.
 */
void reconcile_flags(struct sbuf *out, struct span flags);

/* 16 bytes for a mail GUID of any form. */
void reconcile_guid(struct span text, uint8_t guid_out[RECONCILE_GUID_LEN]);

#endif
