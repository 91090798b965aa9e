/*
 * Feeds files to a fuzz target without a fuzzer: what once was found, and what
 * the target was begun with, is tried in every `make check`.  A target that
 * does not like its input aborts.
 */
#include <stdint.h>

#include "lib/base/err.h"

#define INPUT_MAX ((size_t)16 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
	FILE *file = fopen(path, "rb");
	if (file == NULL) {
		perror(path);
		return 1;
	}
	uint8_t *data = mem_alloc(INPUT_MAX);
	size_t size = fread(data, 1, INPUT_MAX, file);
	int bad = ferror(file) != 0 || !feof(file);
	fclose(file);
	if (bad) {
		fprintf(stderr, "%s: unreadable or over %zu bytes\n", path, INPUT_MAX);
	} else {
		/* Exactly as large as the input, so that a sanitiser sees its end. */
		data = mem_realloc(data, size + (size == 0));
		printf("%s\n", path);
		fflush(stdout);
		LLVMFuzzerTestOneInput(data, size);
	}
	free(data);
	return bad;
}

int main(int argc, char **argv)
{
	int bad = argc < 2;
	for (int i = 1; i < argc; i++)
		bad |= replay(argv[i]);
	return bad;
}
