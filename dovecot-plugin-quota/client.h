/*
 * The client of quotad for mail processes: one connection a process, made when
 * it is first needed and again after it was lost.  No call takes
 * longer than QUOTA_CLIENT_TIMEOUT_MS; after a timeout further calls fail at
 * once for QUOTA_CLIENT_HOLDOFF_MS, so that one mail waits once.  Safe over
 * fork(): a child makes a connection of its own.  Allocates nothing, never
 * aborts; not thread-safe.
 */
#ifndef QUOTA_CLIENT_H
#define QUOTA_CLIENT_H

#include <sys/types.h>

#include "lib/quota/proto.h"

#define QUOTA_CLIENT_TIMEOUT_MS 400
#define QUOTA_CLIENT_HOLDOFF_MS 2000
#define QUOTA_CLIENT_LINGER_MS 50 /* at the end, or after a doubt, for what was sent to be read */
#define QUOTA_CLIENT_PATIENCE_MS 60 /* of a mail that may not fit, for others to be done with the mailbox */
#define QUOTA_CLIENT_PATH_MAX 107
#define QUOTA_CLIENT_MARKERS_MAX 511 /* path of the directory of markers */

/* Changes that may be on their way to quotad's disk. */
#define QUOTA_CLIENT_OWED_MAX 32

struct quota_client {
	char path[QUOTA_CLIENT_PATH_MAX + 1];
	char marker_dir[QUOTA_CLIENT_MARKERS_MAX + 1]; /* "": none */
	int fd;	   /* -1: none */
	int channel;	    /* what quotad reads when it is awake for something else; -1: none */
	bool takes_channel; /* it would take one */
	bool quiet;	    /* it has executed all that was sent on FD */
	uint64_t link;	    /* number of the connection; 0: there was none yet */
	pid_t pid; /* whose connection it is */
	bool mute; /* a reply was missed: only one-way requests may be sent on this one */
	uint64_t instance, last_op;
	/* What was sent and is not acknowledged, oldest first. */
	struct quota_client_owed {
		uint64_t op;
		size_t len;
		char line[QUOTA_LINE_MAX];
	} owed[QUOTA_CLIENT_OWED_MAX];
	size_t owed_count;
	int64_t down_until_ms; /* monotonic; no calls before */
	/* QUOTA_CLIENT_LINGER_MS and _PATIENCE_MS, unless a test cannot be sure to be so fast. */
	int64_t linger_ms, patience_ms;
};

/* Connects to the unix socket PATH later; leaves markers (lib/run/marker.h) in
 * MARKER_DIR.  ERR_LIMIT for a path that is too long. */
int quota_client_init(struct quota_client *c, const char *path, const char *marker_dir) MUST_CHECK;
/* Leaves markers of those whose changes quotad has not read, or not acknowledged where it is gone. */
void quota_client_done(struct quota_client *c);

/*
 * Sends a request that has a reply and waits for it.  A connection that turns
 * out to be lost is made anew once and the request sent again: operation ids
 * make that harmless.  ERR_TEMP where there is no reply in time; ERR_SYNTAX for
 * a request that cannot be encoded.
 */
int quota_client_call(struct quota_client *c, const struct quota_request *request,
		      struct quota_reply *reply_out) MUST_CHECK;

/*
 * Sends a change (COMMIT, FREE) under the next operation id and does not wait
 * for quotad's disk.  It is sent again if the connection is lost before it was
 * acknowledged.  ERR_TEMP where it could not be sent.
 * LINK is 0 or, for a COMMIT, that of the connection on which all of its reservation was granted: it need not
 * wake quotad then, which reads it before anything that it matters to.
 */
int quota_client_post(struct quota_client *c, const struct quota_request *request, uint64_t link) MUST_CHECK;

/*
 * Sends a request without a reply and does not wait, not even for a quotad that
 * hangs: it will read it when it goes on.  ERR_TEMP where quotad is not running:
 * it is lost then.
 */
int quota_client_note(struct quota_client *c, const struct quota_request *request);
/*
 * Says that the usage of USER is in doubt: by a note or, where quotad is not
 * running or does not read it soon, by a marker that it finds when it is.  ERR_PERM where neither can be
 * done: the user is counted at the next contact.
 */
int quota_client_doubt(struct quota_client *c, struct span user) MUST_CHECK;

/* Of the monotonic clock. */
int64_t quota_client_now_ms(void);

#endif
