/*
 * Fuzzes archives: whatever comes, no more than the caps allow comes out, in
 * steps of any size, and the same bytes in all of them.
 */
#include <stdint.h>
#include <stdlib.h>

#include "postern/reports/archive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define UNPACKED_MAX 200000
#define MEMBERS_MAX 8

/* Returns the CRC-like sum of all that came out; *RC_OUT is how it ended. */
static uint64_t read_all(struct span bytes, size_t step, int *rc_out)
{
	static const struct archive_limits limits = {1 << 20, UNPACKED_MAX, 100, 4096, MEMBERS_MAX};
	char error_mem[256], piece[4096];
	struct sbuf error;
	const struct zip_file file = archive_file_of(&bytes);
	struct archive *a = NULL;
	struct span name;
	uint64_t sum = 0, total = 0;
	sbuf_init(&error, error_mem, sizeof(error_mem));
	int rc = archive_open(&file, &limits, &a, &error);
	for (size_t members = 0; rc == 0 && (rc = archive_next(a, &name)) == 0; members++) {
		size_t got;
		if (members >= MEMBERS_MAX)
			abort();
		while ((rc = archive_read(a, piece, step, &got, &error)) == 0 && got > 0) {
			if (got > step || (total += got) > UNPACKED_MAX)
				abort();
			for (size_t i = 0; i < got; i++)
				sum = sum * 31 + (uint8_t)piece[i];
		}
	}
	if ((rc == ERR_SYNTAX || rc == ERR_LIMIT) != (error.len > 0))
		abort();
	archive_free(&a);
	*rc_out = rc;
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int small_rc, large_rc;
	uint64_t small = read_all(span_of(data, size), 11, &small_rc);
	uint64_t large = read_all(span_of(data, size), 4096, &large_rc);
	/* Where the reading fails, steps decide how much was handed out before. */
	if (small_rc == ERR_NOT_FOUND && large_rc == ERR_NOT_FOUND && small != large)
		abort();
	return 0;
}
