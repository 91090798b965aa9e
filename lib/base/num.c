/*
 * Numbers with units.  All arithmetic is checked against the caller's maximum
 * before it is done, so nothing wraps.
 */
#include "num.h"

struct unit {
	const char *name;
	uint64_t factor;
};

static int parse_digits(struct span *s, uint64_t *value_out)
{
	uint64_t value = 0;
	size_t i = 0;
	for (; i < s->len && ascii_isdigit(s->ptr[i]); i++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(s->ptr[i] - '0'), &value))
			return ERR_LIMIT;
	if (i == 0)
		return ERR_SYNTAX;
	*s = span_skip(*s, i);
	*value_out = value;
	return 0;
}

static int parse_with_unit(struct span s, const struct unit *units, uint64_t max, uint64_t *value_out)
{
	uint64_t value = 0;
	int rc = parse_digits(&s, &value);
	if (rc < 0)
		return rc;
	for (; units->name != NULL; units++)
		if (span_ieq(s, span_str(units->name)))
			break;
	if (units->name == NULL)
		return ERR_SYNTAX;
	if (__builtin_mul_overflow(value, units->factor, &value) || value > max)
		return ERR_LIMIT;
	*value_out = value;
	return 0;
}

int num_parse_u64(struct span s, uint64_t max, uint64_t *value_out)
{
	static const struct unit none[] = {{"", 1}, {NULL, 0}};
	return parse_with_unit(s, none, max, value_out);
}

int num_parse_size(struct span s, uint64_t max_bytes, uint64_t *bytes_out)
{
	static const struct unit units[] = {
		{"", 1},
		{"K", UINT64_C(1) << 10},
		{"M", UINT64_C(1) << 20},
		{"G", UINT64_C(1) << 30},
		{"T", UINT64_C(1) << 40},
		{NULL, 0},
	};
	return parse_with_unit(s, units, max_bytes, bytes_out);
}

int num_parse_duration(struct span s, uint64_t max_ms, uint64_t *ms_out)
{
	static const struct unit units[] = {
		{"", 1000},        {"ms", 1},          {"s", 1000},         {"m", 60000},
		{"h", 3600000},    {"d", 86400000},    {"w", 604800000},    {NULL, 0},
	};
	return parse_with_unit(s, units, max_ms, ms_out);
}
