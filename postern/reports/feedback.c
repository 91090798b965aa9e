/*
 * The XML side: libxml2's push parser with handlers of our own, no tree.
 *
 * A document type definition ends the reading before its first declaration is
 * looked at; so no entity is ever defined, and nothing is ever fetched.  The
 * parser keeps an unfinished tag or comment in memory: `since_event` counts the
 * bytes since it last told us something, and past FEEDBACK_TOKEN_MAX we stop.
 * The parser's dictionary of names never shrinks and becomes slow: it is capped,
 * to the precision of a slice.
 * What claims to be UTF-8 is made so before the parser sees it, once the root
 * element is open: reporters copy what stood in mail.
 * `rc` sticks: after an error nothing reaches the sink.
 */
#include "postern/reports/feedback.h"

#include <libxml/parser.h>

#include "lib/base/utf8.h"
#include "postern/reports/feedback_fields.h"

#define SLICE 4096
#define ERROR_MAX 512
#define ELEMENT_NAME_MAX 64
#define HELD_MAX 3 /* bytes of a character of which more is to come */

static const char byte_order_mark[3] = {'\xef', '\xbb', '\xbf'};

struct feedback {
	xmlParserCtxtPtr xml; /* NULL until the first byte that is not blank */
	xmlSAXHandler handlers;
	const struct feedback_sink *sink;
	uint64_t records_max;
	struct feedback_fields fields;
	char *root_prefix;			       /* NULL without */
	enum feedback_section sections[SECTION_COUNT]; /* those that are open */
	size_t section_count;
	const struct feedback_leaf *leaf; /* open; its text is collected */
	unsigned depth, unknown;	  /* open elements; of them within an unknown one */
	struct sbuf text;
	enum { CHARSET_UNKNOWN, CHARSET_UTF8, CHARSET_OTHER } charset; /* known from the first wrong byte on */
	char held[HELD_MAX];
	size_t held_len;
	size_t since_event;
	size_t mark;		   /* bytes of a byte order mark that were there */
	bool blank;		   /* there was white space in front of the document */
	unsigned long blank_lines; /* in front of what the parser sees */
	bool reported;		   /* the sink has the head */
	bool other;		   /* the root element is none of a report */
	unsigned notes;
	bool ended;		   /* the root element is closed */
	int rc;
	struct sbuf error;
	char error_mem[ERROR_MAX];
};

/* ---- Errors ---- */

static void stop(struct feedback *f, int rc)
{
	if (f->rc == 0)
		f->rc = rc;
	if (f->xml != NULL)
		xmlStopParser(f->xml);
}

static int refuse(struct feedback *f, int rc, const char *why)
{
	if (f->rc == 0)
		sbuf_adds(&f->error, why);
	stop(f, rc);
	return rc;
}

/* What the parser has to say is asked for at the end. */
static void ignore_error(void *arg, xmlErrorPtr error)
{
	(void)arg;
	(void)error;
}

/* Charsets are complained about past the handler of the document. */
static void ignore_text(void *arg, const char *fmt, ...)
{
	(void)arg;
	(void)fmt;
}

static int refuse_xml(struct feedback *f)
{
	const xmlError *error = xmlCtxtGetLastError(f->xml);
	sbuf_adds(&f->error, "not well-formed XML: ");
	sbuf_add_escaped(
		&f->error,
		span_take(span_trim(span_str(error == NULL ? NULL : error->message)), 200));
	return f->rc = ERR_SYNTAX;
}

/* ---- Events ---- */

static enum feedback_section current(const struct feedback *f)
{
	return f->section_count == 0 ? SECTION_DOCUMENT : f->sections[f->section_count - 1];
}

static int tell_head(struct feedback *f)
{
	if (f->reported)
		return 0;
	if (!f->fields.has_metadata || !f->fields.has_policy) {
		sbuf_adds(&f->error,
			  "a <record> stands in front of <report_metadata> or <policy_published>");
		return ERR_SYNTAX;
	}
	f->reported = true;
	return f->sink->report(f->sink->arg, &f->fields.report);
}

static int open_section(struct feedback *f, enum feedback_section section)
{
	int rc = 0;
	if (section == SECTION_RECORD)
		rc = tell_head(f);
	if (rc == 0 && section == SECTION_RECORD && f->fields.report.records >= f->records_max) {
		sbuf_adds(&f->error, "there are too many records");
		rc = ERR_LIMIT;
	}
	if (rc == 0)
		rc = feedback_section_begin(&f->fields, section);
	f->sections[f->section_count++] = section;
	return rc;
}

