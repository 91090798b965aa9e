/*
 * `dmarc import FILE...`: reports from files, folders and the standard input.
 * What cannot be read anywhere (a pipe) is copied into a file without a name
 * first, as zip files are read from their end.  Each file is a transaction of
 * its own: one that is damaged leaves nothing behind, and the next is tried;
 * a database that is away ends it all.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "postern/cli_config.h"
#include "postern/commands.h"
#include "postern/received.h"

#define ERROR_MAX 4096
#define PATH_SIZE 4096
#define FOLDER_FILES_MAX 100000
#define COPY_BYTES 65536

struct import {
	struct cli *cli;
	struct received received;
	json_t *reports, *notes;
	char name[PATH_SIZE];  /* of the file in hand, escaped */
	char error[ERROR_MAX]; /* the first one, for --json */
	int status;	       /* the worst up to now */
	bool progress_shown;
};

/* ---- Errors and progress ---- */

static void clear_progress(struct import *im)
{
	if (im->progress_shown)
		fputs("\r\033[K", im->cli->err);
	im->progress_shown = false;
}

static void show_progress(void *arg, uint64_t records)
{
	struct import *im = arg;
	fprintf(im->cli->err, "\r%s: %llu records", im->name, (unsigned long long)records);
	im->progress_shown = true;
}

/* Told at once, and remembered. */
static int fail(struct import *im, int status, const char *why)
{
	clear_progress(im);
	fprintf(im->cli->err, "postern: %s: %s\n", im->name, why);
	if (im->status == EX_OK) {
		im->status = status;
		snprintf(im->error, sizeof(im->error), "%.1024s: %.3000s", im->name, why);
	}
	return status;
}

/* ---- Files ---- */

