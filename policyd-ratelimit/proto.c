/*
 * The policy protocol's codec.  The parser keeps no state: a request that is
 * not complete is parsed again from its start, so a split at any byte gives
 * the same result as none.
 */
#include "proto.h"

#include "lib/base/utf8.h"

struct known_attr {
	const char *name; /* NULL: none */
	enum proto_attr attr;
};

#define KNOWN_LEN_MAX 15

/* The attribute of that name, or -1.  This runs some thirty times for each
 * request, so a name is compared with those of its length only. */
static int known_attr_find(struct span name)
{
	static const struct known_attr by_length[KNOWN_LEN_MAX + 1][2] = {
		[4] = {{"size", PROTO_SIZE}},
		[6] = {{"sender", PROTO_SENDER}},
		[7] = {{"request", PROTO_REQUEST}},
		[8] = {{"instance", PROTO_INSTANCE}, {"queue_id", PROTO_QUEUE_ID}},
		[9] = {{"recipient", PROTO_RECIPIENT}},
		[13] = {{"sasl_username", PROTO_SASL_USERNAME}},
		[14] = {{"protocol_state", PROTO_STATE}, {"client_address", PROTO_CLIENT_ADDRESS}},
		[15] = {{"recipient_count", PROTO_RECIPIENT_COUNT}},
	};
	if (name.len > KNOWN_LEN_MAX)
		return -1;
	const struct known_attr *row = by_length[name.len];
	for (int i = 0; i < 2 && row[i].name != NULL; i++)
		if (row[i].name[0] == name.ptr[0] && memcmp(row[i].name, name.ptr, name.len) == 0)
			return (int)row[i].attr;
	return -1;
}

/* Parses the line from AT to END (its newline) into the next pair of R. */
static inline int line_parse(const char *at, const char *end, struct proto_request *r)
{
	const char *sign = memchr(at, '=', (size_t)(end - at));
	if (sign == NULL || sign == at)
		return ERR_SYNTAX;
	if (r->pair_count == PROTO_ATTRS_MAX)
		return ERR_LIMIT;
	struct proto_pair *pair = &r->pairs[r->pair_count++];
	pair->name = span_of(at, (size_t)(sign - at));
	pair->value = span_of(sign + 1, (size_t)(end - sign - 1));
	int attr = known_attr_find(pair->name);
	if (attr < 0)
		return 0;
	if (r->attr[attr].ptr != NULL)
		return ERR_SYNTAX;
	r->attr[attr] = pair->value;
	return 0;
}

/* Parses the lines up to the empty one into R. */
static int lines_parse(struct span in, struct proto_request *r)
{
	struct span whole = span_take(in, PROTO_REQUEST_MAX);
	const char *at = whole.ptr, *stop = whole.ptr + whole.len, *end;
	for (; at < stop && (end = memchr(at, '\n', (size_t)(stop - at))) != NULL; at = end + 1) {
		if (end == at) {
			r->len = (size_t)(end + 1 - whole.ptr);
			return 0;
		}
		if (end - at > PROTO_LINE_MAX)
			return ERR_LIMIT;
		int rc = line_parse(at, end, r);
		if (rc < 0)
			return rc;
	}
	/* No end within what may come. */
	return whole.len == PROTO_REQUEST_MAX || stop - at > PROTO_LINE_MAX ? ERR_LIMIT : ERR_AGAIN;
}

int proto_request_parse(struct span in, struct proto_request *request_out)
{
	struct proto_request *r = request_out;
	memset(r->attr, 0, sizeof(r->attr));
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
	for (size_t i = 0; i < request->pair_count; i++)
		if (span_eq(request->pairs[i].name, name))
			return request->pairs[i].value;
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
