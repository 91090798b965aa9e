/*
 * The walk over a mail.  One part is decoded at a time, into a bounded buffer;
 * GMime's objects live only during the call.
 */
#include "postern/reports/mailparts.h"

#include <gmime/gmime.h>

#include "postern/reports/content.h"

#define READ_BYTES 16384

struct walk {
	mailparts_fn *found;
	void *arg;
	struct sbuf *error;
	unsigned parts, reports;
};

static int refuse(struct walk *w, int rc, const char *why)
{
	sbuf_adds(w->error, why);
	return rc;
}

/* ---- One part ---- */

static void decode(GMimePart *part, struct sbuf *out)
{
	char piece[READ_BYTES];
	GMimeDataWrapper *wrapper = g_mime_part_get_content(part);
	if (wrapper == NULL)
		return;
	GMimeStream *stream = g_mime_data_wrapper_get_stream(wrapper);
	GMimeStream *decoded = g_mime_stream_filter_new(stream);
	GMimeFilter *filter = g_mime_filter_basic_new(g_mime_data_wrapper_get_encoding(wrapper),
						      FALSE);
	g_mime_stream_filter_add(GMIME_STREAM_FILTER(decoded), filter);
	g_object_unref(filter);
	g_mime_stream_reset(stream);
	ssize_t n;
	while (sbuf_ok(out) && (n = g_mime_stream_read(decoded, piece, sizeof(piece))) > 0)
		sbuf_add(out, span_of(piece, (size_t)n));
	g_object_unref(decoded);
}

static bool is_type(GMimePart *part, const char *type, const char *subtype)
{
	return g_mime_content_type_is_type(g_mime_object_get_content_type(GMIME_OBJECT(part)), type,
					   subtype);
}

static bool has_report_name(struct span name)
{
	return span_iends(name, SPAN_LIT(".xml")) || span_iends(name, SPAN_LIT(".json")) ||
	       span_iends(name, SPAN_LIT(".gz")) || span_iends(name, SPAN_LIT(".zip"));
}

/* Pages, pictures and signatures are made of XML too. */
static bool is_report(GMimePart *part, struct span name, struct span content)
{
	struct span text = span_skip(content, content_blank_len(content));
	switch (content_sniff(content)) {
	case CONTENT_GZIP:
	case CONTENT_ZIP:
		return true;
	case CONTENT_XML:
	case CONTENT_JSON:
		if (has_report_name(name) || is_type(part, "application", "*") ||
		    is_type(part, "text", "xml"))
			return true;
		return is_type(part, "text", "plain") &&
		       (span_starts(text, SPAN_LIT("<?xml")) ||
			span_istarts(text, SPAN_LIT("<feedback")));
	default:
		return has_report_name(name);
	}
}

static int walk_leaf(struct walk *w, GMimePart *part)
{
	if (++w->parts > MAILPARTS_MAX)
		return refuse(w, ERR_LIMIT, "the mail has too many parts");
	int rc = 0;
	struct sbuf content;
	sbuf_init_heap(&content, MAILPARTS_BYTES_MAX);
	decode(part, &content);
	const char *file = g_mime_part_get_filename(part);
	char *valid = g_utf8_make_valid(file == NULL ? "" : file, -1);
	struct span name = span_take(span_str(valid), MAILPARTS_NAME_MAX);
	if (!sbuf_ok(&content)) {
		rc = refuse(w, ERR_LIMIT, "a part of the mail is too large");
	} else if (is_report(part, name, sbuf_span(&content))) {
		w->reports++;
		rc = w->found(w->arg, name, sbuf_span(&content));
	}
	g_free(valid);
	sbuf_done(&content);
	return rc;
}

/* ---- Before GMime sees it ---- */

static bool looks_like_field(struct span line)
{
	size_t i = 0;
	while (i < line.len && (ascii_isalnum(line.ptr[i]) || line.ptr[i] == '-'))
		i++;
	while (i > 0 && i < line.len && (line.ptr[i] == ' ' || line.ptr[i] == '\t'))
		i++;
	return i > 0 && i < line.len && line.ptr[i] == ':';
}

static bool is_address_field(struct span line)
{
	static const char *const names[] = {"from", "sender", "reply-to", "to", "cc", "bcc"};
	struct span name;
	span_cut(&line, ':', &name);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (span_ieq(span_trim(name), span_str(names[i])))
			return true;
	return false;
}

