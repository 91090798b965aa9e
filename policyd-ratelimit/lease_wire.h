/*
 * What the daemons and the shared store say to each other: names, the scripts
 * that run in Redis, their arguments and answers.  Pure.
 *
 * A counter is a hash with one field a daemon:
 *
 *   PREFIX{scope:key}:unit:seconds:id   DAEMON -> "LIFE SEQ LEASED UNTIL TIME:AMOUNT ..."
 *
 * LIFE and SEQ say which process wrote it last and how often it had written, so
 * that a command which was held up does not undo a later one.  Times are those
 * of the Redis server, in milliseconds, taken by the script; a daemon sends only
 * how old its counts are.  So no two machines need the same time, and a server
 * whose clock differs (after a failover, or because it was set) is put right when
 * the daemons send their counts anew, which they do when they see it.
 *
 *   PREFIXdaemons    DAEMON -> "TIME STATE"              who is there
 *   PREFIXcommands   KIND:SCOPE:KEY -> "VERSION VERB DAEMON"    what administrators did;
 *                    "version" -> the last one
 *   PREFIXnews       channel: "recall NAME", "commands"
 */
#ifndef POLICYD_LEASE_WIRE_H
#define POLICYD_LEASE_WIRE_H

#include "policyd-ratelimit/lease.h"

#define WIRE_ARGS_MAX 16
#define WIRE_ID_MAX 96 /* bytes of a daemon's name in the store */
#define WIRE_ORDERS_MAX 20000 /* fields of PREFIXcommands; old resets and releases go then */

struct wire_script {
	const char *name; /* for messages */
	const char *body;
	unsigned number; /* 0 to WIRE_SCRIPTS - 1 */
};
enum { WIRE_SYNC, WIRE_BEAT, WIRE_COMMAND, WIRE_SCRIPTS };
extern const struct wire_script wire_scripts[WIRE_SCRIPTS];

/* Arguments of a script; the texts lie in MEM. */
struct wire_args {
	size_t count;
	struct span args[WIRE_ARGS_MAX];
	char mem[512];
	size_t used;
};

struct wire_daemon {
	struct span id, channel;
	uint64_t life; /* of this process */
};

/* For WIRE_SYNC on a counter; borrows from SYNC and DAEMON. */
void wire_sync_args(const struct lease_sync *sync, const struct wire_daemon *daemon, uint64_t seq,
		    struct wire_args *out);

#define WIRE_SYNC_REPLY 6
struct wire_sync_reply {
	struct lease_grant grant;
	int64_t server_ms;
	bool stale; /* a later sync of ours was written already */
};
/* From the script's COUNT numbers; ERR_SYNTAX. */
int wire_sync_reply(const int64_t *numbers, size_t count, struct wire_sync_reply *out) MUST_CHECK;

/* For WIRE_BEAT on PREFIXdaemons: READY says whether our counts are in the store. */
void wire_beat_args(const struct wire_daemon *daemon, bool ready, bool leaving, int64_t alive_ms, struct wire_args *out);

#define WIRE_BEAT_REPLY 4
struct wire_beat_reply {
	int64_t server_ms;
	unsigned daemons, unready; /* heard of lately, this one included */
	bool was_known;            /* whether the store had heard of this one */
};
int wire_beat_reply(const int64_t *numbers, size_t count, struct wire_beat_reply *out) MUST_CHECK;

/* What an administrator did to a key, for all daemons. */
enum wire_verb { WIRE_BLOCK, WIRE_RELEASE, WIRE_RESET };
struct wire_order {
	enum wire_verb verb;
	enum rule_scope scope;
	struct span key;
	uint64_t version;
	struct span by; /* the daemon that was told first */
};
/* The field of PREFIXcommands: a block and a release of a key are one field. */
void wire_order_field_add(const struct wire_order *order, struct sbuf *out);
/* For WIRE_COMMAND; FIELD is that of ORDER. */
void wire_order_args(const struct wire_order *order, const struct wire_daemon *daemon, struct span field,
		     struct wire_args *out);
/* From a field and its value; ERR_SYNTAX. The texts lie in FIELD and VALUE. */
int wire_order_parse(struct span field, struct span value, struct wire_order *out) MUST_CHECK;

#endif
