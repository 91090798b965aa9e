/*
 * The columns.  All parameters borrow from the delivery, the extract or the
 * arena of the batch, which outlive the statements.
 */
#include "lib/base/num.h"
#include "lib/base/utf8.h"
#include "lmtp-indexer/payload.h"
#include "lmtp-indexer/writer_internal.h"

#define TIME_TEXT 32

static const char *const states[] = {"parsed", "partial", "failed"};
static const char *const kinds[] = {"from", "sender", "reply_to", "to", "cc", "bcc"};

#define MESSAGE_COLUMNS                                                                                      \
	"user_id, delivery_id, recipient, envelope_sender, message_id_header, in_reply_to, subject, "        \
	"from_display, from_address, sent_at, received_at, size_bytes, snippet, thread_id, attachment_count, " \
	"parse_state, spf_result, dkim_result, dmarc_result, arc_result"
#define MESSAGE_COUNT 20
#define PLACE_COLUMNS "mailbox_name, mailbox_guid, uid_validity, uid, flags, mail_guid"
#define PLACE_COUNT 6
#define RETURNING_ID " RETURNING id, delivery_id, recipient"

void writer_rows_init(struct writer *w)
{
	rows_init(&w->messages, "INSERT INTO messages (" MESSAGE_COLUMNS ") VALUES ",
		  "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ",", RETURNING_ID, MESSAGE_COUNT);
	rows_init(&w->placed, "INSERT INTO messages (" MESSAGE_COLUMNS ", " PLACE_COLUMNS ") VALUES ",
		  "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ",", RETURNING_ID,
		  MESSAGE_COUNT + PLACE_COUNT);
	rows_init(&w->addresses,
		  "INSERT INTO message_addresses (message_id, position, kind, address, display) VALUES ",
		  "(?, ?, ?, ?, ?)", ",", "", 5);
	rows_init(&w->texts, "INSERT INTO message_texts (message_id, user_id, body, truncated, terms) VALUES ",
		  "(?, ?, ?, ?, ?)", ",", "", 5);
	rows_init(&w->attachments,
		  "INSERT INTO attachments (message_id, position, name, media_type, size_bytes, sha256) VALUES ",
		  "(?, ?, ?, ?, ?, ?)", ",", "", 6);
	rows_init(&w->take_numbers, "INSERT INTO event_sequences (user_id, last_seq) VALUES ", "(?, ?)", ",",
		  " ON DUPLICATE KEY UPDATE last_seq = last_seq + VALUES(last_seq) RETURNING user_id, last_seq", 2);
	rows_init(&w->events, "INSERT INTO events (user_id, seq, event_key, type, message_id, payload) VALUES ",
		  "(?, ?, ?, ?, ?, ?)", ",", "", 6);
}

static void each_rows(struct writer *w, void (*fn)(struct rows *r, size_t bytes_max), size_t bytes_max)
{
	struct rows *all[] = {&w->messages, &w->placed, &w->addresses, &w->texts, &w->attachments,
			      &w->take_numbers, &w->events};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		fn(all[i], bytes_max);
}

static void done(struct rows *r, size_t bytes_max)
{
	(void)bytes_max;
	rows_done(r);
}

static void limit(struct rows *r, size_t bytes_max)
{
	r->bytes_max = bytes_max;
}

void writer_rows_done(struct writer *w)
{
	each_rows(w, done, 0);
}

void writer_rows_limit(struct writer *w, size_t bytes_max)
{
	w->bytes_max = bytes_max;
	each_rows(w, limit, bytes_max);
}

static struct db_param text_or_null(struct span s)
{
	return s.len == 0 ? DB_P_NULL : DB_P_TEXT(s);
}

static struct span time_text(struct writer *w, int64_t wall_ms)
{
	char *mem = arena_alloc(&w->arena, TIME_TEXT);
	struct sbuf b;
	if (mem == NULL)
		return SPAN_EMPTY;
	sbuf_init(&b, mem, TIME_TEXT);
	db_time_add(wall_ms, &b);
	return sbuf_span(&b);
}

static const struct extract_address *author(const struct extract *x)
{
	for (size_t i = 0; i < x->address_count; i++)
		if (x->addresses[i].kind == KIND_FROM)
			return &x->addresses[i];
	return NULL;
}

/* A message that only passed, and of which memory has nothing: to be filled
 * from the mailbox. */
static const char *state_of(const struct delivery *d, const struct extract *x)
{
	return d->bare ? "pending" : states[x->state];
}

/* The parameters of a message's own columns, in the order of MESSAGE_COLUMNS. */
static void fill_message(struct writer *w, const struct writer_row *row, struct db_param p[MESSAGE_COUNT])
{
	const struct delivery *d = row->item->d;
	const struct extract *x = row->item->x;
	const struct extract_address *from = author(x);
	const struct db_param params[MESSAGE_COUNT] = {
		DB_P_UINT(row->user_id), DB_P_TEXT(ulid_span(&d->id)), DB_P_TEXT(row->recipient),
		DB_P_TEXT(row->sender), text_or_null(x->message_id), text_or_null(x->in_reply_to),
		x->has_subject ? DB_P_TEXT(x->subject) : DB_P_NULL,
		text_or_null(from == NULL ? SPAN_EMPTY : from->display),
		text_or_null(from == NULL ? SPAN_EMPTY : from->address),
		x->has_date ? DB_P_TEXT(time_text(w, x->date_s * 1000)) : DB_P_NULL,
		DB_P_TEXT(time_text(w, d->rcpts[row->rcpt].settled_ms)), DB_P_UINT(d->size_bytes),
		DB_P_TEXT(x->snippet), DB_P_UINT(row->thread_id), DB_P_UINT(x->attachment_count),
		DB_P_STR(state_of(d, x)), text_or_null(x->spf), text_or_null(x->dkim),
		text_or_null(x->dmarc), text_or_null(x->arc),
	};
	memcpy(p, params, sizeof(params));
}

/* The content of a mail whose row was made without it. */
static int refill(struct writer *w, const struct writer_row *row)
{
	static const char *const companions[] = {"DELETE FROM message_addresses WHERE message_id = ?",
						 "DELETE FROM attachments WHERE message_id = ?"};
	/* What of MESSAGE_COLUMNS is read from the mail: numbers 4 to 9 and 12 to 19. */
	struct db_param all[MESSAGE_COUNT], p[15], id = DB_P_UINT(row->message_id);
	fill_message(w, row, all);
	memcpy(p, all + 4, 6 * sizeof(*p));
	memcpy(p + 6, all + 12, 8 * sizeof(*p));
	p[14] = id;
	int rc = db_exec(w->db,
			 "UPDATE messages SET message_id_header = ?, in_reply_to = ?, subject = ?, from_display = ?, "
			 "from_address = ?, sent_at = ?, snippet = ?, thread_id = ?, attachment_count = ?, parse_state = ?, "
			 "spf_result = ?, dkim_result = ?, dmarc_result = ?, arc_result = ? WHERE id = ?",
			 p, 15);
	for (size_t i = 0; i < sizeof(companions) / sizeof(companions[0]) && rc == 0; i++)
		rc = db_exec(w->db, companions[i], &id, 1);
	return rc;
}

static void add_placed(struct writer *w, const struct writer_row *row)
{
	const struct writer_place *place = row->item->place;
	struct db_param p[MESSAGE_COUNT + PLACE_COUNT];
	fill_message(w, row, p);
	p[MESSAGE_COUNT] = DB_P_TEXT(place->at.mailbox);
	p[MESSAGE_COUNT + 1] = DB_P_TEXT(place->at.mailbox_guid);
	p[MESSAGE_COUNT + 2] = DB_P_UINT(place->at.uid_validity);
	p[MESSAGE_COUNT + 3] = DB_P_UINT(place->at.uid);
	p[MESSAGE_COUNT + 4] = DB_P_TEXT(place->at.flags);
	p[MESSAGE_COUNT + 5] = DB_P_BLOB(span_of(place->mail_guid, sizeof(place->mail_guid)));
	rows_add(&w->placed, p);
}

int writer_insert_messages(struct writer *w)
{
	int rc = 0;
	rows_reset(&w->messages);
	rows_reset(&w->placed);
	for (size_t i = 0; i < w->row_count && rc == 0; i++) {
		const struct writer_row *row = &w->rows[i];
		struct db_param p[MESSAGE_COUNT];
		if (row->fate != FATE_INDEXED)
			continue;
		if (writer_refills(row)) {
			rc = refill(w, row);
		} else if (row->item->place != NULL) {
			add_placed(w, row);
		} else {
			fill_message(w, row, p);
			rows_add(&w->messages, p);
		}
	}
	if (rc == 0)
		rc = rows_exec_returning(&w->messages, w->db, writer_note_id, w);
	return rc < 0 ? rc : rows_exec_returning(&w->placed, w->db, writer_note_id, w);
}

static void add_addresses(struct writer *w, const struct writer_row *row)
{
	const struct extract *x = row->item->x;
	for (size_t i = 0; i < x->address_count; i++) {
		const struct extract_address *a = &x->addresses[i];
		struct db_param p[] = {DB_P_UINT(row->message_id), DB_P_UINT(i), DB_P_STR(kinds[a->kind]),
				       DB_P_TEXT(a->address), text_or_null(a->display)};
		rows_add(&w->addresses, p);
	}
}

static void add_attachments(struct writer *w, const struct writer_row *row)
{
	const struct extract *x = row->item->x;
	for (size_t i = 0; i < x->attachment_count; i++) {
		const struct extract_attachment *a = &x->attachments[i];
		struct db_param p[] = {DB_P_UINT(row->message_id), DB_P_UINT(i), text_or_null(a->name),
				       DB_P_TEXT(a->media_type), DB_P_UINT(a->size_bytes),
				       DB_P_BLOB(span_of(a->sha256, sizeof(a->sha256)))};
		rows_add(&w->attachments, p);
	}
}

/*
 * What of text and words one row may hold: of a row of its own a server takes no more than a
 * packet, and what it does not take would come again for ever.  Words are the rest's first loss,
 * whole ones.
 */
static bool cut_text(const struct writer *w, struct span *text, struct span *terms)
{
	size_t max = w->bytes_max;
	if (text->len + terms->len <= max)
		return false;
	if (text->len > max / 2) {
		*text = span_take(*text, max / 2);
		text->len = utf8_prefix(*text);
	}
	if (terms->len > max - text->len) {
		*terms = span_take(*terms, max - text->len);
		size_t space = span_rchr(*terms, ' ');
		terms->len = space == SPAN_NPOS ? 0 : space;
	}
	return true;
}

/* In place, so that the blocks of the search learn of it. */
static int refill_text(struct writer *w, const struct db_param p[5])
{
	return db_exec(w->db,
		       "INSERT INTO message_texts (message_id, user_id, body, truncated, terms) VALUES (?, ?, ?, ?, ?) "
		       "ON DUPLICATE KEY UPDATE body = VALUES(body), truncated = VALUES(truncated), terms = VALUES(terms)",
		       p, 5);
}

int writer_insert_companions(struct writer *w)
{
	rows_reset(&w->addresses);
	rows_reset(&w->attachments);
	rows_reset(&w->texts);
	int rc = 0;
	for (size_t i = 0; i < w->row_count && rc == 0; i++) {
		const struct writer_row *row = &w->rows[i];
		const struct extract *x = row->item->x;
		if (row->fate != FATE_INDEXED)
			continue;
		add_addresses(w, row);
		add_attachments(w, row);
		struct span text = x->text, terms = x->terms;
		bool truncated = cut_text(w, &text, &terms) || x->truncated;
		struct db_param p[] = {DB_P_UINT(row->message_id), DB_P_UINT(row->user_id), DB_P_BLOB(text),
				       DB_P_UINT(truncated), DB_P_BLOB(terms)};
		if (writer_refills(row))
			rc = refill_text(w, p);
		else
			rows_add(&w->texts, p);
	}
	if (rc == 0)
		rc = rows_exec(&w->addresses, w->db);
	if (rc == 0)
		rc = rows_exec(&w->attachments, w->db);
	return rc < 0 ? rc : rows_exec(&w->texts, w->db);
}

/* ---- Events ---- */

/* The highest number is read; the user's rows of the batch count down to it. */
static int note_number(void *arg, const struct db_value *v, size_t count)
{
	struct writer *w = arg;
	uint64_t user_id, last;
	if (count != 2 || num_parse_u64(v[0].text, UINT64_MAX, &user_id) < 0 ||
	    num_parse_u64(v[1].text, UINT64_MAX, &last) < 0)
		return 0;
	for (size_t i = w->row_count; i-- > 0;)
		if (writer_tells(&w->rows[i]) && w->rows[i].user_id == user_id)
			w->rows[i].sequence = last--;
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

/* As many numbers of each user's feed as it has events in the batch.  Users in the
 * order of their ids, as every writer has them: so none waits for the other in a ring. */
static int take_numbers(struct writer *w)
{
	uint64_t *users = arena_calloc(&w->arena, w->row_count + 1, sizeof(*users));
	size_t count = 0;
	if (users == NULL)
		return ERR_LIMIT;
	for (size_t i = 0; i < w->row_count; i++)
		if (writer_tells(&w->rows[i]))
			users[count++] = w->rows[i].user_id;
	qsort(users, count, sizeof(*users), compare_ids);
	rows_reset(&w->take_numbers);
	for (size_t i = 0, from = 0; i < count; i++) {
		if (i + 1 < count && users[i + 1] == users[i])
			continue;
		struct db_param p[] = {DB_P_UINT(users[i]), DB_P_UINT(i + 1 - from)};
		rows_add(&w->take_numbers, p);
		from = i + 1;
	}
	return rows_exec_returning(&w->take_numbers, w->db, note_number, w);
}

static int make_event(struct writer *w, struct writer_row *row, struct span *key_out)
{
	char key[PAYLOAD_KEY_MAX];
	struct sbuf b, text;
	struct payload_facts facts = {.d = row->item->d, .rcpt = row->rcpt, .x = row->item->x, .user = row->user,
				      .message = row->message_id, .thread = row->thread_id,
				      .sequence = row->sequence,
				      .place = row->item->place == NULL ? NULL : &row->item->place->at};
	sbuf_init(&b, key, sizeof(key));
	sbuf_init_heap(&text, PAYLOAD_MAX);
	payload_event_key(&b, row->item->d, row->rcpt);
	payload_event(&text, &facts);
	int rc = sbuf_ok(&text) ? arena_dup(&w->arena, sbuf_span(&text), &row->event) : ERR_LIMIT;
	if (rc == 0)
		rc = arena_dup(&w->arena, sbuf_span(&b), key_out);
	sbuf_done(&text);
	return rc;
}

/* Places are written for one user at a time, so their numbers are in a row. */
static int note_unsent(struct writer *w)
{
	uint64_t user_id = 0, first = 0, last = 0;
	for (size_t i = 0; i < w->row_count; i++) {
		const struct writer_row *row = &w->rows[i];
		if (!writer_tells(row) || row->item->place == NULL)
			continue;
		user_id = row->user_id;
		first = first == 0 ? row->sequence : first;
		last = row->sequence;
	}
	struct db_param p[] = {DB_P_UINT(user_id), DB_P_UINT(first), DB_P_UINT(last)};
	if (first == 0 || !w->note_unsent)
		return 0;
	return db_exec(w->db, "INSERT INTO webhook_unsent (user_id, first_seq, last_seq) VALUES (?, ?, ?)", p, 3);
}

int writer_insert_events(struct writer *w)
{
	int rc = take_numbers(w);
	rows_reset(&w->events);
	for (size_t i = 0; i < w->row_count && rc == 0; i++) {
		struct writer_row *row = &w->rows[i];
		struct span key;
		if (!writer_tells(row))
			continue;
		rc = make_event(w, row, &key);
		struct db_param p[] = {DB_P_UINT(row->user_id), DB_P_UINT(row->sequence), DB_P_TEXT(rc == 0 ? key : SPAN_EMPTY),
				       DB_P_STR(row->item->d->appended ? "message.appended" : "message.received"),
				       DB_P_UINT(row->message_id), DB_P_BLOB(row->event)};
		rows_add(&w->events, p);
	}
	if (rc == 0)
		rc = rows_exec(&w->events, w->db);
	return rc < 0 ? rc : note_unsent(w);
}
