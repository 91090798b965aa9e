/*
 * The walk over the parts.  A text part goes into the text, anything with a
 * name, a disposition of attachment or another type becomes an attachment.  Of
 * alternatives the plain text is taken where there is one with a word in it.  Past the caps on
 * depth and parts nothing more is looked at and the message is marked.
 */
#include "extract_internal.h"
#include "lib/base/utf8.h"
#include "lmtp-indexer/html.h"

#define READ_BYTES 16384

typedef bool part_sink(void *arg, struct span bytes); /* false: enough */

/* Gives what STREAM holds in ENCODING in pieces. */
static void decode(GMimeStream *stream, GMimeContentEncoding encoding, part_sink *sink, void *arg)
{
	char piece[READ_BYTES];
	GMimeStream *decoded = g_mime_stream_filter_new(stream);
	GMimeFilter *filter = g_mime_filter_basic_new(encoding, FALSE);
	g_mime_stream_filter_add(GMIME_STREAM_FILTER(decoded), filter);
	g_object_unref(filter);
	g_mime_stream_reset(stream);
	ssize_t n;
	do {
		n = g_mime_stream_read(decoded, piece, sizeof(piece));
	} while (n > 0 && sink(arg, span_of(piece, (size_t)n)));
	g_object_unref(decoded);
}

static GMimeContentEncoding encoding_of(GMimeObject *object)
{
	return extract_encoding(g_mime_object_get_header(object, "Content-Transfer-Encoding"));
}

static bool is_encoded(GMimeObject *object)
{
	switch (encoding_of(object)) {
	case GMIME_CONTENT_ENCODING_BASE64:
	case GMIME_CONTENT_ENCODING_QUOTEDPRINTABLE:
	case GMIME_CONTENT_ENCODING_UUENCODE:
		return true;
	default:
		return false;
	}
}

static void read_content(GMimePart *part, part_sink *sink, void *arg)
{
	GMimeDataWrapper *wrapper = g_mime_part_get_content(part);
	if (wrapper == NULL)
		return;
	GMimeContentEncoding encoding = g_mime_data_wrapper_get_encoding(wrapper);
	if (encoding == GMIME_CONTENT_ENCODING_DEFAULT)
		encoding = encoding_of(GMIME_OBJECT(part));
	decode(g_mime_data_wrapper_get_stream(wrapper), encoding, sink, arg);
}

/* ---- Text ---- */

static bool take_text(void *arg, struct span bytes)
{
	struct sbuf *raw = arg;
	sbuf_add(raw, bytes);
	return sbuf_ok(raw);
}

/* Adds RAW; HTML without a charset that is no UTF-8 may name one itself. */
static void add_decoded(struct extract_run *run, struct sbuf *utf8, const char *charset, bool html, struct span raw)
{
	char name[HTML_CHARSET_MAX + 1];
	if (charset == NULL && html && utf8_prefix(raw) < raw.len && html_charset(raw, name))
		charset = name;
	if (!extract_add_utf8(utf8, charset, raw))
		extract_partial(run);
}

static bool has_parameter(GMimeObject *object, const char *name, struct span value)
{
	return span_ieq(span_str(g_mime_object_get_content_type_parameter(object, name)), value);
}

static void add_text(struct extract_run *run, GMimePart *part, bool html)
{
	struct sbuf raw, utf8;
	const char *charset =
		g_mime_object_get_content_type_parameter(GMIME_OBJECT(part), "charset");
	if (run->x->truncated || !sbuf_ok(&run->text))
		return;
	/* Half of what HTML takes is markup, often more. */
	sbuf_init_heap(&raw, run->limits->text_max_bytes * (html ? 4 : 1) + READ_BYTES);
	sbuf_init_heap(&utf8, run->limits->text_max_bytes * (html ? 8 : 3));
	read_content(part, take_text, &raw);
	if (!sbuf_ok(&raw))
		run->x->truncated = true;
	if (run->text.len > 0)
		sbuf_addc(&run->text, '\n');
	add_decoded(run, &utf8, charset, html, sbuf_span(&raw));
	if (!html && has_parameter(GMIME_OBJECT(part), "format", SPAN_LIT("flowed")))
		extract_join_flowed(&utf8, has_parameter(GMIME_OBJECT(part), "delsp", SPAN_LIT("yes")));
	struct span text = sbuf_span(&utf8);
	size_t room = run->limits->text_max_bytes - run->text.len;
	if (html) {
		html_to_text(&run->text, text);
	} else {
		run->x->truncated = run->x->truncated || text.len > room;
		sbuf_add(&run->text, span_take(text, room));
	}
	sbuf_done(&raw);
	sbuf_done(&utf8);
}

