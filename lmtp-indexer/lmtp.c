/*
 * Parser and encoder of LMTP.  A command or reply is looked at only as a whole
 * line; lines hold neither CR, LF nor NUL once they were accepted here, which
 * is what makes it safe to pass their parts on to the other side.
 */
#include "lmtp.h"

#include "lib/base/num.h"

#define CHUNK_SIZE_MAX (UINT64_C(1) << 40)

static const struct {
	const char *word;
	enum lmtp_verb verb;
} verbs[] = {
	{"LHLO", LMTP_LHLO}, {"MAIL", LMTP_MAIL}, {"RCPT", LMTP_RCPT},
	{"DATA", LMTP_DATA}, {"BDAT", LMTP_BDAT}, {"RSET", LMTP_RSET},
	{"NOOP", LMTP_NOOP}, {"VRFY", LMTP_VRFY}, {"QUIT", LMTP_QUIT},
};

static bool is_clean(struct span s)
{
	return span_chr(s, '\r') == SPAN_NPOS && span_chr(s, '\n') == SPAN_NPOS &&
	       span_chr(s, '\0') == SPAN_NPOS;
}

static enum lmtp_verb verb_of(struct span word)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (span_ieq(word, span_str(verbs[i].word)))
			return verbs[i].verb;
	return LMTP_UNKNOWN;
}

/* Length of the path behind '<' up to its '>', quotes respected. */
static size_t path_length(struct span s)
{
	bool quoted = false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.ptr[i] == '"')
			quoted = !quoted;
		else if (quoted && s.ptr[i] == '\\')
			i++;
		else if (!quoted && s.ptr[i] == '>')
			return i;
		else if (!quoted && (s.ptr[i] == '<' || s.ptr[i] == ' '))
			return SPAN_NPOS;
	}
	return SPAN_NPOS;
}

/* "FROM:<path> params"; a space after the colon is let pass, as many send it. */
static int parse_path(struct span rest, struct span keyword, struct lmtp_command *c)
{
	if (!span_istarts(rest, keyword))
		return ERR_SYNTAX;
	rest = span_skip(rest, keyword.len);
	while (rest.len > 0 && rest.ptr[0] == ' ')
		rest = span_skip(rest, 1);
	if (rest.len == 0 || rest.ptr[0] != '<')
		return ERR_SYNTAX;
	rest = span_skip(rest, 1);
	size_t len = path_length(rest);
	if (len == SPAN_NPOS || len > LMTP_PATH_MAX)
		return ERR_SYNTAX;
	struct span after = span_skip(rest, len + 1);
	if (after.len > 0 && after.ptr[0] != ' ')
		return ERR_SYNTAX;
	c->path = span_take(rest, len);
	c->params = span_trim(after);
	return 0;
}

static int parse_bdat(struct span rest, struct lmtp_command *c)
{
	struct span number;
	uint64_t bytes;
	bool more = span_cut(&rest, ' ', &number);
	rest = span_trim(rest);
	if (more && rest.len > 0 && !span_ieq(rest, SPAN_LIT("LAST")))
		return ERR_SYNTAX;
	if (num_parse_u64(number, CHUNK_SIZE_MAX, &bytes) < 0)
		return ERR_SYNTAX;
	c->chunk_bytes = bytes;
	c->last = rest.len > 0;
	return 0;
}

static int parse_arguments(struct span rest, struct lmtp_command *c)
{
	switch (c->verb) {
	case LMTP_MAIL:
		return parse_path(rest, SPAN_LIT("FROM:"), c);
	case LMTP_RCPT:
		if (parse_path(rest, SPAN_LIT("TO:"), c) < 0 || c->path.len == 0)
			return ERR_SYNTAX;
		return 0;
	case LMTP_BDAT:
		return parse_bdat(rest, c);
	case LMTP_LHLO:
		c->name = rest;
		return rest.len > 0 && rest.len <= 255 ? 0 : ERR_SYNTAX;
	case LMTP_NOOP:
	case LMTP_VRFY:
		return 0;
	case LMTP_UNKNOWN:
		return ERR_SYNTAX;
	default:
		return rest.len == 0 ? 0 : ERR_SYNTAX;
	}
}

