/* The messages of a user that answer a query, by the search index: blocks
 * (lmtp-indexer/block.h) and what waits for one. */
#ifndef POSTERN_SEARCH_FIND_H
#define POSTERN_SEARCH_FIND_H

#include "lmtp-indexer/match.h"
#include "postern/cli.h"

#define SEARCH_HITS_MAX (8u << 20)

struct search_hits {
	struct match_hit *list; /* owned; the best first */
	size_t count, size;
};

/* An exit status; what is wrong has been told. */
int search_find(struct cli *cli, uint64_t user_id, const struct query *q, struct search_hits *hits_out) MUST_CHECK;
void search_hits_done(struct search_hits *hits);

#endif
