/* The reader of configuration files: whatever is in a file, a line that comes
 * out has a sound key, a value without control characters, and a place. */
#include "lib/base/err.h"
#include "lib/run/conf_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(const struct conf_line *line, unsigned last_line)
{
	if (line->line <= last_line || line->key.len == 0 ||
	    line->key.len + line->value.len > CONF_LINE_MAX)
		PANIC("a line without its place, key or cap");
	for (size_t i = 0; i < line->value.len; i++)
		if ((unsigned char)line->value.ptr[i] < ' ' && line->value.ptr[i] != '\t')
			PANIC("a control character in a value");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf_reader reader;
	struct conf_line line = {.line = 0};
	struct sbuf error;
	char mem[128];
	unsigned last_line = 0;
	sbuf_init(&error, mem, sizeof(mem));
	conf_reader_init(&reader, span_of(data, size));
	int rc;
	while ((rc = conf_reader_next(&reader, &line, &error)) > 0) {
		check_line(&line, last_line);
		last_line = line.line;
	}
	if (rc < 0 && error.len == 0)
		PANIC("an error without its reason");
	conf_reader_done(&reader);
	return 0;
}
