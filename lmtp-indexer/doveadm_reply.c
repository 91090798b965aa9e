/* Runs of plain bytes are handed on as they stand, so that a large mail is
 * copied once. */
#include "lmtp-indexer/doveadm_reply.h"

#define SOH '\x01'

void doveadm_reply_init(struct doveadm_reply *r, void (*piece)(void *, size_t, struct span, bool), void *arg)
{
	*r = (struct doveadm_reply){.piece = piece, .arg = arg};
}

static void hand_on(struct doveadm_reply *r, struct span bytes, bool last)
{
	r->within = !last;
	r->piece(r->arg, r->index, bytes, last);
	r->index += last;
}

static int unescape(struct doveadm_reply *r, char c)
{
	static const char codes[] = "01trn", values[] = {'\0', SOH, '\t', '\r', '\n'};
	const char *at = memchr(codes, c, sizeof(codes) - 1);
	if (at == NULL)
		return ERR_SYNTAX;
	r->escaped = false;
	hand_on(r, span_of(&values[at - codes], 1), false);
	return 0;
}

/* The status line. */
static int take_status(struct doveadm_reply *r, struct span *bytes)
{
	while (bytes->len > 0 && !r->done) {
		char c = bytes->ptr[0];
		*bytes = span_skip(*bytes, 1);
		if (c == '\n')
			r->done = true;
		else if (r->why_len == 0 && c != '+' && c != '-')
			return ERR_SYNTAX;
		else if (r->why_len < DOVEADM_WHY_MAX)
			r->why[r->why_len++] = c;
	}
	if (!r->done)
		return ERR_AGAIN;
	if (r->why_len == 0 || bytes->len > 0)
		return ERR_SYNTAX;
	r->why[r->why_len] = '\0';
	if (r->why[0] == '+')
		return 0;
	return strcmp(r->why, "-NOUSER") == 0 ? ERR_NOT_FOUND : ERR_PERM;
}

static size_t plain_length(struct span s)
{
	size_t n = 0;
	while (n < s.len && s.ptr[n] != '\t' && s.ptr[n] != '\n' && s.ptr[n] != SOH)
		n++;
	return n;
}

int doveadm_reply_feed(struct doveadm_reply *r, struct span bytes)
{
	if (r->done)
		return ERR_SYNTAX;
	while (bytes.len > 0 && !r->ending) {
		if (r->escaped) {
			if (unescape(r, bytes.ptr[0]) < 0)
				return ERR_SYNTAX;
			bytes = span_skip(bytes, 1);
			continue;
		}
		size_t n = plain_length(bytes);
		if (n > 0)
			hand_on(r, span_take(bytes, n), false);
		bytes = span_skip(bytes, n);
		if (bytes.len == 0)
			break;
		char c = bytes.ptr[0];
		bytes = span_skip(bytes, 1);
		if (c == '\n' && r->within)
			return ERR_SYNTAX;
		if (c == '\t')
			hand_on(r, SPAN_EMPTY, true);
		r->escaped = c == SOH;
		r->ending = c == '\n';
	}
	return r->ending ? take_status(r, &bytes) : ERR_AGAIN;
}

void doveadm_word_add(struct sbuf *line, struct span word)
{
	if (line->len > 0)
		sbuf_addc(line, '\t');
	for (size_t i = 0; i < word.len; i++) {
		char c = word.ptr[i];
		const char *code = c == '\0'   ? "0"
				   : c == SOH  ? "1"
				   : c == '\t' ? "t"
				   : c == '\r' ? "r"
				   : c == '\n' ? "n"
					       : NULL;
		if (code != NULL)
			sbuf_addc(line, SOH);
		if (code != NULL)
			sbuf_adds(line, code);
		else
			sbuf_addc(line, c);
	}
}
