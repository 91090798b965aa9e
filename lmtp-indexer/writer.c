/*
 * One batch, one transaction:
 *
 *   plan        a row for each recipient that has the message and an account
 *   existing    drop those that an earlier run has committed
 *   threads     look up and assign
 *   messages    insert, which gives their ids
 *   companions  addresses, texts, attachments
 *   events      numbers of each user's feed, then the events
 *
 * The numbers are taken under row locks that last to the commit, so a feed has
 * no gaps and no reader sees a later event before an earlier one.
 */
#include "writer.h"

#include <glib.h>

#include "lib/base/num.h"
#include "lib/run/loop.h"
#include "lmtp-indexer/payload.h"
#include "lmtp-indexer/writer_internal.h"

#define ACCOUNTS_MAX 100000
#define ACCOUNT_KNOWN_MS 60000 /* how long an id is believed */
#define ACCOUNT_UNKNOWN_MS 2000

struct account {
	uint64_t id; /* 0: there is none */
	int64_t until_ms;
	char *email;
};

/* ---- Accounts ---- */

static void free_account(void *value)
{
	struct account *a = value;
	free(a->email);
	free(a);
}

void writer_forget(struct writer *w)
{
	htab_done(&w->accounts, free_account);
	htab_init(&w->accounts, ACCOUNTS_MAX);
}

static struct span account_of(struct writer *w, struct span path)
{
	char mem[LMTP_PATH_MAX + 1];
	struct sbuf b;
	struct span copy;
	sbuf_init(&b, mem, sizeof(mem));
	delivery_account(&b, path, w->delimiter);
	return arena_dup(&w->arena, sbuf_span(&b), &copy) < 0 ? SPAN_EMPTY : copy;
}

static int find_account(struct writer *w, struct span email, uint64_t *id_out)
{
	int64_t now = clock_boot_ms();
	struct account *a = htab_get(&w->accounts, email);
	if (a != NULL && a->until_ms > now) {
		*id_out = a->id;
		return 0;
	}
	struct db_param params[] = {DB_P_TEXT(email)};
	uint64_t id = 0;
	int rc = db_query_u64(w->db, w->user_query, params, 1, &id);
	if (rc < 0 && rc != ERR_NOT_FOUND)
		return rc;
	*id_out = id;
	if (a == NULL) {
		a = mem_zalloc(sizeof(*a));
		a->email = span_dup(email);
		if (w->accounts.count >= ACCOUNTS_MAX)
			writer_forget(w);
		if (htab_put(&w->accounts, span_str(a->email), a, NULL) < 0) {
			free_account(a);
			return 0;
		}
	}
	a->id = id;
	a->until_ms = now + (id != 0 ? ACCOUNT_KNOWN_MS : ACCOUNT_UNKNOWN_MS);
	return 0;
}

/* ---- Plan ---- */

static struct span valid_text(struct writer *w, struct span s, size_t chars)
{
	struct span copy;
	char *valid = g_utf8_make_valid(s.ptr == NULL ? "" : s.ptr, (gssize)s.len);
	if (arena_dup(&w->arena, extract_cut(span_str(valid), chars), &copy) < 0)
		copy = SPAN_EMPTY;
	g_free(valid);
	return copy;
}

/* The same recipient twice in one transaction is one row. */
static bool planned(const struct writer *w, size_t from, struct span recipient)
{
	for (size_t i = from; i < w->row_count; i++)
		if (span_ieq(w->rows[i].recipient, recipient))
			return true;
	return false;
}

static int plan_item(struct writer *w, const struct writer_item *item)
{
	const struct delivery *d = item->d;
	size_t first = w->row_count;
	struct span sender = valid_text(w, d->sender, EXTRACT_ADDRESS_CHARS);
	for (size_t i = 0; i < d->rcpt_count; i++) {
		const struct delivery_rcpt *r = &d->rcpts[i];
		struct span recipient = valid_text(w, r->path, EXTRACT_ADDRESS_CHARS);
		if (r->outcome != OUTCOME_REPLIED || r->code / 100 != 2 || planned(w, first, recipient))
			continue;
		struct writer_row *row = &w->rows[w->row_count++];
		*row = (struct writer_row){.item = item, .rcpt = i, .recipient = recipient, .sender = sender,
					   .fate = FATE_INDEXED, .user = account_of(w, r->path)};
		int rc = find_account(w, row->user, &row->user_id);
		if (rc < 0)
			return rc;
		if (row->user_id == 0)
			row->fate = FATE_NO_ACCOUNT;
		else if (writer_refills(row))
			row->message_id = item->place->refill_id;
	}
	return 0;
}

