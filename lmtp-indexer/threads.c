/*
 * A table of (user, hash) to thread for the batch, loaded by one query and
 * written by one statement.  Entries live in an arena of the batch.
 */
#include "threads.h"

#include "lib/base/bytes.h"
#include "lib/base/htab.h"
#include "lib/base/num.h"

#define THREADS_ARENA_MAX (16u << 20)
#define KEY_LEN (8 + EXTRACT_HASH_LEN)

struct entry {
	struct entry *next;
	char key[KEY_LEN]; /* user, hash */
	uint64_t user_id, thread_id; /* 0: none yet */
	bool changed;
};

struct threads {
	struct arena arena;
	struct htab table;
	struct entry *entries;
	struct rows lookup, store;
	int error; /* sticks until the next batch */
};

struct threads *threads_new(void)
{
	struct threads *t = mem_zalloc(sizeof(*t));
	arena_init(&t->arena, THREADS_ARENA_MAX);
	htab_init(&t->table, THREADS_ENTRIES_MAX);
	/* Left alone, the optimizer reads all of a user's references. */
	rows_init(&t->lookup, "SELECT user_id, ref_hash, thread_id FROM thread_refs FORCE INDEX (PRIMARY) WHERE ",
		  "(user_id = ? AND ref_hash = ?)", " OR ", "", 2);
	rows_init(&t->store, "INSERT INTO thread_refs (user_id, ref_hash, thread_id) VALUES ", "(?, ?, ?)", ",",
		  " ON DUPLICATE KEY UPDATE thread_id = VALUES(thread_id)", 3);
	return t;
}

void threads_free(struct threads **threads)
{
	struct threads *t = *threads;
	if (t == NULL)
		return;
	htab_done(&t->table, NULL);
	arena_done(&t->arena);
	rows_done(&t->lookup);
	rows_done(&t->store);
	free(t);
	*threads = NULL;
}

void threads_begin(struct threads *t)
{
	htab_done(&t->table, NULL);
	htab_init(&t->table, THREADS_ENTRIES_MAX);
	arena_reset(&t->arena);
	t->entries = NULL;
	t->error = 0;
	rows_reset(&t->lookup);
	rows_reset(&t->store);
}

static void make_key(uint64_t user_id, const uint8_t hash[EXTRACT_HASH_LEN], char key[KEY_LEN])
{
	bytes_put(key, user_id, 8);
	memcpy(key + 8, hash, EXTRACT_HASH_LEN);
}

static struct entry *find(struct threads *t, uint64_t user_id, const uint8_t hash[EXTRACT_HASH_LEN])
{
	char key[KEY_LEN];
	make_key(user_id, hash, key);
	return htab_get(&t->table, span_of(key, sizeof(key)));
}

static void want(struct threads *t, uint64_t user_id, const uint8_t hash[EXTRACT_HASH_LEN])
{
	if (t->error < 0 || find(t, user_id, hash) != NULL)
		return;
	struct entry *e = arena_alloc(&t->arena, sizeof(*e));
	if (e == NULL) {
		t->error = ERR_LIMIT;
		return;
	}
	make_key(user_id, hash, e->key);
	e->user_id = user_id;
	t->error = htab_put(&t->table, span_of(e->key, KEY_LEN), e, NULL);
	if (t->error < 0)
		return;
	e->next = t->entries;
	t->entries = e;
	struct db_param params[] = {DB_P_UINT(user_id), DB_P_BLOB(span_of(e->key + 8, EXTRACT_HASH_LEN))};
	rows_add(&t->lookup, params);
}

void threads_want(struct threads *t, uint64_t user_id, const struct extract *x)
{
	for (size_t i = 0; i < x->ref_count; i++)
		want(t, user_id, x->refs[i]);
	if (x->has_subject_hash)
		want(t, user_id, x->subject_hash);
}

static int loaded(void *arg, const struct db_value *v, size_t count)
{
	struct threads *t = arg;
	uint64_t user_id, thread_id;
	uint8_t hash[EXTRACT_HASH_LEN];
	if (count != 3 || v[1].text.len != sizeof(hash) ||
	    num_parse_u64(v[0].text, UINT64_MAX, &user_id) < 0 ||
	    num_parse_u64(v[2].text, UINT64_MAX, &thread_id) < 0)
		return 0;
	memcpy(hash, v[1].text.ptr, sizeof(hash));
	struct entry *e = find(t, user_id, hash);
	if (e != NULL)
		e->thread_id = thread_id;
	return 0;
}

int threads_load(struct threads *t, struct db *db)
{
	return t->error < 0 ? t->error : rows_query(&t->lookup, db, loaded, t);
}

static int join(struct threads *t, struct db *db, uint64_t user_id, uint64_t from, uint64_t into)
{
	struct db_param params[] = {DB_P_UINT(into), DB_P_UINT(user_id), DB_P_UINT(from)};
	int rc = db_exec(db, "UPDATE messages SET thread_id = ? WHERE user_id = ? AND thread_id = ?", params, 3);
	if (rc == 0)
		rc = db_exec(db, "UPDATE thread_refs SET thread_id = ? WHERE user_id = ? AND thread_id = ?", params, 3);
	for (struct entry *e = t->entries; e != NULL; e = e->next)
		if (e->user_id == user_id && e->thread_id == from)
			e->thread_id = into;
	return rc;
}

static void learn(struct entry *e, uint64_t thread_id)
{
	e->changed = e->changed || e->thread_id != thread_id;
	e->thread_id = thread_id;
}

/* 63 bits, so that no reader takes it for negative. */
static uint64_t fresh_id(const struct extract *x, const struct ulid *id)
{
	if (x->ref_count > 0)
		return bytes_get_u64(x->refs[0]) >> 1;
	return bytes_get_u64(id->text + ULID_LEN - 8) >> 1;
}

int threads_assign(struct threads *t, struct db *db, uint64_t user_id, const struct extract *x,
		   const struct ulid *id, uint64_t *thread_out)
{
	uint64_t thread = 0;
	int rc = 0;
	for (size_t i = 0; i < x->ref_count && thread == 0; i++)
		thread = find(t, user_id, x->refs[i])->thread_id;
	if (thread == 0 && x->has_subject_hash && x->subject_joins)
		thread = find(t, user_id, x->subject_hash)->thread_id;
	if (thread == 0)
		thread = fresh_id(x, id);
	for (size_t i = 0; i < x->ref_count && rc == 0; i++) {
		struct entry *e = find(t, user_id, x->refs[i]);
		if (e->thread_id != 0 && e->thread_id != thread)
			rc = join(t, db, user_id, e->thread_id, thread);
		learn(e, thread);
	}
	if (x->has_subject_hash)
		learn(find(t, user_id, x->subject_hash), thread);
	*thread_out = thread;
	return rc;
}

int threads_store(struct threads *t, struct db *db)
{
	rows_reset(&t->store);
	for (const struct entry *e = t->entries; e != NULL; e = e->next) {
		struct db_param params[] = {DB_P_UINT(e->user_id), DB_P_BLOB(span_of(e->key + 8, EXTRACT_HASH_LEN)),
					    DB_P_UINT(e->thread_id)};
		if (e->changed)
			rows_add(&t->store, params);
	}
	return rows_exec(&t->store, db);
}
