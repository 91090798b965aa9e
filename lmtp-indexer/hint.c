/* One line a hint; what does not fit the grammar is refused on both sides. */
#include "lmtp-indexer/hint.h"

static const char letters[] = "scfxnrdm";

static bool is_user(struct span user)
{
	for (size_t i = 0; i < user.len; i++)
		if ((unsigned char)user.ptr[i] < 0x20 || user.ptr[i] == 0x7f)
			return false;
	return user.len > 0 && user.len <= HINT_USER_MAX;
}

int hint_encode(const struct hint *hint, struct sbuf *out)
{
	if (!is_user(hint->user) || hint->kinds == 0)
		return ERR_SYNTAX;
	sbuf_adds(out, "1\t");
	for (size_t i = 0; letters[i] != '\0'; i++)
		if ((hint->kinds & 1u << i) != 0)
			sbuf_addc(out, letters[i]);
	sbuf_addc(out, '\t');
	sbuf_add(out, hint->user);
	sbuf_addc(out, '\n');
	return sbuf_ok(out) ? 0 : ERR_LIMIT;
}

static unsigned kinds_of(struct span text)
{
	unsigned kinds = 0;
	for (size_t i = 0; i < text.len; i++) {
		const char *at = memchr(letters, text.ptr[i], sizeof(letters) - 1);
		kinds |= at != NULL ? 1u << (at - letters) : HINT_OTHER;
	}
	return kinds;
}

int hint_decode(struct span *rest, struct hint *hint_out)
{
	size_t end = span_chr(*rest, '\n');
	if (end == SPAN_NPOS)
		return ERR_AGAIN;
	struct span line = span_take(*rest, end), version, kinds;
	*rest = span_skip(*rest, end + 1);
	if (!span_cut(&line, '\t', &version) || !span_eq(version, SPAN_LIT("1")) || !span_cut(&line, '\t', &kinds) ||
	    kinds.len == 0 || !is_user(line))
		return ERR_SYNTAX;
	*hint_out = (struct hint){.kinds = kinds_of(kinds), .user = line};
	return 0;
}
