/*
 * Reading.  Results are taken by value into memory of the caller, since a row of
 * lib/run/db is valid during its call only.
 */
#include "lmtp-indexer/follow_store_internal.h"

#include "lib/base/num.h"

struct follow_store *follow_store_new(struct db *db, const char *user_query, const char *users_query)
{
	struct follow_store *s = mem_zalloc(sizeof(*s));
	s->db = db;
	s->user_query = mem_strdup(user_query);
	s->users_query = mem_strdup(users_query);
	rows_init(&s->at,
		  "SELECT uid, id, COALESCE(flags, ''), deleted_at IS NOT NULL, parse_state = 'pending', mailbox_name "
		  "FROM messages FORCE INDEX (messages_place) WHERE ",
		  "(user_id = ? AND mailbox_guid = ? AND uid_validity = ? AND uid = ?)", " OR ", "", 4);
	rows_init(&s->traced,
		  "SELECT delivery_id, id, mailbox_guid IS NOT NULL, parse_state = 'pending' FROM messages "
		  "FORCE INDEX (messages_delivery) WHERE ",
		  "(delivery_id = ? AND user_id = ?)", " OR ", "", 2);
	/* One statement for many rows: while the transaction is open, its locks on the gaps of messages_place
	 * keep deliveries of other users out.  In this order, or a small table would be locked as a whole. */
	rows_init(&s->put, "UPDATE (",
		  "SELECT ? AS id, ? AS name, ? AS box, ? AS validity, ? AS uid, ? AS flags, ? AS mail", " UNION ALL ",
		  ") v STRAIGHT_JOIN messages m ON m.id = v.id SET m.mailbox_name = v.name, m.mailbox_guid = v.box, m.uid_validity = v.validity, "
		  "m.uid = v.uid, m.flags = v.flags, m.mail_guid = v.mail, m.deleted_at = NULL, m.deleted_reason = NULL",
		  7);
	rows_init(&s->events, "INSERT INTO events (user_id, seq, event_key, type, message_id, payload) VALUES ",
		  "(?, ?, ?, ?, ?, ?)", ",", "", 6);
	return s;
}

void follow_store_free(struct follow_store **store)
{
	struct follow_store *s = *store;
	if (s == NULL)
		return;
	db_free(&s->db);
	rows_done(&s->at);
	rows_done(&s->traced);
	rows_done(&s->put);
	rows_done(&s->events);
	free(s->user_query);
	free(s->users_query);
	free(s);
	*store = NULL;
}

const char *follow_store_error(const struct follow_store *s)
{
	return db_error(s->db);
}

static uint64_t number(const struct db_value *v)
{
	uint64_t value = 0;
	return v->null || num_parse_u64(v->text, UINT64_MAX, &value) < 0 ? 0 : value;
}

static bool is_true(const struct db_value *v)
{
	return span_eq(v->text, SPAN_LIT("1"));
}

int follow_store_user(struct follow_store *s, struct span email, uint64_t *id_out)
{
	struct db_param param = DB_P_TEXT(email);
	return db_query_u64(s->db, s->user_query, &param, 1, id_out);
}

/* ---- Users ---- */

struct users_read {
	uint64_t last;
	size_t count;
	bool full;
	bool (*fn)(void *arg, struct span email);
	void *arg;
};

static int read_user(void *arg, const struct db_value *v, size_t count)
{
	struct users_read *r = arg;
	if (count < 2)
		return ERR_SYNTAX;
	r->full = !r->fn(r->arg, v[1].text);
	if (r->full)
		return ERR_AGAIN;
	r->last = number(&v[0]);
	r->count++;
	return 0;
}

int follow_store_users(struct follow_store *s, uint64_t *id, bool (*fn)(void *arg, struct span email), void *arg)
{
	struct users_read r = {.last = *id, .fn = fn, .arg = arg};
	struct db_param param = DB_P_UINT(*id);
	int rc = db_query(s->db, s->users_query, &param, 1, read_user, &r);
	if (rc < 0 && (!r.full || r.count == 0))
		return rc;
	*id = r.last;
	return r.count == 0 ? ERR_NOT_FOUND : 0;
}

/* ---- Deliveries without a place ---- */

