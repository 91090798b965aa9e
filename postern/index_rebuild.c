/*
 * `index rebuild`: tells lmtp-indexer to compare mailboxes from the ground up,
 * and shows how far it is.  The daemon does the work, so there is one writer,
 * it goes on when this command is ended, and a restart of the daemon goes on
 * where it was.
 */
#include <time.h>
#include <unistd.h>

#include "postern/commands.h"
#include "postern/daemon.h"
#include "postern/lookup.h"

#define EACH_MS 200
#define BAR_WIDTH 30

static json_int_t number(const json_t *progress, const char *key)
{
	return json_integer_value(json_object_get(progress, key));
}

static json_int_t rate(const json_t *progress)
{
	json_int_t ms = number(progress, "elapsed_ms");
	return ms > 0 ? number(progress, "compared") * 1000 / ms : 0;
}

static void draw(FILE *out, const json_t *progress)
{
	json_int_t total = number(progress, "messages"), done = number(progress, "compared");
	json_int_t width = total > 0 ? (done < total ? done : total) * BAR_WIDTH / total : 0;
	char bar[BAR_WIDTH + 1];
	memset(bar, ' ', BAR_WIDTH);
	memset(bar, '#', (size_t)width);
	bar[BAR_WIDTH] = '\0';
	fprintf(out, "\r[%s] %lld of %lld messages, %lld/s, %lld users left%s\033[K", bar, (long long)done, (long long)total,
		(long long)rate(progress), (long long)number(progress, "users_left"),
		json_is_true(json_object_get(progress, "away")) ? ", Dovecot or the database is away" : "");
	fflush(out);
}

static int print_end(struct cli *cli, json_t *progress)
{
	json_int_t failed = number(progress, "failed");
	json_object_set_new(progress, "rate", json_integer(rate(progress)));
	int status = cli_print_done(cli, json_incref(progress),
				    "compared %lld messages of %lld user%s in %.1f s (%lld/s): added %lld, changed %lld, removed %lld%s",
				    (long long)number(progress, "compared"), (long long)number(progress, "users_done"),
				    number(progress, "users_done") == 1 ? "" : "s",
				    (double)number(progress, "elapsed_ms") / 1000, (long long)rate(progress),
				    (long long)number(progress, "added"), (long long)number(progress, "changed"),
				    (long long)number(progress, "removed"), failed > 0 ? "; some users failed, see the log" : "");
	json_decref(progress);
	return status == EX_OK && failed > 0 ? EX_TEMPFAIL : status;
}

static int watch(struct cli *cli, json_t *progress)
{
	static const char *const words[] = {"index", "progress", NULL};
	static const struct timespec pause = {0, EACH_MS * 1000000};
	const bool bar = isatty(STDERR_FILENO) != 0;
	while (json_is_true(json_object_get(progress, "running"))) {
		if (bar)
			draw(cli->err, progress);
		json_decref(progress);
		nanosleep(&pause, NULL);
		int status = daemon_call(cli, "lmtp-indexer", words, &progress);
		if (status != EX_OK)
			return status;
	}
	if (bar)
		fputs("\r\033[K", cli->err);
	return print_end(cli, progress);
}

static int rebuild(struct cli *cli)
{
	char email[LOOKUP_NAME_SIZE];
	const char *words[] = {"index", "rebuild", NULL, NULL};
	json_t *progress = NULL;
	uint64_t id;
	int status = EX_OK;
	if (cli_has(cli, "all") == (cli_arg(cli, 0) != NULL))
		return cli_fail(cli, EX_USAGE, "name a user, or --all");
	if (!cli_has(cli, "all")) {
		status = lookup_address_arg(cli, cli_arg(cli, 0), NAMES_MAILBOX, email);
		if (status == EX_OK)
			status = lookup_user_id(cli, email, &id);
		words[2] = email;
	}
	if (status == EX_OK)
		status = daemon_call(cli, "lmtp-indexer", words, &progress);
	return status == EX_OK ? watch(cli, progress) : status;
}

static const struct cli_option rebuild_options[] = {
	{"all", NULL, "all users", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_index_rebuild[] = {
	{"index rebuild", "[USER]", "add, mend and remove rows until the index is as the mailboxes", rebuild_options, 0, 1,
	 CLI_NEEDS_CONFIG | CLI_NEEDS_DB, rebuild},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};
