/*
 * The policy protocol's codec.  The parser keeps nothing of a request: one that is
 * not complete is parsed again from its start, so a split at any byte gives
 * the same result as none.  What a shape tells only makes it faster: a line is taken
 * for one of a name only after all of the name and its `=` were compared.
 */
#include "proto.h"

#include "lib/base/utf8.h"

int proto_attr_find(struct span name)
{
	static const struct {
		struct span name;
		enum proto_attr attr;
	} known[] = {
		{SPAN_LIT("request"), PROTO_REQUEST},
		{SPAN_LIT("protocol_state"), PROTO_STATE},
		{SPAN_LIT("instance"), PROTO_INSTANCE},
		{SPAN_LIT("client_address"), PROTO_CLIENT_ADDRESS},
		{SPAN_LIT("sender"), PROTO_SENDER},
		{SPAN_LIT("recipient"), PROTO_RECIPIENT},
		{SPAN_LIT("recipient_count"), PROTO_RECIPIENT_COUNT},
		{SPAN_LIT("size"), PROTO_SIZE},
		{SPAN_LIT("sasl_username"), PROTO_SASL_USERNAME},
		{SPAN_LIT("queue_id"), PROTO_QUEUE_ID},
	};
	_Static_assert(sizeof(known) / sizeof(known[0]) == PROTO_ATTR_COUNT, "each attribute has its name");
	for (size_t i = 0; i < PROTO_ATTR_COUNT; i++)
		if (span_eq(name, known[i].name))
			return (int)known[i].attr;
	return ERR_NOT_FOUND;
}

/* Notes the name of TEXT in LINE. */
static int line_learn(struct span text, struct proto_line *line)
{
	const size_t name_len = span_chr(text, '=');
	if (name_len == 0 || name_len == SPAN_NPOS)
		return ERR_SYNTAX;
	*line = (struct proto_line){.attr = (int16_t)proto_attr_find(span_take(text, name_len))};
	if (name_len < BYTEMASK_PIECE) {
		memcpy(line->name, text.ptr, name_len + 1);
		line->beyond = (uint32_t)(UINT64_C(0xffffffff) << (name_len + 1));
		line->value_at = (uint16_t)(name_len + 1);
	}
	return 0;
}

/* Makes LINE that of TEXT, which was not recognised at a glance: near the end of what has come
 * there are too few bytes for one, so it may be that already. */
__attribute__((cold)) static int line_other(struct span text, struct proto_line *line)
{
	if (line->value_at > 0 && text.len >= line->value_at && memcmp(text.ptr, line->name, line->value_at) == 0)
		return 0;
	return line_learn(text, line);
}

/* Copies REST, less than a block, to MEM, with zeros behind it. */
__attribute__((cold)) static const char *block_fill(char mem[BYTEMASK_BLOCK], struct span rest)
{
	memset(mem, 0, BYTEMASK_BLOCK);
	memcpy(mem, rest.ptr, rest.len);
	return mem;
}

/* Finds where the lines of WHOLE end, up to the empty one, which may not be there: r->len is 0 then. */
static int ends_find(struct span whole, struct proto_request *r)
{
	char last[BYTEMASK_BLOCK]; /* what is no whole block, and zeros */
	uint16_t *out = r->ends, *const limit = r->ends + PROTO_ATTRS_MAX;
	uint64_t before = 1; /* whether an end stands right before the block */
	for (size_t from = 0; from < whole.len && out <= limit; from += BYTEMASK_BLOCK) {
		const char *block = whole.ptr + from;
		if (whole.len - from < BYTEMASK_BLOCK)
			block = block_fill(last, span_skip(whole, from));
		uint64_t ends = bytemask_of(block, '\n');
		const uint64_t empty = ends & (ends << 1 | before);
		before = ends >> (BYTEMASK_BLOCK - 1);
		for (ends = empty == 0 ? ends : ends & ((empty & -empty) - 1); ends != 0; ends &= ends - 1)
			*out++ = (uint16_t)(from + bytemask_first(ends));
		if (empty != 0) {
			r->len = from + bytemask_first(empty) + 1;
			break;
		}
	}
	r->line_count = (size_t)(out - r->ends);
	return out <= limit ? 0 : ERR_LIMIT;
}

