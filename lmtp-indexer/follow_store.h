/*
 * What the follower reads from SQL and writes there.  Belongs to the follower's
 * thread.  Errors are those of lib/run/db.
 */
#ifndef INDEXER_FOLLOW_STORE_H
#define INDEXER_FOLLOW_STORE_H

#include "lib/base/arena.h"
#include "lib/run/db.h"
#include "lmtp-indexer/change.h"
#include "lmtp-indexer/reconcile.h"
#include "lmtp-indexer/uidset.h"

#define FOLLOW_GUID_LEN 32 /* characters of a mailbox GUID */
#define FOLLOW_BOX_NAME_CHARS 255
#define FOLLOW_OPEN_MAX 2000 /* deliveries without a place that one pass looks at */
#define FOLLOW_OPEN_DAYS 1   /* older ones are from before mailboxes were followed */

struct follow_store;

/* Takes DB. */
struct follow_store *follow_store_new(struct db *db, const char *user_query, const char *users_query);
void follow_store_free(struct follow_store **store);
const char *follow_store_error(const struct follow_store *store);

/* What a mailbox was when it was last compared. */
struct follow_box_state {
	char guid[FOLLOW_GUID_LEN + 1];
	char *name; /* UTF-8, cut to the column; whose memory it is, says the function */
	uint32_t uid_validity, uid_next, messages;
	uint64_t modseq;
	bool backfill;
};

int follow_store_user(struct follow_store *store, struct span email, uint64_t *id_out) MUST_CHECK;
/* Calls FN for the next users behind *ID, which is moved on, until it has no room for one: ERR_AGAIN where that is
 * the first; ERR_NOT_FOUND at the end. */
int follow_store_users(struct follow_store *store, uint64_t *id, bool (*fn)(void *arg, struct span email), void *arg) MUST_CHECK;
/* Deliveries of the last FOLLOW_OPEN_DAYS (ANY_AGE: of any age) that have not been seen in a mailbox, by id. */
int follow_store_open(struct follow_store *store, uint64_t user_id, bool any_age, uint64_t ids[FOLLOW_OPEN_MAX],
		      size_t *count_out) MUST_CHECK;
/* The name is valid within FN only. */
int follow_store_boxes(struct follow_store *store, uint64_t user_id,
		       void (*fn)(void *arg, const struct follow_box_state *box), void *arg) MUST_CHECK;

/* The same for the mailboxes that rows name, whether table mailboxes knows them or not: GUID and name only. */
int follow_store_row_boxes(struct follow_store *store, uint64_t user_id,
			   void (*fn)(void *arg, const struct follow_box_state *box), void *arg) MUST_CHECK;

/* A row that is not deleted. */
struct follow_row {
	uint64_t id;
	uint32_t uid, uid_validity;
	bool has_guid;
	uint8_t guid[RECONCILE_GUID_LEN];
};
/* Calls FN for each row of a mailbox, by UIDVALIDITY and UID. */
int follow_store_rows(struct follow_store *store, uint64_t user_id, const char *box_guid,
		      void (*fn)(void *arg, const struct follow_row *row), void *arg) MUST_CHECK;

/* A place in a mailbox. */
struct follow_place {
	const char *box_guid, *box_name;
	uint32_t uid_validity;
};
/* The rows at UIDs, by UID, in MEM. */
int follow_store_at(struct follow_store *store, struct arena *mem, uint64_t user_id, const struct follow_place *place,
		    const uint32_t *uids, size_t count, struct reconcile_row **rows_out, size_t *count_out) MUST_CHECK;
/* The rows with the delivery ids in the traces of MAILS. */
int follow_store_traced(struct follow_store *store, struct arena *mem, uint64_t user_id,
			const struct reconcile_mail *mails, size_t count, struct reconcile_delivery **rows_out,
			size_t *count_out) MUST_CHECK;

/* ---- Within follow_store_begin() and follow_store_commit() ---- */

int follow_store_begin(struct follow_store *store) MUST_CHECK;
int follow_store_commit(struct follow_store *store) MUST_CHECK;
void follow_store_rollback(struct follow_store *store);

/* The row of mail->message_id lies here, as the mail is: noted, and written by follow_store_put_all().  Borrows both. */
void follow_store_put(struct follow_store *store, const struct follow_place *place, const struct reconcile_mail *mail);
int follow_store_put_all(struct follow_store *store) MUST_CHECK;
/* *CHANGED_OUT: the row still had the place that its mail has left, and was not deleted before. */
int follow_store_delete(struct follow_store *store, uint64_t message_id, const char *box_guid, uint32_t uid,
			const char *reason, bool *changed_out) MUST_CHECK;
/* The same for a delivery that is still without a place. */
int follow_store_not_stored(struct follow_store *store, uint64_t message_id, bool *changed_out) MUST_CHECK;
int follow_store_rename(struct follow_store *store, uint64_t user_id, const char *box_guid, const char *name) MUST_CHECK;
int follow_store_box(struct follow_store *store, uint64_t user_id, const struct follow_box_state *box) MUST_CHECK;
int follow_store_box_gone(struct follow_store *store, uint64_t user_id, const char *box_guid) MUST_CHECK;

/* An event that was written. */
struct follow_event {
	char key[64];
	struct span json; /* in MEM */
};
/*
 * Gives the changes the next numbers of the user's feed and writes them.  With
 * KEEP_UNSENT they are noted as not yet handed to the webhooks.
 */
int follow_store_events(struct follow_store *store, struct arena *mem, uint64_t user_id, struct span user,
			const struct change *changes, size_t count, bool keep_unsent,
			struct follow_event **events_out, uint64_t *first_seq_out) MUST_CHECK;
/* Outside of a transaction: the webhooks have them. */
int follow_store_sent(struct follow_store *store, uint64_t user_id, uint64_t first_seq) MUST_CHECK;
/* The events of noted ranges, which a crash has left; FN returns false to stop. */
int follow_store_unsent(struct follow_store *store,
			bool (*fn)(void *arg, struct span key, int64_t happened_ms, struct span json), void *arg) MUST_CHECK;

#endif
