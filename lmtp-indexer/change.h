/*
 * The events of mailboxes as JSON, in the form of payload.h.  Pure.
 *
 *   message.filed      a delivery was filed elsewhere than INBOX
 *   message.moved      from_mailbox tells where it was
 *   message.flags      old_flags tells how it was marked
 *   message.deleted    reason: expunged, mailbox_deleted, not_stored
 *   message.restored   a mail that was deleted is back
 *   mailbox.created, mailbox.renamed (from_mailbox), mailbox.deleted
 *
 * message.appended, for a mail that came into the mailbox by another way than a
 * delivery, is written with its row.
 */
#ifndef INDEXER_CHANGE_H
#define INDEXER_CHANGE_H

#include "lib/base/sbuf.h"

#define CHANGE_JSON_MAX 8192

enum change_type {
	CHANGE_FILED,
	CHANGE_MOVED,
	CHANGE_FLAGS,
	CHANGE_DELETED,
	CHANGE_RESTORED,
	CHANGE_BOX_CREATED,
	CHANGE_BOX_RENAMED,
	CHANGE_BOX_DELETED,
};

struct change {
	enum change_type type;
	uint64_t message_id; /* 0: of a mailbox */
	struct span mailbox, mailbox_guid;
	uint32_t uid_validity, uid; /* uid 0: none */
	struct span flags;
	struct span before; /* the mailbox or flags that were */
	struct span reason;
};

const char *change_type_name(enum change_type type);
void change_payload(struct sbuf *out, const struct change *c, struct span user, uint64_t sequence, int64_t wall_ms);
/* ["\\Seen","work"] */
void change_flags_json(struct sbuf *out, struct span flags);

#endif
