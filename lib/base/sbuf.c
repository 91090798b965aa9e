/*
 * The bounded builder.  Invariant: ptr[len] is NUL whenever ptr is not NULL,
 * and len + 1 <= size <= max_size.
 */
#include "sbuf.h"

#define SBUF_FIRST_SIZE 256

void sbuf_init(struct sbuf *b, char *mem, size_t size)
{
	*b = (struct sbuf){.ptr = mem, .size = size, .max_size = size};
	mem[0] = '\0';
}

void sbuf_init_heap(struct sbuf *b, size_t max_len)
{
	*b = (struct sbuf){.max_size = max_len + 1, .heap = true};
}

void sbuf_done(struct sbuf *b)
{
	if (b->heap)
		free(b->ptr);
	*b = (struct sbuf){0};
}

void sbuf_reset(struct sbuf *b)
{
	b->full = false;
	sbuf_truncate(b, 0);
}

void sbuf_truncate(struct sbuf *b, size_t len)
{
	if (len > b->len || b->ptr == NULL)
		return;
	b->len = len;
	b->ptr[len] = '\0';
}

const char *sbuf_cstr(const struct sbuf *b)
{
	return b->ptr == NULL ? "" : b->ptr;
}

/* Makes room for MORE bytes and the NUL, or sets the flag. */
static bool reserve(struct sbuf *b, size_t more)
{
	if (b->full)
		return false;
	if (more < b->size && b->len < b->size - more)
		return true;
	if (!b->heap || more >= b->max_size || b->len >= b->max_size - more) {
		b->full = true;
		return false;
	}
	size_t size = b->size > 0 ? b->size : SBUF_FIRST_SIZE;
	while (size < b->len + more + 1)
		size *= 2;
	if (size > b->max_size)
		size = b->max_size;
	b->ptr = mem_realloc(b->ptr, size);
	b->size = size;
	return true;
}

void sbuf_add(struct sbuf *b, struct span s)
{
	if (!reserve(b, s.len))
		return;
	if (s.len > 0)
		memcpy(b->ptr + b->len, s.ptr, s.len);
	b->len += s.len;
	b->ptr[b->len] = '\0';
}

void sbuf_addc(struct sbuf *b, char c)
{
	sbuf_add(b, span_of(&c, 1));
}

void sbuf_adds(struct sbuf *b, const char *text)
{
	sbuf_add(b, span_str(text));
}

void sbuf_addf(struct sbuf *b, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	sbuf_vaddf(b, fmt, args);
	va_end(args);
}

void sbuf_vaddf(struct sbuf *b, const char *fmt, va_list args)
{
	va_list again;
	va_copy(again, args);
	/* Most often it fits at once; where not, the NUL is put back before anything else. */
	size_t room = b->full || b->ptr == NULL ? 0 : b->size - b->len;
	int need = vsnprintf(room > 0 ? b->ptr + b->len : NULL, room, fmt, again);
	va_end(again);
	if (room > 0 && (need < 0 || (size_t)need >= room))
		b->ptr[b->len] = '\0';
	if (need < 0) {
		b->full = true;
		return;
	}
	size_t len = (size_t)need;
	if (len >= room) {
		if (!reserve(b, len))
			return;
		vsnprintf(b->ptr + b->len, len + 1, fmt, args);
	}
	b->len += len;
}

void sbuf_addu(struct sbuf *b, uint64_t value)
{
	char digits[20];
	size_t at = sizeof(digits);
	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	sbuf_add(b, span_of(digits + at, sizeof(digits) - at));
}

void sbuf_add_lower(struct sbuf *b, struct span s)
{
	if (!reserve(b, s.len))
		return;
	span_lower(s, b->ptr + b->len);
	b->len += s.len;
	b->ptr[b->len] = '\0';
}

static const char hex_digits[] = "0123456789abcdef";

void sbuf_add_hex(struct sbuf *b, struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		char pair[2] = {hex_digits[c >> 4], hex_digits[c & 15]};
		sbuf_add(b, span_of(pair, sizeof(pair)));
	}
}

