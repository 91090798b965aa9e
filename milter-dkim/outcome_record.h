/*
 * What became of a message, as the record that travels through the outbox into
 * SQL.  Pure.
 *
 *   u8 OUTCOME_VERSION, u64 time, then items: u8 tag, u16 length, bytes
 *
 * Integers are little endian.  Tags below OUTCOME_FIELDS are those fields, those from
 * OUTCOME_FAILURE on the fields of a failure; the tag OUTCOME_SIGNATURE holds items
 * whose tags are OUTCOME_SIG_*.  Tags that a
 * reader does not know are skipped, so that versions may be mixed.
 */
#ifndef MILTER_OUTCOME_RECORD_H
#define MILTER_OUTCOME_RECORD_H

#include "milter-dkim/failure.h"

#define OUTCOME_VERSION 1
#define OUTCOME_SIGNATURES_MAX 100     /* RFC 9990 reports no more; the rest is left out */
#define OUTCOME_RECORD_MAX (512u << 10) /* bytes */
#define OUTCOME_FAILURE 100
#define OUTCOME_SIGNATURE 200

/*
 * The fields, in the order of the columns of results_query; a row is name, width
 * of the column, and its kind.  Add new ones at the end.
 */
#define OUTCOME_FIELD_ROWS(ROW)     \
	ROW(DIRECTION, 8, ASCII)          \
	ROW(QUEUE_ID, 32, ASCII)          \
	ROW(CLIENT_IP, 45, ASCII)         \
	ROW(HELO, 255, CHARS)             \
	ROW(ENVELOPE_SENDER, 320, CHARS)  \
	ROW(ACCOUNT, 255, CHARS)          \
	ROW(MESSAGE_ID, 998, CHARS)       \
	ROW(FROM_DOMAIN, 255, CHARS)      \
	ROW(SPF_RESULT, 16, ASCII)        \
	ROW(SPF_DOMAIN, 255, CHARS)       \
	ROW(SPF_SCOPE, 8, ASCII)          \
	ROW(DKIM_RESULT, 16, ASCII)       \
	ROW(ARC_RESULT, 16, ASCII)        \
	ROW(DMARC_RESULT, 16, ASCII)      \
	ROW(DMARC_DOMAIN, 255, CHARS)     \
	ROW(DMARC_POLICY, 16, ASCII)      \
	ROW(DMARC_APPLIED, 16, ASCII)     \
	ROW(DMARC_RECORD, 65535, BYTES)   \
	ROW(DMARC_DISCOVERY, 8, ASCII)    \
	ROW(ALIGNED_DKIM, 1, ASCII)       \
	ROW(ALIGNED_SPF, 1, ASCII)        \
	ROW(DISPOSITION, 16, ASCII)       \
	ROW(OVERRIDE_TYPE, 24, ASCII)     \
	ROW(OVERRIDE_REASON, 255, CHARS)

/* What a failure report needs besides; absent where none is wanted. */
#define OUTCOME_FAILURE_ROWS(ROW)   \
	ROW(AUTH_FAILURE, 16, ASCII)      \
	ROW(ALIGNMENT, 16, ASCII)         \
	ROW(SENDER, 320, CHARS)           \
	ROW(DKIM_DOMAIN, 255, CHARS)      \
	ROW(DKIM_IDENTITY, 320, CHARS)    \
	ROW(DKIM_SELECTOR, 255, CHARS)    \
	ROW(SPF_RECORD, 65535, BYTES)     \
	ROW(HEADER, 65535, LINES)

enum outcome_field {
#define OUTCOME_FIELD_ID(name, width, kind) OUTCOME_##name,
	OUTCOME_FIELD_ROWS(OUTCOME_FIELD_ID)
	OUTCOME_FIELDS,
	OUTCOME_BEFORE_FAILURE = OUTCOME_FIELDS - 1,
	OUTCOME_FAILURE_ROWS(OUTCOME_FIELD_ID)
#undef OUTCOME_FIELD_ID
	OUTCOME_ALL_FIELDS
};

enum outcome_sig_field {
	OUTCOME_SIG_DOMAIN,
	OUTCOME_SIG_SELECTOR,
	OUTCOME_SIG_ALGORITHM,
	OUTCOME_SIG_RESULT,  /* absent for one that we made */
	OUTCOME_SIG_REASON,
	OUTCOME_SIG_ALIGNED, /* "1" or "0"; absent where there is no author domain */
	OUTCOME_SIG_FIELDS
};

#define OUTCOME_SCRATCH 1024

/* A field is absent where its pointer is NULL. */
struct outcome_record {
	int64_t received_ms; /* wall clock */
	struct span fields[OUTCOME_ALL_FIELDS];
	struct span signatures[OUTCOME_SIGNATURES_MAX][OUTCOME_SIG_FIELDS];
	size_t signature_count;
	char ip[IP_TEXT_SIZE], message_id[OUTCOME_SCRATCH]; /* what fields may point into */
};

struct outcome_facts {
	const struct session_outcome *outcome;
	struct span queue_id; /* empty: unknown */
	const struct ip *client; /* bits == 0: none */
	int64_t received_ms;
	const struct failure *failure; /* NULL: none is to be reported */
};

/* Whether the message was judged or signed; a deferred one comes again. */
bool outcome_wanted(const struct session_outcome *outcome);

/* Borrows from FACTS and from what its outcome points to. */
void outcome_record_fill(const struct outcome_facts *facts, struct outcome_record *record_out);
/* Each field is cut at what its column can take; sbuf_ok() with room for
 * OUTCOME_RECORD_MAX. */
void outcome_record_encode(const struct outcome_record *record, struct sbuf *out);
/* ERR_SYNTAX for what is no record of this form, ERR_LIMIT past
 * OUTCOME_SIGNATURES_MAX.  Borrows from BYTES. */
int outcome_record_decode(struct span bytes, struct outcome_record *record_out) MUST_CHECK;

/* Adds VALUE as its column takes it: valid, without control characters (but LF in
 * what has lines), cut at the end of a character. */
void outcome_field_clean(enum outcome_field field, struct span value, struct sbuf *out);

/*
 * Adds the signatures as a JSON array of objects with the members domain,
 * selector, algorithm, result, reason (strings or null) and aligned (true,
 * false or null).
 */
void outcome_signatures_json(const struct outcome_record *record, struct sbuf *out);

#endif