static int open_unknown(struct feedback *f, struct span name)
{
	if (f->depth == 1) {
		f->other = true;
		sbuf_adds(&f->error, "not a DMARC report: the root element is <");
		sbuf_add_escaped(&f->error, span_take(name, ELEMENT_NAME_MAX));
		sbuf_addc(&f->error, '>');
		return ERR_SYNTAX;
	}
	f->unknown = 1;
	return 0;
}

/*
 * An extension (RFC 9990 section 3) may name its elements as ours are named.
 * Elements without a prefix in a report without a namespace are ours whatever
 * they declare: some reporters put the namespace below the root.
 */
static bool is_foreign(const struct feedback *f, const char *prefix, const char *uri)
{
	struct span ours = f->fields.report.xmlns;
	if (f->depth == 0)
		return false;
	if (uri != NULL && ours.len > 0)
		return !span_eq(span_take(span_str(uri), FEEDBACK_NAME_MAX), ours);
	return prefix != NULL && (f->root_prefix == NULL || strcmp(prefix, f->root_prefix) != 0);
}

static int open_element(struct feedback *f, struct span name, bool foreign)
{
	if (++f->depth > FEEDBACK_DEPTH_MAX) {
		sbuf_adds(&f->error, "elements are nested too deeply");
		return ERR_LIMIT;
	}
	if (f->unknown > 0 || f->leaf != NULL || foreign) {
		f->unknown++;
		return 0;
	}
	enum feedback_section section = feedback_section_find(current(f), name);
	if (section != SECTION_COUNT)
		return open_section(f, section);
	f->leaf = feedback_leaf_find(current(f), name);
	sbuf_reset(&f->text);
	return f->leaf != NULL ? 0 : open_unknown(f, name);
}

static void note(struct feedback *f, const char *what)
{
	if (what != NULL && f->sink->note != NULL && ++f->notes <= FEEDBACK_NOTES_MAX)
		f->sink->note(f->sink->arg, feedback_line(f), what);
}

static int close_section(struct feedback *f)
{
	enum feedback_section section = f->sections[--f->section_count];
	int rc = feedback_section_end(&f->fields, section);
	note(f, f->fields.note);
	f->fields.note = NULL;
	if (rc == 0 && section == SECTION_RECORD)
		rc = f->sink->record(f->sink->arg, &f->fields.report, &f->fields.record);
	if (rc == 0 && section == SECTION_FEEDBACK)
		rc = tell_head(f);
	f->ended = section == SECTION_FEEDBACK;
	if (rc == 0 && f->ended)
		rc = f->sink->end(f->sink->arg, &f->fields.report);
	return rc;
}

static int close_leaf(struct feedback *f)
{
	const struct feedback_leaf *leaf = f->leaf;
	f->leaf = NULL;
	if (!sbuf_ok(&f->text)) {
		sbuf_adds(&f->error, "a text is too long");
		return ERR_LIMIT;
	}
	return feedback_leaf_store(&f->fields, leaf, sbuf_span(&f->text));
}

/* The root element tells which elements are the report's own. */
static int keep_namespace(struct feedback *f, const char *prefix, const char *uri)
{
	f->root_prefix = prefix == NULL ? NULL : mem_strdup(prefix);
	if (uri == NULL)
		return 0;
	return arena_dup(&f->fields.report_arena, span_take(span_str(uri), FEEDBACK_NAME_MAX),
			 &f->fields.report.xmlns);
}

static void on_start(void *arg, const xmlChar *name, const xmlChar *xml_prefix, const xmlChar *xml_uri,
		     int namespaces, const xmlChar **namespace, int attributes, int defaulted,
		     const xmlChar **attribute)
{
	struct feedback *f = arg;
	const char *prefix = (const char *)xml_prefix, *uri = (const char *)xml_uri;
	(void)namespaces, (void)namespace, (void)attributes, (void)defaulted, (void)attribute;
	f->since_event = 0;
	if (f->rc < 0)
		return;
	int rc = open_element(f, span_str((const char *)name), is_foreign(f, prefix, uri));
	if (rc == 0 && f->depth == 1)
		rc = keep_namespace(f, prefix, uri);
	if (rc < 0)
		stop(f, rc);
}

static void on_end(void *arg, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
	struct feedback *f = arg;
	(void)name, (void)prefix, (void)uri;
	f->since_event = 0;
	if (f->rc < 0)
		return;
	f->depth--;
	int rc = 0;
	if (f->unknown > 0)
		f->unknown--;
	else if (f->leaf != NULL)
		rc = close_leaf(f);
	else
		rc = close_section(f);
	if (rc < 0)
		stop(f, rc);
}