int lmtp_command_parse(struct span line, struct lmtp_command *command_out)
{
	struct lmtp_command c = {.verb = LMTP_UNKNOWN};
	struct span rest = line, word;
	int rc = ERR_SYNTAX;
	if (is_clean(line)) {
		span_cut(&rest, ' ', &word);
		c.verb = verb_of(word);
		rc = parse_arguments(span_trim(rest), &c);
	}
	*command_out = c;
	return rc;
}

/* A keyword of esmtp-param: ALPHA or DIGIT, then also "-". */
static bool is_keyword(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!ascii_isalnum(s.ptr[i]) && (i == 0 || s.ptr[i] != '-'))
			return false;
	return s.len > 0;
}

static bool is_value(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.ptr[i] <= ' ' || s.ptr[i] == '=' || s.ptr[i] == 0x7f)
			return false;
	return s.len > 0;
}

static bool offered_for(struct span key, struct span value, bool rcpt, const struct lmtp_caps *caps)
{
	if (rcpt)
		return caps->dsn && (span_ieq(key, SPAN_LIT("NOTIFY")) || span_ieq(key, SPAN_LIT("ORCPT")));
	if (span_ieq(key, SPAN_LIT("BODY")))
		return caps->eightbitmime &&
		       (span_ieq(value, SPAN_LIT("7BIT")) || span_ieq(value, SPAN_LIT("8BITMIME")));
	if (span_ieq(key, SPAN_LIT("SMTPUTF8")))
		return caps->smtputf8 && value.len == 0;
	if (span_ieq(key, SPAN_LIT("SIZE")))
		return caps->size;
	return caps->dsn && (span_ieq(key, SPAN_LIT("RET")) || span_ieq(key, SPAN_LIT("ENVID")));
}

int lmtp_params_check(struct span params, bool rcpt, const struct lmtp_caps *offered)
{
	struct span word, value;
	while (params.len > 0) {
		span_cut(&params, ' ', &word);
		if (word.len == 0)
			continue;
		value = word;
		struct span key;
		bool has_value = span_cut(&value, '=', &key);
		if (!is_keyword(key) || (has_value && !is_value(value)))
			return ERR_SYNTAX;
		if (!offered_for(key, value, rcpt, offered))
			return ERR_PERM;
	}
	return 0;
}

/* One line of a reply: its length with the line end; sets code, last, text. */
static int parse_reply_line(struct span in, struct lmtp_reply *r, bool *last, size_t *len_out)
{
	size_t lf = span_chr(span_take(in, LMTP_REPLY_LINE_MAX), '\n');
	if (lf == SPAN_NPOS)
		return in.len >= LMTP_REPLY_LINE_MAX ? ERR_LIMIT : ERR_AGAIN;
	struct span line = span_take(in, lf);
	if (span_ends(line, SPAN_LIT("\r")))
		line.len--;
	uint64_t code;
	if (!is_clean(line) || num_parse_u64(span_take(line, 3), 599, &code) < 0 || code < 200 ||
	    (r->code != 0 && code != r->code))
		return ERR_SYNTAX;
	*last = line.len == 3 || line.ptr[3] == ' ';
	if (!*last && line.ptr[3] != '-')
		return ERR_SYNTAX;
	r->code = (unsigned)code;
	r->text = span_skip(line, 4);
	*len_out = lf + 1;
	return 0;
}

int lmtp_reply_parse(struct span in, struct lmtp_reply *reply_out, size_t *used_out)
{
	struct lmtp_reply r = {0};
	size_t used = 0, len;
	bool last = false;
	while (!last) {
		if (used >= LMTP_REPLY_MAX)
			return ERR_LIMIT;
		int rc = parse_reply_line(span_skip(in, used), &r, &last, &len);
		if (rc < 0)
			return rc;
		used += len;
	}
	r.raw = span_take(in, used);
	*reply_out = r;
	*used_out = used;
	return 0;
}

void lmtp_reply_add(struct sbuf *out, const struct lmtp_reply *reply)
{
	struct span rest = reply->raw, line;
	while (rest.len > 0) {
		span_cut(&rest, '\n', &line);
		if (span_ends(line, SPAN_LIT("\r")))
			line.len--;
		sbuf_add(out, line);
		sbuf_adds(out, "\r\n");
	}
}

struct span lmtp_reply_status(const struct lmtp_reply *reply)
{
	struct span rest = reply->text, word;
	span_cut(&rest, ' ', &word);
	unsigned dots = 0;
	for (size_t i = 0; i < word.len; i++) {
		if (word.ptr[i] == '.')
			dots++;
		else if (!ascii_isdigit(word.ptr[i]))
			return SPAN_EMPTY;
	}
	return dots == 2 && word.len <= 11 ? word : SPAN_EMPTY;
}

