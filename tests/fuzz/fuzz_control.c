/* The words of the control socket: what can be read is written and read back
 * as the same words. */
#include "lib/run/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span words[CONTROL_WORDS_MAX], again[CONTROL_WORDS_MAX];
	size_t count = 0, count_again = 0;
	struct sbuf mem, line, mem_again;
	if (size > CONTROL_LINE_MAX)
		return 0;
	sbuf_init_heap(&mem, CONTROL_LINE_MAX);
	sbuf_init_heap(&line, 4 * CONTROL_LINE_MAX);
	sbuf_init_heap(&mem_again, CONTROL_LINE_MAX);
	if (control_words_parse(span_of(data, size), &mem, words, &count) == 0) {
		for (size_t i = 0; i < count; i++)
			control_word_add(&line, words[i]);
		if (control_words_parse(sbuf_span(&line), &mem_again, again, &count_again) < 0 ||
		    count_again != count)
			PANIC("the words cannot be read back");
		for (size_t i = 0; i < count; i++)
			if (!span_eq(words[i], again[i]))
				PANIC("a word has changed on the way");
	}
	sbuf_done(&mem);
	sbuf_done(&line);
	sbuf_done(&mem_again);
	return 0;
}