static void on_text(void *arg, const xmlChar *text, int len)
{
	struct feedback *f = arg;
	struct span s = span_of(text, (size_t)len);
	f->since_event = 0;
	if (f->leaf == NULL || f->unknown > 0)
		return;
	if (f->text.len == 0)
		while (s.len > 0 && ascii_isfws(s.ptr[0]))
			s = span_skip(s, 1);
	sbuf_add(&f->text, s);
}

static void on_comment(void *arg, const xmlChar *text)
{
	struct feedback *f = arg;
	(void)text;
	f->since_event = 0;
}

static void on_instruction(void *arg, const xmlChar *target, const xmlChar *data)
{
	(void)target;
	on_comment(arg, data);
}

static void on_doctype(void *arg, const xmlChar *name, const xmlChar *external,
		       const xmlChar *system)
{
	(void)name, (void)external, (void)system;
	refuse(arg, ERR_SYNTAX, "a document type definition is not taken");
}

/* ---- The document ---- */

struct feedback *feedback_new(uint64_t records_max, const struct feedback_sink *sink)
{
	struct feedback *f = mem_zalloc(sizeof(*f));
	f->sink = sink;
	f->records_max = records_max;
	sbuf_init(&f->error, f->error_mem, sizeof(f->error_mem));
	sbuf_init_heap(&f->text, FEEDBACK_TEXT_MAX);
	feedback_fields_init(&f->fields, &f->error);
	xmlSetGenericErrorFunc(NULL, ignore_text);
	f->handlers.initialized = XML_SAX2_MAGIC;
	f->handlers.startElementNs = on_start;
	f->handlers.endElementNs = on_end;
	f->handlers.characters = on_text;
	f->handlers.cdataBlock = on_text;
	f->handlers.comment = on_comment;
	f->handlers.processingInstruction = on_instruction;
	f->handlers.internalSubset = on_doctype;
	f->handlers.serror = ignore_error;
	return f;
}

void feedback_free(struct feedback **feedback)
{
	struct feedback *f = *feedback;
	if (f == NULL)
		return;
	if (f->xml != NULL)
		xmlFreeParserCtxt(f->xml);
	feedback_fields_done(&f->fields);
	sbuf_done(&f->text);
	free(f->root_prefix);
	free(f);
	*feedback = NULL;
}

static int push_slice(struct feedback *f, struct span slice, bool last)
{
	f->since_event += slice.len;
	xmlParseChunk(f->xml, slice.ptr, (int)slice.len, last);
	if (f->rc < 0)
		return f->rc;
	if (!f->xml->wellFormed)
		return refuse_xml(f);
	/* Where a charset cannot be decoded the parser stops without an error of its own. */
	if (f->xml->disableSAX)
		return refuse(f, ERR_SYNTAX, "not well-formed XML: not in the charset that it names");
	if (xmlDictSize(f->xml->dict) > FEEDBACK_NAMES_MAX)
		return refuse(f, ERR_LIMIT, "there are too many different names");
	if (f->since_event > FEEDBACK_TOKEN_MAX + SLICE)
		return refuse(f, ERR_LIMIT, "a tag or comment is too long");
	return 0;
}

/* How many bytes at the end of S may be the beginning of a character. */
static size_t unfinished(struct span s)
{
	for (size_t n = 1; n <= HELD_MAX && n <= s.len; n++) {
		unsigned char c = (unsigned char)s.ptr[s.len - n];
		if ((c & 0xc0) == 0x80)
			continue;
		size_t len = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
		return len > n ? n : 0;
	}
	return 0;
}

/* Of the character at the start of S, 0 where XML has none such (its section 2.2). */
static size_t char_len(struct span s)
{
	bool control = s.len > 0 && (unsigned char)s.ptr[0] < ' ' && !ascii_isfws(s.ptr[0]);
	bool none = span_starts(s, SPAN_LIT("\xef\xbf\xbe")) || span_starts(s, SPAN_LIT("\xef\xbf\xbf"));
	return control || none ? 0 : utf8_length(s);
}

static size_t well_formed_len(struct span s)
{
	size_t i = 0, len;
	while ((len = char_len(span_skip(s, i))) > 0)
		i += len;
	return i;
}

/* The parser converts other charsets itself, and refuses what is in none. */
static bool is_utf8(const struct feedback *f)
{
	const xmlParserInput *input = f->xml->input;
	return f->section_count > 0 && input != NULL && input->buf != NULL && input->buf->encoder == NULL;
}

