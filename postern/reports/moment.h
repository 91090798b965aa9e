/*
 * Times as reports give them: seconds since 1970, also with a fraction, and
 * the date-time of RFC 3339.  Pure.
 */
#ifndef POSTERN_REPORTS_MOMENT_H
#define POSTERN_REPORTS_MOMENT_H

#include "lib/base/span.h"

#define MOMENT_MAX_S INT64_C(7258118399) /* the last second of 2199 */

/*
 * Digits, of which a fraction is dropped; with a date also
 * "2026-01-31T23:59:59Z", with a fraction of the second, an offset, a blank in
 * place of the T, or no time at all (then it is the first second).  White space
 * at both ends is fine.  ERR_SYNTAX; ERR_LIMIT for times before 1970 and after
 * MOMENT_MAX_S.
 */
int moment_parse(struct span text, int64_t *time_s_out) MUST_CHECK;

/* Digits; a fraction is dropped.  ERR_SYNTAX, ERR_LIMIT above MAX. */
int moment_parse_count(struct span text, uint64_t max, uint64_t *count_out) MUST_CHECK;

#endif
