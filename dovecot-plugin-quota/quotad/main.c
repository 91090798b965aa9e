/* quotad: the table of the daemon and its control commands. */
#include "dovecot-plugin-quota/quotad/server.h"

#define OPTION CONF_ROW
#define CONF_STRUCT struct quotad_config
static const struct conf_option options[] = {
#include "dovecot-plugin-quota/quotad/options.def"
};
#undef OPTION

const struct conf_spec quotad_conf = {
	.options = options,
	.count = sizeof(options) / sizeof(options[0]),
	.struct_size = sizeof(struct quotad_config),
};

static const struct metric_row metrics[] = {
#define METRIC METRIC_ROW
#include "dovecot-plugin-quota/quotad/metrics.def"
#undef METRIC
};

#define EVENT EVENT_DEFINE
#include "dovecot-plugin-quota/quotad/events.def"
#undef EVENT

static int start(struct skel *skel, struct sbuf *error)
{
	struct server *server;
	const int rc = server_open(skel, &server, error);
	if (rc == 0)
		skel->arg = server;
	return rc;
}

static void stop(struct skel *skel)
{
	server_stop(skel->arg);
}

static void done(struct skel *skel)
{
	struct server *server = skel->arg;
	server_close(&server);
}

static void status(struct skel *skel, json_t *object)
{
	store_status(server_store(skel->arg), object);
}

/* quota show USER: what is in memory, without asking the database. */
static json_t *show(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	const struct ledger_user *u;

	if (count != 1) {
		sbuf_adds(error, "usage: quota show USER");
		return NULL;
	}
	u = server_user(arg, args[0]);
	if (u == NULL) {
		sbuf_adds(error, "the user is not in memory");
		return NULL;
	}
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b}", "user", u->name,
			 "limit_bytes", (json_int_t)u->limit, "limit_messages",
			 (json_int_t)u->message_limit, "used_bytes", (json_int_t)u->used,
			 "messages", (json_int_t)u->messages, "reserved_bytes",
			 (json_int_t)u->reserved, "open", (json_int_t)u->open, "stale", u->stale,
			 "limit_known", u->limit_known, "in_database", u->exists);
}

/* quota verify USER [fix]: starts a recount; `quota findings USER` tells what it found. */
static json_t *verify(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	const bool fix = count == 2 && span_eq(args[1], SPAN_LIT("fix"));
	if (count < 1 || count > 2 || (count == 2 && !fix)) {
		sbuf_adds(error, "usage: quota verify USER [fix]");
		return NULL;
	}
	const int rc = server_verify(arg, args[0], fix);
	if (rc == ERR_NOT_FOUND)
		sbuf_adds(error, "recount_socket is not set: nobody counts for quotad");
	else if (rc < 0)
		sbuf_adds(error, "too many wait to be counted");
	return rc < 0 ? NULL : json_pack("{s:b}", "queued", true);
}

static json_t *folders_of(const struct finding *f)
{
	json_t *list = json_array();
	for (size_t i = 0; i < f->folder_count && i < FINDINGS_FOLDERS; i++) {
		const struct finding_folder *x = &f->folders[i];
		json_array_append_new(
			list, json_pack("{s:s+, s:s, s:I, s:I, s:I, s:I}", "folder", x->name, "", "cause",
					finding_folder_cause(x), "indexed_messages", (json_int_t)x->indexed.messages,
					"found_messages", (json_int_t)x->found.messages, "indexed_bytes",
					(json_int_t)x->indexed.bytes, "found_bytes", (json_int_t)x->found.bytes));
	}
	return list;
}

static json_t *findings(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	const struct finding *f = count == 1 ? findings_get(server_findings(arg), args[0]) : NULL;
	if (f == NULL) {
		sbuf_adds(error, count == 1 ? "nothing was asked for this user" : "usage: quota findings USER");
		return NULL;
	}
	return json_pack("{s:s, s:b, s:b, s:s?, s:I, s:I, s:I, s:I, s:I, s:o}", "user", f->user, "done", f->done,
			 "fixed", f->fixes, "cause", f->done ? finding_cause(f) : NULL, "usage_bytes",
			 (json_int_t)f->before.bytes, "messages", (json_int_t)f->before.messages, "found_bytes",
			 (json_int_t)f->found.bytes, "found_messages", (json_int_t)f->found.messages,
			 "folders_differ", (json_int_t)f->folder_count, "folders", folders_of(f));
}

/* quota erase USER: of a removed user, what the journal still names. */
static json_t *erase(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	uint64_t records = 0;
	if (count != 1) {
		sbuf_adds(error, "usage: quota erase USER");
		return NULL;
	}
	const int rc = store_erase(server_store(arg), args[0], &records);
	if (rc < 0)
		sbuf_adds(error, rc == ERR_LIMIT ? "the journal is long, and read when the database has it" : "the disk failed");
	return rc < 0 ? NULL : json_pack("{s:I}", "journal", (json_int_t)records);
}

static const struct control_command commands[] = {
	{"quota verify", "USER [fix]", verify},
	{"quota findings", "USER", findings},
	{"quota show", "USER", show},
	{"quota erase", "USER", erase},
	{0},
};

int main(int argc, char **argv)
{
	static const struct skel_daemon daemon = {
		.name = "quotad",
		.summary = "usage and limits of mailboxes, exactly",
		.conf = &quotad_conf,
		.metrics = metrics,
		.metrics_count = sizeof(metrics) / sizeof(metrics[0]),
		.commands = commands,
		.start = start,
		.stop = stop,
		.done = done,
		.status = status,
	};
	return skel_main(argc, argv, &daemon);
}
