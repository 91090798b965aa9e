/*
 * Records of outcomes, as the disk may give them back.  What decodes is encoded
 * and decoded to the same, and its texts fit their columns and are valid.
 */
#include "lib/base/utf8.h"
#include "milter-dkim/outcome_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_clean(struct span text)
{
	while (text.len > 0) {
		size_t len = utf8_length(text);
		if (len == 0 || (unsigned char)text.ptr[0] < 0x20 || text.ptr[0] == 0x7f)
			PANIC("a text is not clean");
		text = span_skip(text, len);
	}
}

static void check_texts(const struct outcome_record *r)
{
	static const size_t widths[] = {
#define WIDTH(name, width, kind) width,
		OUTCOME_FIELD_ROWS(WIDTH)
#undef WIDTH
	};
	struct sbuf text;
	sbuf_init_heap(&text, 1 << 20);
	for (unsigned i = 0; i < OUTCOME_FIELDS; i++) {
		sbuf_reset(&text);
		outcome_field_clean(i, r->fields[i], &text);
		check_clean(sbuf_span(&text));
		if (text.len > widths[i] * 4 || (i == OUTCOME_DMARC_RECORD && text.len > widths[i]))
			PANIC("a text is longer than its column");
	}
	sbuf_reset(&text);
	outcome_signatures_json(r, &text);
	check_clean(sbuf_span(&text));
	if (!sbuf_ok(&text))
		PANIC("the signatures do not fit");
	sbuf_done(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct outcome_record first, second;
	if (outcome_record_decode(span_of(data, size), &first) < 0)
		return 0;
	struct sbuf one, two;
	sbuf_init_heap(&one, OUTCOME_RECORD_MAX);
	sbuf_init_heap(&two, OUTCOME_RECORD_MAX);
	outcome_record_encode(&first, &one);
	if (!sbuf_ok(&one) || outcome_record_decode(sbuf_span(&one), &second) < 0)
		PANIC("what was encoded does not decode");
	outcome_record_encode(&second, &two);
	if (!span_eq(sbuf_span(&one), sbuf_span(&two)))
		PANIC("a record changes on its way");
	check_texts(&second);
	sbuf_done(&one);
	sbuf_done(&two);
	return 0;
}
