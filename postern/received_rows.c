/*
 * The batch.  Texts live in its arena until it is written; the parameters point
 * there.
 */
#include "postern/received_rows.h"

#define COLUMNS 14
#define ARENA_MAX (16u << 20)
#define STATEMENT_MAX 65536

static const char columns[] =
	"INSERT INTO dmarc_reports_received_rows (report, position, source_ip, messages, "
	"disposition, dkim_aligned, spf_aligned, let_pass, header_from, envelope_from, envelope_to, "
	"reasons, dkim_results, spf_results) VALUES ";
static const char values[] = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

struct received_batch {
	struct arena arena;
	struct db_param params[RECEIVED_BATCH_ROWS * COLUMNS];
	size_t rows;
	struct sbuf whole, single; /* the statements of a full batch and of one row */
};

static void add_statement(struct sbuf *b, size_t rows)
{
	sbuf_init_heap(b, STATEMENT_MAX);
	sbuf_adds(b, columns);
	for (size_t i = 0; i < rows; i++) {
		sbuf_adds(b, i > 0 ? ", " : "");
		sbuf_adds(b, values);
	}
	if (!sbuf_ok(b))
		PANIC("the statement of a batch is too long");
}

struct received_batch *received_batch_new(void)
{
	struct received_batch *batch = mem_zalloc(sizeof(*batch));
	arena_init(&batch->arena, ARENA_MAX);
	add_statement(&batch->whole, RECEIVED_BATCH_ROWS);
	add_statement(&batch->single, 1);
	return batch;
}

void received_batch_free(struct received_batch **batch)
{
	if (*batch == NULL)
		return;
	arena_done(&(*batch)->arena);
	sbuf_done(&(*batch)->whole);
	sbuf_done(&(*batch)->single);
	free(*batch);
	*batch = NULL;
}

void received_batch_drop(struct received_batch *batch)
{
	arena_reset(&batch->arena);
	batch->rows = 0;
}

/* ---- Values ---- */

struct db_param received_text(struct span text)
{
	return text.len == 0 ? DB_P_NULL : DB_P_TEXT(text);
}

json_t *received_json_text(struct span text)
{
	return text.len == 0 ? json_null() : json_stringn_nocheck(text.ptr, text.len);
}

char *received_dump(json_t *value)
{
	if (value == NULL)
		return NULL;
	char *text = json_dumps(value, JSON_COMPACT);
	json_decref(value);
	if (text == NULL)
		PANIC("cannot write JSON");
	return text;
}

static struct db_param keep(struct received_batch *batch, struct span text)
{
	struct span copy;
	if (text.len == 0)
		return DB_P_NULL;
	if (arena_dup(&batch->arena, text, &copy) < 0)
		PANIC("a batch holds too much");
	return DB_P_TEXT(copy);
}

static struct db_param keep_json(struct received_batch *batch, json_t *list)
{
	char *text = received_dump(list);
	struct db_param param = keep(batch, span_str(text));
	free(text);
	return param;
}

static void set(json_t *object, const char *key, struct span text)
{
	if (text.len > 0)
		json_object_set_new(object, key, received_json_text(text));
}

/* The other reasons of the RFCs say that the policy was a test. */
static bool is_let_pass(const struct feedback_record *record)
{
	static const char *const types[] = {"forwarded", "local_policy", "mailing_list", "other",
					    "trusted_forwarder"};
	for (size_t i = 0; i < record->reason_count; i++)
		for (size_t k = 0; k < sizeof(types) / sizeof(types[0]); k++)
			if (span_eq(record->reasons[i].type, span_str(types[k])))
				return true;
	return false;
}

static json_t *list_reasons(const struct feedback_record *record)
{
	json_t *list = record->reason_count > 0 ? json_array() : NULL;
	for (size_t i = 0; i < record->reason_count; i++) {
		json_t *item = json_object();
		set(item, "type", record->reasons[i].type);
		set(item, "comment", record->reasons[i].comment);
		json_array_append_new(list, item);
	}
	return list;
}

static json_t *list_results(const struct feedback_result *results, size_t count)
{
	json_t *list = count > 0 ? json_array() : NULL;
	for (size_t i = 0; i < count; i++) {
		json_t *item = json_object();
		set(item, "domain", results[i].domain);
		set(item, "selector", results[i].selector);
		set(item, "scope", results[i].scope);
		set(item, "result", results[i].result);
		set(item, "human_result", results[i].human_result);
		json_array_append_new(list, item);
	}
	return list;
}

/* ---- Rows ---- */

int received_batch_flush(struct received_batch *batch, struct db *db)
{
	int rc = 0;
	if (batch->rows == RECEIVED_BATCH_ROWS)
		rc = db_exec(db, sbuf_cstr(&batch->whole), batch->params,
			     RECEIVED_BATCH_ROWS * (size_t)COLUMNS);
	else
		for (size_t i = 0; i < batch->rows && rc == 0; i++)
			rc = db_exec(db, sbuf_cstr(&batch->single), batch->params + i * COLUMNS,
				     COLUMNS);
	received_batch_drop(batch);
	return rc;
}

int received_batch_add(struct received_batch *batch, struct db *db, uint64_t report,
		       uint64_t position, const struct feedback_record *record)
{
	struct db_param *p = batch->params + batch->rows++ * COLUMNS;
	*p++ = DB_P_UINT(report);
	*p++ = DB_P_UINT(position);
	*p++ = keep(batch, span_str(record->source_ip));
	*p++ = DB_P_UINT(record->count);
	*p++ = keep(batch, record->disposition);
	*p++ = DB_P_INT(record->dkim_aligned);
	*p++ = DB_P_INT(record->spf_aligned);
	*p++ = DB_P_INT(is_let_pass(record));
	*p++ = keep(batch, record->header_from);
	*p++ = keep(batch, record->envelope_from);
	*p++ = keep(batch, record->envelope_to);
	*p++ = keep_json(batch, list_reasons(record));
	*p++ = keep_json(batch, list_results(record->dkim, record->dkim_count));
	*p = keep_json(batch, list_results(record->spf, record->spf_count));
	if (batch->rows == RECEIVED_BATCH_ROWS || batch->arena.used > RECEIVED_BATCH_BYTES)
		return received_batch_flush(batch, db);
	return 0;
}
