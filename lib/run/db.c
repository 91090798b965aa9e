/*
 * The connection to MariaDB.
 *
 * Statements are cached by their text and die with the connection.  `lost` is
 * set when the connection broke within a transaction: everything fails then
 * until the caller begins anew, so that half a transaction is never committed
 * on the next connection.
 */
#include "lib/run/db.h"

#include <errno.h>
#include <fcntl.h>
#include <mariadb/errmsg.h>
#include <mariadb/mysql.h>
#include <mariadb/mysqld_error.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/htab.h"
#include "lib/base/num.h"
#include "lib/run/metrics_common.h"

#define STATEMENTS_MAX 256
#define PARAMS_MAX 8192
#define PASSWORD_MAX 512
#define COLUMN_FIRST_SIZE 256

struct statement {
	char *sql;
	MYSQL_STMT *stmt;
};

struct db {
	MYSQL *mysql; /* NULL: not connected */
	char *host, *socket, *user, *password, *name, *tls_ca;
	unsigned port;
	int64_t timeout_ms;
	struct htab statements;
	bool in_transaction, lost;
	uint64_t affected, insert_id;
	unsigned error_number;
	struct sbuf error;
};

static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static void library_init(void)
{
	if (mysql_library_init(0, NULL, NULL) != 0)
		PANIC("cannot initialise libmariadb");
}

/* ---- construction ---- */

struct db *db_new(const struct db_config *c)
{
	pthread_once(&library_once, library_init);
	struct db *db = mem_zalloc(sizeof(*db));
	db->host = mem_strdup(c->host);
	db->socket = mem_strdup(c->socket);
	db->user = mem_strdup(c->user);
	db->password = mem_strdup(c->password);
	db->name = mem_strdup(c->name);
	db->tls_ca = mem_strdup(c->tls_ca);
	db->port = c->port;
	db->timeout_ms = c->timeout_ms;
	htab_init(&db->statements, STATEMENTS_MAX);
	sbuf_init_heap(&db->error, 1024);
	return db;
}

struct db *db_clone(const struct db *db)
{
	const struct db_config config = {db->host, db->socket, db->user, db->password,
					 db->name, db->tls_ca, db->port, db->timeout_ms};
	return db_new(&config);
}

void db_free(struct db **db_ptr)
{
	struct db *db = *db_ptr;
	if (db == NULL)
		return;
	db_disconnect(db);
	htab_done(&db->statements, NULL);
	explicit_bzero(db->password, strlen(db->password));
	char *texts[] = {db->host, db->socket, db->user, db->password, db->name, db->tls_ca};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		free(texts[i]);
	sbuf_done(&db->error);
	free(db);
	*db_ptr = NULL;
}

/* The first line of the file at PATH. */
static int read_password(const char *path, char *out, size_t size, struct sbuf *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, out, size - 1);
	if (got < 0)
		sbuf_addf(error, "database_password_file %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (got < 0)
		return ERR_PERM;
	out[got] = '\0';
	out[strcspn(out, "\r\n")] = '\0';
	return 0;
}

int db_new_from_conf(const struct conf_spec *spec, const void *config, struct db **db_out,
		     struct sbuf *error)
{
	char password[PASSWORD_MAX] = "";
	const char *user = conf_get_string(spec, config, "database_user");
	const char *path = conf_get_string(spec, config, "database_password_file");
	if (user[0] == '\0')
		return ERR_NOT_FOUND;
	if (path[0] != '\0' && read_password(path, password, sizeof(password), error) < 0)
		return ERR_PERM;
	const struct db_config c = {
		.host = conf_get_string(spec, config, "database_host"),
		.socket = conf_get_string(spec, config, "database_socket"),
		.user = user,
		.password = password,
		.name = conf_get_string(spec, config, "database_name"),
		.tls_ca = conf_get_string(spec, config, "database_tls_ca"),
		.port = (unsigned)conf_get_number(spec, config, "database_port"),
		.timeout_ms = conf_get_number(spec, config, "database_timeout"),
	};
	*db_out = db_new(&c);
	explicit_bzero(password, sizeof(password));
	return 0;
}

/* ---- errors ---- */

