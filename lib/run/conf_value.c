/*
 * Every parser here checks the whole text and the row's bounds before it
 * writes, so a member always holds a valid value.
 */
#include "conf_value.h"

#include <inttypes.h>

#include "lib/base/num.h"

struct unit {
	const char *name;
	int64_t factor;
};

static const struct unit duration_units[] = {
	{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
static const struct unit size_units[] = {
	{"T", INT64_C(1) << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}, {"", 1}};

static void *member(const struct conf_option *option, void *data)
{
	return (char *)data + option->offset;
}

static const void *member_const(const struct conf_option *option, const void *data)
{
	return (const char *)data + option->offset;
}

/* The value in the largest unit that divides it. */
static void print_in_units(int64_t value, const struct unit *units, size_t count, struct sbuf *out)
{
	size_t i = 0;
	while (i + 1 < count && (value == 0 || value % units[i].factor != 0))
		i++;
	sbuf_addf(out, "%" PRId64 "%s", value / units[i].factor, units[i].name);
}

void conf_value_print_number(enum conf_type type, int64_t value, struct sbuf *out)
{
	if (type == CONF_DURATION)
		print_in_units(value, duration_units, 5, out);
	else if (type == CONF_SIZE)
		print_in_units(value, size_units, 5, out);
	else
		sbuf_addf(out, "%" PRId64, value);
}

static int parse_number(const struct conf_option *option, struct span text, void *data,
			struct sbuf *error)
{
	uint64_t value = 0;
	int rc = 0;
	const char *what = "a number";
	if (option->type == CONF_DURATION) {
		rc = num_parse_duration(text, INT64_MAX, &value);
		what = "a duration such as 500ms, 30s, 10m, 1h or 1d";
	} else if (option->type == CONF_SIZE) {
		rc = num_parse_size(text, INT64_MAX, &value);
		what = "a size in bytes such as 4096, 64K or 10M";
	} else {
		rc = num_parse_u64(text, INT64_MAX, &value);
	}
	if (rc == ERR_SYNTAX) {
		sbuf_addf(error, "it must be %s", what);
		return ERR_SYNTAX;
	}
	if (rc < 0 || (int64_t)value < option->min || (int64_t)value > option->max) {
		sbuf_adds(error, "it must be from ");
		conf_value_print_number(option->type, option->min, error);
		sbuf_adds(error, " to ");
		conf_value_print_number(option->type, option->max, error);
		return ERR_SYNTAX;
	}
	*(int64_t *)member(option, data) = (int64_t)value;
	return 0;
}

static int parse_bool(const struct conf_option *option, struct span text, void *data,
		      struct sbuf *error)
{
	bool yes = span_ieq(text, SPAN_LIT("yes"));
	if (!yes && !span_ieq(text, SPAN_LIT("no"))) {
		sbuf_adds(error, "it must be yes or no");
		return ERR_SYNTAX;
	}
	*(bool *)member(option, data) = yes;
	return 0;
}

static int parse_enum(const struct conf_option *option, struct span text, void *data,
		      struct sbuf *error)
{
	struct span rest = span_str(option->unit), word;
	for (int i = 0; rest.len > 0; i++) {
		span_cut(&rest, '|', &word);
		if (span_ieq(word, text)) {
			*(int *)member(option, data) = i;
			return 0;
		}
	}
	sbuf_addf(error, "it must be one of %s", option->unit);
	return ERR_SYNTAX;
}

static int parse_string(const struct conf_option *option, struct span text, struct arena *mem,
			void *data, struct sbuf *error)
{
	if ((int64_t)text.len < option->min || (int64_t)text.len > option->max) {
		sbuf_addf(error, "its length must be from %" PRId64 " to %" PRId64 " bytes",
			  option->min, option->max);
		return ERR_SYNTAX;
	}
	const char *copy = arena_strdup(mem, text);
	if (copy == NULL) {
		sbuf_adds(error, "the configuration is too large");
		return ERR_SYNTAX;
	}
	*(const char **)member(option, data) = copy;
	return 0;
}

int conf_value_parse(const struct conf_option *option, struct span text, struct arena *mem,
		     void *data, struct sbuf *error)
{
	switch (option->type) {
	case CONF_STRING:
		return parse_string(option, text, mem, data, error);
	case CONF_BOOL:
		return parse_bool(option, text, data, error);
	case CONF_ENUM:
		return parse_enum(option, text, data, error);
	case CONF_INT:
	case CONF_DURATION:
	case CONF_SIZE:
		return parse_number(option, text, data, error);
	case CONF_LIST:
		break;
	}
	PANIC("conf_value_parse of a list");
}

void conf_value_print(const struct conf_option *option, const void *data, struct sbuf *out)
{
	const void *at = member_const(option, data);
	struct span rest = span_str(option->unit), word = SPAN_EMPTY;
	switch (option->type) {
	case CONF_STRING:
		sbuf_adds(out, *(const char *const *)at);
		break;
	case CONF_BOOL:
		sbuf_adds(out, *(const bool *)at ? "yes" : "no");
		break;
	case CONF_ENUM:
		for (int i = *(const int *)at; i >= 0; i--)
			span_cut(&rest, '|', &word);
		sbuf_add(out, word);
		break;
	case CONF_INT:
	case CONF_DURATION:
	case CONF_SIZE:
		conf_value_print_number(option->type, *(const int64_t *)at, out);
		break;
	case CONF_LIST:
		PANIC("conf_value_print of a list");
	}
}

#define KEY_MAX 64
#define DISTANCE_MAX 2

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned least = a < b ? a : b;
	return least < c ? least : c;
}

/* Levenshtein distance, by one row of the matrix; both at most KEY_MAX long. */
static unsigned edit_distance(struct span a, struct span b)
{
	unsigned row[KEY_MAX + 1];
	for (unsigned j = 0; j <= b.len; j++)
		row[j] = j;
	for (unsigned i = 1; i <= a.len; i++) {
		unsigned diagonal = row[0];
		row[0] = i;
		for (unsigned j = 1; j <= b.len; j++) {
			unsigned change = diagonal + (a.ptr[i - 1] != b.ptr[j - 1]);
			diagonal = row[j];
			row[j] = min3(row[j] + 1, row[j - 1] + 1, change);
		}
	}
	return row[b.len];
}

void conf_value_suggest(const struct conf_spec *spec, struct span key, struct sbuf *error)
{
	unsigned best = DISTANCE_MAX + 1;
	const char *name = NULL;
	if (key.len > KEY_MAX)
		return;
	for (size_t i = 0; i < spec->count; i++) {
		struct span candidate = span_str(spec->options[i].name);
		if (candidate.len > KEY_MAX)
			continue;
		unsigned distance = edit_distance(key, candidate);
		if (distance < best) {
			best = distance;
			name = spec->options[i].name;
		}
	}
	if (name != NULL)
		sbuf_addf(error, " (did you mean \"%s\"?)", name);
}