static int read_at(void *arg, uint64_t at, char *mem, size_t len)
{
	int fd = *(const int *)arg;
	while (len > 0) {
		ssize_t n = pread(fd, mem, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* it has become shorter while it is read */
			return ERR_TEMP;
		mem += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Copies FROM into a file without a name; returns a status and the file. */
static int spool(struct import *im, int from, int *fd_out)
{
	char chunk[COPY_BYTES];
	uint64_t total = 0;
	FILE *file = tmpfile();
	int fd = file == NULL ? -1 : dup(fileno(file));
	if (file != NULL)
		fclose(file);
	if (fd < 0)
		return fail(im, EX_CANTCREAT, strerror(errno));
	for (;;) {
		ssize_t n = read(from, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0) {
			*fd_out = fd;
			return EX_OK;
		}
		total += n > 0 ? (uint64_t)n : 0;
		int status = EX_OK;
		if (n < 0 || (total <= ARCHIVE_UNPACKED_MAX && write(fd, chunk, (size_t)n) != n))
			status = fail(im, EX_IOERR, strerror(errno));
		else if (total > ARCHIVE_UNPACKED_MAX)
			status = fail(im, EX_DATAERR, "the file is too large");
		if (status != EX_OK) {
			close(fd);
			return status;
		}
	}
}

static int fail_import(struct import *im, int rc, const struct sbuf *error)
{
	struct received *r = &im->received;
	if (r->refusal.len > 0)
		return fail(im, EX_DATAERR, sbuf_cstr(&r->refusal));
	if (error->len > 0)
		return fail(im, EX_DATAERR, sbuf_cstr(error));
	if (r->db != NULL && db_errno(r->db) != 0)
		return fail(im, rc == ERR_TEMP ? EX_TEMPFAIL : EX_UNAVAILABLE, db_error(r->db));
	return fail(im, EX_IOERR, "cannot be read");
}

/* What was not taken of the file that has come in, from the note FIRST on. */
static void show_notes(const struct import *im, size_t first)
{
	for (size_t i = first; i < json_array_size(im->notes); i++) {
		const json_t *entry = json_array_get(im->notes, i);
		const char *part = json_string_value(json_object_get(entry, "part"));
		long long line = json_integer_value(json_object_get(entry, "line"));
		fprintf(im->cli->err, "postern: %s: %s%s", im->name, part == NULL ? "" : part, part == NULL ? "" : ": ");
		if (line > 0)
			fprintf(im->cli->err, "line %lld: ", line);
		fprintf(im->cli->err, "%s\n", json_string_value(json_object_get(entry, "note")));
	}
}

static int import_fd(struct import *im, int fd, uint64_t size)
{
	size_t notes = json_array_size(im->notes);
	char mem[ERROR_MAX];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	const struct zip_file file = {size, read_at, &fd};
	const struct reader_limits limits = READER_LIMITS_DEFAULT;
	const struct reader_sink sink = received_sink(&im->received);
	int rc = received_begin(&im->received, im->name);
	if (rc == 0)
		rc = reader_run(&file, &limits, &sink, &error);
	if (rc == 0)
		rc = received_commit(&im->received);
	clear_progress(im);
	if (rc == 0) {
		show_notes(im, notes);
		return EX_OK;
	}
	int status = fail_import(im, rc, &error);
	received_rollback(&im->received);
	return status;
}

/* FD is a file, or something that must be copied into one. */
static int import_open(struct import *im, int fd)
{
	struct stat st;
	int copy = -1, status = EX_OK;
	if (fstat(fd, &st) < 0)
		return fail(im, EX_NOINPUT, strerror(errno));
	if (!S_ISREG(st.st_mode) || lseek(fd, 0, SEEK_CUR) != 0) {
		status = spool(im, fd, &copy);
		if (status == EX_OK && fstat(copy, &st) < 0)
			status = fail(im, EX_IOERR, strerror(errno));
	}
	if (status == EX_OK)
		status = import_fd(im, copy >= 0 ? copy : fd, (uint64_t)st.st_size);
	if (copy >= 0)
		close(copy);
	return status;
}

static void set_name(struct import *im, struct span path)
{
	struct sbuf name;
	sbuf_init(&name, im->name, sizeof(im->name));
	sbuf_add_escaped(&name, path);
}

static int import_file(struct import *im, const char *path)
{
	set_name(im, span_str(path));
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return fail(im, EX_NOINPUT, strerror(errno));
	int status = import_open(im, fd);
	close(fd);
	return status;
}

/* ---- Arguments ---- */

static int is_candidate(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* The plain files of a folder, by name. */
static int import_folder(struct import *im, const char *path)
{
	struct dirent **entries = NULL;
	set_name(im, span_str(path));
	int count = scandir(path, &entries, is_candidate, alphasort), status = EX_OK;
	if (count < 0)
		return fail(im, EX_NOINPUT, strerror(errno));
	if (count > FOLDER_FILES_MAX)
		status = fail(im, EX_DATAERR, "the folder holds too many files");
	for (int i = 0; i < count; i++) {
		char mem[PATH_SIZE];
		struct stat st;
		struct sbuf file;
		sbuf_init(&file, mem, sizeof(mem));
		sbuf_addf(&file, "%s/%s", path, entries[i]->d_name);
		bool plain = sbuf_ok(&file) && stat(mem, &st) == 0 && S_ISREG(st.st_mode);
		if (plain && count <= FOLDER_FILES_MAX && status != EX_TEMPFAIL &&
		    status != EX_UNAVAILABLE)
			status = import_file(im, mem);
		free(entries[i]);
	}
	free(entries);
	return status;
}

static int import_argument(struct import *im, const char *path)
{
	struct stat st;
	if (strcmp(path, "-") == 0) {
		set_name(im, SPAN_LIT("standard input"));
		return import_open(im, im->cli->input_fd);
	}
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? import_folder(im, path)
							   : import_file(im, path);
}

/* ---- Output ---- */

static void add_note(json_t *row)
{
	const char *note = "imported";
	if (json_is_true(json_object_get(row, "duplicate")))
		note = "there already";
	else if (json_is_null(json_object_get(row, "duplicate")) ||
		 json_object_get(row, "duplicate") == NULL)
		note = "read only";
	else if (json_is_false(json_object_get(row, "ours")))
		note = "imported; not a domain of ours";
	json_object_set_new(row, "note", json_string(note));
}

static int print(struct import *im)
{
	static const struct table_column columns[] = {
		{"org_name", "Reporter", false, 32},   {"report_id", "Report id", false, 40},
		{"domain", "Domain", false, 40},       {"begin", "Begin", false, 0},
		{"records", "Records", true, 0},       {"messages", "Messages", true, 0},
		{"deviations", "Deviations", true, 0}, {"sessions", "TLS sessions", true, 0},
		{"note", "Result", false, 0},	       {NULL, NULL, false, 0}};
	size_t i;
	json_t *row;
	if (im->cli->json) {
		json_t *result = json_pack("{s:O, s:O}", "reports", im->reports, "notes", im->notes);
		if (im->status != EX_OK)
			json_object_set_new(result, "error", json_string(im->error));
		return cli_print_json(im->cli, result);
	}
	if (json_array_size(im->reports) == 0)
		return EX_OK;
	json_array_foreach(im->reports, i, row)
	{
		add_note(row);
	}
	return cli_print_rows(im->cli, columns, json_incref(im->reports));
}

static int run(struct cli *cli)
{
	struct import *im = mem_zalloc(sizeof(*im));
	const char *path;
	int status = cli_has(cli, "dry-run") ? EX_OK : cli_db_open(cli, NULL);
	if (status != EX_OK) {
		free(im);
		return status;
	}
	im->cli = cli;
	im->reports = json_array();
	im->notes = json_array();
	received_init(&im->received, cli->db, im->reports, im->notes);
	im->received.ours_only = cli_has(cli, "ours-only");
	if (isatty(fileno(cli->err))) {
		im->received.progress = show_progress;
		im->received.progress_arg = im;
	}
	for (size_t i = 0; (path = cli_arg(cli, i)) != NULL; i++) {
		int one = import_argument(im, path);
		if (one == EX_TEMPFAIL || one == EX_UNAVAILABLE) {
			im->status = one;
			break;
		}
	}
	status = print(im);
	status = im->status != EX_OK ? im->status : status;
	received_done(&im->received);
	json_decref(im->reports);
	json_decref(im->notes);
	free(im);
	return status;
}

static const struct cli_option options[] = {
	{"dry-run", NULL, "only read and list; no database is needed", 0},
	{"ours-only", NULL, "refuse reports about domains that are not hosted here", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_dmarc_import[] = {
	{"dmarc import", "FILE...",
	 "take in reports about our domains: DMARC and TLS, as files or as mail", options, 1,
	 ARGS_MAX, CLI_NEEDS_CONFIG | CLI_SLOW_SQL, run},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};