/* ---- Attachments ---- */

struct digest {
	GChecksum *sum;
	uint64_t bytes;
};

static bool take_digest(void *arg, struct span bytes)
{
	struct digest *d = arg;
	g_checksum_update(d->sum, (const guchar *)bytes.ptr, (gssize)bytes.len);
	d->bytes += bytes.len;
	return true;
}

static struct extract_attachment *new_attachment(struct extract_run *run, GMimeObject *object)
{
	struct extract *x = run->x;
	if (x->attachments == NULL)
		x->attachments = arena_calloc(&x->arena, EXTRACT_ATTACHMENTS_MAX, sizeof(*x->attachments));
	if (x->attachments == NULL || x->attachment_count >= EXTRACT_ATTACHMENTS_MAX) {
		extract_partial(run);
		return NULL;
	}
	struct extract_attachment *a = &x->attachments[x->attachment_count++];
	char *type = g_mime_content_type_get_mime_type(g_mime_object_get_content_type(object));
	a->media_type = extract_keep(run, type, EXTRACT_TYPE_CHARS);
	g_free(type);
	return a;
}

static struct extract_attachment *add_attachment(struct extract_run *run, GMimePart *part)
{
	struct extract_attachment *a = new_attachment(run, GMIME_OBJECT(part));
	if (a == NULL)
		return NULL;
	struct digest d = {.sum = g_checksum_new(G_CHECKSUM_SHA256)};
	gsize len = sizeof(a->sha256);
	read_content(part, take_digest, &d);
	g_checksum_get_digest(d.sum, a->sha256, &len);
	g_checksum_free(d.sum);
	a->size_bytes = d.bytes;
	char *name = extract_file_name(run, GMIME_OBJECT(part));
	a->name = extract_keep(run, name, EXTRACT_NAME_CHARS);
	g_free(name);
	return a;
}

/* ---- The walk ---- */

static bool is_type(GMimeObject *object, const char *type, const char *subtype)
{
	return g_mime_content_type_is_type(g_mime_object_get_content_type(object), type, subtype);
}

/* No type with a subtype: such a field counts as text/plain (RFC 2045, 5.2), where GMime takes it for a file. */
static bool has_broken_type(GMimeObject *object)
{
	struct span field = span_str(g_mime_object_get_header(object, "Content-Type")), type;
	if (field.ptr == NULL)
		return false;
	span_cut(&field, ';', &type);
	type = span_trim(type);
	size_t slash = span_chr(type, '/');
	return slash == SPAN_NPOS || slash == 0 || slash + 1 == type.len;
}

static bool is_shown_text(GMimeObject *object)
{
	const char *disposition = g_mime_object_get_disposition(object);
	return GMIME_IS_PART(object) && (is_type(object, "text", "*") || has_broken_type(object)) &&
	       !(disposition != NULL && span_ieq(span_str(disposition), SPAN_LIT("attachment"))) &&
	       g_mime_part_get_filename(GMIME_PART(object)) == NULL;
}

static void walk_leaf(struct extract_run *run, GMimeObject *object)
{
	if (run->parts++ >= run->limits->parts_max) {
		extract_partial(run);
		return;
	}
	if (is_shown_text(object))
		add_text(run, GMIME_PART(object), is_type(object, "text", "html"));
	else
		add_attachment(run, GMIME_PART(object));
}

static void walk(struct extract_run *run, GMimeObject *object, unsigned depth);

