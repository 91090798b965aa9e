/*
 * The thread looks at a user when so many of its messages were noted that a
 * block may be full, and at all users now and then, since others write texts,
 * too.  A block is made in one transaction: it is there, with its messages
 * taken off the list of those that wait, or it is not.  Where the list has
 * changed meanwhile (a message was erased), nothing is written and the user is
 * looked at again later.
 */
#include "seal.h"

#include <pthread.h>

#include "lib/base/arena.h"
#include "lib/base/htab.h"
#include "lib/base/num.h"
#include "lib/run/log.h"
#include "lib/run/loop.h"
#include "lib/run/worker.h"
#include "lmtp-indexer/block.h"
#include "lmtp-indexer/rows.h"
#include "lmtp-indexer/index_internal.h"

#define NOTED_MIN 256       /* messages of a user between two looks */
#define NOTED_USERS_MAX 100000
#define PAUSE_MS 1000
#define SWEEP_MS 600000
#define TERMS_BYTES_MAX (256u << 20) /* of a block's messages */

struct noted {
	uint64_t user_id;
	unsigned count;
};

struct user_list {
	uint64_t *ids;
	size_t count, size;
};

struct seal {
	struct db *db;
	struct rows pages;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping;
	struct htab noted; /* of struct noted; guarded by `lock`, as `due` */
	struct user_list due;
};

/* What waits for a block. */
struct batch {
	struct arena arena;
	struct block_message messages[BLOCK_MESSAGES_MAX];
	uint64_t stale[BLOCK_MESSAGES_MAX]; /* without a text any more */
	size_t count, stale_count, bytes;
	bool full;
};

static void list_add(struct user_list *list, uint64_t id)
{
	if (list->count == list->size) {
		list->size = list->size == 0 ? 16 : list->size * 2;
		list->ids = mem_realloc(list->ids, list->size * sizeof(*list->ids));
	}
	list->ids[list->count++] = id;
}

/* ---- One block ---- */

static int take_row(void *arg, const struct db_value *v, size_t count)
{
	struct batch *b = arg;
	uint64_t id, when;
	if (count != 4 || num_parse_u64(v[0].text, UINT64_MAX, &id) < 0)
		return 0;
	if (v[3].null || num_parse_u64(v[1].text, INT64_MAX, &when) < 0) {
		b->stale[b->stale_count++] = id;
		return 0;
	}
	struct block_message *m = &b->messages[b->count];
	b->bytes += v[3].text.len;
	if (b->bytes > TERMS_BYTES_MAX || arena_dup(&b->arena, v[3].text, &m->terms) < 0) {
		b->full = true; /* a smaller block, then */
		return ERR_LIMIT;
	}
	m->id = id;
	m->received_s = (int64_t)when;
	m->attachment = !span_eq(v[2].text, SPAN_LIT("0"));
	b->count++;
	return 0;
}

static int read_batch(struct seal *s, uint64_t user_id, struct batch *b)
{
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(BLOCK_MESSAGES_MAX)};
	int rc = db_stream(s->db,
			   "SELECT p.message_id, TIMESTAMPDIFF(SECOND, '1970-01-01', m.received_at), m.attachment_count, "
			   "t.terms FROM search_pending p LEFT JOIN message_texts t ON t.message_id = p.message_id "
			   "LEFT JOIN messages m ON m.id = p.message_id WHERE p.user_id = ? ORDER BY p.message_id LIMIT ?",
			   params, 2, take_row, b);
	return rc == ERR_LIMIT && b->full ? 0 : rc;
}

static int write_block(struct seal *s, uint64_t user_id, const struct batch *b, const struct block_builder *block)
{
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(b->messages[0].id),
					  DB_P_UINT(b->messages[b->count - 1].id), DB_P_BLOB(block_meta_of(block))};
	int rc = db_exec(s->db, "INSERT INTO search_blocks (user_id, first_id, last_id, meta) VALUES (?, ?, ?, ?)",
			 params, 4);
	if (rc < 0)
		return rc;
	uint64_t id = db_insert_id(s->db);
	rows_reset(&s->pages);
	for (size_t i = 0; i < block_page_count(block); i++) {
		const struct db_param p[] = {DB_P_UINT(id), DB_P_UINT(i), DB_P_BLOB(block_page_at(block, i))};
		rows_add(&s->pages, p);
	}
	return rows_exec(&s->pages, s->db);
}

/* ERR_AGAIN where the list is not what was read. */
static int remove_pending(struct seal *s, uint64_t user_id, const struct batch *b)
{
	uint64_t first = UINT64_MAX, last = 0;
	for (size_t i = 0; i < b->count + b->stale_count; i++) {
		uint64_t id = i < b->count ? b->messages[i].id : b->stale[i - b->count];
		first = id < first ? id : first;
		last = id > last ? id : last;
	}
	const struct db_param p[] = {DB_P_UINT(user_id), DB_P_UINT(first), DB_P_UINT(last)};
	int rc = db_exec(s->db, "DELETE FROM search_pending WHERE user_id = ? AND message_id BETWEEN ? AND ?", p, 3);
	return rc < 0 ? rc : db_affected(s->db) == b->count + b->stale_count ? 0 : ERR_AGAIN;
}

