/*
 * Header fields that hold bytes of an old charset as they are, without encoded
 * words: against the rules, and sent.  They are of the charset that the
 * text of their message is declared in, where all of their bytes are valid
 * in it; what ISO-2022-JP is shows by itself.  All else is left to GMime.
 */
#include "lib/base/utf8.h"
#include "lmtp-indexer/extract_internal.h"

#define ESCAPE '\x1b'

/* What the first text among LEFT parts is declared in; NULL where that is nothing or UTF-8. */
static const char *charset_of(GMimeObject *object, unsigned depth, unsigned *left)
{
	const char *charset = NULL;
	if (object == NULL || *left == 0)
		return NULL;
	--*left;
	if (GMIME_IS_MULTIPART(object) && depth > 0) {
		int count = g_mime_multipart_get_count(GMIME_MULTIPART(object));
		for (int i = 0; i < count && charset == NULL; i++)
			charset = charset_of(g_mime_multipart_get_part(GMIME_MULTIPART(object), i), depth - 1, left);
	} else if (g_mime_content_type_is_type(g_mime_object_get_content_type(object), "text", "*")) {
		charset = g_mime_object_get_content_type_parameter(object, "charset");
	}
	return charset != NULL && !extract_is_utf8(charset) ? charset : NULL;
}

/* That of the message in hand. It is looked for once, since there may be as many such fields as parts. */
static const char *charset_in_hand(struct extract_run *run)
{
	unsigned left = run->limits->parts_max;
	if (!run->mail.looked)
		run->mail.charset = charset_of(run->mail.root, run->limits->depth_max, &left);
	run->mail.looked = true;
	return run->mail.charset;
}

/* FIELD as UTF-8; owned, NULL where it is that already or of an unknown charset. */
static char *to_utf8(struct extract_run *run, struct span field)
{
	const bool wide = utf8_prefix(field) < field.len, escaped = span_chr(field, ESCAPE) != SPAN_NPOS;
	const char *charset;
	struct sbuf out;
	if (!wide && !escaped)
		return NULL;
	charset = charset_in_hand(run);
	if (!wide && (charset == NULL || !span_istarts(span_str(charset), SPAN_LIT("iso-2022-"))))
		charset = "iso-2022-jp";
	if (charset == NULL)
		return NULL;
	sbuf_init_heap(&out, field.len * 4 + 1);
	char *utf8 = extract_add_exact(&out, charset, field) && sbuf_ok(&out) ? g_strndup(out.ptr, out.len) : NULL;
	sbuf_done(&out);
	return utf8;
}

char *extract_mend_field(struct extract_run *run, const char *field)
{
	if (field == NULL)
		return NULL;
	char *utf8 = to_utf8(run, span_str(field));
	char *mended = extract_mend_words(utf8 != NULL ? utf8 : field);
	if (mended == NULL)
		return utf8;
	g_free(utf8);
	return mended;
}

const char *extract_raw_field(GMimeObject *object, const char *name)
{
	GMimeHeader *h = g_mime_header_list_get_header(g_mime_object_get_header_list(object), name);
	return h == NULL ? NULL : g_mime_header_get_raw_value(h);
}

char *extract_subject(struct extract_run *run, GMimeMessage *message)
{
	const char *raw = extract_raw_field(GMIME_OBJECT(message), "Subject");
	if (raw == NULL)
		return NULL;
	char *mended = extract_mend_field(run, raw);
	char *line = g_mime_utils_header_unfold(mended != NULL ? mended : raw);
	char *subject = g_mime_utils_header_decode_text(NULL, line);
	g_free(line);
	g_free(mended);
	return subject;
}

static char *parameter_of(GMimeParamList *list, const char *name)
{
	GMimeParam *param = g_mime_param_list_get_parameter(list, name);
	return param == NULL ? NULL : g_strdup(g_mime_param_get_value(param));
}

/* The length of the quoted string at P; sets *PATH where a backslash in it quotes what needs no quoting. */
static size_t quoted_length(const char *p, bool *path)
{
	size_t i = 1;
	while (p[i] != '\0' && p[i] != '"') {
		bool pair = p[i] == '\\' && p[i + 1] != '\0';
		*path = *path || (pair && p[i + 1] != '"' && p[i + 1] != '\\');
		i += pair ? 2 : 1;
	}
	return p[i] == '"' ? i + 1 : i;
}

/* Copies a quoted string with its backslashes quoted, those in front of quotes aside. */
static void add_path(GString *out, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char next = p[i] == '\\' && i + 1 < len ? p[i + 1] : '\0';
		if (next == '"' || next == '\\') {
			g_string_append(out, next == '"' ? "\\\"" : "\\\\\\\\");
			i++;
		} else {
			g_string_append(out, p[i] == '\\' ? "\\" : "");
			g_string_append_c(out, p[i]);
		}
	}
}

/* FIELD with paths of Windows, whose backslashes are sent as they are, as strings that mean them; owned, NULL without any. */
static char *mend_paths(const char *field)
{
	bool any = false;
	if (strchr(field, '\\') == NULL)
		return NULL;
	GString *out = g_string_sized_new(strlen(field) + 32);
	while (*field != '\0') {
		bool path = false;
		size_t len = *field == '"' ? quoted_length(field, &path) : 1;
		if (path)
			add_path(out, field, len);
		else
			g_string_append_len(out, field, (gssize)len);
		any = any || path;
		field += len;
	}
	return g_string_free(out, !any);
}

/* A FIELD (may be NULL) with parameters as they are meant; owned, NULL where GMime shall take it as it is. */
static char *mend_parameters(struct extract_run *run, const char *field)
{
	char *mended = extract_mend_field(run, field);
	char *paths = field == NULL ? NULL : mend_paths(mended != NULL ? mended : field);
	if (paths == NULL)
		return mended;
	g_free(mended);
	return paths;
}

char *extract_file_name(struct extract_run *run, GMimeObject *object)
{
	char *field = mend_parameters(run, extract_raw_field(object, "Content-Disposition")), *name = NULL;
	if (field != NULL) {
		GMimeContentDisposition *disposition = g_mime_content_disposition_parse(NULL, field);
		name = parameter_of(g_mime_content_disposition_get_parameters(disposition), "filename");
		g_object_unref(disposition);
		g_free(field);
	}
	if (name == NULL)
		name = g_strdup(g_mime_object_get_content_disposition_parameter(object, "filename"));
	field = name != NULL ? NULL : mend_parameters(run, extract_raw_field(object, "Content-Type"));
	if (field != NULL) {
		GMimeContentType *type = g_mime_content_type_parse(NULL, field);
		name = parameter_of(g_mime_content_type_get_parameters(type), "name");
		g_object_unref(type);
		g_free(field);
	}
	return name != NULL ? name : g_strdup(g_mime_object_get_content_type_parameter(object, "name"));
}
