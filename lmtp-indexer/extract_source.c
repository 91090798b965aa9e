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

static GMimeStream *open_stream(const struct extract_source *source)
{
	if (source->bytes.len > 0)
		return g_mime_stream_mem_new_with_buffer(source->bytes.ptr, source->bytes.len);
	int fd = dup(source->fd);
	return fd < 0 ? NULL : g_mime_stream_fs_new_with_bounds(fd, 0, -1);
}

/* Past the cap, what the parser has not read yet is not there for it. */
static void count_field(GMimeParser *parser, const char *name, const char *value, gint64 offset, gpointer arg)
{
	(void)parser;
	(void)offset;
	struct fields *f = arg;
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
	if (g_mime_stream_length(fields.stream) > COUNTED_FROM)
		g_mime_parser_set_header_regex(parser, "", count_field, &fields);
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
