/*
 * The daemon's state and what its adapters offer each other.  Everything
 * belongs to the loop's thread.
 */
#ifndef POLICYD_POLICYD_H
#define POLICYD_POLICYD_H

#include "lib/run/conn.h"
#include "lib/run/skel.h"
#include "policyd-ratelimit/config.h"
#include "policyd-ratelimit/herald.h"
#include "policyd-ratelimit/journal.h"
#include "policyd-ratelimit/overrides_sql.h"
#include "policyd-ratelimit/quota.h"
#include "policyd-ratelimit/recorder.h"
#include "policyd-ratelimit/reporter.h"
#include "policyd-ratelimit/settled.h"
#include "policyd-ratelimit/sharer.h"
#include "policyd-ratelimit/spf_refresh.h"
#include "policyd-ratelimit/store_disk.h"
#include "policyd-ratelimit/streaks.h"

enum {
#define METRIC METRIC_ENUM
#include "policyd-ratelimit/metrics.def"
#undef METRIC
	METRIC_COUNT_ALL,
};

#define EVENT EVENT_DECLARE
#include "policyd-ratelimit/events.def"
#undef EVENT

/* The log of the counters: keeper.c. */
struct keeper {
	struct store *store;
	uint64_t boot_id;
	/* The snapshot being written: the next step of the walk; TABLE_WALK_STEPS: none. */
	unsigned step;
	uint64_t max_bytes;     /* of the log, as configured */
	uint64_t limit_bytes;   /* of the log now: more where a snapshot would not fit */
	struct settled settled; /* what is reserved of the counters of the next steps */
	uint64_t begin_ticket;  /* of the snapshot */
	uint64_t settled_bytes; /* size of the log after the last one */
	bool again;             /* the disk failed: write a new one */
	int64_t failed_ms;
};

/* Who is exempt by SPF: exempt.c. */
struct exempt {
	struct spf_refresh *refresh; /* NULL: no domain is */
	struct spfsets *sets;        /* as they are in force */
	uint64_t generation;         /* of refresh */
	int64_t started_s;           /* wall clock */
};

struct policyd {
	struct skel *skel;
	struct table *table;
	struct session session;
	struct keeper keeper;
	struct listen_set listen;
	struct conn_server *server;
	struct recorder *recorder;   /* NULL: no request log */
	uint64_t connections; /* since the start */
	struct overrides_loader *loader;
	size_t override_count;
	struct exempt exempt;
	struct quota *quota; /* NULL: quotad is not asked */
	int64_t overrides_asked_ms;
	bool database_away;
	struct streaks streaks;
	struct reporter *reporter; /* NULL: no rows are wanted */
	struct sharer *sharer;     /* NULL: limits are this daemon's alone */
	struct herald *herald;     /* NULL: nobody is told */
	int64_t stop_at_ms; /* 0: not stopping */
	int64_t wiring_told_ms[WIRING_FAULTS]; /* 0: never */
	uint64_t requests;
	int64_t wall_offset_ms; /* wall time less session time, looked up each second */
	struct ev_prepare prepare;
	struct ev_timer second, slice, stop;
};

static inline int64_t policyd_now_ms(void)
{
	return clock_boot_ms() + JOURNAL_CLOCK_BIAS_MS;
}

/* ---- server.c ---- */

int server_open(struct policyd *p, const struct policyd_config *config, struct sbuf *error) MUST_CHECK;
/* Takes over what the options of connections say now. */
void server_reload(struct policyd *p, const struct policyd_config *config);
/* Accepts no more; after a moment for what is under way, connections end. */
void server_stop(struct policyd *p);
/* Ends the daemon when server_stop() was called and no reply is owed. */
void server_stop_if_done(struct policyd *p);

/* ---- watch.c ---- */

/* Logs what is wrong with the wiring, each fault once an hour while it stands. */
void watch_wiring(struct policyd *p);
/* The same as sentences, for the control socket: a new array. */
json_t *watch_warnings(const struct policyd *p);
/* Writes what waits for the request log. */
void watch_recorder(struct policyd *p);

/* ---- keeper.c ---- */

/* Opens the log, makes table and session (taking RULES, also on failure) and restores them. */
int keeper_open(struct policyd *p, const struct policyd_config *config, struct rules *rules,
		struct sbuf *error) MUST_CHECK;
void keeper_close(struct policyd *p);
/* Keeps the charges of a message: they outlive the process when it returns. */
void keeper_message(struct policyd *p, const struct session_outcome *outcome);
void keeper_reset(struct policyd *p, uint64_t hash);
void keeper_block(struct policyd *p, bool blocked, enum rule_scope scope, struct span key);
/* Called once a second: begins a snapshot when it is due. */
void keeper_second(struct policyd *p);
/* Called every few milliseconds while keeper_busy(): goes on with it. */
void keeper_slice(struct policyd *p);
bool keeper_busy(const struct policyd *p);

void keeper_state(struct policyd *p, const struct table_state *state);
void keeper_held(struct policyd *p, const struct abuse_held *held);

/* ---- guard.c ---- */

/* What a connection is asked about; embed it, zeroed. */
struct guard_client {
	uint64_t digest; /* of the transaction */
	struct abuse_message message;
};

/* Takes over the rules of abuse; on failure all stays. */
int guard_set_rules(struct policyd *p, const struct policyd_config *config, struct sbuf *error) MUST_CHECK;
/* Whether REQUEST is refused because of a step that was taken, with the reply. */
bool guard_before(struct policyd *p, const struct proto_request *request, int64_t now_ms, struct sbuf *reply,
		  enum proto_action *action_out);
/* After the session's OUTCOME: counts, and may change it and the reply to a recipient. */
void guard_after(struct policyd *p, struct guard_client *g, const struct proto_request *request,
		 struct session_outcome *outcome, int64_t now_ms, struct sbuf *reply);
/* The connection speaks of the message DIGEST now; 0: of none. */
void guard_moves_on(struct policyd *p, struct guard_client *g, uint64_t digest, int64_t now_ms);
void guard_client_done(struct policyd *p, struct guard_client *g);
/* Lets SUBJECT go under the rules of SCOPE; how many held it. */
size_t guard_release(struct policyd *p, const struct subject *subject, enum rule_scope scope);

/* ---- exempt.c ---- */

/* What the domains of RULES need, not yet at work; *NEXT_OUT NULL: nothing. */
int exempt_prepare(struct policyd *p, const struct policyd_config *config, const struct rules *rules,
		   struct spf_refresh **next_out, struct sbuf *error) MUST_CHECK;
/* Takes NEXT for the rules that are in force now; what is known of their domains stays. */
void exempt_switch(struct policyd *p, struct spf_refresh *next);
void exempt_close(struct policyd *p);
/* Sets the gauges. */
void exempt_collect(const struct policyd *p);
/* The domains and what is known of each: a new array. */
json_t *exempt_list(const struct policyd *p);

/* ---- tell.c ---- */

int tell_open(struct policyd *p, const struct policyd_config *config, struct sbuf *error) MUST_CHECK;
/* Ends the streaks, and the reporter within TIMEOUT_MS. */
void tell_close(struct policyd *p, int64_t timeout_ms);
/* Called once a second. */
void tell_second(struct policyd *p);
/* Counts, logs and notes what became of REQUEST. */
void tell_outcome(struct policyd *p, const struct session_outcome *outcome, const struct proto_request *request,
		  int64_t now_ms);

/* REQUEST is refused because its recipient's mailbox is full. */
void tell_full(const struct proto_request *request);

/* ---- control.c ---- */

extern const struct control_command policyd_commands[];

#endif
