/* lmtp-indexer: the table of the daemon. */
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

static int check(const void *config, struct sbuf *error)
{
	const struct indexer_config *c = config;
	struct span name = span_str(c->trace_header);
	for (size_t i = 0; i < name.len; i++) {
		if (!ascii_isalnum(name.ptr[i]) && name.ptr[i] != '-') {
			sbuf_adds(error, "trace_header: only letters, digits and hyphens");
			return ERR_SYNTAX;
		}
	}
	struct span url = span_str(c->webhook_url);
	if (url.len > 0 && !span_istarts(url, SPAN_LIT("http://")) && !span_istarts(url, SPAN_LIT("https://"))) {
		sbuf_adds(error, "webhook_url: neither http:// nor https://");
		return ERR_SYNTAX;
	}
	return listen_check(c->listen, error);
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

static const char *const fixed_options[] = {
	"hostname", "trace_header", "spool_max", "index_*", "text_max", "mime_*", "authserv_id",
	"recipient_delimiter", "user_query", "mailbox_*", "settle_after", "webhook_*", "database_*", NULL};

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
	};
	return skel_main(argc, argv, &daemon);
}
