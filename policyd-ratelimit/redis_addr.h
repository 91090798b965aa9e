/*
 * Where Redis is, as the option `redis` says it, and what its servers say about
 * where else to ask.  Pure.
 *
 *   redis    = "inet:" HOST ":" PORT | "inet6:[" ADDRESS "]:" PORT | "unix:" PATH
 *            | "sentinel:" NAME "@" servers      Sentinel names the master of NAME
 *            | "cluster:" servers                any nodes of a Redis Cluster
 *   servers  = HOST ":" PORT { "," HOST ":" PORT }      HOST may be [ADDRESS]
 */
#ifndef POLICYD_REDIS_ADDR_H
#define POLICYD_REDIS_ADDR_H

#include "lib/base/sbuf.h"

#define REDIS_SERVERS_MAX 16 /* in one option */
#define REDIS_HOST_MAX 255   /* bytes of a host name or path */
#define REDIS_NAME_MAX 127   /* bytes of a master's name */
#define REDIS_SLOTS 16384

enum redis_kind { REDIS_PLAIN, REDIS_SENTINEL, REDIS_CLUSTER };

struct redis_server {
	char host[REDIS_HOST_MAX + 1]; /* or the path of a unix socket, from the slash on */
	uint16_t port;                 /* 0: a unix socket */
};

struct redis_spec {
	enum redis_kind kind;
	char master[REDIS_NAME_MAX + 1];
	struct redis_server servers[REDIS_SERVERS_MAX];
	size_t count;
};

/* ERR_SYNTAX, ERR_LIMIT for too many or too long, with the reason in REASON. */
int redis_spec_parse(struct span text, struct redis_spec *spec_out, struct sbuf *reason) MUST_CHECK;
/* From a host and a port as a server gives them; ERR_SYNTAX. */
int redis_server_set(struct span host, int64_t port, struct redis_server *server_out) MUST_CHECK;
bool redis_server_eq(const struct redis_server *a, const struct redis_server *b);
void redis_server_format(const struct redis_server *server, struct sbuf *out);

/* "MOVED 3999 127.0.0.1:6381" or "ASK ..."; an empty host is that of who says it. */
struct redis_redirect {
	bool ask;
	unsigned slot;
	struct redis_server to;
};
int redis_redirect_parse(struct span error, const struct redis_server *from,
			 struct redis_redirect *redirect_out) MUST_CHECK;

/* The slot of a key: CRC16 of its hash tag, or of all of it. */
unsigned redis_slot(struct span key);

#endif
