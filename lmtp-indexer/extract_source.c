/*
 * From bytes to GMime's tree.  Its parser keeps some 500 bytes of each field, and
 * of the parts it only remembers where they are; so what the headers of a mail may
 * hold is capped over all of its parts, with the messages attached to it.
 */
#include <unistd.h>

#include "lmtp-indexer/extract_internal.h"

#define COUNTED_FROM 65536 /* bytes of a message; what is shorter has not that many fields */

struct fields {
	struct extract_run *run;
	GMimeStream *stream;
};

/* ---- Streams without NUL ---- */

static GType memory_type, file_type;

/*
 * A field ends at a NUL for the parser, so it gets a '?' there.  No blank, at
 * which extract_guard() would have to take it for one too.  Parts are read by
 * streams of the parent's type, which leave it.
 */
static ssize_t read_without_nul(GMimeStream *stream, char *buf, size_t len)
{
	GMimeStreamClass *parent = g_type_class_peek_parent(G_OBJECT_GET_CLASS(stream));
	ssize_t n = parent->read(stream, buf, len);
	char *end = n > 0 ? buf + n : buf;
	for (char *p = buf; p < end && (p = memchr(p, '\0', (size_t)(end - p))) != NULL; p++)
		*p = '?';
	return n;
}

static void init_class(gpointer class, gpointer data)
{
	(void)data;
	GMIME_STREAM_CLASS(class)->read = read_without_nul;
}

void extract_register_streams(void)
{
	memory_type = g_type_register_static_simple(GMIME_TYPE_STREAM_MEM, "PosternStreamMem", sizeof(GMimeStreamMemClass),
						    init_class, sizeof(GMimeStreamMem), NULL, 0);
	file_type = g_type_register_static_simple(GMIME_TYPE_STREAM_FS, "PosternStreamFs", sizeof(GMimeStreamFsClass),
						  init_class, sizeof(GMimeStreamFs), NULL, 0);
}

static GMimeStream *open_stream(const struct extract_source *source)
{
	if (source->bytes.len > 0) {
		GMimeStreamMem *memory = g_object_new(memory_type, NULL);
		GByteArray *bytes = g_byte_array_sized_new((guint)source->bytes.len);
		g_byte_array_append(bytes, (const guint8 *)source->bytes.ptr, (guint)source->bytes.len);
		memory->owner = TRUE;
		memory->buffer = bytes;
		g_mime_stream_construct(GMIME_STREAM(memory), 0, -1);
		return GMIME_STREAM(memory);
	}
	int fd = dup(source->fd);
	if (fd < 0)
		return NULL;
	GMimeStreamFs *file = g_object_new(file_type, NULL);
	file->owner = TRUE;
	file->eos = FALSE;
	file->fd = fd;
	g_mime_stream_construct(GMIME_STREAM(file), 0, -1);
	return GMIME_STREAM(file);
}

/* ---- The parser ---- */

static struct span encoding_word(const char *field)
{
	struct span rest = span_str(field), word;
	span_cut(&rest, ';', &word);
	word = span_trim(word);
	if (word.len > 1 && word.ptr[0] == '"' && span_ends(word, SPAN_LIT("\"")))
		word = span_of(word.ptr + 1, word.len - 2);
	return word;
}

GMimeContentEncoding extract_encoding(const char *field)
{
	struct span word = encoding_word(field);
	char *name = g_strndup(word.ptr == NULL ? "" : word.ptr, word.len);
	GMimeContentEncoding encoding = g_mime_content_encoding_from_string(name);
	g_free(name);
	return encoding;
}

/* Leaves the name alone in VALUE, which the parser looks at when it knows the whole header. */
static void mend_encoding(const char *value)
{
	union { const char *in; char *arg; } field = {.in = value};
	struct span word = encoding_word(value);
	if (extract_encoding(value) == GMIME_CONTENT_ENCODING_DEFAULT)
		return;
	for (char *p = field.arg; *p != '\0'; p++)
		if ((p < word.ptr || p >= word.ptr + word.len) && !ascii_isfws(*p))
			*p = ' ';
}

/* Past the cap, what the parser has not read yet is not there for it. */
static void see_field(GMimeParser *parser, const char *name, const char *value, gint64 offset, gpointer arg)
{
	(void)parser;
	(void)offset;
	struct fields *f = arg;
	if (f->run->mend_encodings && span_ieq(span_str(name), SPAN_LIT("Content-Transfer-Encoding")))
		mend_encoding(value);
	f->run->header_bytes += EXTRACT_FIELD_BYTES + strlen(name) + strlen(value);
	if (f->run->cut || f->run->header_bytes <= EXTRACT_HEADERS_MAX)
		return;
	f->run->cut = true;
	g_mime_stream_set_bounds(f->stream, 0, g_mime_stream_tell(f->stream));
}

GMimeMessage *extract_parse(struct extract_run *run, const struct extract_source *source)
{
	struct fields fields = {.run = run};
	fields.stream = extract_guard(source) ? open_stream(source) : NULL;
	if (fields.stream == NULL)
		return NULL;
	GMimeParser *parser = g_mime_parser_new_with_stream(fields.stream);
	g_mime_parser_set_persist_stream(parser, TRUE);
	if (run->mend_encodings || g_mime_stream_length(fields.stream) > COUNTED_FROM)
		g_mime_parser_set_header_regex(parser, "", see_field, &fields);
	GMimeMessage *message = g_mime_parser_construct_message(parser, NULL);
	g_object_unref(parser);
	g_object_unref(fields.stream);
	return message;
}

/* GMime gives the Content-* fields of the top to the part. */
bool extract_is_message(GMimeMessage *message)
{
	GMimeObject *part = message == NULL ? NULL : g_mime_message_get_mime_part(message);
	return part != NULL &&
	       (g_mime_header_list_get_count(g_mime_object_get_header_list(GMIME_OBJECT(message))) > 0 ||
		g_mime_header_list_get_count(g_mime_object_get_header_list(part)) > 0);
}
