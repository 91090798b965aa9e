/*
 * Refusals in a row, so that a key that runs into its limit ten thousand times
 * makes two notices and not ten thousand: one when it begins, and one when
 * nothing was refused for STREAK_QUIET_MS.  Bounded: STREAKS_MAX keys; a new one
 * ends the one that was quiet longest among its neighbours.  At most
 * STREAK_NOTICES_MAX begin in a minute with a notice; the others are only
 * counted.  Pure; one thread.
 */
#ifndef POLICYD_STREAKS_H
#define POLICYD_STREAKS_H

#include "policyd-ratelimit/session.h"

#define STREAKS_MAX 4096
#define STREAK_QUIET_MS 600000
#define STREAK_NOTICES_MAX 600

struct streak {
	uint64_t hash; /* 0: none */
	int64_t first_ms, last_ms;
	uint64_t times;
	bool noticed; /* its begin was told, and its end will be */
	enum rule_scope scope;
	enum rule_unit unit;
	enum proto_action action;
	bool shadow, blocked; /* blocked: by the administrator, without a limit */
	uint64_t max;
	int64_t length_ms;
	char key[SESSION_KEY_TEXT_MAX];
};

struct streaks {
	struct hash_key key;
	struct streak *items;
	size_t sweep_at;
	int64_t minute_ms; /* when the minute in hand began */
	unsigned begun;    /* with a notice, in that minute */
	uint64_t dropped;  /* begun without a notice */
	/* Tells of a streak that is over. */
	void (*ended)(void *arg, const struct streak *streak);
	void *arg;
};

void streaks_init(struct streaks *streaks, const struct hash_key *key,
		  void (*ended)(void *arg, const struct streak *streak), void *arg);
void streaks_done(struct streaks *streaks);
/* The streak that begins with REFUSAL at NOW_MS, where a notice is due; NULL where
 * it goes on or where too many have begun. */
const struct streak *streaks_note(struct streaks *streaks, const struct session_refusal *refusal, int64_t now_ms);
/* Ends those that are over among the next COUNT. */
void streaks_sweep(struct streaks *streaks, size_t count, int64_t now_ms);

#endif
