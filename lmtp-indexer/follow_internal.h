/* What the files of follow share. */
#ifndef INDEXER_FOLLOW_INTERNAL_H
#define INDEXER_FOLLOW_INTERNAL_H

#include <stdatomic.h>

#include "lmtp-indexer/doveadm.h"
#include "lmtp-indexer/follow.h"
#include "lmtp-indexer/follow_queue.h"
#include "lmtp-indexer/follow_store.h"
#include "lmtp-indexer/pace.h"
#include "lmtp-indexer/writer.h"

#define FOLLOW_CHUNK 256	     /* UIDs that one step compares; rows that one deletes */
#define FOLLOW_CHUNK_BUSY 32	     /* of a backfill, while live mail waits for each step */
#define FOLLOW_BOXES_MAX 10000	     /* mailboxes of a user that are followed */
#define FOLLOW_PASSES_MAX 32	     /* users whose passes take more than one step, at a time */
#define FOLLOW_BACKFILLS_MAX 16	     /* of them those that can wait: the others are soon over */
#define FOLLOW_BACKFILL_EACH_MS 1000 /* one that can wait makes a step at least so often */
#define FOLLOW_ARENA_MAX (16u << 20) /* of one step */
#define FOLLOW_VALUE_MAX 4096	     /* bytes of a value of doveadm, but for texts */
#define FOLLOW_TEXTS_BYTES (4u << 20) /* mail that is asked for at once, unless one is larger */
#define FOLLOW_MEMORY_MAX SESSION_CHUNK /* bytes of a mail that is read in memory; beyond in a file */
#define FOLLOW_LOOKS_AMID 5	     /* for a mail that was missed, while the mailboxes never stand still */
#define FOLLOW_LOOK_EACH_MS 150	     /* between those */
#define FOLLOW_WAIT_MS 500	     /* until mails that wait are looked at again */
#define FOLLOW_FRESH_S 300	     /* a mail found in a backfill is told of where it was saved so lately */
#define FOLLOW_ERROR_MAX 512

struct follow_box {
	struct follow_box_state now; /* as Dovecot said last; owns the name */
	bool listed;   /* Dovecot has it */
	bool is_new;   /* SQL has not */
	bool compared; /* `now` is what the rows and the sets below say */
	bool changed;  /* SQL has another state */
	bool vanished; /* it was deleted; its rows are among the lost */
	uint32_t vanished_scan; /* the scan that missed it */
	bool buried;   /* and SQL knows */
	struct uidset live, back; /* to be compared: what has changed, and what was there before */
	struct uidset waiting;	  /* compared, but for RECONCILE_WAIT: once more after the next scan */
};

struct seen;

struct follow_pass {
	struct follow_pass *next;
	struct follow *f;
	struct follow_user *user;
	uint64_t user_id;
	bool newcomer; /* SQL knew no mailbox of the user */
	bool rebuild;
	bool once_more; /* something did not fit into this pass */
	bool complete;	/* all that could be compared was */
	uint32_t scans; /* begun so far */
	int64_t scan_ms, scan_wall_ms; /* when the last one began */
	bool still;	 /* it found all mailboxes as the one before had */
	int64_t look_ms; /* the pass rests until then: it looks for what a scan has missed, amid changes */
	struct follow_box *boxes;
	size_t box_count, box_size, unfollowed;
	uint64_t counted; /* of the job's messages those that it has yet to compare; guarded by the lock */
	struct reconcile_lost lost;
	size_t lost_done;
	uint64_t *open; /* deliveries without a place before scan number open_scan, by id */
	size_t open_count;
	uint32_t open_scan;
	struct seen **seen; /* of the scan under way */
	int64_t began_s;
};

/* What the last rebuild has done; guarded by the lock. */
struct follow_job {
	char user[321]; /* "": everybody */
	bool running, sweeping;
	uint64_t users_left, users_done, messages, compared, added, removed, changed, failed;
	int64_t began_ms, ended_ms;
};

struct follow {
	struct follow_config config; /* its texts are owned */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	atomic_bool stopping;
	atomic_uint_fast64_t delivered;

	/* Guarded by the lock. */
	struct follow_queue queue;
	bool look_at_all; /* hints were lost */
	struct follow_job job;

