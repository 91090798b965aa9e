/*
 * One connection to a Redis server.  This is the only user of hiredis.  All of it
 * belongs to the loop's thread and never blocks; there are no time-outs here (see
 * redis_net.h).
 */
#ifndef POLICYD_STORE_REDIS_H
#define POLICYD_STORE_REDIS_H

#include "lib/run/loop.h"
#include "policyd-ratelimit/redis_addr.h"

struct redis_link;

/* An answer, valid during the call that shows it. */
struct redisReply;
enum redis_answer { REDIS_NOTHING, REDIS_TEXT, REDIS_NUMBER, REDIS_LIST, REDIS_ERROR };
enum redis_answer redis_answer_kind(const struct redisReply *answer);
struct span redis_answer_text(const struct redisReply *answer); /* of TEXT and ERROR */
int64_t redis_answer_number(const struct redisReply *answer);
size_t redis_answer_count(const struct redisReply *answer);
const struct redisReply *redis_answer_item(const struct redisReply *answer, size_t at);

struct redis_link_config {
	struct loop *loop;
	const char *user, *password; /* "": none */
	int database;
	/* The connection is gone, or could not be made, after all its answers were
	 * given up; the link should be freed. From the loop, never from within a call. */
	void (*down)(void *arg, const char *why);
	void *arg;
};

/* Begins to connect to SERVER, whose host is a number or is looked up (which may
 * block); commands may be sent at once. The texts of CONFIG must stay valid. */
struct redis_link *redis_link_new(const struct redis_link_config *config, const struct redis_server *server);
/* What waits for an answer is called with none: here, or right after the answer from within which this is called. */
void redis_link_free(struct redis_link **link);

/* ANSWER is NULL where the connection ended before it came. */
typedef void redis_answer_fn(void *arg, const struct redisReply *answer);
/* Sends a command; FN (may be NULL) is called once. ERR_TEMP where the link is gone: it is not called then. */
int redis_link_send(struct redis_link *link, const struct span *words, size_t count, redis_answer_fn *fn,
		    void *arg) MUST_CHECK;
/* Listens to CHANNEL from now on; FN is called for each message. Nothing else may be sent afterwards. */
int redis_link_listen(struct redis_link *link, struct span channel, void (*fn)(void *arg, struct span message),
		      void *arg) MUST_CHECK;

#endif
