/*
 * The protocol between the mail processes (and the policy server) and quotad:
 * one line a request, one line a reply, fields separated by a TAB, over a
 * stream socket.  Pure encoder and decoder for both sides.
 *
 *   HELLO    version op             first line.  OP is the client's random
 *                                   instance number
 *   LOOKUP   user                                                     (replies)
 *   RESERVE  user id bytes credit limit flags extra extramessages grace key
 *                                                                     (replies)
 *                                   space for one more message of a transaction;
 *                                   ID 0 opens a reservation, else it grows.
 *                                   CREDIT bytes will be freed by the MOVE of
 *                                   the message named by KEY.  LIMIT is what the
 *                                   client knows of old (0: nothing); it holds
 *                                   while the database cannot be asked.  EXTRA
 *                                   and EXTRAMESSAGES are what this mailbox has
 *                                   over the user's limits (or less, by FLAGS);
 *                                   a message that finds some room left may take
 *                                   GRACE bytes more
 *   COMMIT   user id op bytes messages
 *                                   the storage has them all; ends reservation ID
 *   RELEASE  user id                the storage has nothing; ends reservation ID
 *   FREE     user op bytes messages messages are gone; ends an INTENT
 *   INTENT   user                   messages are about to go
 *   STALE    user                   something changed unseen
 *   LOGIN    user                   a session begins: if the user is due for a
 *                                   recount, let it come soon
 *   FOLDER   user bytes messages extra extramessages key
 *                                   the index of folder KEY says BYTES and
 *                                   MESSAGES, on disk are the other two
 *   LAST     user op                as LOOKUP, with the usage as it was right
 *                                   after this client's change OP     (replies)
 *   LIMIT    user limit messages    new limits, 0: none; the reply has those that
 *                                   hold                              (replies)
 *   COUNT    user                   a recount begins; SEQ names it    (replies)
 *   COUNTED  user seq bytes messages                                  (replies)
 *   SYNC                            when all before it is on disk     (replies)
 *   CHECK    user bytes grace       would a message of so many bytes, GRACE more
 *                                   where some room is left, be refused? Changes
 *                                   nothing; OK unless that is certain (replies)
 *   CHANNEL                         with it goes (SCM_RIGHTS) an end of a pair of
 *                                   SEQPACKET sockets, for COMMITs that need not
 *                                   wake quotad: one line a packet.  Only where a
 *                                   reply had QUOTA_TAKES_CHANNEL
 *
 *   reply:   WORD id limit messagelimit used messages room messageroom seq flags
 *            acked
 *
 * Requests of a connection are executed in order.  Reservations and intents
 * belong to the connection and end with it.  OP numbers the changes of a client,
 * from 1 on; ACKED is the last one that is, with all before it, durable.  What
 * is not acknowledged may be sent again on a new connection: (instance, OP)
 * takes effect once.
 * A COMMIT may go through the channel if its reservation was granted, whole, on this
 * connection, and nothing was sent on it since its last reply.  It takes effect before
 * the next request of this connection, before any request about its user, before the end of the connection, and
 * else soon.
 * Numbers are decimal: sizes and counts of a request at most QUOTA_SIZE_MAX, an
 * OP any 64-bit number, all others at most QUOTA_NUMBER_MAX.  Sizes are bytes.
 */
#ifndef QUOTA_PROTO_H
#define QUOTA_PROTO_H

#include "lib/base/sbuf.h"

#define QUOTA_VERSION 2
#define QUOTA_LINE_MAX 1024 /* bytes of a line, its LF included */
#define QUOTA_USER_MAX 320
#define QUOTA_KEY_MAX 96
#define QUOTA_NUMBER_MAX (UINT64_C(1) << 62)
#define QUOTA_SIZE_MAX (UINT64_C(1) << 50) /* bytes or messages in a request */
#define QUOTA_UNLIMITED QUOTA_NUMBER_MAX   /* as room: no limit applies */

enum quota_verb {
	QUOTA_HELLO,
	QUOTA_LOOKUP,
	QUOTA_RESERVE,
	QUOTA_COMMIT,
	QUOTA_RELEASE,
	QUOTA_FREE,
	QUOTA_INTENT,
	QUOTA_STALE,
	QUOTA_LOGIN,
	QUOTA_FOLDER,
	QUOTA_LAST,
	QUOTA_LIMIT,
	QUOTA_COUNT,
	QUOTA_COUNTED,
	QUOTA_SYNC,
	QUOTA_CHECK,
	QUOTA_CHANNEL,
	QUOTA_VERBS /* how many */
};

/* Flags of RESERVE. */
#define QUOTA_FORCE 1u	      /* replication: grant whatever the limit */
#define QUOTA_RECOUNT_DONE 2u /* do not ask for a recount before deciding */
#define QUOTA_EXTRA_LESS 4u   /* EXTRA is taken from the limit */
#define QUOTA_EXTRA_MESSAGES_LESS 8u

struct quota_request {
	enum quota_verb verb;
	struct span user; /* borrows */
	struct span key;  /* borrows; empty: none */
	uint64_t version, id, op, bytes, messages, credit, limit, flags, seq, extra, extra_messages,
		grace;
};

enum quota_word {
	QUOTA_OK,
	QUOTA_OVER,    /* RESERVE, CHECK: more than what is left */
	QUOTA_BIG,     /* RESERVE, CHECK: more than the whole limit */
	QUOTA_RECOUNT, /* RESERVE: count the mailbox, send COUNTED, ask again */
	QUOTA_RETRY,   /* COUNT, COUNTED: others are changing the mailbox */
	QUOTA_TEMP,    /* not now */
	QUOTA_WORDS    /* how many */
};

/* Flags of a reply. */
#define QUOTA_IS_STALE 1u      /* a recount is wanted when it suits */
#define QUOTA_LIMIT_UNKNOWN 2u /* the database could not be asked yet */
#define QUOTA_NO_USER 4u       /* not in the database: no limit, no row */
#define QUOTA_EXAMINE 8u       /* COUNT: only look, change nothing, not even an index */
#define QUOTA_TAKES_CHANNEL 16u

struct quota_reply {
	enum quota_word word;
	uint64_t id;	/* of the reservation; 0: none */
	uint64_t limit, message_limit; /* of the user; 0: none */
	uint64_t used, messages;
	uint64_t room, message_room; /* what is left of the tightest limit */
	uint64_t seq;  /* changes with everything that disturbs a recount */
	uint64_t flags;
	uint64_t acked;
};

/* Whether the verb is answered at all. */
bool quota_verb_has_reply(enum quota_verb verb);
const char *quota_verb_name(enum quota_verb verb);

/*
 * Decodes a line without its LF.  Only the fields of the verb are set, the
 * others are zero.  ERR_SYNTAX for anything that the encoder would not write.
 */
int quota_request_decode(struct span line, struct quota_request *request_out) MUST_CHECK;
int quota_reply_decode(struct span line, struct quota_reply *reply_out) MUST_CHECK;

/*
 * Adds a whole line with its LF.  ERR_SYNTAX, and nothing is added, where a
 * field holds a control character or is over its cap.
 */
int quota_request_encode(const struct quota_request *request, struct sbuf *out) MUST_CHECK;
int quota_reply_encode(const struct quota_reply *reply, struct sbuf *out) MUST_CHECK;

#endif