/* Server errors that say nothing about the statement itself. */
static bool is_temporary(unsigned number)
{
	static const unsigned temporary[] = {
		ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, ER_CON_COUNT_ERROR, ER_SERVER_SHUTDOWN,
		ER_DISK_FULL, ER_OUTOFMEMORY, ER_OUT_OF_SORTMEMORY, ER_OUT_OF_RESOURCES,
		ER_OPTION_PREVENTS_STATEMENT, ER_QUERY_INTERRUPTED, ER_CONNECTION_KILLED,
		ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED, ER_RECORD_FILE_FULL,
		ER_ERROR_ON_WRITE, ER_STATEMENT_TIMEOUT, ER_LOCK_TABLE_FULL,
		ER_NEED_REPREPARE, ER_UNKNOWN_STMT_HANDLER,
		/* schema and grants: the administrator can mend them */
		ER_NO_SUCH_TABLE, ER_BAD_FIELD_ERROR, ER_BAD_DB_ERROR, ER_DBACCESS_DENIED_ERROR,
		ER_TABLEACCESS_DENIED_ERROR, ER_COLUMNACCESS_DENIED_ERROR, ER_ACCESS_DENIED_ERROR, ER_NO_DEFAULT_FOR_FIELD,
	};
	for (size_t i = 0; i < sizeof(temporary) / sizeof(temporary[0]); i++)
		if (temporary[i] == number)
			return true;
	return false;
}

/* Takes over the error of the library; connection errors end the connection. */
static int fail(struct db *db, unsigned number, const char *text)
{
	metrics_inc(METRIC_DB_ERRORS);
	db->error_number = number;
	sbuf_reset(&db->error);
	sbuf_addf(&db->error, "%.900s", text);
	bool gone = (number >= CR_MIN_ERROR && number <= CR_MAX_ERROR) || number == ER_CONNECTION_KILLED ||
		    number == ER_SERVER_SHUTDOWN || number == ER_UNKNOWN_STMT_HANDLER;
	if (gone) {
		bool in_transaction = db->in_transaction;
		db_disconnect(db);
		db->lost = in_transaction;
		return ERR_TEMP;
	}
	if (number == ER_DUP_ENTRY)
		return ERR_EXISTS;
	return is_temporary(number) ? ERR_TEMP : ERR_PERM;
}

static int fail_mysql(struct db *db)
{
	return fail(db, mysql_errno(db->mysql), mysql_error(db->mysql));
}

static int fail_stmt(struct db *db, MYSQL_STMT *stmt)
{
	char text[512];
	snprintf(text, sizeof(text), "%s", mysql_stmt_error(stmt));
	return fail(db, mysql_stmt_errno(stmt), text);
}

const char *db_error(const struct db *db)
{
	return sbuf_cstr(&db->error);
}

unsigned db_errno(const struct db *db)
{
	return db->error_number;
}

/* ---- connection ---- */

