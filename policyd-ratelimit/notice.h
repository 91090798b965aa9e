/*
 * What administrators and dashboards are told of a key, as the record that
 * travels through an outbox into SQL (a row of rate_events) or into a mail.
 * Pure.
 *
 *   u8 NOTICE_VERSION, u64 wall time ms, then for each field in order:
 *   u16 length (0xffff: absent), bytes
 *
 * Integers are little endian.  A reader takes fewer fields than it knows for
 * absent and leaves out those it does not know.
 */
#ifndef POLICYD_NOTICE_H
#define POLICYD_NOTICE_H

#include "lib/base/sbuf.h"

#define NOTICE_VERSION 1
#define NOTICE_RECORD_MAX 16384 /* bytes */

/* In the order of the columns of events_query behind time; name, width of the
 * column in characters, whether it is ASCII.  Add new ones at the end. */
#define NOTICE_FIELD_ROWS(ROW)  \
	ROW(KIND, 32, true)       \
	ROW(SCOPE, 32, true)      \
	ROW(KEY, 255, false)      \
	ROW(UNIT, 32, true)       \
	ROW(MAX, 20, true)        \
	ROW(WINDOW_S, 10, true)   \
	ROW(ACTION, 16, true)     \
	ROW(SHADOW, 1, true)      \
	ROW(CLIENT_IP, 45, true)  \
	ROW(ACCOUNT, 255, false)  \
	ROW(SENDER, 320, false)   \
	ROW(RECIPIENT, 320, false) \
	ROW(DETAIL, 1024, false)

enum notice_field {
#define NOTICE_FIELD_ID(name, width, ascii) NOTICE_##name,
	NOTICE_FIELD_ROWS(NOTICE_FIELD_ID)
#undef NOTICE_FIELD_ID
	NOTICE_FIELDS
};

/* A field is absent (NULL in SQL) where its pointer is NULL. */
struct notice {
	int64_t happened_ms; /* wall clock */
	struct span fields[NOTICE_FIELDS];
};

/* Sets a field, leaving it absent where VALUE is empty. */
void notice_set(struct notice *notice, enum notice_field field, struct span value);
/* Each field is cut at what its column can take; sbuf_ok() with room for
 * NOTICE_RECORD_MAX. */
void notice_encode(const struct notice *notice, struct sbuf *out);
/* ERR_SYNTAX for what is no record of this form.  Borrows from BYTES. */
int notice_decode(struct span bytes, struct notice *notice_out) MUST_CHECK;
/* Adds VALUE as its column takes it: valid, without control characters, cut at
 * the end of a character. */
void notice_field_clean(enum notice_field field, struct span value, struct sbuf *out);

#endif
