/*
 * Tag lists: what is accepted keeps within its caps, has no name twice, and is
 * accepted again when written anew.
 */
#include "lib/base/sbuf.h"
#include "milter-dkim/taglist.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct taglist list, again;
	struct sbuf text;
	if (taglist_parse(span_of(data, size), &list) < 0)
		return 0;
	sbuf_init_heap(&text, size + 4 * TAGLIST_TAGS_MAX);
	for (size_t i = 0; i < list.count; i++) {
		struct span value;
		sbuf_add(&text, list.tags[i].name);
		sbuf_addc(&text, '=');
		sbuf_add(&text, list.tags[i].value);
		sbuf_addc(&text, ';');
		for (size_t k = 0; k < i; k++)
			if (span_eq(list.tags[k].name, list.tags[i].name))
				PANIC("a tag is there twice");
		struct taglist_items items = {.rest = list.tags[i].value};
		while (taglist_item(&items, &value))
			if (span_chr(value, ':') != SPAN_NPOS)
				PANIC("an item holds its separator");
	}
	if (text.len <= TAGLIST_BYTES_MAX &&
	    (taglist_parse(sbuf_span(&text), &again) < 0 || again.count != list.count))
		PANIC("the list changes when written anew");
	sbuf_done(&text);
	return 0;
}