static void note_xclient(struct span words, struct lmtp_caps *caps)
{
	struct span word;
	while (words.len > 0) {
		span_cut(&words, ' ', &word);
		if (span_ieq(word, SPAN_LIT("SESSION")))
			caps->xclient_session = true;
		else if (span_ieq(word, SPAN_LIT("TIMEOUT")))
			caps->xclient_timeout = true;
	}
}

static void note_capability(struct span line, struct lmtp_caps *caps)
{
	struct span rest = line, word;
	span_cut(&rest, ' ', &word);
	if (span_ieq(word, SPAN_LIT("8BITMIME"))) {
		caps->eightbitmime = true;
	} else if (span_ieq(word, SPAN_LIT("SMTPUTF8"))) {
		caps->smtputf8 = true;
	} else if (span_ieq(word, SPAN_LIT("ENHANCEDSTATUSCODES"))) {
		caps->enhanced = true;
	} else if (span_ieq(word, SPAN_LIT("PIPELINING"))) {
		caps->pipelining = true;
	} else if (span_ieq(word, SPAN_LIT("CHUNKING"))) {
		caps->chunking = true;
	} else if (span_ieq(word, SPAN_LIT("DSN"))) {
		caps->dsn = true;
	} else if (span_ieq(word, SPAN_LIT("SIZE"))) {
		caps->size = true;
		if (num_parse_u64(rest, UINT64_MAX, &caps->size_max) < 0)
			caps->size_max = 0;
	} else if (span_ieq(word, SPAN_LIT("XCLIENT"))) {
		note_xclient(rest, caps);
	}
}

struct lmtp_caps lmtp_caps_parse(const struct lmtp_reply *reply)
{
	struct lmtp_caps caps = {0};
	struct span rest = reply->raw, line;
	span_cut(&rest, '\n', &line); /* the first line is the host's name */
	while (rest.len > 0) {
		span_cut(&rest, '\n', &line);
		note_capability(span_trim(span_skip(line, 4)), &caps);
	}
	return caps;
}

void lmtp_caps_add(struct sbuf *out, struct span host, const struct lmtp_caps *caps)
{
	const struct {
		bool on;
		const char *word;
	} rows[] = {
		{caps->eightbitmime, "8BITMIME"}, {caps->smtputf8, "SMTPUTF8"},
		{caps->enhanced, "ENHANCEDSTATUSCODES"}, {caps->chunking, "CHUNKING"},
		{caps->dsn, "DSN"},
	};
	sbuf_adds(out, "250-");
	sbuf_add(out, host);
	sbuf_adds(out, "\r\n");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].on)
			sbuf_addf(out, "250-%s\r\n", rows[i].word);
	if (caps->size && caps->size_max > 0)
		sbuf_addf(out, "250-SIZE %llu\r\n", (unsigned long long)caps->size_max);
	else if (caps->size)
		sbuf_adds(out, "250-SIZE\r\n");
	sbuf_adds(out, "250 PIPELINING\r\n");
}

static int add_path_command(struct sbuf *out, const char *words, struct span path, struct span params)
{
	if (!is_clean(path) || !is_clean(params) || path.len > LMTP_PATH_MAX)
		return ERR_SYNTAX;
	/* A path that our own parser would read otherwise is not sent. */
	struct sbuf probe;
	char mem[LMTP_PATH_MAX + 2];
	sbuf_init(&probe, mem, sizeof(mem));
	sbuf_add(&probe, path);
	sbuf_addc(&probe, '>');
	if (path_length(sbuf_span(&probe)) != path.len)
		return ERR_SYNTAX;
	sbuf_adds(out, words);
	sbuf_add(out, path);
	sbuf_addc(out, '>');
	if (params.len > 0)
		sbuf_addc(out, ' ');
	sbuf_add(out, params);
	sbuf_adds(out, "\r\n");
	return 0;
}

int lmtp_mail_add(struct sbuf *out, struct span path, struct span params)
{
	return add_path_command(out, "MAIL FROM:<", path, params);
}

int lmtp_rcpt_add(struct sbuf *out, struct span path, struct span params)
{
	return add_path_command(out, "RCPT TO:<", path, params);
}