/* No part begins anywhere: all of it is what should stand in front of the first. */
static void add_unparted(struct extract_run *run, GMimeMultipart *multipart)
{
	struct span text = span_str(g_mime_multipart_get_prologue(multipart));
	size_t max = run->limits->text_max_bytes;
	struct sbuf utf8;
	extract_partial(run);
	if (run->parts++ >= run->limits->parts_max || run->x->truncated || run->text.len >= max)
		return;
	sbuf_init_heap(&utf8, max * 3);
	IGNORE_RESULT(extract_add_utf8(&utf8, NULL, span_take(text, max))); /* it is partial anyway */
	size_t room = max - run->text.len;
	run->x->truncated = text.len > max || utf8.len > room;
	sbuf_add(&run->text, span_take(sbuf_span(&utf8), room));
	sbuf_done(&utf8);
}

/*
 * In an encoding that RFC 2045 (6.4) forbids for them, so no part begins for GMime.  What is decoded is
 * read as a message of that type.
 */
static void walk_encoded_parts(struct extract_run *run, GMimeMultipart *multipart, unsigned depth)
{
	struct span text = span_str(g_mime_multipart_get_prologue(multipart));
	struct sbuf bytes;
	GMimeStream *stream = g_mime_stream_mem_new_with_buffer(text.ptr == NULL ? "" : text.ptr, text.len);
	sbuf_init_heap(&bytes, EXTRACT_ENCODED_MAX - run->encoded);
	sbuf_addf(&bytes, "Content-Type:%s\n\n", extract_raw_field(GMIME_OBJECT(multipart), "Content-Type"));
	decode(stream, encoding_of(GMIME_OBJECT(multipart)), take_text, &bytes);
	g_object_unref(stream);
	struct extract_source source = {.bytes = sbuf_span(&bytes), .fd = -1};
	GMimeMessage *message = sbuf_ok(&bytes) ? extract_parse(run, &source) : NULL;
	run->encoded += bytes.len;
	sbuf_done(&bytes);
	if (extract_is_message(message))
		walk(run, g_mime_message_get_mime_part(message), depth);
	else
		extract_partial(run);
	if (message != NULL)
		g_object_unref(message);
}

/* The parts that are plain text, or the others. */
static void walk_parts(struct extract_run *run, GMimeMultipart *multipart, unsigned depth, bool plain)
{
	int count = g_mime_multipart_get_count(multipart);
	for (int i = 0; i < count; i++) {
		GMimeObject *child = g_mime_multipart_get_part(multipart, i);
		if ((is_shown_text(child) && is_type(child, "text", "plain")) == plain)
			walk(run, child, depth + 1);
	}
}

/* HTML that says what a plain text has said is passed over, often within a multipart with its images. */
static void walk_alternatives(struct extract_run *run, GMimeMultipart *multipart, unsigned depth)
{
	const bool outer = run->mail.no_html;
	const size_t before = run->text.len;
	walk_parts(run, multipart, depth, true);
	run->mail.no_html = outer || span_trim(span_skip(sbuf_span(&run->text), before)).len > 0;
	walk_parts(run, multipart, depth, false);
	run->mail.no_html = outer;
}

static void walk_multipart(struct extract_run *run, GMimeMultipart *multipart, unsigned depth)
{
	int count = g_mime_multipart_get_count(multipart);
	if (count == 0 && is_encoded(GMIME_OBJECT(multipart))) {
		walk_encoded_parts(run, multipart, depth);
		return;
	}
	if (count == 0)
		add_unparted(run, multipart);
	if (is_type(GMIME_OBJECT(multipart), "multipart", "alternative")) {
		walk_alternatives(run, multipart, depth);
		return;
	}
	for (int i = 0; i < count; i++)
		walk(run, g_mime_multipart_get_part(multipart, i), depth + 1);
}

/* Streams, so that an attached message of any size takes no memory. */
static void digest_message(struct extract_attachment *a, GMimeMessage *message)
{
	GMimeStream *null = g_mime_stream_null_new();
	GMimeStream *stream = g_mime_stream_filter_new(null);
	GMimeFilter *filter = g_mime_filter_checksum_new(G_CHECKSUM_SHA256);
	g_mime_stream_filter_add(GMIME_STREAM_FILTER(stream), filter);
	g_mime_object_write_to_stream(GMIME_OBJECT(message), NULL, stream);
	g_mime_stream_flush(stream);
	g_mime_filter_checksum_get_digest(GMIME_FILTER_CHECKSUM(filter), a->sha256, sizeof(a->sha256));
	a->size_bytes = GMIME_STREAM_NULL(null)->written;
	g_object_unref(filter);
	g_object_unref(stream);
	g_object_unref(null);
}

