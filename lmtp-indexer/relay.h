/*
 * The backend's side of the proxy: connections ("legs") to Dovecot's LMTP,
 * kept and used again.  On the loop's thread.
 *
 * Each transaction begins with XCLIENT SESSION=<delivery id>, so that Dovecot
 * says and stores that id.  Commands are pipelined; content goes by BDAT where
 * the backend has CHUNKING, else by DATA.
 *
 * A kept leg may have died unnoticed.  Where one is lost before it gave a
 * single reply to the transaction's commands, they are sent again on a fresh
 * one; the owner does not notice.
 */
#ifndef INDEXER_RELAY_H
#define INDEXER_RELAY_H

#include "lib/run/loop.h"
#include "lmtp-indexer/session.h"

#define RELAY_ADDRESSES_MAX 8 /* of a backend; the option refuses more, of an answer to backend_query they are left out */

struct relay;
struct relay_leg;

struct relay_config {
	const char *backend; /* addresses as of listen_connect(), the first that answers is taken */
	const char *host;    /* our name in LHLO */
	int64_t connect_timeout_ms;
	int64_t reply_timeout_ms; /* also told to the backend as XCLIENT TIMEOUT */
	int64_t keep_idle_ms;     /* how long an unused leg is kept */
	size_t keep_max;          /* unused legs that are kept */
};

enum relay_reply { RELAY_COMMAND, RELAY_CHUNK, RELAY_FINAL };

struct relay_owner {
	/* The leg has told its capabilities. */
	void (*ready)(void *arg, const struct lmtp_caps *caps);
	void (*reply)(void *arg, enum relay_reply kind, const struct lmtp_reply *reply);
	/* What was written has gone out. */
	void (*drained)(void *arg);
	/* The leg is gone and freed. */
	void (*lost)(void *arg);
};

struct relay *relay_new(struct loop *loop, const struct relay_config *config);
/* Takes the new settings for legs to come; kept ones are closed. */
void relay_configure(struct relay *relay, const struct relay_config *config);
void relay_free(struct relay **relay);
/* The capabilities last seen; RFC 2033's minimum before the first. */
const struct lmtp_caps *relay_caps(const struct relay *relay);

/*
 * A leg for OWNER; ready() or lost() follow, never from within this call.
 * `relay_leg_ready` tells whether a kept one was found.
 */
struct relay_leg *relay_acquire(struct relay *relay, const struct relay_owner *owner, void *arg);
bool relay_leg_ready(const struct relay_leg *leg);

void relay_mail(struct relay_leg *leg, const struct ulid *id, struct span line);
void relay_rcpt(struct relay_leg *leg, struct span line);
void relay_chunk(struct relay_leg *leg, struct span bytes);
/* The last chunk; ACCEPTED final replies are awaited. */
void relay_finish(struct relay_leg *leg, struct span bytes, size_t accepted);
/* Bytes that wait to go out. */
size_t relay_pending(const struct relay_leg *leg);
/* Gives the leg back: for the next transaction, or to be closed. */
void relay_release(struct relay_leg **leg, enum lmtp_session_end how);

#endif