void sbuf_add_escaped(struct sbuf *b, struct span s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];
		if (c >= 0x20 && c < 0x7f && c != '\\' && c != '"') {
			sbuf_addc(b, c);
		} else {
			sbuf_adds(b, "\\x");
			sbuf_add_hex(b, span_of(&c, 1));
		}
	}
}

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void sbuf_add_base64(struct sbuf *b, struct span s)
{
	const unsigned char *in = (const unsigned char *)s.ptr;
	for (size_t i = 0; i < s.len; i += 3) {
		size_t n = s.len - i < 3 ? s.len - i : 3;
		uint32_t bits = (uint32_t)in[i] << 16;
		if (n > 1)
			bits |= (uint32_t)in[i + 1] << 8;
		if (n > 2)
			bits |= in[i + 2];
		char quad[4] = {base64_digits[bits >> 18], base64_digits[bits >> 12 & 63],
				n > 1 ? base64_digits[bits >> 6 & 63] : '=',
				n > 2 ? base64_digits[bits & 63] : '='};
		sbuf_add(b, span_of(quad, sizeof(quad)));
	}
}

/* The value of each digit plus one; 0 for other bytes. */
static const uint8_t base64_values[256] = {
	['A'] = 1,  ['B'] = 2,	['C'] = 3,  ['D'] = 4,	['E'] = 5,  ['F'] = 6,	['G'] = 7,  ['H'] = 8,	['I'] = 9,
	['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18,
	['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27,
	['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36,
	['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45,
	['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54,
	['2'] = 55, ['3'] = 56, ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63,
	['/'] = 64,
};

static int base64_value(char c)
{
	return base64_values[(unsigned char)c] - 1;
}

/* Ends the last quantum of HAVE digits and PADS pad characters. */
static bool base64_tail_ok(unsigned have, unsigned pads, uint32_t bits, bool loose)
{
	if (loose)
		return have != 1 && pads <= 2;
	if (have == 0)
		return pads == 0;
	if (have == 2)
		return pads == 2 && (bits & 15) == 0;
	return have == 3 && pads == 1 && (bits & 3) == 0;
}

/* Bytes on their way into a builder: a call for each three would cost more than
 * the decoding. */
struct pieces {
	struct sbuf *to;
	size_t len;
	char bytes[96];
};

static void put_quantum(struct pieces *p, uint32_t bits, unsigned digits)
{
	bits <<= 6 * (4 - digits);
	p->bytes[p->len] = (char)(bits >> 16);
	p->bytes[p->len + 1] = (char)(bits >> 8 & 255);
	p->bytes[p->len + 2] = (char)(bits & 255);
	p->len += digits - 1;
	if (p->len + 3 <= sizeof(p->bytes))
		return;
	sbuf_add(p->to, span_of(p->bytes, p->len));
	p->len = 0;
}

static int add_unbase64(struct sbuf *b, struct span s, bool loose)
{
	size_t start = b->len;
	struct pieces out = {.to = b};
	uint32_t bits = 0;
	unsigned have = 0, pads = 0;
	for (size_t i = 0; i < s.len; i++) {
		int value = base64_value(s.ptr[i]);
		if (value >= 0 && pads == 0) {
			bits = bits << 6 | (uint32_t)value;
			if (++have < 4)
				continue;
			put_quantum(&out, bits, 4);
			have = 0;
			bits = 0;
		} else if (s.ptr[i] == '=') {
			pads++;
		} else if (!ascii_isfws(s.ptr[i])) {
			goto bad;
		}
	}
	if (!base64_tail_ok(have, pads, bits, loose))
		goto bad;
	if (have > 0)
		put_quantum(&out, bits, have);
	sbuf_add(b, span_of(out.bytes, out.len));
	if (sbuf_ok(b))
		return 0;
	sbuf_truncate(b, start);
	return ERR_LIMIT;
bad:
	sbuf_truncate(b, start);
	return ERR_SYNTAX;
}

int sbuf_add_unbase64(struct sbuf *b, struct span s)
{
	return add_unbase64(b, s, false);
}

int sbuf_add_unbase64_loose(struct sbuf *b, struct span s)
{
	return add_unbase64(b, s, true);
}

int sbuf_add_unhex(struct sbuf *b, struct span s)
{
	size_t start = b->len;
	if (s.len % 2 != 0)
		return ERR_SYNTAX;
	for (size_t i = 0; i < s.len; i += 2) {
		int high = ascii_hex_value(s.ptr[i]), low = ascii_hex_value(s.ptr[i + 1]);
		if (high < 0 || low < 0) {
			sbuf_truncate(b, start);
			return ERR_SYNTAX;
		}
		sbuf_addc(b, (char)(high << 4 | low));
	}
	if (sbuf_ok(b))
		return 0;
	sbuf_truncate(b, start);
	return ERR_LIMIT;
}