static int plan(struct writer *w, struct writer_item *const *items, size_t count)
{
	size_t most = 0;
	for (size_t i = 0; i < count; i++)
		most += items[i]->d->rcpt_count;
	arena_reset(&w->arena);
	w->row_count = 0;
	w->rows = arena_calloc(&w->arena, most + 1, sizeof(*w->rows));
	if (w->rows == NULL)
		return ERR_LIMIT;
	for (size_t i = 0; i < count; i++) {
		int rc = plan_item(w, items[i]);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* ---- What is there already, and the ids of what is new ---- */

int writer_note_id(void *arg, const struct db_value *v, size_t count)
{
	struct writer *w = arg;
	uint64_t id;
	if (count != 3 || num_parse_u64(v[0].text, UINT64_MAX, &id) < 0)
		return 0;
	for (size_t i = 0; i < w->row_count; i++) {
		struct writer_row *row = &w->rows[i];
		if (!writer_refills(row) && span_eq(ulid_span(&row->item->d->id), v[1].text) &&
		    span_ieq(row->recipient, v[2].text))
			row->message_id = id;
	}
	return 0;
}

static int drop_existing(struct writer *w)
{
	const struct delivery *last = NULL;
	rows_reset(&w->find);
	for (size_t i = 0; i < w->row_count; i++) {
		const struct delivery *d = w->rows[i].item->d;
		struct db_param param = DB_P_TEXT(ulid_span(&d->id));
		if (w->rows[i].fate == FATE_INDEXED && !writer_refills(&w->rows[i]) && d != last && d->again) {
			rows_add(&w->find, &param);
			last = d;
		}
	}
	int rc = rows_query(&w->find, w->db, writer_note_id, w);
	for (size_t i = 0; i < w->row_count; i++)
		if (w->rows[i].message_id != 0 && !writer_refills(&w->rows[i]))
			w->rows[i].fate = FATE_REPEATED;
	return rc;
}

/* ---- Threads ---- */

static int assign_threads(struct writer *w)
{
	threads_begin(w->threads);
	for (size_t i = 0; i < w->row_count; i++)
		if (w->rows[i].fate == FATE_INDEXED)
			threads_want(w->threads, w->rows[i].user_id, w->rows[i].item->x);
	int rc = threads_load(w->threads, w->db);
	for (size_t i = 0; i < w->row_count && rc == 0; i++) {
		struct writer_row *row = &w->rows[i];
		if (row->fate == FATE_INDEXED)
			rc = threads_assign(w->threads, w->db, row->user_id, row->item->x, &row->item->d->id,
					    &row->thread_id);
	}
	return rc < 0 ? rc : threads_store(w->threads, w->db);
}

/* ---- The whole ---- */

static int write_rows(struct writer *w)
{
	int rc = drop_existing(w);
	if (rc == 0)
		rc = assign_threads(w);
	if (rc == 0)
		rc = writer_insert_messages(w);
	if (rc == 0)
		rc = writer_insert_companions(w);
	if (rc == 0)
		rc = writer_insert_events(w);
	return rc;
}

/* From here on no other writer commits before what is told is told. */
static void begin_order(struct writer *w)
{
	if (w->order != NULL)
		pthread_mutex_lock(w->order);
	w->in_order = w->order != NULL;
}

static void end_order(struct writer *w)
{
	if (w->in_order)
		pthread_mutex_unlock(w->order);
	w->in_order = false;
}

/* Once a connection. */
static int ask_limits(struct writer *w)
{
	uint64_t packet_bytes;
	if (w->bytes_max != 0)
		return 0;
	int rc = db_query_u64(w->db, "SELECT @@max_allowed_packet", NULL, 0, &packet_bytes);
	if (rc == 0)
		writer_rows_limit(w, rows_bytes_max(packet_bytes));
	return rc;
}

static int attempt(struct writer *w, struct writer_item *const *items, size_t count)
{
	int rc = plan(w, items, count);
	if (rc < 0)
		return rc;
	rc = db_begin(w->db);
	if (rc < 0)
		return rc;
	rc = ask_limits(w);
	if (rc == 0)
		rc = write_rows(w);
	if (rc == 0)
		begin_order(w);
	if (rc == 0)
		rc = db_commit(w->db);
	if (rc < 0) {
		end_order(w);
		db_rollback(w->db);
		w->bytes_max = 0; /* the next connection may be to another server */
	}
	return rc;
}

static int read_event(struct writer *w, struct writer_row *row)
{
	char key[PAYLOAD_KEY_MAX];
	struct sbuf b, text;
	sbuf_init(&b, key, sizeof(key));
	sbuf_init_heap(&text, PAYLOAD_MAX);
	payload_event_key(&b, row->item->d, row->rcpt);
	struct db_param params[] = {DB_P_UINT(row->user_id), DB_P_TEXT(sbuf_span(&b))};
	int rc = db_query_text(w->db, "SELECT payload FROM events WHERE user_id = ? AND event_key = ?", params, 2, &text);
	if (rc == 0 && arena_dup(&w->arena, sbuf_span(&text), &row->event) < 0)
		rc = ERR_LIMIT;
	sbuf_done(&text);
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

static void tell_all(struct writer *w, writer_tell *tell, void *arg)
{
	size_t last = 0;
	for (size_t i = 0; i < w->row_count; i++)
		if (w->rows[i].event.len > 0)
			last = i;
	for (size_t i = 0; i < w->row_count; i++) {
		struct writer_row *row = &w->rows[i];
		struct writer_told told = {.fate = row->fate, .d = row->item->d, .rcpt = row->rcpt,
					   .user_id = row->user_id, .user = row->user, .sequence = row->sequence,
					   .event = row->event, .last = i == last};
		tell(arg, &told);
	}
}

int writer_write(struct writer *w, struct writer_item *const *items, size_t count, writer_tell *tell, void *arg)
{
	int rc = attempt(w, items, count);
	if (rc == ERR_EXISTS || rc == ERR_PERM) {
		/* An earlier commit whose answer was lost, or an account that is
		 * gone: look again before giving up. */
		for (size_t i = 0; i < count; i++)
			items[i]->d->again = true;
		writer_forget(w);
		rc = attempt(w, items, count);
	}
	for (size_t i = 0; i < w->row_count && rc == 0; i++)
		if (w->rows[i].fate == FATE_REPEATED)
			rc = read_event(w, &w->rows[i]);
	if (rc == 0)
		tell_all(w, tell, arg);
	else /* the server may have committed all the same */
		for (size_t i = 0; i < count; i++)
			items[i]->d->again = true;
	end_order(w);
	return rc == ERR_EXISTS ? ERR_TEMP : rc == ERR_LIMIT ? ERR_PERM : rc;
}

const char *writer_error(const struct writer *w)
{
	return db_error(w->db);
}

struct writer *writer_new(struct db *db, const char *user_query, const char *delimiter)
{
	struct writer *w = mem_zalloc(sizeof(*w));
	w->db = db;
	w->user_query = mem_strdup(user_query);
	w->delimiter = mem_strdup(delimiter);
	w->threads = threads_new();
	arena_init(&w->arena, WRITER_ARENA_MAX);
	htab_init(&w->accounts, ACCOUNTS_MAX);
	rows_init(&w->find, "SELECT id, delivery_id, recipient FROM messages WHERE delivery_id IN (", "?", ",", ")", 1);
	writer_rows_init(w);
	return w;
}

void writer_keep_order(struct writer *w, pthread_mutex_t *lock)
{
	w->order = lock;
}

void writer_note_unsent(struct writer *w)
{
	w->note_unsent = true;
}

void writer_free(struct writer **writer)
{
	struct writer *w = *writer;
	if (w == NULL)
		return;
	db_free(&w->db);
	free(w->user_query);
	free(w->delimiter);
	threads_free(&w->threads);
	arena_done(&w->arena);
	htab_done(&w->accounts, free_account);
	rows_done(&w->find);
	writer_rows_done(w);
	free(w);
	*writer = NULL;
}
