/*
 * One transaction on its way from the proxy into the index: what the spool
 * keeps of it, and the records it is kept in.  Pure.
 *
 * A delivery has one owner at a time: the front until all outcomes are known,
 * then the settler where one is OUTCOME_UNKNOWN, then the pipeline, which ends
 * it.
 */
#ifndef INDEXER_DELIVERY_H
#define INDEXER_DELIVERY_H

#include "lib/base/htab.h"
#include "lib/base/sbuf.h"
#include "lmtp-indexer/session.h"

#define DELIVERY_RECORD_MAX (SESSION_CHUNK + SESSION_ARENA_MAX) /* bytes of a record */

struct delivery_rcpt {
	struct span path; /* points into `record` or `paths` */
	enum lmtp_session_outcome outcome;
	unsigned code;      /* of the reply; 0 without one */
	int64_t settled_ms; /* wall clock of the outcome */
};

struct delivery {
	struct delivery *next, *prev; /* of the list that it is on */
	uint64_t seq;                 /* of its PREPARED record; 0: not in the spool */
	struct ulid id;
	int64_t received_ms; /* wall clock */
	struct span sender;
	uint64_t size_bytes;
	bool in_file; /* the content is the file named after the id */
	bool again;   /* it may be in the database already */
	bool appended; /* found in a mailbox; we did not deliver it */
	bool bare;    /* its content is nowhere but in the mailbox: a gap of the index */
	size_t rcpt_count;
	struct delivery_rcpt *rcpts;
	char *envelope;     /* owned: memory of sender and paths */
	struct span content; /* while it is in memory; else read it from the spool */
	char *record;       /* owned: the PREPARED record, which holds `content`; or NULL */
};

/* Makes a delivery of the accepted recipients.  Returns owned. */
struct delivery *delivery_new(const struct lmtp_session_envelope *envelope, int64_t now_ms);
void delivery_free(struct delivery **delivery);
/* Gives back the memory of the content, which the spool still has. */
void delivery_drop_content(struct delivery *d);
/* Does any recipient have the message (or may have it)? */
bool delivery_wanted(const struct delivery *d);
bool delivery_has_unknown(const struct delivery *d);
/*
 * The account behind a recipient: lower case, without the extension that one
 * of the characters DELIMITER begins.
 */
void delivery_account(struct sbuf *out, struct span path, const char *delimiter);

/* ---- Records ---- */

enum delivery_record { RECORD_PREPARED = 1, RECORD_RESULT, RECORD_DONE };

struct delivery_result {
	uint64_t prepared_seq;
	uint32_t index; /* of the recipient */
	enum lmtp_session_outcome outcome;
	unsigned code;
	int64_t settled_ms;
};

/* CONTENT is empty where d->in_file. */
void delivery_add_prepared(struct sbuf *out, const struct delivery *d, struct span content);
void delivery_add_result(struct sbuf *out, const struct delivery_result *r);
void delivery_add_done(struct sbuf *out, uint64_t prepared_seq);

/* The kind, or ERR_SYNTAX. */
int delivery_record_kind(struct span record) MUST_CHECK;
/* Returns owned; its spans are copies except `content`, which borrows from
 * RECORD. */
int delivery_read_prepared(struct span record, struct delivery **delivery_out) MUST_CHECK;
int delivery_read_result(struct span record, struct delivery_result *r_out) MUST_CHECK;
int delivery_read_done(struct span record, uint64_t *seq_out) MUST_CHECK;

/* ---- What a restart finds ---- */

/* The deliveries whose DONE has not been seen, in the order of their numbers. */
struct delivery_table {
	struct htab by_seq;
	struct delivery *first, *last;
};

#define DELIVERY_TABLE_MAX (4u << 20)

/* At most MAX at a time, then ERR_LIMIT. */
void delivery_table_init(struct delivery_table *t, size_t max);
/* Frees the deliveries that are left. */
void delivery_table_done(struct delivery_table *t);
/*
 * Takes the record numbered SEQ.  Records of deliveries that are gone are
 * skipped; ERR_SYNTAX for one that is none of ours, ERR_LIMIT where the table
 * is full.
 */
int delivery_table_replay(struct delivery_table *t, uint64_t seq, struct span record) MUST_CHECK;

#endif
