/* What the search index cannot tell: whether a message is still there, in
 * which folder, and whether it really has a phrase. */
#ifndef POSTERN_SEARCH_CHECK_H
#define POSTERN_SEARCH_CHECK_H

#include "postern/search_find.h"

/* Messages whose text is read for a phrase, the best first; where more might
 * have it, a warning says so. */
#define SEARCH_TEXTS_MAX 2000

/*
 * Writes up to LIMIT ids of HITS (some of which are dropped) that hold to IDS_OUT, after OFFSET others.
 * *MORE_OUT: the search ended at SEARCH_TEXTS_MAX.
 */
int search_check(struct cli *cli, uint64_t user_id, const struct query *q, struct search_hits *hits, size_t offset,
		 size_t limit, uint64_t *ids_out, size_t *count_out, bool *more_out) MUST_CHECK;

#endif
