/*
 * The policy protocol's codec.  The parser keeps no state: a request that is
 * not complete is parsed again from its start, so a split at any byte gives
 * the same result as none.
 */
#include "proto.h"

#include "lib/base/bytemask.h"
#include "lib/base/utf8.h"

/* This runs some thirty times for each request: whatever its length, a name is compared
 * once or twice, in a word or two. */
static inline int attr_find(struct span name)
{
#define IS(text) (memcmp(name.ptr, text, sizeof(text) - 1) == 0)
	switch (name.len) {
	case 4:
		return IS("size") ? PROTO_SIZE : ERR_NOT_FOUND;
	case 6:
		return IS("sender") ? PROTO_SENDER : ERR_NOT_FOUND;
	case 7:
		return IS("request") ? PROTO_REQUEST : ERR_NOT_FOUND;
	case 8:
		return IS("instance") ? PROTO_INSTANCE : IS("queue_id") ? PROTO_QUEUE_ID : ERR_NOT_FOUND;
	case 9:
		return IS("recipient") ? PROTO_RECIPIENT : ERR_NOT_FOUND;
	case 13:
		return IS("sasl_username") ? PROTO_SASL_USERNAME : ERR_NOT_FOUND;
	case 14:
		return IS("protocol_state") ? PROTO_STATE : IS("client_address") ? PROTO_CLIENT_ADDRESS : ERR_NOT_FOUND;
	case 15:
		return IS("recipient_count") ? PROTO_RECIPIENT_COUNT : ERR_NOT_FOUND;
	default:
		return ERR_NOT_FOUND;
	}
#undef IS
}

int proto_attr_find(struct span name)
{
	return attr_find(name);
}

/* Adds the line from AT to END, with its first `=` at SIGN, to R; without one SIGN is NULL.
 * SEEN has a bit for each of the known attributes that came before. */
static inline int line_add(const char *at, const char *sign, const char *end, unsigned *seen, struct proto_request *r)
{
	if (end - at > PROTO_LINE_MAX)
		return ERR_LIMIT;
	if (sign == NULL || sign == at)
		return ERR_SYNTAX;
	if (r->pair_count == PROTO_ATTRS_MAX)
		return ERR_LIMIT;
	const size_t name_len = (size_t)(sign - at), value_len = (size_t)(end - sign - 1);
	r->pairs[r->pair_count++] = (struct proto_pair){at, (uint16_t)name_len, (uint16_t)value_len};
	int attr = attr_find(span_of(at, name_len));
	if (attr < 0)
		return 0;
	if ((*seen >> attr & 1) != 0)
		return ERR_SYNTAX;
	*seen |= 1u << attr;
	r->attr[attr] = span_of(sign + 1, value_len);
	return 0;
}

/* The block of WHOLE at FROM: what is behind the end is zeros, in MEM. */
static inline const char *block_at(struct span whole, size_t from, char mem[BYTEMASK_BLOCK])
{
	if (whole.len - from >= BYTEMASK_BLOCK)
		return whole.ptr + from;
	memset(mem, 0, BYTEMASK_BLOCK);
	memcpy(mem, whole.ptr + from, whole.len - from);
	return mem;
}

static inline void unsent_clear(unsigned seen, struct proto_request *r)
{
	for (int i = 0; i < PROTO_ATTR_COUNT; i++)
		if ((seen >> i & 1) == 0)
			r->attr[i] = SPAN_EMPTY;
}

/* Parses the lines up to the empty one into R, in one pass over blocks. */
static int lines_parse(struct span in, struct proto_request *r)
{
	struct span whole = span_take(in, PROTO_REQUEST_MAX);
	const char *at = whole.ptr, *sign = NULL; /* of the line in hand */
	unsigned seen = 0;
	char mem[BYTEMASK_BLOCK];
	for (size_t from = 0; from < whole.len; from += BYTEMASK_BLOCK) {
		const char *block = block_at(whole, from, mem), *base = whole.ptr + from;
		uint64_t signs = bytemask_of(block, '='), ends = bytemask_of(block, '\n');
		for (; ends != 0; ends &= ends - 1) {
			const uint64_t upto = ends ^ (ends - 1); /* bits of this line */
			const char *end = base + bytemask_first(ends);
			if (end == at) {
				r->len = (size_t)(end + 1 - whole.ptr);
				unsent_clear(seen, r);
				return 0;
			}
			if (sign == NULL && (signs & upto) != 0)
				sign = base + bytemask_first(signs);
			int rc = line_add(at, sign, end, &seen, r);
			if (rc < 0)
				return rc;
			signs &= ~upto;
			at = end + 1;
			sign = NULL;
		}
		if (sign == NULL && signs != 0)
			sign = base + bytemask_first(signs);
	}
	/* No end within what may come. */
	size_t left = (size_t)(whole.ptr + whole.len - at);
	return whole.len == PROTO_REQUEST_MAX || left > PROTO_LINE_MAX ? ERR_LIMIT : ERR_AGAIN;
}

int proto_request_parse(struct span in, struct proto_request *request_out)
{
	struct proto_request *r = request_out;
	r->pair_count = 0;
	r->len = 0;
	int rc = lines_parse(in, r);
	if (rc < 0)
		return rc;
	if (memchr(in.ptr, '\0', r->len) != NULL ||
	    !span_eq(r->attr[PROTO_REQUEST], SPAN_LIT("smtpd_access_policy")))
		return ERR_SYNTAX;
	return 0;
}

struct span proto_request_attr(const struct proto_request *request, struct span name)
{
	for (size_t i = 0; i < request->pair_count; i++) {
		const struct proto_pair *pair = &request->pairs[i];
		if (span_eq(span_of(pair->name, pair->name_len), name))
			return span_of(pair->name + pair->name_len + 1, pair->value_len);
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
