/*
 * From a file to its documents.  One document is in hand at a time; of XML no
 * more than a piece is in memory, of JSON and of a mail all of it, within
 * their caps.
 */
#include "postern/reports/reader.h"

#include "postern/reports/mailparts.h"

#define PIECE 65536
#define SENTENCE_MAX 1024

struct run {
	const struct reader_limits *limits;
	const struct reader_sink *sink;
	struct sbuf *error;
	struct span part; /* file name of the attachment in hand */
	bool in_mail;
};

/* ---- Where we are ---- */

static void add_place(const struct run *run, struct span member, struct sbuf *out)
{
	sbuf_add_escaped(out, run->part);
	if (run->part.len > 0 && member.len > 0)
		sbuf_adds(out, ": ");
	sbuf_add_escaped(out, member);
}

/* "PLACE: line N: SENTENCE"; errors of a sink or of the file have no sentence. */
static int fail(struct run *run, int rc, struct span member, unsigned long line,
		const char *sentence)
{
	if (sentence[0] == '\0')
		return rc;
	size_t before = run->error->len;
	add_place(run, member, run->error);
	if (run->error->len > before)
		sbuf_adds(run->error, ": ");
	if (line > 0)
		sbuf_addf(run->error, "line %lu: ", line);
	sbuf_adds(run->error, sentence);
	return rc;
}

/* ---- Documents ---- */

struct document {
	struct run *run;
	struct archive *archive;
	struct span member;
	char piece[PIECE];
	size_t got; /* bytes in `piece` */
	char sentence_mem[SENTENCE_MAX];
	struct sbuf sentence;
	bool other; /* it is no report, nor damaged */
};

static int fail_document(struct document *d, int rc, unsigned long line)
{
	return fail(d->run, rc, d->member, line, sbuf_cstr(&d->sentence));
}

/* The next piece; none at the end. */
static int next_piece(struct document *d)
{
	return archive_read(d->archive, d->piece, sizeof(d->piece), &d->got, &d->sentence);
}

/* Enough of the beginning to tell what it is. */
static int first_piece(struct document *d)
{
	size_t total = 0, got = 1;
	int rc = 0;
	while (rc == 0 && got > 0 && total < CONTENT_SNIFF_BYTES) {
		rc = archive_read(d->archive, d->piece + total, sizeof(d->piece) - total, &got,
				  &d->sentence);
		total += rc == 0 ? got : 0;
	}
	d->got = total;
	return rc;
}

static int read_xml(struct document *d)
{
	struct feedback *f = feedback_new(d->run->limits->records, &d->run->sink->feedback);
	int rc = 0;
	while (rc == 0 && d->got > 0) {
		rc = feedback_push(f, span_of(d->piece, d->got));
		if (rc == 0)
			rc = next_piece(d);
	}
	if (rc == 0)
		rc = feedback_finish(f);
	unsigned long line = 0;
	d->other = feedback_is_other(f);
	if (rc < 0 && d->sentence.len == 0 && feedback_error(f)[0] != '\0') {
		sbuf_adds(&d->sentence, feedback_error(f));
		line = feedback_line(f);
	}
	feedback_free(&f);
	return rc < 0 ? fail_document(d, rc, line) : 0;
}

/* Control characters, which no JSON may hold, become spaces; the first one is told. */
static void replace_controls(const struct document *d, struct sbuf *text)
{
	const struct feedback_sink *sink = &d->run->sink->feedback;
	unsigned long line = 1;
	bool told = sink->note == NULL;
	for (size_t i = 0; i < text->len; i++) {
		char *c = &text->ptr[i];
		line += *c == '\n';
		if ((unsigned char)*c >= ' ' || ascii_isfws(*c))
			continue;
		*c = ' ';
		if (!told)
			sink->note(sink->arg, line, "control characters were replaced");
		told = true;
	}
}

static int read_json(struct document *d)
{
	struct arena arena;
	struct sbuf text;
	struct tlsrpt_report report;
	unsigned line = 0;
	int rc = 0;
	arena_init(&arena, TLSRPT_ARENA_MAX);
	sbuf_init_heap(&text, TLSRPT_BYTES_MAX);
	while (rc == 0 && d->got > 0) {
		sbuf_add(&text, span_of(d->piece, d->got));
		rc = sbuf_ok(&text) ? next_piece(d) : ERR_LIMIT;
	}
	if (!sbuf_ok(&text))
		sbuf_adds(&d->sentence, "the document is too long");
	replace_controls(d, &text);
	if (rc == 0)
		rc = tlsrpt_parse(sbuf_span(&text), &arena, &report, &d->sentence, &line);
	if (rc == 0)
		rc = d->run->sink->tlsrpt(d->run->sink->arg, &report);
	sbuf_done(&text);
	arena_done(&arena);
	return rc < 0 ? fail_document(d, rc, line) : 0;
}

static int refuse_kind(struct document *d, enum content_kind kind)
{
	bool packed = kind == CONTENT_GZIP || kind == CONTENT_ZIP;
	d->other = true;
	if (packed)
		sbuf_adds(&d->sentence, "an archive within an archive is not taken");
	else
		sbuf_addf(&d->sentence, "not a report: it holds %s", content_name(kind));
	return fail_document(d, ERR_SYNTAX, 0);
}

