/*
 * One LMTP session of a client, as a pure state machine between three parties:
 * the client, the backend leg and the spool.  The owner feeds in what these
 * say and carries out the operations of struct lmtp_session_ops.
 *
 * The order that everything rests on:
 *   1. MAIL and RCPT are passed on as they come; the client gets the backend's
 *      own replies (RFC 2033, 2920).
 *   2. Content streams to the backend in chunks while it comes in; the last
 *      chunk is held back and given to prepare().
 *   3. After lmtp_session_on_prepared() the last chunk goes out.
 *   4. Each final reply of the backend is given to result(); after
 *      lmtp_session_on_results() it goes back to the client.
 * Where the spool fails, 3 and 4 go on at once: mail outranks the index.
 *
 * A backend that dies leaves 451 4.4.2 for each recipient without an answer.
 */
#ifndef INDEXER_SESSION_H
#define INDEXER_SESSION_H

#include "lib/base/arena.h"
#include "lmtp-indexer/body.h"
#include "lmtp-indexer/lmtp.h"
#include "lmtp-indexer/ulid.h"

#define SESSION_CHUNK (128u << 10) /* bytes of a chunk; a message up to this is one */
#define SESSION_ARENA_MAX (2u << 20)
#define SESSION_RCPT_MAX 1000      /* recipients of a transaction; more get 452 4.5.3 */
#define SESSION_BAD_COMMANDS_MAX 20 /* then 421 and the end */

enum lmtp_session_outcome {
	OUTCOME_NONE,      /* not yet known */
	OUTCOME_REPLIED,   /* `reply` is the backend's own */
	OUTCOME_NOT_SENT,  /* the backend did not get the whole message */
	OUTCOME_UNKNOWN,   /* it got all of it and never answered: look into the mailbox */
};

/* What the backend leg is good for after a transaction. */
enum lmtp_session_end {
	END_CLEAN,  /* for the next one */
	END_RESET,  /* for the next one, after RSET */
	END_BROKEN, /* for nothing */
};

struct lmtp_session_rcpt {
	struct span path;
	bool accepted;
	enum lmtp_session_outcome outcome;
	struct lmtp_reply reply; /* with OUTCOME_REPLIED */
};

/*
 * The transaction, for prepare() and result(); valid until end().
 * rcpts[order[i]] is the accepted recipient number i.
 */
struct lmtp_session_envelope {
	struct ulid id;
	struct span sender, sender_params;
	struct lmtp_session_rcpt *rcpts;
	size_t rcpt_count;
	uint16_t *order;
	size_t accepted;
	uint64_t size_bytes; /* of the content with our trace header */
};

enum lmtp_session_say {
	SAY_NOW,
	SAY_WITH_NEXT, /* may wait for the next reply, which is sure to come: the client asked for both at once */
	SAY_LAST,      /* after this nothing follows: hang up */
};

struct lmtp_session_ops {
	/* To the client. */
	void (*reply)(void *arg, struct span bytes, enum lmtp_session_say how);
	/* Wants a backend leg; answer with lmtp_session_on_backend(). */
	void (*connect)(void *arg);
	/* A new delivery id. */
	struct ulid (*make_id)(void *arg);
	/* Begins a transaction under that id: MAIL, RCPT as ready lines. */
	void (*mail)(void *arg, const struct ulid *id, struct span line);
	void (*rcpt)(void *arg, struct span line);
	/* A chunk that is not the last; it goes to the spool and the backend. */
	void (*chunk)(void *arg, struct span bytes);
	/* The message is complete, REST is its last chunk: make it durable, then
	 * lmtp_session_on_prepared(), also from within this call. */
	void (*prepare)(void *arg, const struct lmtp_session_envelope *envelope, struct span rest);
	/* The last chunk may go to the backend. */
	void (*finish)(void *arg, struct span rest);
	/* Accepted recipient number INDEX has its outcome: make it durable, then
	 * lmtp_session_on_results(), also from within this call. */
	void (*result)(void *arg, const struct lmtp_session_envelope *envelope, size_t index);
	/* The transaction is over. */
	void (*end)(void *arg, enum lmtp_session_end how);
};

enum lmtp_session_state {
	SESSION_NEW,        /* before LHLO */
	SESSION_CONNECTING, /* LHLO came, the backend's capabilities did not */
	SESSION_READY,
	SESSION_MAIL,       /* MAIL was passed on */
	SESSION_DATA,       /* content of DATA */
	SESSION_BDAT,       /* content of a BDAT chunk */
	SESSION_PREPARING,  /* waits for the spool */
	SESSION_FINAL,      /* waits for the backend's replies and the spool */
	SESSION_CLOSED,
};

struct lmtp_session {
	const struct lmtp_session_ops *ops;
	void *arg;
	const char *host;   /* our name in replies; borrowed */
	const char *trace_name; /* of the trace header; borrowed */
	enum lmtp_session_state state;
	struct lmtp_caps caps; /* what was offered */
	unsigned bad_commands;

	struct arena arena; /* of the transaction */
	struct lmtp_session_envelope env;
	size_t rcpt_room; /* recipients that env has memory for */
	bool mail_pending, mail_ok;
	bool held_back;     /* a command waits for the replies to those before it */
	size_t replied;     /* RCPTs that the backend has answered */
	size_t settled;     /* accepted recipients with an outcome */
	size_t answered;    /* accepted recipients whose reply went to the client */
	struct lmtp_reply failure; /* of a chunk: stands for each recipient */
	bool failed;        /* the content goes nowhere any more */
	bool lost;          /* the leg is gone */
	bool content_open;  /* a first byte of content (or BDAT) was seen */

	struct body_unstuff unstuff;
	struct body_strip strip;
	uint64_t bdat_left, bdat_size;
	bool bdat_last, bdat_refused;
	enum lmtp_session_state bdat_from;
	struct sbuf chunk;
};

void lmtp_session_init(struct lmtp_session *s, const struct lmtp_session_ops *ops, void *arg, const char *host,
		  const char *trace_name);
void lmtp_session_done(struct lmtp_session *s);

/* The greeting that opens the dialogue. */
void lmtp_session_greet(struct lmtp_session *s);
/*
 * Bytes from the client; returns how many were used. The rest must be shown
 * again with what follows, after the event that the session waits for.
 */
size_t lmtp_session_input(struct lmtp_session *s, struct span in);
/* True where lmtp_session_input() would use nothing: stop reading, and show the
 * rest again when it has become false. */
bool lmtp_session_blocked(const struct lmtp_session *s);

/* The answer to connect(): the capabilities of the backend, or those last
 * known where it is away. */
void lmtp_session_on_backend(struct lmtp_session *s, const struct lmtp_caps *caps);
/* The next reply of the backend to MAIL or RCPT, or a final one. */
void lmtp_session_on_reply(struct lmtp_session *s, const struct lmtp_reply *reply);
/* The reply to a chunk that was not the last, or a refusal of DATA. */
void lmtp_session_on_chunk_reply(struct lmtp_session *s, const struct lmtp_reply *reply);
/* The leg is gone. */
void lmtp_session_on_backend_lost(struct lmtp_session *s);
void lmtp_session_on_prepared(struct lmtp_session *s);
/* COUNT more outcomes, in order, are durable or given up. */
void lmtp_session_on_results(struct lmtp_session *s, size_t count);

/*
 * The client is gone.  True: a message is in the backend's hands and its
 * outcome is still to come; go on feeding events until end().  False: it is
 * over, end() was called where a transaction was open.
 */
bool lmtp_session_on_client_gone(struct lmtp_session *s);

#endif
