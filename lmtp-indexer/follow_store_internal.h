/* What follow_store.c and follow_store_write.c share. */
#ifndef INDEXER_FOLLOW_STORE_INTERNAL_H
#define INDEXER_FOLLOW_STORE_INTERNAL_H

#include "lmtp-indexer/follow_store.h"
#include "lmtp-indexer/rows.h"

struct follow_store {
	struct db *db;
	char *user_query, *users_query;
	struct rows at, traced, put, events;
};

#endif
