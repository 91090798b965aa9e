/*
 * The front: accepts clients, runs a session for each, and ties it to a leg of
 * the backend and to the spool.  On the loop's thread.
 */
#ifndef INDEXER_SERVER_H
#define INDEXER_SERVER_H

#include "lib/run/skel.h"
#include "lmtp-indexer/index.h"
#include "lmtp-indexer/relay.h"
#include "lmtp-indexer/spool.h"

struct indexer_config {
#define OPTION CONF_MEMBER
#include "lmtp-indexer/options.def"
#undef OPTION
};

enum {
#define METRIC METRIC_ENUM
#include "lmtp-indexer/metrics.def"
#undef METRIC
};

extern const struct conf_spec indexer_conf;

struct server;

int server_open(struct skel *skel, struct server **server_out, struct sbuf *error) MUST_CHECK;
/* Takes what a reload may change. */
int server_reload(struct server *server, const struct indexer_config *config, struct sbuf *error) MUST_CHECK;
/* Accepts no more; skel_stopped() when no message is in hand. */
void server_stop(struct server *server);
void server_close(struct server **server);
/* Control command `erase user EMAIL` or `erase delivery ID`. */
json_t *server_erase(struct server *server, const struct span *args, size_t count, struct sbuf *error);
void server_status(struct server *server, json_t *object);
/* For the control socket: `index rebuild [USER]`, `index progress`. */
json_t *server_rebuild(struct server *server, const struct span *args, size_t count, struct sbuf *error);
json_t *server_progress(struct server *server, struct sbuf *error);

#endif
