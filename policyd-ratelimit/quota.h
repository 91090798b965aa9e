/*
 * Asks quotad whether a mailbox has room, without waiting: over a few
 * connections, each a queue of questions that are answered in order.  A question
 * that is not answered within the timeout is given up, and for a moment none is
 * asked then; nothing here ever makes mail fail.  Belongs to the loop's thread.
 */
#ifndef POLICYD_QUOTA_H
#define POLICYD_QUOTA_H

#include "lib/base/span.h"
#include "lib/run/loop.h"

#define QUOTA_CONNS 4      /* connections to quotad */
#define QUOTA_ASKS_MAX 1024 /* questions that wait on one of them */

struct quota;
struct quota_ask;

enum quota_verdict {
	QUOTA_ROOM,
	QUOTA_FULL,
	QUOTA_UNKNOWN, /* quotad is away, slow, or does not know */
};

struct quota_settings {
	const char *socket; /* as listen_connect() takes it */
	int64_t timeout_ms;
	uint64_t grace_bytes;
};

/* Copies SETTINGS.  Connects with the first question. */
struct quota *quota_new(struct loop *loop, const struct quota_settings *settings);
/* Questions that wait are answered with QUOTA_UNKNOWN. */
void quota_free(struct quota **quota);

/*
 * Asks whether USER (an address) has room for BYTES.  ANSWERED is called once,
 * from the loop, unless quota_cancel() comes first; the handle is no longer
 * valid then.  NULL where nothing was asked: go on as with QUOTA_UNKNOWN.
 */
struct quota_ask *quota_ask(struct quota *quota, struct span user, uint64_t bytes,
			    void (*answered)(void *arg, enum quota_verdict verdict), void *arg);
void quota_cancel(struct quota_ask *ask);
/* Whether a question waits for its answer. */
bool quota_is_busy(const struct quota *quota);

#endif
