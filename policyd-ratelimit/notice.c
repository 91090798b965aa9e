/*
 * Invariants: encoding copies bytes as they came, only cut, because Postfix
 * waits meanwhile; whoever writes to SQL or mail cleans them.
 */
#include "notice.h"

#include "lib/base/bytes.h"
#include "lib/base/utf8.h"

#define ABSENT UINT16_MAX
#define UTF8_MAX 4
#define HEAD_BYTES (1 + 8)

static const struct {
	size_t width;
	bool ascii;
} columns[NOTICE_FIELDS] = {
#define COLUMN(name, width, ascii) {width, ascii},
	NOTICE_FIELD_ROWS(COLUMN)
#undef COLUMN
};

void notice_set(struct notice *notice, enum notice_field field, struct span value)
{
	notice->fields[field] = value.len > 0 ? value : SPAN_EMPTY;
}

void notice_encode(const struct notice *notice, struct sbuf *out)
{
	sbuf_addc(out, NOTICE_VERSION);
	bytes_add_u64(out, (uint64_t)notice->happened_ms);
	for (size_t i = 0; i < NOTICE_FIELDS; i++) {
		char head[2];
		size_t max = columns[i].width * (columns[i].ascii ? 1 : UTF8_MAX);
		struct span value = span_take(notice->fields[i], max);
		bytes_put(head, notice->fields[i].ptr == NULL ? ABSENT : value.len, sizeof(head));
		sbuf_add(out, span_of(head, sizeof(head)));
		sbuf_add(out, value);
	}
}

int notice_decode(struct span bytes, struct notice *notice)
{
	*notice = (struct notice){0};
	if (bytes.len < HEAD_BYTES || bytes.ptr[0] != NOTICE_VERSION)
		return ERR_SYNTAX;
	notice->happened_ms = (int64_t)bytes_get_u64(bytes.ptr + 1);
	bytes = span_skip(bytes, HEAD_BYTES);
	for (size_t i = 0; bytes.len > 0; i++) {
		if (bytes.len < 2)
			return ERR_SYNTAX;
		size_t len = bytes_get_u16(bytes.ptr);
		bytes = span_skip(bytes, 2);
		if (len == ABSENT)
			continue;
		if (len > bytes.len)
			return ERR_SYNTAX;
		if (i < NOTICE_FIELDS)
			notice->fields[i] = span_of(bytes.ptr, len);
		bytes = span_skip(bytes, len);
	}
	return 0;
}

void notice_field_clean(enum notice_field field, struct span value, struct sbuf *out)
{
	if (!columns[field].ascii) {
		utf8_add_clean(out, value, columns[field].width);
		return;
	}
	value = span_take(value, columns[field].width);
	for (size_t i = 0; i < value.len; i++)
		sbuf_addc(out, value.ptr[i] >= ' ' && value.ptr[i] <= '~' ? value.ptr[i] : '?');
}
