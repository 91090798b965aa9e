/*
 * Fuzzes the reading of mail: whatever comes, all texts are valid UTF-8 within
 * the widths of their columns, and the words can be asked for.
 */
#include <glib.h>
#include <stdlib.h>

#include "lib/base/sbuf.h"
#include "lmtp-indexer/extract.h"
#include "lmtp-indexer/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(struct span s, size_t chars)
{
	if (s.len > 0 && !g_utf8_validate_len(s.ptr, s.len, NULL))
		abort();
	if (s.len > 0 && (size_t)g_utf8_strlen(s.ptr, (gssize)s.len) > chars)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool started;
	static const struct extract_limits limits = {.depth_max = 8, .parts_max = 20, .text_max_bytes = 4096};
	if (!started)
		extract_start();
	started = true;
	if (size == 0)
		return 0;
	struct extract_source source = {.bytes = span_of(data, size), .fd = -1};
	struct extract *x = extract_new(&limits, "mx.example.com", &source);
	check(x->subject, EXTRACT_SUBJECT_CHARS);
	check(x->message_id, EXTRACT_ID_CHARS);
	check(x->in_reply_to, EXTRACT_ID_CHARS);
	check(x->snippet, EXTRACT_SNIPPET_CHARS);
	check(x->text, limits.text_max_bytes);
	check(x->terms, SIZE_MAX);
	for (size_t i = 0; i < x->address_count; i++) {
		check(x->addresses[i].address, EXTRACT_ADDRESS_CHARS);
		check(x->addresses[i].display, EXTRACT_ADDRESS_CHARS);
	}
	for (size_t i = 0; i < x->attachment_count; i++) {
		check(x->attachments[i].name, EXTRACT_NAME_CHARS);
		check(x->attachments[i].media_type, EXTRACT_TYPE_CHARS);
	}
	char mem[4096];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	tokens_fold(&b, span_of(data, size));
	extract_free(&x);
	return 0;
}
