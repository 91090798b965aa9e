/*
 * Writing.  Each statement names the row by its id, so a batch that comes twice
 * finds nothing left to change.
 */
#include "lmtp-indexer/follow_store_internal.h"

#include "lib/base/hash.h"
#include "lib/base/num.h"
#include "lib/run/loop.h"

int follow_store_begin(struct follow_store *s)
{
	rows_reset(&s->put);
	return db_begin(s->db);
}

int follow_store_commit(struct follow_store *s)
{
	return db_commit(s->db);
}

void follow_store_rollback(struct follow_store *s)
{
	db_rollback(s->db);
}

void follow_store_put(struct follow_store *s, const struct follow_place *place, const struct reconcile_mail *m)
{
	struct db_param params[] = {DB_P_UINT(m->message_id), DB_P_STR(place->box_name), DB_P_STR(place->box_guid),
				    DB_P_UINT(place->uid_validity), DB_P_UINT(m->uid), DB_P_TEXT(m->flags),
				    DB_P_BLOB(span_of(m->guid, sizeof(m->guid)))};
	rows_add(&s->put, params);
}

int follow_store_put_all(struct follow_store *s)
{
	return rows_exec(&s->put, s->db);
}

static int bury(struct follow_store *s, const char *sql, const struct db_param *params, size_t count, bool *changed_out)
{
	int rc = db_exec(s->db, sql, params, count);
	if (rc == 0)
		*changed_out = db_affected(s->db) > 0;
	return rc;
}

int follow_store_delete(struct follow_store *s, uint64_t message_id, const char *box_guid, uint32_t uid,
			const char *reason, bool *changed_out)
{
	struct db_param params[] = {DB_P_STR(reason), DB_P_UINT(message_id), DB_P_STR(box_guid), DB_P_UINT(uid)};
	return bury(s,
		    "UPDATE messages SET deleted_at = UTC_TIMESTAMP(3), deleted_reason = ? "
		    "WHERE id = ? AND mailbox_guid = ? AND uid = ? AND deleted_at IS NULL",
		    params, 4, changed_out);
}

int follow_store_not_stored(struct follow_store *s, uint64_t message_id, bool *changed_out)
{
	struct db_param params[] = {DB_P_UINT(message_id)};
	return bury(s,
		    "UPDATE messages SET deleted_at = UTC_TIMESTAMP(3), deleted_reason = 'not_stored' "
		    "WHERE id = ? AND deleted_at IS NULL AND mailbox_guid IS NULL",
		    params, 1, changed_out);
}

int follow_store_rename(struct follow_store *s, uint64_t user_id, const char *box_guid, const char *name)
{
	struct db_param params[] = {DB_P_STR(name), DB_P_UINT(user_id), DB_P_STR(box_guid)};
	int rc = db_exec(s->db,
			 "UPDATE messages SET mailbox_name = ? WHERE user_id = ? AND mailbox_guid = ? AND deleted_at IS NULL",
			 params, 3);
	if (rc < 0)
		return rc;
	return db_exec(s->db, "UPDATE mailboxes SET name = ? WHERE user_id = ? AND mailbox_guid = ?", params, 3);
}

int follow_store_box(struct follow_store *s, uint64_t user_id, const struct follow_box_state *b)
{
	struct db_param params[] = {DB_P_UINT(user_id), DB_P_STR(b->guid), DB_P_STR(b->name), DB_P_UINT(b->uid_validity),
				    DB_P_UINT(b->uid_next), DB_P_UINT(b->messages), DB_P_UINT(b->modseq),
				    DB_P_UINT(b->backfill)};
	return db_exec(s->db,
		       "INSERT INTO mailboxes (user_id, mailbox_guid, name, uid_validity, uid_next, message_count, "
		       "highest_modseq, backfill) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE name = VALUES(name), "
		       "uid_validity = VALUES(uid_validity), uid_next = VALUES(uid_next), "
		       "message_count = VALUES(message_count), highest_modseq = VALUES(highest_modseq), "
		       "backfill = VALUES(backfill), updated_at = UTC_TIMESTAMP(3)",
		       params, 8);
}

int follow_store_box_gone(struct follow_store *s, uint64_t user_id, const char *box_guid)
{
	struct db_param params[] = {DB_P_UINT(user_id), DB_P_STR(box_guid)};
	return db_exec(s->db, "DELETE FROM mailboxes WHERE user_id = ? AND mailbox_guid = ?", params, 2);
}

/* ---- Events ---- */

/* Unique in the user's feed: random bits of the batch, and the number in it. */
static void make_key(char key[64], const struct hash_key *batch, size_t at)
{
	struct sbuf b;
	sbuf_init(&b, key, 64);
	sbuf_addf(&b, "change:%016llx%016llx:%zu", (unsigned long long)batch->k0, (unsigned long long)batch->k1, at);
}