static int store(struct seal *s, uint64_t user_id, const struct batch *b)
{
	struct block_builder *block = NULL;
	int rc = block_build(b->messages, b->count, &block);
	if (rc == 0)
		rc = db_begin(s->db);
	if (rc == 0 && b->count > 0)
		rc = write_block(s, user_id, b, block);
	if (rc == 0)
		rc = remove_pending(s, user_id, b);
	if (rc == 0)
		rc = db_commit(s->db);
	if (rc < 0)
		db_rollback(s->db);
	block_free(&block);
	return rc;
}

static bool is_stopping(struct seal *s)
{
	pthread_mutex_lock(&s->lock);
	bool stopping = s->stopping;
	pthread_mutex_unlock(&s->lock);
	return stopping;
}

/* Whether so many wait that they may fill a block: counting costs far less than reading them in vain. */
static int enough_waits(struct seal *s, uint64_t user_id, bool *enough_out)
{
	const struct db_param params[] = {DB_P_UINT(user_id), DB_P_UINT(BLOCK_MESSAGES_MAX)};
	uint64_t count = 0;
	int rc = db_query_u64(s->db, "SELECT COUNT(*) FROM (SELECT 1 FROM search_pending WHERE user_id = ? LIMIT ?) p",
			      params, 2, &count);
	*enough_out = count == BLOCK_MESSAGES_MAX;
	return rc;
}

/* As many blocks as there are messages for. */
static int seal_user(struct seal *s, uint64_t user_id)
{
	struct batch *b = mem_zalloc(sizeof(*b));
	bool full = true;
	int rc = 0;
	arena_init(&b->arena, TERMS_BYTES_MAX);
	while (rc == 0 && full && !is_stopping(s)) {
		rc = enough_waits(s, user_id, &full);
		if (rc < 0 || !full)
			break;
		arena_reset(&b->arena);
		b->count = b->stale_count = b->bytes = 0;
		b->full = false;
		rc = read_batch(s, user_id, b);
		full = b->full || b->count + b->stale_count == BLOCK_MESSAGES_MAX;
		if (rc == 0 && full && b->count + b->stale_count > 0)
			rc = store(s, user_id, b);
	}
	arena_done(&b->arena);
	free(b);
	return rc;
}

/* ---- The thread ---- */

static int add_user(void *arg, const struct db_value *v, size_t count)
{
	uint64_t id;
	if (count >= 1 && num_parse_u64(v[0].text, UINT64_MAX, &id) == 0)
		list_add(arg, id);
	return 0;
}

static int find_users(struct seal *s, struct user_list *list)
{
	const struct db_param param = DB_P_UINT(BLOCK_MESSAGES_MAX);
	return db_query(s->db, "SELECT user_id FROM search_pending GROUP BY user_id HAVING COUNT(*) >= ?", &param, 1,
			add_user, list);
}

static void seal_all(struct seal *s, struct user_list *users)
{
	for (size_t i = 0; i < users->count; i++) {
		int rc = seal_user(s, users->ids[i]);
		if (rc < 0 && rc != ERR_AGAIN && rc != ERR_TEMP)
			log_text(LOG_WARNING, "no search block for user %llu: %s", (unsigned long long)users->ids[i],
				 rc == ERR_LIMIT ? err_text(rc) : db_error(s->db));
	}
	free(users->ids);
	*users = (struct user_list){0};
}

static void *run(void *arg)
{
	struct seal *s = arg;
	int64_t swept_ms = -SWEEP_MS;
	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		struct user_list users = s->due;
		s->due = (struct user_list){0};
		pthread_mutex_unlock(&s->lock);
		if (clock_boot_ms() - swept_ms >= SWEEP_MS && find_users(s, &users) == 0)
			swept_ms = clock_boot_ms();
		seal_all(s, &users);
		pthread_mutex_lock(&s->lock);
		if (!s->stopping && s->due.count == 0)
			worker_cond_wait(&s->wake, &s->lock, PAUSE_MS);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

void seal_note(struct seal *s, uint64_t user_id)
{
	struct noted *n;
	pthread_mutex_lock(&s->lock);
	if (s->noted.count >= NOTED_USERS_MAX) {
		htab_done(&s->noted, free);
		htab_init(&s->noted, NOTED_USERS_MAX);
	}
	n = htab_get(&s->noted, span_of(&user_id, sizeof(user_id)));
	if (n == NULL) {
		n = mem_zalloc(sizeof(*n));
		n->user_id = user_id;
		if (htab_put(&s->noted, span_of(&n->user_id, sizeof(n->user_id)), n, NULL) < 0)
			PANIC("the table was made room in");
	}
	if (++n->count >= NOTED_MIN) {
		n->count = 0;
		list_add(&s->due, user_id);
		pthread_cond_signal(&s->wake);
	}
	pthread_mutex_unlock(&s->lock);
}

struct seal *seal_new(struct db *db)
{
	struct seal *s = mem_zalloc(sizeof(*s));
	s->db = db;
	htab_init(&s->noted, NOTED_USERS_MAX);
	rows_init(&s->pages, "INSERT INTO search_pages (block_id, page, words) VALUES ", "(?, ?, ?)", ",", "", 3);
	pthread_mutex_init(&s->lock, NULL);
	worker_cond_init(&s->wake);
	if (pthread_create(&s->thread, NULL, run, s) != 0)
		PANIC("cannot start a thread");
	return s;
}

void seal_close(struct seal **seal)
{
	struct seal *s = *seal;
	if (s == NULL)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	db_free(&s->db);
	rows_done(&s->pages);
	htab_done(&s->noted, free);
	free(s->due.ids);
	free(s);
	*seal = NULL;
}
