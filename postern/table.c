/*
 * Two passes over the rows: widths, then text.  Every text goes through
 * next_char(), which alone decides what is shown and how wide it is.
 */
#include "postern/table.h"

#define REPLACEMENT 0xfffdu
#define GAP 2

/* Decodes one character of S from *POS on; broken sequences give U+FFFD and
 * one byte. */
static uint32_t decode(struct span s, size_t *pos)
{
	unsigned char first = (unsigned char)s.ptr[*pos];
	size_t len = first < 0x80		     ? 1
		     : first >= 0xf0 && first < 0xf5 ? 4
		     : first >= 0xe0 && first < 0xf0 ? 3
		     : first >= 0xc2 && first < 0xe0 ? 2
						     : 0;
	if (len == 1) {
		++*pos;
		return first;
	}
	if (len == 0 || s.len - *pos < len) {
		++*pos;
		return REPLACEMENT;
	}
	uint32_t code = first & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		unsigned char c = (unsigned char)s.ptr[*pos + i];
		if ((c & 0xc0) != 0x80) {
			++*pos;
			return REPLACEMENT;
		}
		code = code << 6 | (c & 0x3fu);
	}
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	if (code < smallest[len] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
		++*pos;
		return REPLACEMENT;
	}
	*pos += len;
	return code;
}

/* C0, DEL and C1 controls, and the marks that reorder or hide text. */
static bool is_unsafe(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x200b && code <= 0x200f) ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x2069) ||
	       code == 0xfeff;
}

static unsigned cells(uint32_t code)
{
	static const struct {
		uint32_t first, last;
	} wide[] = {{0x1100, 0x115f}, {0x2e80, 0x303e},	  {0x3041, 0xa4cf},   {0xa960, 0xa97c},
		    {0xac00, 0xd7a3}, {0xf900, 0xfaff},	  {0xfe30, 0xfe6f},   {0xff00, 0xff60},
		    {0xffe0, 0xffe6}, {0x1f300, 0x1f64f}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};
	if (code >= 0x300 && code <= 0x36f)
		return 0;
	for (size_t i = 0; i < sizeof(wide) / sizeof(wide[0]); i++) {
		if (code >= wide[i].first && code <= wide[i].last)
			return 2;
	}
	return 1;
}

/* The next character as it may be shown; its bytes go to *SHOWN_OUT. */
static unsigned next_char(struct span s, size_t *pos, struct span *shown_out)
{
	size_t start = *pos;
	uint32_t code = decode(s, pos);
	if (is_unsafe(code) || (code == REPLACEMENT && *pos - start == 1)) {
		*shown_out = SPAN_LIT("\xef\xbf\xbd");
		return 1;
	}
	*shown_out = span_of(s.ptr + start, *pos - start);
	return cells(code);
}

size_t table_width(struct span s)
{
	size_t width = 0;
	struct span shown;
	for (size_t pos = 0; pos < s.len;)
		width += next_char(s, &pos, &shown);
	return width;
}

bool table_is_plain(struct span s)
{
	struct span shown;
	for (size_t pos = 0; pos < s.len;) {
		const char *at = s.ptr + pos;
		next_char(s, &pos, &shown);
		if (shown.ptr != at)
			return false;
	}
	return true;
}

/* Adds S in at most MAX cells (0: all) and returns the cells written. */
static size_t add_shown(struct sbuf *out, struct span s, size_t max)
{
	size_t width = table_width(s), done = 0;
	size_t room = max != 0 && width > max ? max - 1 : width;
	struct span shown;
	for (size_t pos = 0; pos < s.len;) {
		unsigned w = next_char(s, &pos, &shown);
		if (done + w > room)
			break;
		sbuf_add(out, shown);
		done += w;
	}
	if (room < width) {
		sbuf_adds(out, "\xe2\x80\xa6");
		done++;
	}
	return done;
}

/* The text of a value; MEM is used for what is not a string. */
static struct span value_text(const json_t *value, struct sbuf *mem)
{
	sbuf_reset(mem);
	switch (value == NULL ? JSON_NULL : json_typeof(value)) {
	case JSON_STRING:
		return span_of(json_string_value(value), json_string_length(value));
	case JSON_INTEGER:
		sbuf_addf(mem, "%lld", (long long)json_integer_value(value));
		break;
	case JSON_REAL:
		sbuf_addf(mem, "%.2f", json_real_value(value));
		break;
	case JSON_TRUE:
		return SPAN_LIT("yes");
	case JSON_FALSE:
		return SPAN_LIT("no");
	default:
		return SPAN_LIT("-");
	}
	return sbuf_span(mem);
}

static void add_spaces(struct sbuf *out, size_t count)
{
	while (count-- > 0)
		sbuf_addc(out, ' ');
}

static void add_cell(struct sbuf *out, const struct table_column *column, size_t width,
		     struct span text, bool last)
{
	size_t len = table_width(text);
	if (column->max != 0 && len > column->max)
		len = column->max;
	size_t pad = width > len ? width - len : 0;
	if (column->right)
		add_spaces(out, pad);
	size_t done = add_shown(out, text, column->max);
	if (!last)
		add_spaces(out, GAP + (column->right ? 0 : width - done));
}

void table_print(struct sbuf *out, const struct table_column *columns, const json_t *rows)
{
	size_t widths[TABLE_COLUMNS_MAX], count = 0, index;
	char mem[64];
	struct sbuf number;
	sbuf_init(&number, mem, sizeof(mem));
	const json_t *row;
	for (; count < TABLE_COLUMNS_MAX && columns[count].key != NULL; count++)
		widths[count] = table_width(span_str(columns[count].title));
	json_array_foreach(rows, index, row)
	{
		for (size_t i = 0; i < count; i++) {
			size_t width = table_width(
				value_text(json_object_get(row, columns[i].key), &number));
			if (columns[i].max != 0 && width > columns[i].max)
				width = columns[i].max;
			widths[i] = width > widths[i] ? width : widths[i];
		}
	}
	for (size_t i = 0; i < count; i++)
		add_cell(out, &columns[i], widths[i], span_str(columns[i].title), i + 1 == count);
	sbuf_addc(out, '\n');
	json_array_foreach(rows, index, row)
	{
		for (size_t i = 0; i < count; i++)
			add_cell(out, &columns[i], widths[i],
				 value_text(json_object_get(row, columns[i].key), &number),
				 i + 1 == count);
		sbuf_addc(out, '\n');
	}
}

void table_add_shown(struct sbuf *out, struct span s)
{
	(void)add_shown(out, s, 0);
}
