/*
 * Many rows in few statements: rows are gathered and inserted by 64, 32, 16 and
 * what is left, so that at most eighteen statements of each kind are prepared
 * whatever the size of the batch; large ones by fewer.  Belongs to one thread.
 */
#ifndef INDEXER_ROWS_H
#define INDEXER_ROWS_H

#include "lib/run/db.h"

#define ROWS_COLUMNS_MAX 32
/* Of a statement with more than one row: a server that is sent more than max_allowed_packet,
 * 16 MB by default, ends the connection, and nobody could tell that from a server that went. */
#define ROWS_BYTES_MAX (8u << 20)

struct rows {
	const char *head; /* "INSERT INTO t (a, b) VALUES " */
	const char *row;  /* "(?, ?)" */
	const char *tail; /* behind the rows; "" if nothing */
	const char *join; /* between the rows: "," */
	size_t columns;
	struct db_param *params;
	size_t count, size; /* rows */
	size_t bytes_max; /* ROWS_BYTES_MAX, or less */
};

void rows_init(struct rows *r, const char *head, const char *row, const char *join, const char *tail,
	       size_t columns);
void rows_done(struct rows *r);
void rows_reset(struct rows *r);
/* What a statement of several rows may hold on a server that takes packets of PACKET_BYTES. */
size_t rows_bytes_max(uint64_t packet_bytes);
/* The parameters' bytes are borrowed until the flush. */
void rows_add(struct rows *r, const struct db_param *params);
/* Runs the statements; the rows stay. */
int rows_exec(const struct rows *r, struct db *db) MUST_CHECK;
/* The same for statements with RETURNING. */
int rows_exec_returning(const struct rows *r, struct db *db, db_row_fn *row, void *arg) MUST_CHECK;
/* The same for a query with a list of conditions; the last one is repeated to
 * fill up a size. */
int rows_query(const struct rows *r, struct db *db, db_row_fn *row, void *arg) MUST_CHECK;

#endif
