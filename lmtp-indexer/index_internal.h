/* What index.c, index_parse.c and index_write.c share. */
#ifndef INDEXER_INDEX_INTERNAL_H
#define INDEXER_INDEX_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "lmtp-indexer/flight.h"
#include "lmtp-indexer/index.h"
#include "lmtp-indexer/seal.h"
#include "lmtp-indexer/server.h"
#include "lmtp-indexer/settle.h"
#include "lmtp-indexer/webhook.h"
#include "lmtp-indexer/writer.h"

#define INDEX_PARSED_MAX 192    /* parsed deliveries that wait for the database */
#define INDEX_BATCH_MAX 128	/* deliveries of a transaction: while it commits, nothing else is written */
#define INDEX_BATCH_RCPTS_MAX 256 /* recipients of a batch, unless one delivery has more */
#define INDEX_THREADS_MAX 32
#define INDEX_FLIGHT_MAX DELIVERY_TABLE_MAX /* deliveries on their way that are known one by one */
#define INDEX_UNKEPT_MAX 50000 /* waiting deliveries that only memory has, most of them without content */

struct index {
	struct spool *spool;
	struct flight *flight;
	struct extract_limits limits;
	struct parser_pool *pool;
	atomic_size_t parsers_begun;
	int64_t linger_ms;
	size_t memory_max;
	bool has_database;

	pthread_mutex_t lock;
	bool stopping;
	/* Deliveries that wait to be parsed. */
	struct delivery *first, *last;
	size_t waiting, memory, unkept;
	pthread_cond_t to_parse;
	/* Parsed ones. */
	struct writer_item *parsed, **parsed_end;
	size_t parsed_count;
	pthread_cond_t to_write, parsed_less;

	pthread_t parsers[INDEX_THREADS_MAX];
	size_t parser_count;
	pthread_mutex_t reader_lock;
	struct spool_reader *reader;

	pthread_t writer_thread;
	struct writer *writer;
	struct db *db; /* the writer's, until it is made */
	struct webhook *webhook;
	struct settle *settle;
	struct seal *seal; /* NULL without a database */
	struct follow *follow; /* NULL where mailboxes are not followed */
	pthread_mutex_t order; /* see writer_keep_order() */
	atomic_bool behind;
};

/* A delivery or a mail, as it is called in the log, and its content. */
struct index_mail {
	struct span id;
	struct extract_source source;
};

/*
 * Parses the first of COUNT mails, and others with it: how many.  What the parser cannot take is
 * a failed extract.  0 where STOPPING(ARG) says so.  From any thread that has PARSER for itself.
 */
size_t index_parse(struct parser *parser, const struct extract_limits *limits, bool (*stopping)(void *arg), void *arg,
		   const struct index_mail *mails, size_t count, struct extract **extracts_out);
/* From any thread: D's outcomes are known. */
void index_enqueue(struct index *ix, struct delivery *d);
/* D is over: in the index, or not for it. */
void index_finish(struct index *ix, struct delivery *d);

void *index_parse_run(void *arg);
void *index_write_run(void *arg);

#endif