static void set_options(const struct db *db, MYSQL *mysql)
{
	unsigned seconds = (unsigned)((db->timeout_ms + 999) / 1000);
	unsigned no_infile = 0;
	mysql_options(mysql, MYSQL_OPT_CONNECT_TIMEOUT, &seconds);
	mysql_options(mysql, MYSQL_OPT_READ_TIMEOUT, &seconds);
	mysql_options(mysql, MYSQL_OPT_WRITE_TIMEOUT, &seconds);
	mysql_options(mysql, MYSQL_OPT_LOCAL_INFILE, &no_infile);
	mysql_options(mysql, MYSQL_SET_CHARSET_NAME, "utf8mb4");
	mysql_options(mysql, MYSQL_INIT_COMMAND,
		      "SET SESSION sql_mode='STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,"
		      "NO_ENGINE_SUBSTITUTION', time_zone='+00:00'");
	if (db->tls_ca[0] != '\0') {
		my_bool verify = 1;
		mysql_ssl_set(mysql, NULL, NULL, db->tls_ca, NULL, NULL);
		mysql_options(mysql, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
	}
}

int db_connect(struct db *db)
{
	if (db->mysql != NULL)
		return 0;
	MYSQL *mysql = mysql_init(NULL);
	if (mysql == NULL)
		PANIC("out of memory");
	set_options(db, mysql);
	bool tcp = db->host[0] != '\0';
	if (mysql_real_connect(mysql, tcp ? db->host : NULL, db->user, db->password, db->name,
			       tcp ? db->port : 0, tcp ? NULL : db->socket, 0) == NULL) {
		/* Whatever refuses a connection may pass. */
		IGNORE_RESULT(fail(db, mysql_errno(mysql), mysql_error(mysql)));
		mysql_close(mysql);
		return ERR_TEMP;
	}
	db->mysql = mysql;
	return 0;
}

static void free_statement(void *arg)
{
	struct statement *st = arg;
	mysql_stmt_close(st->stmt);
	free(st->sql);
	free(st);
}

static void drop_statements(struct db *db)
{
	htab_done(&db->statements, free_statement);
	htab_init(&db->statements, STATEMENTS_MAX);
}

void db_disconnect(struct db *db)
{
	drop_statements(db);
	if (db->mysql != NULL)
		mysql_close(db->mysql);
	db->mysql = NULL;
	db->in_transaction = db->lost = false;
}

/* Connected, or connected anew outside of a transaction. */
static int ready(struct db *db)
{
	if (db->lost) {
		sbuf_reset(&db->error);
		sbuf_adds(&db->error, "the connection was lost within the transaction");
		return ERR_TEMP;
	}
	return db_connect(db);
}

/* ---- statements: settings, which the administrator can mend ---- */

static int prepare(struct db *db, const char *sql, MYSQL_STMT **stmt_out)
{
	struct statement *st = htab_get(&db->statements, span_str(sql));
	if (st != NULL) {
		*stmt_out = st->stmt;
		return 0;
	}
	if (db->statements.count >= STATEMENTS_MAX)
		drop_statements(db);
	MYSQL_STMT *stmt = mysql_stmt_init(db->mysql);
	if (stmt == NULL)
		PANIC("out of memory");
	if (mysql_stmt_prepare(stmt, sql, strlen(sql)) != 0) {
		int rc = fail_stmt(db, stmt);
		/* The statement belongs to the connection, which may be gone now. */
		mysql_stmt_close(stmt);
		/* Without values the server objects to the statement itself. */
		return rc == ERR_PERM ? ERR_TEMP : rc;
	}
	st = mem_alloc(sizeof(*st));
	*st = (struct statement){mem_strdup(sql), stmt};
	if (htab_put(&db->statements, span_str(st->sql), st, NULL) < 0)
		PANIC("statement cache is full");
	*stmt_out = stmt;
	return 0;
}

static void bind_param(MYSQL_BIND *bind, const struct db_param *param)
{
	static char empty[1];
	switch (param->type) {
	case DB_NULL:
		bind->buffer_type = MYSQL_TYPE_NULL;
		break;
	case DB_INT:
	case DB_UINT:
		bind->buffer_type = MYSQL_TYPE_LONGLONG;
		bind->is_unsigned = param->type == DB_UINT;
		bind->buffer = (void *)(uintptr_t)&param->i;
		break;
	case DB_DOUBLE:
		bind->buffer_type = MYSQL_TYPE_DOUBLE;
		bind->buffer = (void *)(uintptr_t)&param->d;
		break;
	case DB_TEXT:
	case DB_BLOB:
		bind->buffer_type = param->type == DB_TEXT ? MYSQL_TYPE_STRING : MYSQL_TYPE_BLOB;
		bind->buffer = param->s.len == 0 ? empty : (void *)(uintptr_t)param->s.ptr;
		bind->buffer_length = param->s.len;
		break;
	}
}

static int fail_statement(struct db *db, const char *what, unsigned long has, unsigned long wanted)
{
	char text[128];
	snprintf(text, sizeof(text), "the statement has %lu %s instead of %lu", has, what, wanted);
	IGNORE_RESULT(fail(db, 0, text));
	return ERR_TEMP;
}

static int execute(struct db *db, const char *sql, const struct db_param *params, size_t count,
		   MYSQL_STMT **stmt_out)
{
	MYSQL_STMT *stmt = NULL;
	int rc = ready(db);
	if (rc == 0)
		rc = prepare(db, sql, &stmt);
	if (rc < 0)
		return rc;
	if (count > PARAMS_MAX)
		PANIC("too many parameters for a statement");
	if (mysql_stmt_param_count(stmt) != count)
		return fail_statement(db, "parameters (?)", mysql_stmt_param_count(stmt), count);

	MYSQL_BIND *binds = mem_zalloc((count + 1) * sizeof(*binds));
	for (size_t i = 0; i < count; i++)
		bind_param(&binds[i], &params[i]);
	if ((count > 0 && mysql_stmt_bind_param(stmt, binds) != 0) || mysql_stmt_execute(stmt) != 0)
		rc = fail_stmt(db, stmt);
	free(binds);
	if (rc == 0)
		*stmt_out = stmt;
	return rc;
}

int db_exec(struct db *db, const char *sql, const struct db_param *params, size_t count)
{
	MYSQL_STMT *stmt;
	int rc = execute(db, sql, params, count, &stmt);
	if (rc < 0)
		return rc;
	db->affected = mysql_stmt_affected_rows(stmt);
	db->insert_id = mysql_stmt_insert_id(stmt);
	mysql_stmt_free_result(stmt);
	return 0;
}

uint64_t db_affected(const struct db *db)
{
	return db->affected;
}

uint64_t db_insert_id(const struct db *db)
{
	return db->insert_id;
}

/* ---- results ---- */

struct column {
	char *buffer;
	unsigned long size, len;
	my_bool null, error;
};

struct result {
	MYSQL_STMT *stmt;
	unsigned count;
	struct column columns[DB_COLUMNS_MAX];
	MYSQL_BIND binds[DB_COLUMNS_MAX];
};

static void result_bind(struct result *r, unsigned i)
{
	struct column *c = &r->columns[i];
	r->binds[i] = (MYSQL_BIND){
		.buffer_type = MYSQL_TYPE_STRING,
		.buffer = c->buffer,
		.buffer_length = c->size,
		.length = &c->len,
		.is_null = &c->null,
		.error = &c->error,
	};
}

/* Fetches the columns that were longer than their buffers. */
static int fetch_long_columns(struct db *db, struct result *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		struct column *c = &r->columns[i];
		if (c->null || c->len <= c->size)
			continue;
		if (c->len > DB_VALUE_MAX) {
			sbuf_reset(&db->error);
			sbuf_addf(&db->error, "a value of %lu bytes is over the cap", c->len);
			return ERR_PERM;
		}
		c->size = c->len;
		c->buffer = mem_realloc(c->buffer, c->size);
		result_bind(r, i);
		if (mysql_stmt_fetch_column(r->stmt, &r->binds[i], i, 0) != 0)
			return fail_stmt(db, r->stmt);
	}
	return mysql_stmt_bind_result(r->stmt, r->binds) == 0 ? 0 : fail_stmt(db, r->stmt);
}