/* Takes the lines of R; the first COMPARABLE bytes have BYTEMASK_PIECE bytes from there on. */
static int lines_take(struct proto_request *r, struct proto_shape *shape, size_t comparable)
{
	const char *const text = r->text;
	const size_t count = r->line_count;
	unsigned known = 0;
	for (size_t i = 0, at = 0; i < count; at = r->ends[i++] + 1u) {
		struct proto_line *line = &shape->lines[i];
		/* Nothing is known of a line whose value_at is 0, though NULs would be the same as its name. */
		if (at >= comparable || line->value_at == 0 ||
		    (bytemask_same(text + at, line->name) | line->beyond) != UINT32_MAX) {
			int rc = line_other(span_of(text + at, r->ends[i] - at), line);
			if (rc < 0)
				return rc;
		}
		if (line->attr >= 0) {
			const size_t value = at + line->value_at;
			known++;
			r->attr[line->attr] = span_of(text + value, r->ends[i] - value);
		}
	}
	/* A name that came twice was counted twice. */
	for (size_t i = 0; i < PROTO_ATTR_COUNT; i++)
		known -= r->attr[i].ptr != NULL;
	return known == 0 ? 0 : ERR_SYNTAX;
}

/* Whether none of the lines that end in R, and what follows in WHOLE, is longer than may be. */
static bool lines_fit(struct span whole, const struct proto_request *r)
{
	size_t at = 0;
	for (size_t i = 0; i < r->line_count; at = r->ends[i++] + 1u)
		if (r->ends[i] - at > PROTO_LINE_MAX)
			return false;
	return r->len > 0 || whole.len - at <= PROTO_LINE_MAX;
}

int proto_request_parse_alike(struct span in, struct proto_shape *shape, struct proto_request *request_out)
{
	struct proto_request *r = request_out;
	const struct span whole = span_take(in, PROTO_REQUEST_MAX);
	for (size_t i = 0; i < PROTO_ATTR_COUNT; i++)
		r->attr[i] = SPAN_EMPTY;
	r->text = whole.ptr;
	r->len = 0;
	int rc = ends_find(whole, r);
	if (rc == 0 && whole.len > PROTO_LINE_MAX && !lines_fit(whole, r))
		rc = ERR_LIMIT;
	if (rc == 0)
		rc = lines_take(r, shape, whole.len < BYTEMASK_PIECE ? 0 : whole.len - BYTEMASK_PIECE + 1);
	if (rc < 0)
		return rc;
	if (r->len == 0) /* no end within what may come? */
		return whole.len == PROTO_REQUEST_MAX ? ERR_LIMIT : ERR_AGAIN;
	if (memchr(in.ptr, '\0', r->len) != NULL ||
	    !span_eq(r->attr[PROTO_REQUEST], SPAN_LIT("smtpd_access_policy")))
		return ERR_SYNTAX;
	return 0;
}

int proto_request_parse(struct span in, struct proto_request *request_out)
{
	struct proto_shape unknown;
	memset(&unknown, 0, sizeof(unknown));
	return proto_request_parse_alike(in, &unknown, request_out);
}

struct span proto_request_attr(const struct proto_request *request, struct span name)
{
	size_t at = 0;
	for (size_t i = 0; i < request->line_count; at = request->ends[i++] + 1u) {
		struct span line = span_of(request->text + at, request->ends[i] - at);
		/* A name has no `=`, so this is the line's first. */
		if (line.len > name.len && line.ptr[name.len] == '=' && span_eq(span_take(line, name.len), name))
			return span_of(line.ptr + name.len + 1, line.len - name.len - 1);
	}
	return SPAN_EMPTY;
}

static bool text_is_clean(struct span text)
{
	while (text.len > 0) {
		size_t len = utf8_length(text);
		unsigned char first = (unsigned char)text.ptr[0];
		if (len == 0 || first < 0x20 || first == 0x7f)
			return false;
		text = span_skip(text, len);
	}
	return true;
}

int proto_reply_add(enum proto_action action, struct span text, struct sbuf *out)
{
	static const char *const heads[] = {
		[PROTO_DEFER] = "action=450 4.7.1 ",
		[PROTO_REJECT] = "action=550 5.7.1 ",
		[PROTO_HOLD] = "action=HOLD ",
		[PROTO_FULL] = "action=552 5.2.2 ",
	};
	size_t start = out->len;
	if (action == PROTO_DUNNO) {
		sbuf_add(out, SPAN_LIT("action=DUNNO\n\n"));
	} else {
		/* Without a text, "action=450 4.7.1 " would reach the client bare. */
		if (span_trim(text).len == 0 || !text_is_clean(text))
			return ERR_SYNTAX;
		if (text.len > PROTO_TEXT_MAX)
			return ERR_LIMIT;
		sbuf_adds(out, heads[action]);
		sbuf_add(out, text);
		sbuf_add(out, SPAN_LIT("\n\n"));
	}
	if (sbuf_ok(out))
		return 0;
	sbuf_truncate(out, start);
	return ERR_LIMIT;
}