struct open_read {
	uint64_t *ids;
	size_t count;
};

static int read_open(void *arg, const struct db_value *v, size_t count)
{
	struct open_read *r = arg;
	if (count > 0 && r->count < FOLLOW_OPEN_MAX)
		r->ids[r->count++] = number(&v[0]);
	return 0;
}

int follow_store_open(struct follow_store *s, uint64_t user_id, bool any_age,
		      uint64_t ids[FOLLOW_OPEN_MAX], // NOLINT(readability-non-const-parameter) read_open() fills it
		      size_t *count_out)
{
	struct open_read r = {.ids = ids};
	struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(any_age), DB_P_UINT(FOLLOW_OPEN_DAYS),
				    DB_P_UINT(FOLLOW_OPEN_MAX)};
	int rc = db_query(s->db,
			  "SELECT id FROM messages FORCE INDEX (messages_place) WHERE user_id = ? AND mailbox_guid IS NULL "
			  "AND mailbox_name IS NULL AND deleted_at IS NULL AND (? OR received_at > UTC_TIMESTAMP(3) - INTERVAL ? DAY) "
			  "ORDER BY id LIMIT ?",
			  params, 4, read_open, &r);
	if (rc == 0)
		*count_out = r.count;
	return rc;
}

/* ---- Mailboxes and their rows ---- */

struct boxes_read {
	void (*fn)(void *arg, const struct follow_box_state *box);
	void *arg;
};

static void read_state(struct follow_box_state *box, const struct db_value *v)
{
	box->uid_validity = (uint32_t)number(&v[2]);
	box->uid_next = (uint32_t)number(&v[3]);
	box->messages = (uint32_t)number(&v[4]);
	box->modseq = number(&v[5]);
	box->backfill = is_true(&v[6]);
}

static int read_box(void *arg, const struct db_value *v, size_t count)
{
	struct boxes_read *r = arg;
	struct follow_box_state box = {.uid_validity = 0};
	if (count < 2 || v[0].text.len != FOLLOW_GUID_LEN)
		return 0;
	memcpy(box.guid, v[0].text.ptr, FOLLOW_GUID_LEN);
	box.name = span_dup(v[1].text);
	if (count >= 7)
		read_state(&box, v);
	r->fn(r->arg, &box);
	free(box.name);
	return 0;
}

int follow_store_boxes(struct follow_store *s, uint64_t user_id,
		       void (*fn)(void *arg, const struct follow_box_state *box), void *arg)
{
	struct boxes_read r = {.fn = fn, .arg = arg};
	struct db_param param = DB_P_UINT(user_id);
	return db_query(s->db,
			"SELECT mailbox_guid, name, uid_validity, uid_next, message_count, highest_modseq, backfill "
			"FROM mailboxes WHERE user_id = ?",
			&param, 1, read_box, &r);
}

int follow_store_row_boxes(struct follow_store *s, uint64_t user_id,
			   void (*fn)(void *arg, const struct follow_box_state *box), void *arg)
{
	struct boxes_read r = {.fn = fn, .arg = arg};
	struct db_param param = DB_P_UINT(user_id);
	return db_query(s->db,
			"SELECT mailbox_guid, COALESCE(MAX(mailbox_name), '') FROM messages WHERE user_id = ? "
			"AND mailbox_guid IS NOT NULL AND deleted_at IS NULL GROUP BY mailbox_guid",
			&param, 1, read_box, &r);
}

struct rows_read {
	void (*fn)(void *arg, const struct follow_row *row);
	void *arg;
};

static int read_row(void *arg, const struct db_value *v, size_t count)
{
	struct rows_read *r = arg;
	struct follow_row row = {.id = 0};
	if (count < 4)
		return 0;
	row.id = number(&v[0]);
	row.uid_validity = (uint32_t)number(&v[1]);
	row.uid = (uint32_t)number(&v[2]);
	row.has_guid = !v[3].null && v[3].text.len == sizeof(row.guid);
	if (row.has_guid)
		memcpy(row.guid, v[3].text.ptr, sizeof(row.guid));
	r->fn(r->arg, &row);
	return 0;
}

