/* lmtp-indexer: the table of the daemon. */
#include "lmtp-indexer/relay.h"
#include "lmtp-indexer/server.h"

#define OPTION CONF_ROW
#define CONF_STRUCT struct indexer_config
static const struct conf_option options[] = {
#include "lmtp-indexer/options.def"
};
#undef OPTION

static const struct metric_row metrics[] = {
#define METRIC METRIC_ROW
#include "lmtp-indexer/metrics.def"
#undef METRIC
};

#define EVENT EVENT_DEFINE
#include "lmtp-indexer/events.def"
#undef EVENT

static bool is_url(const char *text, bool local)
{
	struct span s = span_str(text);
	return s.len == 0 || span_istarts(s, SPAN_LIT("http://")) || span_istarts(s, SPAN_LIT("https://")) ||
	       (local && span_starts(s, SPAN_LIT("unix:/")));
}

static bool is_field_name(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!ascii_isalnum(name.ptr[i]) && name.ptr[i] != '-')
			return false;
	return true;
}

static size_t count_addresses(struct span list)
{
	struct span word;
	size_t count = 0;
	while (list.len > 0) {
		span_cut(&list, ',', &word);
		count += span_trim(word).len > 0;
	}
	return count;
}

static int check(const void *config, struct sbuf *error)
{
	const struct indexer_config *c = config;
	char mem[512];
	struct sbuf why;
	sbuf_init(&why, mem, sizeof(mem));
	if (!is_field_name(span_str(c->trace_header)))
		return conf_fail_option(&indexer_conf, c, "trace_header", error,
					"trace_header: only letters, digits and hyphens");
	if (!is_url(c->webhook_url, false))
		return conf_fail_option(&indexer_conf, c, "webhook_url", error,
					"webhook_url: neither http:// nor https://");
	if (!is_url(c->mailbox_api, true))
		return conf_fail_option(&indexer_conf, c, "mailbox_api", error,
					"mailbox_api: neither http://, https:// nor unix:/");
	if (c->mailbox_server[0] != '\0' && listen_check(c->mailbox_server, &why) < 0)
		return conf_fail_option(&indexer_conf, c, "mailbox_server", error, "mailbox_server: %s", sbuf_cstr(&why));
	if (c->hints_listen[0] != '\0' && (!span_starts(span_str(c->hints_listen), SPAN_LIT("seqpacket:")) ||
					    listen_check(c->hints_listen, &why) < 0))
		return conf_fail_option(&indexer_conf, c, "hints_listen", error, "hints_listen: expected seqpacket:/PATH");
	if (count_addresses(span_str(c->backend)) > RELAY_ADDRESSES_MAX)
		return conf_fail_option(&indexer_conf, c, "backend", error, "backend: more than %d addresses", RELAY_ADDRESSES_MAX);
	if (listen_check(c->backend, &why) < 0)
		return conf_fail_option(&indexer_conf, c, "backend", error, "backend: %s", sbuf_cstr(&why));
	return 0;
}

const struct conf_spec indexer_conf = {
	.options = options,
	.count = sizeof(options) / sizeof(options[0]),
	.struct_size = sizeof(struct indexer_config),
	.check = check,
};

static int start(struct skel *skel, struct sbuf *error)
{
	struct server *server;
	int rc = server_open(skel, &server, error);
	if (rc == 0)
		skel->arg = server;
	return rc;
}

static int reload(struct skel *skel, const void *next, struct sbuf *error)
{
	return server_reload(skel->arg, next, error);
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
	server_status(skel->arg, object);
}

static json_t *erase(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	return server_erase(arg, args, count, error);
}

static json_t *rebuild(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	return server_rebuild(arg, args, count, error);
}

static json_t *progress(void *arg, const struct span *args, size_t count, struct sbuf *error)
{
	(void)args;
	(void)count;
	return server_progress(arg, error);
}

static const struct control_command commands[] = {
	{"erase", "user EMAIL | delivery ID [TICKET]", erase},
	{"index rebuild", "[USER]", rebuild},
	{"index progress", "", progress},
	{0},
};

static const char *const fixed_options[] = {
	"hostname", "trace_header", "backend_query*", "spool_max", "index_*", "parse_*", "text_max", "mime_*", "authserv_id",
	"recipient_delimiter", "user_query", "users_query", "mailbox_*", "hints_*", "follow_*", "settle_after", "webhook_*",
	"database_*", NULL};

int main(int argc, char **argv)
{
	static const struct skel_daemon daemon = {
		.name = "lmtp-indexer",
		.summary = "LMTP proxy that puts each delivered mail into SQL",
		.conf = &indexer_conf,
		.metrics = metrics,
		.metrics_count = sizeof(metrics) / sizeof(metrics[0]),
		.start = start,
		.reload = reload,
		.fixed = fixed_options,
		.stop = stop,
		.done = done,
		.status = status,
		.commands = commands,
	};
	return skel_main(argc, argv, &daemon);
}