static size_t count_colons(struct span line)
{
	size_t count = 0;
	for (size_t i = 0; i < line.len; i++)
		count += line.ptr[i] == ':';
	return count;
}

/* GMime makes objects of each field, address, parameter and part, wherever they
 * stand: what could become many of them is refused by its lines. */
static int measure(struct walk *w, struct span mail)
{
	struct span rest = mail, line;
	size_t header = 0, dashes = 0, colons = 0;
	bool in_field = false, in_addresses = false;
	while (rest.len > 0) {
		span_cut(&rest, '\n', &line);
		bool folded = line.len > 0 && (line.ptr[0] == ' ' || line.ptr[0] == '\t');
		if (!folded || !in_field) {
			in_field = looks_like_field(line);
			in_addresses = in_field && is_address_field(line);
			colons = 0;
		}
		colons += in_addresses ? count_colons(line) : 0;
		header += in_field ? line.len + 1 : 0;
		dashes += span_starts(line, SPAN_LIT("--"));
		if (colons > MAILPARTS_COLONS_MAX)
			return refuse(w, ERR_LIMIT, "an address field of the mail is too complex");
		if (header > MAILPARTS_HEADER_MAX)
			return refuse(w, ERR_LIMIT, "the header of the mail is too large");
		if (dashes > MAILPARTS_DASHES_MAX)
			return refuse(w, ERR_LIMIT, "the mail has too many parts");
	}
	return 0;
}

/* ---- The walk ---- */

static int walk(struct walk *w, GMimeObject *object, unsigned depth)
{
	int rc = 0;
	if (depth > MAILPARTS_DEPTH_MAX)
		return refuse(w, ERR_LIMIT, "parts of the mail are nested too deeply");
	if (GMIME_IS_MULTIPART(object)) {
		int count = g_mime_multipart_get_count(GMIME_MULTIPART(object));
		for (int i = 0; i < count && rc == 0; i++)
			rc = walk(w, g_mime_multipart_get_part(GMIME_MULTIPART(object), i),
				  depth + 1);
	} else if (GMIME_IS_MESSAGE_PART(object)) {
		GMimeMessage *inner = g_mime_message_part_get_message(GMIME_MESSAGE_PART(object));
		GMimeObject *top = inner == NULL ? NULL : g_mime_message_get_mime_part(inner);
		rc = top == NULL ? 0 : walk(w, top, depth + 1);
	} else if (GMIME_IS_PART(object)) {
		rc = walk_leaf(w, GMIME_PART(object));
	}
	return rc;
}

/* The mail that the parser stands at. */
static int walk_next(struct walk *w, GMimeParser *parser)
{
	GMimeMessage *message = g_mime_parser_construct_message(parser, NULL);
	GMimeObject *top = message == NULL ? NULL : g_mime_message_get_mime_part(message);
	int rc = top == NULL ? refuse(w, ERR_SYNTAX, "not a mail") : walk(w, top, 0);
	if (message != NULL)
		g_object_unref(message);
	return rc;
}

int mailparts_each(struct span mail, mailparts_fn *found, void *arg, struct sbuf *error)
{
	struct walk w = {.found = found, .arg = arg, .error = error};
	if (mail.len > MAILPARTS_BYTES_MAX)
		return refuse(&w, ERR_LIMIT, "the mail is too large");
	int rc = measure(&w, mail);
	if (rc < 0)
		return rc;
	g_mime_init(); /* counts, and does nothing the second time */
	GMimeStream *stream = g_mime_stream_mem_new_with_buffer(mail.ptr, mail.len);
	GMimeParser *parser = g_mime_parser_new_with_stream(stream);
	bool mbox = span_starts(mail, SPAN_LIT("From "));
	if (mbox)
		g_mime_parser_set_format(parser, GMIME_FORMAT_MBOX);
	do
		rc = walk_next(&w, parser);
	while (rc == 0 && mbox && !g_mime_parser_eos(parser));
	g_object_unref(parser);
	g_object_unref(stream);
	if (rc == 0 && w.reports == 0)
		rc = refuse(&w, ERR_SYNTAX, "the mail holds no report");
	return rc;
}