int follow_store_rows(struct follow_store *s, uint64_t user_id, const char *box_guid,
		      void (*fn)(void *arg, const struct follow_row *row), void *arg)
{
	struct rows_read r = {.fn = fn, .arg = arg};
	struct db_param params[] = {DB_P_UINT(user_id), DB_P_STR(box_guid)};
	return db_stream(s->db,
			 "SELECT id, uid_validity, uid, mail_guid FROM messages FORCE INDEX (messages_place) "
			 "WHERE user_id = ? AND mailbox_guid = ? AND deleted_at IS NULL ORDER BY uid_validity, uid",
			 params, 2, read_row, &r);
}

/* ---- Rows of a chunk ---- */

struct at_read {
	struct arena *mem;
	struct reconcile_row *rows;
	size_t count, max;
};

static int read_at(void *arg, const struct db_value *v, size_t count)
{
	struct at_read *r = arg;
	struct span flags, name;
	if (count < 6 || r->count >= r->max)
		return 0;
	if (arena_dup(r->mem, v[2].text, &flags) < 0 || arena_dup(r->mem, v[5].text, &name) < 0)
		return ERR_LIMIT;
	r->rows[r->count++] = (struct reconcile_row){.uid = (uint32_t)number(&v[0]), .id = number(&v[1]), .flags = flags,
						     .box_name = name, .deleted = is_true(&v[3]), .pending = is_true(&v[4])};
	return 0;
}

static int compare_rows(const void *a, const void *b)
{
	const struct reconcile_row *x = a, *y = b;
	return x->uid < y->uid ? -1 : x->uid > y->uid;
}

int follow_store_at(struct follow_store *s, struct arena *mem, uint64_t user_id, const struct follow_place *place,
		    const uint32_t *uids, size_t count, struct reconcile_row **rows_out, size_t *count_out)
{
	struct at_read r = {.mem = mem, .max = count};
	r.rows = arena_calloc(mem, count + 1, sizeof(*r.rows));
	if (r.rows == NULL)
		return ERR_LIMIT;
	rows_reset(&s->at);
	for (size_t i = 0; i < count; i++) {
		struct db_param p[] = {DB_P_UINT(user_id), DB_P_STR(place->box_guid), DB_P_UINT(place->uid_validity),
				       DB_P_UINT(uids[i])};
		rows_add(&s->at, p);
	}
	int rc = rows_query(&s->at, s->db, read_at, &r);
	if (rc < 0)
		return rc;
	qsort(r.rows, r.count, sizeof(*r.rows), compare_rows);
	*rows_out = r.rows;
	*count_out = r.count;
	return 0;
}

struct traced_read {
	struct arena *mem;
	struct reconcile_delivery *rows;
	size_t count, size;
};

static int read_traced(void *arg, const struct db_value *v, size_t count)
{
	struct traced_read *r = arg;
	struct span id;
	if (count < 4)
		return 0;
	uint64_t message_id = number(&v[1]);
	for (size_t i = 0; i < r->count; i++)
		if (r->rows[i].message_id == message_id)
			return 0; /* two mails with one trace asked for it twice */
	r->rows = arena_grow(r->mem, r->rows, r->count, &r->size, sizeof(*r->rows));
	if (r->rows == NULL || arena_dup(r->mem, v[0].text, &id) < 0)
		return ERR_LIMIT;
	r->rows[r->count++] = (struct reconcile_delivery){.id = id, .message_id = message_id, .placed = is_true(&v[2]),
							  .pending = is_true(&v[3])};
	return 0;
}

int follow_store_traced(struct follow_store *s, struct arena *mem, uint64_t user_id,
			const struct reconcile_mail *mails, size_t count, struct reconcile_delivery **rows_out,
			size_t *count_out)
{
	struct traced_read r = {.mem = mem};
	rows_reset(&s->traced);
	for (size_t i = 0; i < count; i++) {
		struct db_param p[] = {DB_P_TEXT(mails[i].trace), DB_P_UINT(user_id)};
		if (mails[i].trace.len > 0)
			rows_add(&s->traced, p);
	}
	int rc = rows_query(&s->traced, s->db, read_traced, &r);
	if (rc < 0)
		return rc;
	*rows_out = r.rows;
	*count_out = r.count;
	return 0;
}