static int take_numbers(struct follow_store *s, uint64_t user_id, size_t count, uint64_t *first_out)
{
	struct db_param take[] = {DB_P_UINT(user_id), DB_P_UINT(count), DB_P_UINT(count)};
	uint64_t last = 0;
	int rc = db_exec(s->db,
			 "INSERT INTO event_sequences (user_id, last_seq) VALUES (?, ?) "
			 "ON DUPLICATE KEY UPDATE last_seq = last_seq + ?",
			 take, 3);
	if (rc == 0)
		rc = db_query_u64(s->db, "SELECT last_seq FROM event_sequences WHERE user_id = ?", take, 1, &last);
	if (rc < 0)
		return rc == ERR_NOT_FOUND ? ERR_TEMP : rc;
	*first_out = last - count + 1;
	return 0;
}

static int make_json(struct arena *mem, const struct change *c, struct span user, uint64_t seq, int64_t now_ms,
		     struct span *json_out)
{
	struct sbuf text;
	sbuf_init_heap(&text, CHANGE_JSON_MAX);
	change_payload(&text, c, user, seq, now_ms);
	int rc = sbuf_ok(&text) ? arena_dup(mem, sbuf_span(&text), json_out) : ERR_LIMIT;
	sbuf_done(&text);
	return rc;
}

static int note_unsent(struct follow_store *s, uint64_t user_id, uint64_t first, size_t count)
{
	struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(first), DB_P_UINT(first + count - 1)};
	return db_exec(s->db, "INSERT INTO webhook_unsent (user_id, first_seq, last_seq) VALUES (?, ?, ?)", params, 3);
}

int follow_store_events(struct follow_store *s, struct arena *mem, uint64_t user_id, struct span user,
			const struct change *changes, size_t count, bool keep_unsent,
			struct follow_event **events_out, uint64_t *first_seq_out)
{
	const struct hash_key batch = hash_key_random();
	int64_t now_ms = clock_wall_ms();
	uint64_t first = 0;
	struct follow_event *events = arena_calloc(mem, count + 1, sizeof(*events));
	if (events == NULL)
		return ERR_LIMIT;
	int rc = count == 0 ? 0 : take_numbers(s, user_id, count, &first);
	rows_reset(&s->events);
	for (size_t i = 0; i < count && rc == 0; i++) {
		make_key(events[i].key, &batch, i);
		rc = make_json(mem, &changes[i], user, first + i, now_ms, &events[i].json);
		struct db_param p[] = {DB_P_UINT(user_id), DB_P_UINT(first + i), DB_P_STR(events[i].key),
				       DB_P_STR(change_type_name(changes[i].type)),
				       changes[i].message_id == 0 ? DB_P_NULL : DB_P_UINT(changes[i].message_id),
				       DB_P_TEXT(events[i].json)};
		rows_add(&s->events, p);
	}
	if (rc == 0)
		rc = rows_exec(&s->events, s->db);
	if (rc == 0 && keep_unsent && count > 0)
		rc = note_unsent(s, user_id, first, count);
	if (rc < 0)
		return rc;
	*events_out = events;
	*first_seq_out = first;
	return 0;
}

int follow_store_sent(struct follow_store *s, uint64_t user_id, uint64_t first_seq)
{
	struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(first_seq)};
	return db_exec(s->db, "DELETE FROM webhook_unsent WHERE user_id = ? AND first_seq = ?", params, 2);
}

struct unsent_read {
	bool (*fn)(void *arg, struct span key, int64_t happened_ms, struct span json);
	void *arg;
};

static int read_unsent(void *arg, const struct db_value *v, size_t count)
{
	struct unsent_read *r = arg;
	uint64_t happened_ms = 0;
	if (count < 3 || num_parse_u64(v[1].text, INT64_MAX, &happened_ms) < 0)
		return 0;
	return r->fn(r->arg, v[0].text, (int64_t)happened_ms, v[2].text) ? 0 : ERR_TEMP;
}

int follow_store_unsent(struct follow_store *s,
			bool (*fn)(void *arg, struct span key, int64_t happened_ms, struct span json), void *arg)
{
	struct unsent_read r = {.fn = fn, .arg = arg};
	int rc = db_stream(s->db,
			   "SELECT e.event_key, CAST(UNIX_TIMESTAMP(e.created_at) * 1000 "
			   "AS UNSIGNED), e.payload FROM webhook_unsent w JOIN events e "
			   "ON e.user_id = w.user_id AND e.seq BETWEEN w.first_seq AND w.last_seq ORDER BY e.user_id, e.seq",
			   NULL, 0, read_unsent, &r);
	return rc < 0 ? rc : db_exec(s->db, "DELETE FROM webhook_unsent", NULL, 0);
}
