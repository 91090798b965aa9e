/*
 * How the index differs from the mailboxes of a user.  Pure.
 */
#ifndef POSTERN_INDEX_DIFF_H
#define POSTERN_INDEX_DIFF_H

#include "lib/base/sbuf.h"

#define INDEX_DIFF_GUID_LEN 16

/* A mail as Dovecot has it, or a row that is not deleted. */
struct index_mail {
	struct span box_guid; /* "" for a row without a place */
	struct span box_name, flags;
	uint32_t uid_validity, uid;
	uint8_t guid[INDEX_DIFF_GUID_LEN];
	bool has_guid;
	uint64_t message_id; /* of a row */
	bool pending;	     /* of a row: what is in the mail is not in the index */
};

enum index_difference {
	INDEX_MISSING,	    /* in the mailbox, no row */
	INDEX_EXTRA,	    /* a row, not in the mailbox */
	INDEX_WRONG_FOLDER, /* the row is elsewhere, or names another mailbox */
	INDEX_WRONG_FLAGS,
	INDEX_UNPLACED, /* a delivery that was not looked for yet */
	INDEX_PENDING,	/* the row has nothing but the envelope: a gap that waits to be filled */
};

const char *index_difference_name(enum index_difference kind);

/* MAIL is NULL with EXTRA and UNPLACED, ROW with MISSING. */
typedef void index_diff_fn(void *arg, enum index_difference kind, const struct index_mail *mail,
			   const struct index_mail *row);

/* Sorts both lists and calls FN for each difference.  A row may differ in several ways (folder, flags, pending). */
void index_diff(struct index_mail *mails, size_t mail_count, struct index_mail *rows, size_t row_count,
		index_diff_fn *fn, void *arg);

#endif
