/*
 * One connection to MariaDB: prepared statements only, each prepared once and
 * kept, reconnect on demand.  This is the sole user of libmariadb.  Calls
 * block up to database_timeout, so daemons use it from worker threads; a
 * struct db belongs to one thread at a time.  A call makes one attempt; the
 * caller decides whether and when to try again.
 *
 * Errors: ERR_TEMP   no connection, deadlock, lock wait, server shutting down, no space;
 *                    also a table, column or grant that is missing, and a statement that
 *                    cannot be prepared (no SQL, say), with another number of parameters,
 *                    without columns or with too many, since the administrator can mend
 *                    that and nothing should be dropped for it
 *         ERR_EXISTS a duplicate of a unique key
 *         ERR_PERM   anything else that the server refuses (text in db_error)
 * After a lost connection a transaction is rolled back by the server; the
 * following calls fail with ERR_TEMP until db_begin() or, outside of a
 * transaction, connect anew by themselves.
 */
#ifndef RUN_DB_H
#define RUN_DB_H

#include "lib/run/conf.h"

struct db;

struct db_config {
	const char *host, *socket, *user, *password, *name, *tls_ca; /* "" is unset */
	unsigned port;
	int64_t timeout_ms;
};

enum db_param_type { DB_NULL, DB_INT, DB_UINT, DB_DOUBLE, DB_TEXT, DB_BLOB };

struct db_param {
	enum db_param_type type;
	union {
		int64_t i;
		uint64_t u;
		double d;
		struct span s;
	};
};

#define DB_P_NULL ((struct db_param){.type = DB_NULL})
#define DB_P_INT(v) ((struct db_param){.type = DB_INT, .i = (v)})
#define DB_P_UINT(v) ((struct db_param){.type = DB_UINT, .u = (v)})
#define DB_P_DOUBLE(v) ((struct db_param){.type = DB_DOUBLE, .d = (v)})
#define DB_P_TEXT(span) ((struct db_param){.type = DB_TEXT, .s = (span)})
#define DB_P_STR(cstr) DB_P_TEXT(span_str(cstr))
#define DB_P_BLOB(span) ((struct db_param){.type = DB_BLOB, .s = (span)})

/* A column of a result row, as text bytes; valid during the row call only. */
struct db_value {
	bool null;
	struct span text;
};

/* Returns 0 to go on, anything else to stop; that is then db_query's return. */
typedef int db_row_fn(void *arg, const struct db_value *values, size_t count);

#define DB_VALUE_MAX (16u << 20) /* bytes of one value read */
#define DB_COLUMNS_MAX 64

/*
 * Reads the database_* options and the password file.  DB_OUT is owned.
 * ERR_NOT_FOUND where database_user is empty (no SQL wanted), ERR_PERM with
 * ERROR where the password file cannot be read.  Does not connect.
 */
int db_new_from_conf(const struct conf_spec *spec, const void *config, struct db **db_out,
		     struct sbuf *error) MUST_CHECK;
/* Copies CONFIG. */
struct db *db_new(const struct db_config *config);
/* A second, unconnected handle with the same configuration. */
struct db *db_clone(const struct db *db);
void db_free(struct db **db);

/* Connects if it is not connected. */
int db_connect(struct db *db) MUST_CHECK;
/* Ends the connection, e.g. after a long idle time. */
void db_disconnect(struct db *db);

/* AFFECTED_OUT and INSERT_ID may be read after success. */
int db_exec(struct db *db, const char *sql, const struct db_param *params, size_t count) MUST_CHECK;
uint64_t db_affected(const struct db *db);
uint64_t db_insert_id(const struct db *db);
/* Calls ROW for each row, in order. ROW must not use DB. */
int db_query(struct db *db, const char *sql, const struct db_param *params, size_t count,
	     db_row_fn *row, void *arg) MUST_CHECK;
/* The same in constant memory, for results of any size: rows are read from the server while ROW runs,
 * and its return that stops reads the rest without it. */
int db_stream(struct db *db, const char *sql, const struct db_param *params, size_t count,
	      db_row_fn *row, void *arg) MUST_CHECK;
/* The first row's first column into OUT; ERR_NOT_FOUND without a row or for NULL. */
int db_query_text(struct db *db, const char *sql, const struct db_param *params, size_t count,
		  struct sbuf *out) MUST_CHECK;
/* The same as a number. */
int db_query_u64(struct db *db, const char *sql, const struct db_param *params, size_t count,
		 uint64_t *value_out) MUST_CHECK;

int db_begin(struct db *db) MUST_CHECK;
int db_commit(struct db *db) MUST_CHECK;
void db_rollback(struct db *db);

/* Runs text that may hold several statements (migrations); no parameters. */
int db_script(struct db *db, const char *sql) MUST_CHECK;

/* Adds "2026-11-22 23:10:05.123", UTC, as a column of DATETIME(3) takes it. */
void db_time_add(int64_t wall_ms, struct sbuf *out);

/* Text and server error number of the last failure. */
const char *db_error(const struct db *db);
unsigned db_errno(const struct db *db);

#endif
