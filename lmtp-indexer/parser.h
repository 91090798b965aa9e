/*
 * Mail is parsed in processes of their own: a message that crashes the parser,
 * never ends or wants all memory costs that message its text, and what a
 * message makes the parser do happens without files, sockets and rights.
 *
 * A nursery, forked before there are threads, forks the parsers on demand.  A
 * parser has a socket to its thread and memory shared with it; content and
 * results travel in that memory.
 */
#ifndef INDEXER_PARSER_H
#define INDEXER_PARSER_H

#include "lib/base/sbuf.h"
#include "lmtp-indexer/extract.h"

struct parser_pool;
struct parser;

struct parser_config {
	struct extract_limits limits;
	const char *authserv_id; /* valid as long as the pool */
	size_t count;            /* parsers at most */
	size_t content_max;      /* bytes of a content that is not a file */
	uint64_t memory_bytes;   /* of address space for a parser's work */
	int64_t timeout_ms;      /* of one message */
};

/* Before any thread is started.  Takes extract_start() upon itself. */
int parser_pool_open(const struct parser_config *config, struct parser_pool **pool_out, struct sbuf *error) MUST_CHECK;
/* Ends all processes. */
void parser_pool_close(struct parser_pool **pool);
/* From any thread: ends the parsers, so that nobody waits for one. */
void parser_pool_interrupt(struct parser_pool *pool);
/* The INDEX-th parser, for one thread; it starts with the first message. */
struct parser *parser_of(struct parser_pool *pool, size_t index);

/*
 * Parses SOURCE.  0: *EXTRACT_OUT is owned.  ERR_LIMIT: the parser did not end
 * in time.  ERR_CLOSED: it died, or said nonsense.  ERR_TEMP: the nursery is gone.
 */
int parser_run(struct parser *parser, const struct extract_source *source, struct extract **extract_out) MUST_CHECK;

#define PARSER_BATCH_MAX 16
/*
 * Parses COUNT contents at one go, of at most content_max bytes together, which spares
 * the thread and the parser most of their waiting for each other.  0: the first
 * *DONE_OUT of them, at least one, have their extracts.  Else as parser_run(), and
 * nobody knows for which of them.
 */
int parser_run_many(struct parser *parser, const struct span *contents, size_t count, struct extract **extracts_out,
		    size_t *done_out) MUST_CHECK;

#endif
