/* Parsing of times; no locale, no time zone but the one that is written. */
#include "postern/reports/moment.h"

#include "lib/base/num.h"

#define FRACTION_MAX 12
#define OFFSET_MAX_H 23

int moment_parse_count(struct span text, uint64_t max, uint64_t *count_out)
{
	struct span rest = span_trim(text), whole;
	if (span_cut(&rest, '.', &whole)) {
		if (rest.len > FRACTION_MAX)
			return ERR_SYNTAX;
		for (size_t i = 0; i < rest.len; i++)
			if (!ascii_isdigit(rest.ptr[i]))
				return ERR_SYNTAX;
	}
	return num_parse_u64(whole, max, count_out);
}

/* Takes exactly WIDTH digits off the front. */
static bool take_digits(struct span *s, size_t width, uint64_t max, int *value_out)
{
	uint64_t value;
	if (s->len < width || num_parse_u64(span_take(*s, width), max, &value) < 0)
		return false;
	*value_out = (int)value;
	*s = span_skip(*s, width);
	return true;
}

static bool take_char(struct span *s, const char *allowed)
{
	if (s->len == 0 || s->ptr[0] == '\0' || strchr(allowed, s->ptr[0]) == NULL)
		return false;
	*s = span_skip(*s, 1);
	return true;
}

/* ":59" and a fraction, both optional; a leap second counts as the one before. */
static bool take_seconds(struct span *s, int *seconds_out)
{
	*seconds_out = 0;
	if (!take_char(s, ":"))
		return true;
	if (!take_digits(s, 2, 60, seconds_out))
		return false;
	*seconds_out = *seconds_out > 59 ? 59 : *seconds_out;
	if (take_char(s, "."))
		while (s->len > 0 && ascii_isdigit(s->ptr[0]))
			*s = span_skip(*s, 1);
	return true;
}

/* "Z", "+01:00" or nothing; how many seconds are to be taken off. */
static bool take_offset(struct span *s, int64_t *offset_out)
{
	int hours, minutes;
	*offset_out = 0;
	if (s->len == 0 || take_char(s, "Zz"))
		return true;
	bool west = s->ptr[0] == '-';
	if (!take_char(s, "+-") || !take_digits(s, 2, OFFSET_MAX_H, &hours))
		return false;
	take_char(s, ":");
	if (!take_digits(s, 2, 59, &minutes))
		return false;
	*offset_out = (west ? -60 : 60) * (INT64_C(60) * hours + minutes);
	return true;
}

static int parse_date(struct span s, int64_t *time_s_out)
{
	struct tm tm = {.tm_year = 0};
	int64_t offset = 0;
	if (!take_digits(&s, 4, 9999, &tm.tm_year) || !take_char(&s, "-") ||
	    !take_digits(&s, 2, 12, &tm.tm_mon) || !take_char(&s, "-") ||
	    !take_digits(&s, 2, 31, &tm.tm_mday))
		return ERR_SYNTAX;
	if (s.len > 0 && (!take_char(&s, "Tt ") || !take_digits(&s, 2, 23, &tm.tm_hour) ||
			  !take_char(&s, ":") || !take_digits(&s, 2, 59, &tm.tm_min) ||
			  !take_seconds(&s, &tm.tm_sec) || !take_offset(&s, &offset)))
		return ERR_SYNTAX;
	if (s.len > 0 || tm.tm_mon == 0 || tm.tm_mday == 0)
		return ERR_SYNTAX;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	struct tm given = tm;
	int64_t time_s = (int64_t)timegm(&tm) - offset;
	if (given.tm_mday != tm.tm_mday) /* the 31st of a shorter month */
		return ERR_SYNTAX;
	if (time_s < 0 || time_s > MOMENT_MAX_S)
		return ERR_LIMIT;
	*time_s_out = time_s;
	return 0;
}

int moment_parse(struct span text, int64_t *time_s_out)
{
	uint64_t value;
	struct span s = span_trim(text);
	if (s.len > 4 && s.ptr[4] == '-')
		return parse_date(s, time_s_out);
	int rc = moment_parse_count(s, (uint64_t)MOMENT_MAX_S, &value);
	if (rc == 0)
		*time_s_out = (int64_t)value;
	return rc;
}