/* The subject of an inner message that is not the name of the attachment already. */
static void add_line(struct extract_run *run, const char *subject)
{
	struct span line = extract_keep(run, subject, EXTRACT_SUBJECT_CHARS);
	if (line.len == 0 || line.len + 1 > run->limits->text_max_bytes - run->text.len)
		return;
	if (run->text.len > 0)
		sbuf_addc(&run->text, '\n');
	sbuf_add(&run->text, line);
}

/* A message within the message: an attachment A (may be NULL) by the name it has, else by its subject, and its text. */
static void walk_inner(struct extract_run *run, struct extract_attachment *a, GMimeMessage *inner, unsigned depth)
{
	const struct extract_mail outer = run->mail;
	run->mail = (struct extract_mail){.root = g_mime_message_get_mime_part(inner)};
	char *subject = a == NULL ? NULL : extract_subject(run, inner);
	if (a != NULL && a->name.len == 0)
		a->name = extract_keep(run, subject, EXTRACT_NAME_CHARS);
	else
		add_line(run, subject);
	g_free(subject);
	if (run->mail.root != NULL)
		walk(run, run->mail.root, depth + 1);
	run->mail = outer;
}

static void walk_message(struct extract_run *run, GMimeMessagePart *part, unsigned depth)
{
	GMimeMessage *inner = g_mime_message_part_get_message(part);
	run->unread_encoding = run->unread_encoding || is_encoded(GMIME_OBJECT(part));
	struct extract_attachment *a = new_attachment(run, GMIME_OBJECT(part));
	if (inner == NULL || run->parts++ >= run->limits->parts_max) {
		extract_partial(run);
		return;
	}
	if (a != NULL) {
		char *name = extract_file_name(run, GMIME_OBJECT(part));
		digest_message(a, inner);
		a->name = extract_keep(run, name, EXTRACT_NAME_CHARS);
		g_free(name);
	}
	walk_inner(run, a, inner, depth);
}

/* In an encoding that RFC 2046 (5.2.1) forbids for messages, so GMime takes it for a file. */
static bool is_encoded_message(GMimeObject *object)
{
	return GMIME_IS_PART(object) && (is_type(object, "message", "rfc822") || is_type(object, "message", "global"));
}

static void walk_encoded(struct extract_run *run, GMimePart *part, unsigned depth)
{
	struct sbuf bytes;
	if (run->parts++ >= run->limits->parts_max) {
		extract_partial(run);
		return;
	}
	struct extract_attachment *a = add_attachment(run, part);
	sbuf_init_heap(&bytes, EXTRACT_ENCODED_MAX - run->encoded);
	read_content(part, take_text, &bytes);
	struct extract_source source = {.bytes = sbuf_span(&bytes), .fd = -1};
	GMimeMessage *inner = sbuf_ok(&bytes) && bytes.len > 0 ? extract_parse(run, &source) : NULL;
	run->encoded += bytes.len;
	sbuf_done(&bytes);
	if (extract_is_message(inner))
		walk_inner(run, a, inner, depth);
	else
		extract_partial(run);
	if (inner != NULL)
		g_object_unref(inner);
}

static void walk(struct extract_run *run, GMimeObject *object, unsigned depth)
{
	if (depth > run->limits->depth_max) {
		extract_partial(run);
		return;
	}
	if (run->mail.no_html && is_shown_text(object) && is_type(object, "text", "html"))
		return;
	if (GMIME_IS_MULTIPART(object))
		walk_multipart(run, GMIME_MULTIPART(object), depth);
	else if (GMIME_IS_MESSAGE_PART(object))
		walk_message(run, GMIME_MESSAGE_PART(object), depth);
	else if (is_encoded_message(object))
		walk_encoded(run, GMIME_PART(object), depth);
	else if (GMIME_IS_PART(object))
		walk_leaf(run, object);
}

void extract_parts(struct extract_run *run)
{
	walk(run, run->mail.root, 1);
}
