/* 128 bits as 26 digits of five bits, the two highest of the first unused. */
#include "ulid.h"

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

struct ulid ulid_make(int64_t wall_ms, const uint8_t random[10])
{
	struct ulid id;
	uint64_t time = (uint64_t)wall_ms & ((UINT64_C(1) << 48) - 1);
	for (size_t i = 0; i < 10; i++)
		id.text[i] = digits[(time >> (45 - 5 * i)) & 31];
	uint64_t bits = 0;
	unsigned have = 0;
	size_t out = 10;
	for (size_t i = 0; i < 10; i++) {
		bits = (bits << 8) | random[i];
		have += 8;
		for (; have >= 5; have -= 5)
			id.text[out++] = digits[(bits >> (have - 5)) & 31];
	}
	id.text[ULID_LEN] = '\0';
	return id;
}

bool ulid_valid(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.ptr[i] == '\0' || strchr(digits, text.ptr[i]) == NULL)
			return false;
	return text.len == ULID_LEN && text.ptr[0] <= '7';
}