static int fetch_rows(struct db *db, struct result *r, db_row_fn *row, void *arg)
{
	struct db_value values[DB_COLUMNS_MAX];
	int rc = 0;
	while (rc == 0) {
		int status = mysql_stmt_fetch(r->stmt);
		if (status == MYSQL_NO_DATA)
			return 0;
		if (status == 1)
			return fail_stmt(db, r->stmt);
		if (status == MYSQL_DATA_TRUNCATED && (rc = fetch_long_columns(db, r)) < 0)
			return rc;
		for (unsigned i = 0; i < r->count; i++) {
			const struct column *c = &r->columns[i];
			values[i] = (struct db_value){c->null, span_of(c->buffer, c->null ? 0 : c->len)};
		}
		rc = row(arg, values, r->count);
	}
	return rc;
}

static int run_query(struct db *db, const char *sql, const struct db_param *params, size_t count, bool buffered,
		     db_row_fn *row, void *arg)
{
	struct result *r = mem_zalloc(sizeof(*r));
	int rc = execute(db, sql, params, count, &r->stmt);
	if (rc < 0) {
		free(r);
		return rc;
	}
	unsigned columns = mysql_stmt_field_count(r->stmt);
	if (columns == 0 || columns > DB_COLUMNS_MAX)
		rc = fail_statement(db, "columns", columns, columns == 0 ? 1 : DB_COLUMNS_MAX);
	r->count = rc == 0 ? columns : 0;
	for (unsigned i = 0; i < r->count; i++) {
		r->columns[i].size = COLUMN_FIRST_SIZE;
		r->columns[i].buffer = mem_alloc(COLUMN_FIRST_SIZE);
		result_bind(r, i);
	}
	if (rc == 0 && (mysql_stmt_bind_result(r->stmt, r->binds) != 0 || (buffered && mysql_stmt_store_result(r->stmt) != 0)))
		rc = fail_stmt(db, r->stmt);
	else if (rc == 0)
		rc = fetch_rows(db, r, row, arg);
	if (db->mysql != NULL)
		mysql_stmt_free_result(r->stmt);
	for (unsigned i = 0; i < r->count; i++)
		free(r->columns[i].buffer);
	free(r);
	return rc;
}

