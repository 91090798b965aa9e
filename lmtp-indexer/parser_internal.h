/* What parser.c (the daemon's side), parser_child.c and parser_confine.c (the other) share. */
#ifndef INDEXER_PARSER_INTERNAL_H
#define INDEXER_PARSER_INTERNAL_H

#include <sys/types.h>

#include "lmtp-indexer/parser.h"

/* To a parser: contents, one behind the other in the shared memory, or a single one that
 * is a file, with its descriptor. */
struct parser_request {
	uint64_t count;
	uint64_t content_len[PARSER_BATCH_MAX]; /* 0: a file */
};

/* From a parser: records, one behind the other behind content_max in the shared memory.
 * Fewer than contents where no more had room. */
struct parser_reply {
	uint64_t count;
	uint64_t record_len[PARSER_BATCH_MAX];
};

/* To the nursery: the index of the parser; back come its socket and its pidfd. */

struct parser_pool {
	struct parser_config config;
	int nursery; /* socket; -1: closed */
	pid_t nursery_pid;
	char *memory; /* of all parsers, shared */
	size_t memory_each, record_max;
	struct parser *parsers;
};

/* The nursery: never returns. */
NORETURN void parser_nursery_run(const struct parser_pool *pool, int socket);
/* In parser INDEX, before its first mail; ends the process where that fails. */
void parser_confine(const struct parser_pool *pool, size_t index);

/* One message of LEN bytes with up to COUNT descriptors, by SEQPACKET; false where the other end is gone. */
bool parser_send(int socket, const void *bytes, size_t len, const int *fds, size_t count);
/* The same the other way; without a descriptor *FDS is -1.  False also for another length.
 * With a COUNT of 0 no descriptor is taken from whoever sends one. */
bool parser_receive(int socket, void *bytes, size_t len, int *fds, size_t count);

#endif
