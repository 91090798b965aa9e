/* The two halves of the store: journal and writer (store.c), reader (reader.c). */
#ifndef QUOTAD_STORE_INTERNAL_H
#define QUOTAD_STORE_INTERNAL_H

#include "dovecot-plugin-quota/quotad/store.h"
#include "lib/run/db.h"

struct reader;

struct store {
	struct loop *loop;
	struct store_handler handler;
	struct outbox *box;
	struct db *writer; /* of the consumer's thread */
	char *query_write;
	struct reader *reader;
};

/* Starts the thread that reads; it clones STORE's writer. */
struct reader *reader_start(struct store *store, const struct quotad_config *config);
void reader_stop(struct reader **reader);

#endif