static int push_replaced(struct feedback *f, struct span s)
{
	char mem[3 * (SLICE + HELD_MAX) + 1];
	struct sbuf text;
	sbuf_init(&text, mem, sizeof(mem));
	while (s.len > 0) {
		size_t len = well_formed_len(s);
		sbuf_add(&text, span_take(s, len));
		s = span_skip(s, len);
		if (s.len == 0)
			break;
		sbuf_adds(&text, "\xef\xbf\xbd");
		f->fields.report.oddities++;
		note(f, "bytes that XML does not allow were replaced");
		/* A character that is whole but none of XML goes as one. */
		len = utf8_length(s);
		s = span_skip(s, len > 0 ? len : 1);
	}
	return push_slice(f, sbuf_span(&text), false);
}

/* SLICE with each byte that is no UTF-8 replaced, where it claims to be UTF-8. */
static int push_text(struct feedback *f, struct span slice, bool last)
{
	char mem[SLICE + HELD_MAX];
	if (f->charset == CHARSET_OTHER)
		return slice.len > 0 ? push_slice(f, slice, false) : f->rc;
	memcpy(mem, f->held, f->held_len);
	if (slice.len > 0)
		memcpy(mem + f->held_len, slice.ptr, slice.len);
	const struct span all = span_of(mem, f->held_len + slice.len);
	f->held_len = last ? 0 : unfinished(all);
	struct span whole = span_take(all, all.len - f->held_len);
	memcpy(f->held, mem + whole.len, f->held_len);
	size_t good = well_formed_len(whole);
	if (good > 0 && (good == whole.len || f->charset == CHARSET_UNKNOWN)) {
		if (push_slice(f, span_take(whole, good), false) < 0)
			return f->rc;
		whole = span_skip(whole, good);
	}
	if (whole.len == 0)
		return f->rc;
	if (f->charset == CHARSET_UNKNOWN)
		f->charset = is_utf8(f) ? CHARSET_UTF8 : CHARSET_OTHER;
	if (f->charset == CHARSET_UTF8)
		return push_replaced(f, whole);
	f->held_len = 0;
	return push_slice(f, span_of(whole.ptr, (size_t)(mem + all.len - whole.ptr)), false);
}

/* Blank lines and a byte order mark in front of the declaration are not XML. */
static struct span skip_blank(struct feedback *f, struct span bytes)
{
	for (; bytes.len > 0; bytes = span_skip(bytes, 1)) {
		char c = bytes.ptr[0];
		if (!f->blank && f->mark < sizeof(byte_order_mark) &&
		    c == byte_order_mark[f->mark]) {
			f->mark++;
			continue;
		}
		if (!ascii_isfws(c) || f->mark % sizeof(byte_order_mark) != 0)
			break;
		f->blank = true;
		f->blank_lines += c == '\n';
	}
	return bytes;
}

static int begin(struct feedback *f)
{
	f->xml = xmlCreatePushParserCtxt(&f->handlers, f, NULL, 0, NULL);
	if (f->xml == NULL)
		PANIC("cannot make an XML parser");
	xmlCtxtUseOptions(f->xml, XML_PARSE_NONET);
	/* Half a mark is part of the text, which it spoils. */
	return push_slice(f, span_of(byte_order_mark, f->mark % sizeof(byte_order_mark)), false);
}

int feedback_push(struct feedback *f, struct span bytes)
{
	if (f->xml == NULL && f->rc == 0) {
		bytes = skip_blank(f, bytes);
		if (bytes.len == 0)
			return 0;
		if (begin(f) < 0)
			return f->rc;
	}
	while (bytes.len > 0 && f->rc == 0) {
		struct span slice = span_take(bytes, SLICE);
		bytes = span_skip(bytes, SLICE);
		if (push_text(f, slice, false) < 0)
			break;
	}
	return f->rc;
}

int feedback_finish(struct feedback *f)
{
	if (f->rc == 0 && f->xml == NULL)
		return refuse(f, ERR_SYNTAX, "the document is empty");
	if (f->rc == 0 && push_text(f, SPAN_EMPTY, true) == 0 && push_slice(f, span_of("", 0), true) == 0 && !f->ended)
		return refuse(f, ERR_SYNTAX, "not well-formed XML: it ends too early");
	return f->rc;
}

const char *feedback_error(const struct feedback *f)
{
	return sbuf_cstr(&f->error);
}

bool feedback_is_other(const struct feedback *f)
{
	return f->other;
}

unsigned long feedback_line(const struct feedback *f)
{
	bool known = f->xml != NULL && f->xml->input != NULL && f->xml->input->line > 0;
	return f->blank_lines + (known ? (unsigned long)f->xml->input->line : 1);
}
