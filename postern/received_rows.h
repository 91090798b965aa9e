/* Records of an aggregate report on their way into SQL, many in one statement. */
#ifndef POSTERN_RECEIVED_ROWS_H
#define POSTERN_RECEIVED_ROWS_H

#include <jansson.h>

#include "postern/received.h"

struct received_batch *received_batch_new(void);
void received_batch_free(struct received_batch **batch);
/* Forgets what is in it. */
void received_batch_drop(struct received_batch *batch);

/* Copies RECORD, and writes the batch where it is full. */
int received_batch_add(struct received_batch *batch, struct db *db, uint64_t report,
		       uint64_t position, const struct feedback_record *record) MUST_CHECK;
int received_batch_flush(struct received_batch *batch, struct db *db) MUST_CHECK;

/* NULL for the empty text. */
struct db_param received_text(struct span text);
/* A JSON string; null for the empty text. */
json_t *received_json_text(struct span text);
/* Takes VALUE; returns owned text, or NULL for NULL. */
char *received_dump(json_t *value);

#endif
