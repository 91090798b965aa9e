/*
 * An extract as bytes, on its way from the process that parses mail.  Pure.
 * Whoever parsed the mail may have been taken over by it, so what is read back
 * is checked: lengths, caps, widths, UTF-8.
 */
#ifndef INDEXER_EXTRACT_RECORD_H
#define INDEXER_EXTRACT_RECORD_H

#include "lib/base/sbuf.h"
#include "lmtp-indexer/extract.h"

void extract_record_add(struct sbuf *out, const struct extract *x);
/* Returns owned; copies.  LIMITS are those it was made under. */
int extract_record_read(struct span record, const struct extract_limits *limits,
			struct extract **extract_out) MUST_CHECK;

#endif
