/*
 * The words of options.  Every function takes what it has read off the front of
 * REST and leaves the rest.
 */
#include "grammar.h"

#include "lib/base/num.h"
#include "policyd-ratelimit/window.h"

struct span grammar_word_take(struct span *rest, const char *stops)
{
	size_t len = 0;
	*rest = span_skip(*rest, 0);
	while (rest->len > 0 && ascii_isfws(rest->ptr[0]))
		*rest = span_skip(*rest, 1);
	while (len < rest->len && !ascii_isfws(rest->ptr[len]) &&
	       (rest->ptr[len] == '\0' || strchr(stops, rest->ptr[len]) == NULL))
		len++;
	struct span word = span_take(*rest, len);
	*rest = span_skip(*rest, len);
	return word;
}

bool grammar_punct_take(struct span *rest, struct span punct)
{
	struct span trimmed = span_trim(*rest);
	if (!span_starts(trimmed, punct))
		return false;
	*rest = span_skip(trimmed, punct.len);
	return true;
}

int grammar_value_take(struct span *rest, struct span *value_out, struct sbuf *reason)
{
	if (grammar_punct_take(rest, SPAN_LIT("\""))) {
		if (span_cut(rest, '"', value_out))
			return 0;
		sbuf_adds(reason, "a quoted value does not end");
		return ERR_SYNTAX;
	}
	struct span word = grammar_word_take(rest, "\"");
	if (word.len == 0) {
		sbuf_adds(reason, "a value is missing after `='; write \"\" for an empty one");
		return ERR_SYNTAX;
	}
	*value_out = word;
	return 0;
}

int grammar_prefix_parse(struct span value, uint64_t max, uint8_t *prefix, struct sbuf *reason)
{
	uint64_t number = 0;
	if (num_parse_u64(value, max, &number) < 0) {
		sbuf_addf(reason, "`%.*s' is not a prefix length of 0 to %llu", SPAN_ARG(value),
			  (unsigned long long)max);
		return ERR_SYNTAX;
	}
	*prefix = (uint8_t)number;
	return 0;
}

int grammar_option_once(const char *const *names, struct span name, unsigned *seen, struct sbuf *reason)
{
	for (unsigned i = 0; names[i] != NULL; i++) {
		if (!span_ieq(name, span_str(names[i])))
			continue;
		if ((*seen >> i & 1) != 0) {
			sbuf_addf(reason, "`%s' is given twice", names[i]);
			return ERR_EXISTS;
		}
		*seen |= 1u << i;
	}
	return 0;
}

int grammar_length_parse(struct span text, int64_t *length_ms_out, struct sbuf *reason)
{
	uint64_t length_ms = 0;
	if (text.len == 0 || !ascii_isalpha(text.ptr[text.len - 1]) ||
	    num_parse_duration(text, (uint64_t)WINDOW_LENGTH_MAX_MS, &length_ms) < 0 ||
	    length_ms < (uint64_t)WINDOW_LENGTH_MIN_MS || length_ms % 1000 != 0) {
		sbuf_addf(reason, "`%.*s' is not a window of 5s to 366d", SPAN_ARG(text));
		return ERR_SYNTAX;
	}
	*length_ms_out = (int64_t)length_ms;
	return 0;
}
