/*
 * Encoding of segment files. Pure, but for the opening of a file by number.
 */
#include "lib/run/seglog_format.h"

#include <fcntl.h>

#include "lib/base/bytes.h"
#include "lib/base/hash.h"

int seglog_segment_open(const struct seglog *log, uint64_t first, int flags)
{
	char name[32];
	snprintf(name, sizeof(name), "%020llu.seg", (unsigned long long)first);
	return openat(log->dirfd, name, flags | O_CLOEXEC, 0600);
}

uint64_t seglog_record_size(struct span bytes)
{
	return SEGLOG_RECORD_HEADER + (uint64_t)bytes_get_u32(bytes.ptr);
}

int seglog_record_decode(struct span bytes, uint64_t min, struct seglog_record *record_out)
{
	if (bytes.len < SEGLOG_RECORD_HEADER)
		return ERR_AGAIN;
	uint32_t len = bytes_get_u32(bytes.ptr);
	uint64_t seq = bytes_get_u64(bytes.ptr + 8);
	if (len > SEGLOG_RECORD_MAX || seq < min || seq - min > SEGLOG_GAP_MAX)
		return ERR_SYNTAX;
	if (bytes.len - SEGLOG_RECORD_HEADER < len)
		return ERR_AGAIN;
	struct span covered = span_of(bytes.ptr + 8, 8 + (size_t)len);
	if (hash_crc32c(0, covered) != bytes_get_u32(bytes.ptr + 4))
		return ERR_SYNTAX;
	*record_out = (struct seglog_record){seq, span_of(bytes.ptr + SEGLOG_RECORD_HEADER, len)};
	return 0;
}

size_t seglog_record_find(struct span bytes, uint64_t min)
{
	struct seglog_record record;
	for (size_t at = 0; bytes.len - at >= SEGLOG_RECORD_HEADER; at++)
		if (seglog_record_decode(span_skip(bytes, at), min, &record) == 0)
			return at;
	return SPAN_NPOS;
}
