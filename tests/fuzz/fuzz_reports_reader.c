/* Fuzzes whole files, mails above all: a place is printable, an error a sentence. */
#include <stdint.h>
#include <stdlib.h>

#include "postern/reports/reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_printable(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.ptr[i] < ' ' || s.ptr[i] > '~')
			abort();
}

static int on_document(void *arg, struct span name)
{
	(void)arg;
	check_printable(name);
	return 0;
}

static int on_tlsrpt(void *arg, const struct tlsrpt_report *report)
{
	(void)arg, (void)report;
	return 0;
}

static void on_passed_over(void *arg, const char *what)
{
	(void)arg;
	check_printable(span_str(what));
}

static void on_note(void *arg, unsigned long line, const char *what)
{
	(void)arg, (void)line;
	check_printable(span_str(what));
}

static int on_report(void *arg, const struct feedback_report *report)
{
	(void)arg, (void)report;
	return 0;
}

static int on_record(void *arg, const struct feedback_report *report,
		     const struct feedback_record *record)
{
	(void)arg, (void)report, (void)record;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct reader_limits limits = {{1 << 20, 1 << 20, 100, 65536, 8}, 100};
	const struct reader_sink sink = {
		on_document, on_tlsrpt, on_passed_over, {on_report, on_record, on_report, NULL, on_note}, NULL};
	const struct span bytes = span_of(data, size);
	const struct zip_file file = archive_file_of(&bytes);
	char mem[4096];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	if ((reader_run(&file, &limits, &sink, &error) < 0) != (error.len > 0))
		abort();
	check_printable(sbuf_span(&error));
	return 0;
}