	/* The thread's own. */
	struct doveadm *doveadm;
	struct follow_store *store;
	struct writer *writer;
	struct arena mem; /* of a step */
	struct follow_pass *passes;
	size_t pass_count;
	uint64_t sweep_id; /* the user looked at last; UINT64_MAX: all are through */
	uint64_t sweep_round; /* another one with each rebuild of all, which begins anew */
	bool sweep_rebuilds;  /* the users of the page in hand are rebuilt; the thread's own */
	int64_t place_after_ms, back_after_ms; /* while mail is being delivered */
	int64_t back_at_ms; /* the last step of a pass that can wait, or beginning of one in its turn */
	int64_t sweep_due_ms, markers_due_ms, rate_at_ms, pause_ms;
	uint64_t rate_before, rate; /* deliveries, and those a second */
	atomic_bool away; /* Dovecot or the database */
	bool unsent_checked;
	char error[FOLLOW_ERROR_MAX]; /* of the last step */
};

/* Whether mail comes so fast that it is left room. */
static inline bool follow_is_busy(const struct follow *f)
{
	return f->rate > PACE_BUSY_RATE;
}

/* ---- follow_passes.c: those under way ---- */

struct follow_pass *follow_pass_new(struct follow *f, struct follow_user *user);
void follow_pass_free(struct follow_pass *p);
/* Counts what a rebuild has found as messages of the job. */
void follow_pass_count(struct follow_pass *p);
/* A rebuild has compared COUNT of them, by which rows were added and changed. */
void follow_pass_compared(struct follow_pass *p, uint64_t count, uint64_t added, uint64_t changed);
/* What it has left is begun anew, and counted again then.  The lock is held. */
void follow_pass_again(struct follow_pass *p);
/* Keeps P, which is not over, behind the others; where it can wait and too many do, it begins anew when it is its
 * user's turn. */
void follow_passes_keep(struct follow *f, struct follow_pass *p);
/* Whether P looks at the mailboxes anew: what has changed is seen to, or mails have waited.  The lock is held. */
bool follow_pass_looks_again(struct follow_pass *p, int64_t now_ms);
/* The one that goes on, no longer kept; NULL where none may now. */
struct follow_pass *follow_passes_next(struct follow *f, int64_t now_ms);
/* Whether passes of those whose turn it is may begin: behind what users have changed.  The lock is held. */
bool follow_passes_take_turns(const struct follow *f, int64_t now_ms);

/* ---- follow_fetch.c: what Dovecot says ---- */

/* Calls FN for each mailbox; its name is valid within FN only. */
int follow_fetch_boxes(struct follow_pass *p, int (*fn)(struct follow_pass *p, const struct follow_box_state *box)) MUST_CHECK;
/* Adds the UIDs that match the COUNT words of a search within the mailbox. */
int follow_fetch_uids(struct follow_pass *p, const struct follow_box *box, const char *const *words, size_t count,
		      struct uidset *out) MUST_CHECK;
int follow_fetch_mails(struct follow_pass *p, const struct follow_box *box, const uint32_t *uids, size_t count,
		       struct reconcile_mail **mails_out, size_t *count_out) MUST_CHECK;
/* Calls FN with the parsed content of each mail, by UID, which takes X. */
int follow_fetch_texts(struct follow_pass *p, const struct follow_box *box, struct reconcile_mail *const *mails,
		       size_t count, int (*fn)(void *arg, struct reconcile_mail *mail, struct extract *x), void *arg) MUST_CHECK;

/* ---- follow_scan.c: what is to be compared ---- */

int follow_scan(struct follow_pass *p) MUST_CHECK;

/* ---- follow_step.c: the work, a piece at a time ---- */

/* 0: there is more to do; ERR_NOT_FOUND: the pass is complete. */
int follow_step(struct follow_pass *p) MUST_CHECK;
/* Whether the next step is for mail that was there before: nothing else is left to do. */
bool follow_is_backfill(struct follow_pass *p);
/* Whether some mail waits for its delivery to come into the index, or to be whole. */
bool follow_waits(const struct follow_pass *p);
/* Commits what was begun, with CHANGES as events, and tells the webhooks. */
int follow_commit(struct follow_pass *p, const struct change *changes, size_t count) MUST_CHECK;
/* A new change at the end of a list of at most MAX in the step's memory. */
struct change *follow_change(struct change *list, size_t *count, const struct follow_box *box, enum change_type type);

/* ---- follow_mails.c: one chunk of UIDs ---- */

int follow_compare(struct follow_pass *p, struct follow_box *box, const uint32_t *uids, size_t count) MUST_CHECK;

#endif
