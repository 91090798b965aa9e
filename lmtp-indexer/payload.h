/*
 * The event of a delivered message as JSON, in the form of Standard Webhooks
 * (type, timestamp, data).  Pure.
 */
#ifndef INDEXER_PAYLOAD_H
#define INDEXER_PAYLOAD_H

#include "lib/base/sbuf.h"
#include "lmtp-indexer/delivery.h"
#include "lmtp-indexer/extract.h"

#define PAYLOAD_MAX (768u << 10) /* holds the largest event: all of it at its caps, in letters of four bytes */
#define PAYLOAD_KEY_MAX 64
#define PAYLOAD_ADDRESSES_MAX 50 /* of From, To and Cc each that are told */
#define PAYLOAD_ATTACHMENTS_MAX 50 /* that are told; attachment_count has all */

/* Where a mail lies. */
struct payload_place {
	struct span mailbox, mailbox_guid, flags;
	uint32_t uid_validity, uid;
};

struct payload_facts {
	const struct delivery *d;
	size_t rcpt;
	const struct extract *x;
	struct span user;
	uint64_t message, thread, sequence; /* ids of the index */
	const struct payload_place *place;  /* NULL where it is not known yet */
};

/* Unique for each recipient of each delivery: "received:ULID:0"; "appended:..." for a mail
 * that came into the mailbox by another way. */
void payload_event_key(struct sbuf *out, const struct delivery *d, size_t rcpt);
void payload_event(struct sbuf *out, const struct payload_facts *facts);

/* A quoted string of JSON; TEXT is UTF-8. */
void payload_string(struct sbuf *out, struct span text);
/* "2026-11-23T01:02:03.004Z" */
void payload_time(struct sbuf *out, int64_t wall_ms);

#endif
