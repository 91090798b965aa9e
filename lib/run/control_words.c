/*
 * The request line as words.  A decoded word never grows, so a memory of the
 * line's length always suffices.
 */
#include "control.h"

static bool is_plain(char c)
{
	return (unsigned char)c > ' ' && c != '%' && c != 0x7f;
}

void control_word_add(struct sbuf *line, struct span word)
{
	if (line->len > 0)
		sbuf_addc(line, ' ');
	if (word.len == 0)
		sbuf_addc(line, '%');
	for (size_t i = 0; i < word.len; i++) {
		if (is_plain(word.ptr[i])) {
			sbuf_addc(line, word.ptr[i]);
		} else {
			sbuf_addc(line, '%');
			sbuf_add_hex(line, span_of(word.ptr + i, 1));
		}
	}
}

static int decode(struct span word, struct sbuf *mem)
{
	if (span_eq(word, SPAN_LIT("%")))
		return 0;
	while (word.len > 0) {
		if (word.ptr[0] == '%') {
			if (word.len < 3 || sbuf_add_unhex(mem, span_of(word.ptr + 1, 2)) < 0)
				return ERR_SYNTAX;
			word = span_skip(word, 3);
		} else {
			sbuf_addc(mem, word.ptr[0]);
			word = span_skip(word, 1);
		}
	}
	return 0;
}

int control_words_parse(struct span line, struct sbuf *mem, struct span *words, size_t *count_out)
{
	size_t ends[CONTROL_WORDS_MAX], start = mem->len, count = 0;
	while (line.len > 0) {
		struct span word;
		span_cut(&line, ' ', &word);
		if (word.len == 0)
			continue;
		if (count == CONTROL_WORDS_MAX)
			return ERR_LIMIT;
		if (decode(word, mem) < 0)
			return ERR_SYNTAX;
		ends[count++] = mem->len;
	}
	if (!sbuf_ok(mem))
		return ERR_LIMIT;
	for (size_t i = 0; i < count; i++) {
		words[i] = ends[i] == start ? SPAN_EMPTY : span_of(mem->ptr + start, ends[i] - start);
		start = ends[i];
	}
	*count_out = count;
	return 0;
}