static int read_document(struct document *d)
{
	char place_mem[READER_NAME_MAX];
	struct sbuf place;
	int rc = first_piece(d);
	if (rc < 0)
		return fail_document(d, rc, 0);
	enum content_kind kind = content_sniff(span_of(d->piece, d->got));
	if (kind != CONTENT_XML && kind != CONTENT_JSON)
		return refuse_kind(d, kind);
	sbuf_init(&place, place_mem, sizeof(place_mem));
	add_place(d->run, d->member, &place);
	rc = d->run->sink->document(d->run->sink->arg, sbuf_span(&place));
	if (rc < 0)
		return rc;
	return kind == CONTENT_XML ? read_xml(d) : read_json(d);
}

/* ---- Files ---- */

/* What an archive holds besides reports. */
struct passed {
	struct sbuf lines; /* the sentences of the first READER_PASSED_MAX, each with a NUL */
	size_t count;
};

/* Takes the sentence of the last failure, behind BEFORE, out of the error. */
static void pass_over(struct run *run, struct passed *passed, size_t before)
{
	if (passed->count++ < READER_PASSED_MAX) {
		sbuf_add(&passed->lines, span_skip(sbuf_span(run->error), before));
		sbuf_addc(&passed->lines, '\0');
	}
	sbuf_truncate(run->error, before);
}

static void tell_passed(const struct run *run, const struct passed *passed)
{
	const struct reader_sink *sink = run->sink;
	char more[64];
	const char *line = passed->lines.ptr;
	for (size_t i = 0; sink->passed_over != NULL && i < passed->count && i < READER_PASSED_MAX; i++) {
		sink->passed_over(sink->arg, line);
		line += strlen(line) + 1;
	}
	if (sink->passed_over == NULL || passed->count <= READER_PASSED_MAX)
		return;
	snprintf(more, sizeof(more), "%zu more members are no reports", passed->count - READER_PASSED_MAX);
	sink->passed_over(sink->arg, more);
}

/* The reports of all members; COUNT_OUT tells how many there were. */
static int read_each(struct run *run, struct archive *archive, struct passed *passed, size_t *count_out)
{
	struct document *d = mem_alloc(sizeof(*d));
	int rc = 0;
	d->run = run;
	d->archive = archive;
	while (rc == 0 && (rc = archive_next(archive, &d->member)) == 0) {
		size_t before = run->error->len;
		sbuf_init(&d->sentence, d->sentence_mem, sizeof(d->sentence_mem));
		d->other = false;
		rc = read_document(d);
		if (rc == ERR_SYNTAX && d->other && archive_kind(archive) == CONTENT_ZIP) {
			pass_over(run, passed, before);
			rc = 0;
		} else {
			++*count_out;
		}
	}
	free(d);
	return rc == ERR_NOT_FOUND ? 0 : rc;
}

static int read_members(struct run *run, struct archive *archive)
{
	struct passed passed = {.count = 0};
	size_t count = 0;
	sbuf_init_heap(&passed.lines, READER_PASSED_MAX * (READER_NAME_MAX + SENTENCE_MAX));
	int rc = read_each(run, archive, &passed, &count);
	if (rc == 0 && count > 0)
		tell_passed(run, &passed);
	else if (rc == 0 && passed.count > 0)
		rc = fail(run, ERR_SYNTAX, SPAN_EMPTY, 0, passed.lines.ptr);
	else if (rc == 0)
		rc = fail(run, ERR_SYNTAX, SPAN_EMPTY, 0, "the archive is empty");
	sbuf_done(&passed.lines);
	return rc;
}

static int read_mail(struct run *run, const struct zip_file *file);

static int read_file(struct run *run, const struct zip_file *file)
{
	char mem[SENTENCE_MAX];
	struct sbuf sentence;
	struct archive *archive = NULL;
	sbuf_init(&sentence, mem, sizeof(mem));
	int rc = archive_open(file, &run->limits->archive, &archive, &sentence);
	if (rc < 0)
		return fail(run, rc, SPAN_EMPTY, 0, sbuf_cstr(&sentence));
	if (archive_kind(archive) == CONTENT_MAIL && !run->in_mail)
		rc = read_mail(run, file);
	else
		rc = read_members(run, archive);
	archive_free(&archive);
	return rc;
}

static int read_part(void *arg, struct span name, struct span content)
{
	struct run *run = arg;
	const struct zip_file file = archive_file_of(&content);
	run->part = name.len > 0 ? name : SPAN_LIT("an attachment without a name");
	int rc = read_file(run, &file);
	run->part = SPAN_EMPTY;
	return rc;
}

static int read_mail(struct run *run, const struct zip_file *file)
{
	char mem[SENTENCE_MAX];
	struct sbuf sentence;
	sbuf_init(&sentence, mem, sizeof(mem));
	if (file->size > MAILPARTS_BYTES_MAX)
		return fail(run, ERR_LIMIT, SPAN_EMPTY, 0, "the mail is too large");
	size_t len = (size_t)file->size;
	char *text = mem_alloc(len);
	int rc = file->read_at(file->arg, 0, text, len);
	run->in_mail = true;
	if (rc == 0)
		rc = mailparts_each(span_of(text, len), read_part, run, &sentence);
	free(text);
	return rc < 0 ? fail(run, rc, SPAN_EMPTY, 0, sbuf_cstr(&sentence)) : 0;
}

int reader_run(const struct zip_file *file, const struct reader_limits *limits,
	       const struct reader_sink *sink, struct sbuf *error)
{
	struct run run = {.limits = limits, .sink = sink, .error = error};
	return read_file(&run, file);
}
