/*
 * Strict parsing of numbers with units.  The whole text must be the number:
 * no sign, no white space, nothing behind it.  ERR_SYNTAX for what is not one,
 * ERR_LIMIT for a value above MAX.
 */
#ifndef BASE_NUM_H
#define BASE_NUM_H

#include "span.h"

/* Decimal digits. */
int num_parse_u64(struct span s, uint64_t max, uint64_t *value_out) MUST_CHECK;

/* Decimal digits and an optional K, M, G or T (powers of 1024), in bytes. */
int num_parse_size(struct span s, uint64_t max_bytes, uint64_t *bytes_out) MUST_CHECK;

/* Decimal digits and ms, s, m, h, d or w; a bare number is seconds. */
int num_parse_duration(struct span s, uint64_t max_ms, uint64_t *ms_out) MUST_CHECK;

#endif
