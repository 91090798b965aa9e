/*
 * What the tests of quotad's ledger share: one ledger, a clock, and a call for
 * each request.
 */
#ifndef TESTS_QUOTA_LEDGER_H
#define TESTS_QUOTA_LEDGER_H

#include "dovecot-plugin-quota/quotad/ledger.h"
#include "tests/unit/runner.h"

static const struct ledger_caps caps = {.users = 64, .per_owner = 4, .credits = 3, .ops = 1000};
static struct ledger_time now = {.boot_ms = 1, .wall_us = 1000};
static struct ledger *l;
static uint64_t next_op = 1;

static inline struct ledger_user *user_with(const char *name, uint64_t limit, uint64_t used)
{
	struct ledger_user *u = ledger_add(l, span_str(name));
	ck_assert_ptr_nonnull(u);
	const struct ledger_row row = {
		.limit = limit, .has_usage = true, .used = used, .version = 5};
	ledger_load(l, u, &row);
	u->stale = false;
	return u;
}

static inline struct ledger_result call(struct ledger_owner *o, struct ledger_user *u,
					struct quota_request r)
{
	struct ledger_result result;
	r.user = u != NULL ? span_str(u->name) : SPAN_LIT("x");
	ledger_request(l, o, u, &r, &now, &result);
	return result;
}

static inline struct quota_reply reserve(struct ledger_owner *o, struct ledger_user *u, uint64_t id,
					 uint64_t bytes)
{
	return call(o, u, (struct quota_request){.verb = QUOTA_RESERVE, .id = id, .bytes = bytes})
		.reply;
}

static inline struct ledger_result commit(struct ledger_owner *o, struct ledger_user *u,
					  uint64_t id, uint64_t bytes, uint64_t messages)
{
	return call(o, u,
		    (struct quota_request){.verb = QUOTA_COMMIT,
					   .id = id,
					   .op = next_op++,
					   .bytes = bytes,
					   .messages = messages});
}

static inline void release(struct ledger_owner *o, struct ledger_user *u, uint64_t id)
{
	(void)call(o, u, (struct quota_request){.verb = QUOTA_RELEASE, .id = id});
}

static inline struct ledger_result give_back(struct ledger_owner *o, struct ledger_user *u,
					     uint64_t bytes)
{
	return call(o, u,
		    (struct quota_request){
			    .verb = QUOTA_FREE, .op = next_op++, .bytes = bytes, .messages = 1});
}

static inline struct ledger_result simple(struct ledger_owner *o, struct ledger_user *u,
					  enum quota_verb verb)
{
	return call(o, u, (struct quota_request){.verb = verb});
}

static inline struct ledger_result counted(struct ledger_owner *o, struct ledger_user *u,
					   uint64_t seq, uint64_t bytes, uint64_t messages)
{
	return call(
		o, u,
		(struct quota_request){
			.verb = QUOTA_COUNTED, .seq = seq, .bytes = bytes, .messages = messages});
}

static inline struct quota_reply move(struct ledger_owner *o, struct ledger_user *u,
				      const char *key, uint64_t size)
{
	return call(o, u,
		    (struct quota_request){.verb = QUOTA_RESERVE,
					   .bytes = size,
					   .credit = size,
					   .key = span_str(key)})
		.reply;
}

#endif
