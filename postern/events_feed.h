/* The ordered feed of events, read from any place and followed live. */
#ifndef POSTERN_EVENTS_FEED_H
#define POSTERN_EVENTS_FEED_H

#include "postern/cli.h"

/* Up to LIMIT events of the user after number AFTER, as an array of objects. */
int events_read(struct cli *cli, uint64_t user_id, uint64_t after, uint64_t limit, json_t **rows_out) MUST_CHECK;

struct events_follow {
	uint64_t user_id; /* 0: all users */
	bool from_after;  /* begin behind `after` instead of with what comes now */
	uint64_t after;
	uint64_t limit;   /* events; 0: without end */
};

/* Prints a line for each event as it comes: with --json an object, else text. */
int events_follow_run(struct cli *cli, const struct events_follow *f) MUST_CHECK;

#endif
