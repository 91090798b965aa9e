/*
 * What the tools that judge mail share: the DNS they ask, the time, and texts
 * in JSON.
 */
#ifndef POSTERN_AUTH_COMMON_H
#define POSTERN_AUTH_COMMON_H

#include "lib/base/arena.h"
#include "lib/dns/resolver.h"
#include "lib/spf/spf.h"
#include "milter-dkim/bodyhash.h"
#include "milter-dkim/dmarc.h"
#include "milter-dkim/psl.h"
#include "postern/cli.h"

#define AUTH_TOOL_DNS_MS 20000          /* for all answers together */
#define AUTH_TOOL_ARENA_BYTES (16u << 20)
#define AUTH_TOOL_MESSAGE_MAX (256u << 20)

struct auth_tool {
	struct cli *cli;
	struct resolver *resolver;
	struct resolver_set *set;
	struct dns_view view; /* with --trace it shows what is asked and answered */
	struct dns_view inner;
	struct arena arena;
	struct dmarc_psl psl;
	int64_t now;
	bool trace;
	struct auth_tool_shown *shown; /* answers that the trace has shown */
};

/* Reads --now and opens the resolver of --resolver; EX_OK, or a status that
 * was already explained. */
int auth_tool_open(struct auth_tool *tool, struct cli *cli) MUST_CHECK;
void auth_tool_wait(struct auth_tool *tool);
/*
 * Frees everything, also after an open that failed.  Returns STATUS, but EX_TEMPFAIL in place of EX_OK where
 * questions went out and no server could be reached for any.
 */
int auth_tool_close(struct auth_tool *tool, int status);

/* --authserv-id, which names somebody, or WITHOUT it that name. */
int auth_tool_authserv_id(struct cli *cli, const char *without, struct span *id_out) MUST_CHECK;
/* --dmarc-discovery: *PSL_OUT is NULL for the tree walk. */
int auth_tool_discovery(struct auth_tool *tool, const struct dmarc_psl **psl_out) MUST_CHECK;

/* --ip and --mail-from (with or without < >). */
int auth_tool_client(struct cli *cli, struct ip *ip_out, struct span *mail_from_out) MUST_CHECK;

/* A message from the input. */
struct auth_message {
	struct sbuf text; /* as it came */
	struct span envelope; /* the line of a mailbox file in front of the message, or empty */
	struct mail_header header;
	struct mail_splitter splitter;
	struct span body;
	struct bodyhash *bodies;
};

/* Reads and splits it; EX_OK, or EX_DATAERR after saying why. */
int auth_message_read(struct auth_message *m, struct cli *cli, struct arena *a) MUST_CHECK;
/* Computes the hashes that were asked of `bodies` by now. */
void auth_message_hash(struct auth_message *m);
/* Also of one that is zero. */
void auth_message_done(struct auth_message *m);

/* Bytes that are no UTF-8 become U+FFFD. */
json_t *auth_json_text(struct span text);
/* null for the empty text. */
json_t *auth_json_text_or_null(struct span text);
/* null without a problem; "why: where" with both. */
json_t *auth_json_problem(const char *problem, struct span at);
/* The object of `dmarc check`. */
json_t *auth_json_dmarc(const struct dmarc_verdict *v);

#endif