int db_query(struct db *db, const char *sql, const struct db_param *params, size_t count, db_row_fn *row,
	     void *arg)
{
	/* Buffered, so that a slow ROW holds no locks. */
	return run_query(db, sql, params, count, true, row, arg);
}

int db_stream(struct db *db, const char *sql, const struct db_param *params, size_t count, db_row_fn *row,
	      void *arg)
{
	return run_query(db, sql, params, count, false, row, arg);
}

struct first_value {
	struct sbuf *out;
	bool found;
};

static int take_first(void *arg, const struct db_value *values, size_t count)
{
	struct first_value *first = arg;
	if (count == 0 || values[0].null)
		return 1;
	first->found = true;
	sbuf_add(first->out, values[0].text);
	return 1;
}

int db_query_text(struct db *db, const char *sql, const struct db_param *params, size_t count,
		  struct sbuf *out)
{
	struct first_value first = {out, false};
	int rc = db_query(db, sql, params, count, take_first, &first);
	if (rc < 0)
		return rc;
	if (!first.found)
		return ERR_NOT_FOUND;
	return sbuf_ok(out) ? 0 : ERR_LIMIT;
}

int db_query_u64(struct db *db, const char *sql, const struct db_param *params, size_t count,
		 uint64_t *value_out)
{
	char text[32];
	struct sbuf b;
	sbuf_init(&b, text, sizeof(text));
	int rc = db_query_text(db, sql, params, count, &b);
	return rc < 0 ? rc : num_parse_u64(sbuf_span(&b), UINT64_MAX, value_out);
}

/* ---- transactions and scripts ---- */

static int simple(struct db *db, const char *sql)
{
	return mysql_query(db->mysql, sql) == 0 ? 0 : fail_mysql(db);
}

int db_begin(struct db *db)
{
	db->lost = false;
	int rc = db_connect(db);
	if (rc == 0)
		rc = simple(db, "START TRANSACTION");
	if (rc == 0)
		db->in_transaction = true;
	return rc;
}

int db_commit(struct db *db)
{
	int rc = ready(db);
	if (rc == 0)
		rc = simple(db, "COMMIT");
	db->in_transaction = false;
	db->lost = false;
	return rc;
}

void db_rollback(struct db *db)
{
	if (db->mysql != NULL && db->in_transaction)
		IGNORE_RESULT(simple(db, "ROLLBACK")); /* a lost connection rolls back too */
	db->in_transaction = false;
	db->lost = false;
}

int db_script(struct db *db, const char *sql)
{
	int rc = ready(db);
	if (rc < 0)
		return rc;
	if (mysql_set_server_option(db->mysql, MYSQL_OPTION_MULTI_STATEMENTS_ON) != 0 ||
	    mysql_query(db->mysql, sql) != 0)
		return fail_mysql(db);
	for (;;) {
		MYSQL_RES *result = mysql_store_result(db->mysql);
		if (result != NULL)
			mysql_free_result(result);
		int more = mysql_next_result(db->mysql);
		if (more < 0)
			break;
		if (more > 0)
			return fail_mysql(db);
	}
	return mysql_set_server_option(db->mysql, MYSQL_OPTION_MULTI_STATEMENTS_OFF) == 0 ? 0 : fail_mysql(db);
}

void db_time_add(int64_t wall_ms, struct sbuf *out)
{
	struct tm tm = {0};
	time_t seconds = (time_t)(wall_ms / 1000);
	gmtime_r(&seconds, &tm);
	sbuf_addf(out, "%04d-%02d-%02d %02d:%02d:%02d.%03d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
		  tm.tm_min, tm.tm_sec, (int)(wall_ms % 1000));
}
