/*
 * What GMime must not see.  Its parser of groups ("a: b, c;") calls itself for
 * each colon, so an address field of nothing but "a:a:a:..." would use up the
 * stack.  The whole message is looked at: attached messages have headers too.
 * A field takes it some 500 bytes, however short, so a top header has a cap.
 */
#include <unistd.h>

#include "lmtp-indexer/extract_internal.h"

#define COLONS_MAX 100 /* in one address field */
#define PIECE 65536

struct guard {
	char name[16]; /* of the field in hand, lower case */
	size_t name_len, colons;
	bool at_start, in_name, in_addresses;
	size_t header_bytes;
	char before[2]; /* the last bytes, the latest first */
	bool past_header;
};

static bool is_address_field(struct span name)
{
	static const char *const names[] = {"from", "sender", "reply-to", "to", "cc", "bcc"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (span_eq(name, span_str(names[i])))
			return true;
	return false;
}

static void add_to_name(struct guard *g, char c)
{
	if (c == ':') {
		g->in_name = false;
		g->in_addresses = is_address_field(span_trim(span_of(g->name, g->name_len)));
		g->colons = 1;
	} else if (g->name_len < sizeof(g->name)) {
		g->name[g->name_len++] = ascii_lower(c);
	} else {
		g->in_name = false;
	}
}

/* Most lines are text, and most of those are told by their first letter. */
static bool begins_address_field(char c)
{
	static const bool first[256] = {['b'] = true, ['c'] = true, ['f'] = true, ['r'] = true, ['s'] = true, ['t'] = true,
					['B'] = true, ['C'] = true, ['F'] = true, ['R'] = true, ['S'] = true, ['T'] = true};
	return first[(unsigned char)c];
}

static void begin_line(struct guard *g, char c)
{
	g->at_start = false;
	if (c == ' ' || c == '\t') { /* folded: the field goes on */
		g->in_name = false;
		return;
	}
	g->in_name = begins_address_field(c);
	g->in_addresses = false;
	g->name_len = 0;
}

/* False where the header goes on past its cap. */
static bool count_header(struct guard *g, struct span bytes)
{
	for (size_t i = 0; i < bytes.len && !g->past_header; i++) {
		if (++g->header_bytes > EXTRACT_HEADER_MAX)
			return false;
		/* As GMime has it, for whom a line of two CR is none that is empty. */
		const size_t cr = g->before[0] == '\r';
		g->past_header = bytes.ptr[i] == '\n' && g->before[cr] == '\n';
		g->before[1] = g->before[0];
		g->before[0] = bytes.ptr[i];
	}
	return true;
}

/* False where a field has too many colons. */
static bool count_colons(struct guard *g, struct span bytes)
{
	while (bytes.len > 0) {
		char c = bytes.ptr[0];
		if (c != '\n' && g->at_start)
			begin_line(g, c);
		if (c != '\n' && !g->in_name && !g->in_addresses) {
			size_t end = span_chr(bytes, '\n');
			bytes = end == SPAN_NPOS ? SPAN_EMPTY : span_skip(bytes, end);
			continue;
		}
		if (c == '\n') {
			g->in_addresses = g->in_addresses && !g->at_start; /* an empty line ends it */
			g->at_start = true;
		} else if (g->in_name) {
			add_to_name(g, c);
		} else if (c == ':' && ++g->colons > COLONS_MAX) {
			return false;
		}
		bytes = span_skip(bytes, 1);
	}
	return true;
}

static bool look_at(struct guard *g, struct span bytes)
{
	return count_header(g, bytes) && count_colons(g, bytes);
}

bool extract_guard(const struct extract_source *source)
{
	struct guard g = {.at_start = true, .before = "\n"};
	if (source->bytes.len > 0)
		return look_at(&g, source->bytes);
	char *piece = mem_alloc(PIECE);
	bool fine = true;
	ssize_t n;
	for (off_t at = 0; fine && (n = pread(source->fd, piece, PIECE, at)) > 0; at += n)
		fine = look_at(&g, span_of(piece, (size_t)n));
	free(piece);
	return fine;
}
