/* Text of zone files; the length limit counts the bytes before escaping. */
#include "postern/zone.h"

static void add_string(struct sbuf *out, struct span s)
{
	sbuf_addc(out, '"');
	for (size_t i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)s.ptr[i];
		if (c == '"' || c == '\\')
			sbuf_addf(out, "\\%c", c);
		else if (c < 0x20 || c > 0x7e)
			sbuf_addf(out, "\\%03u", c);
		else
			sbuf_addc(out, (char)c);
	}
	sbuf_addc(out, '"');
}

void zone_add_txt(struct sbuf *out, struct span name, struct span value)
{
	sbuf_add(out, name);
	sbuf_adds(out, ". IN TXT ");
	if (value.len <= ZONE_STRING_MAX) {
		add_string(out, value);
		sbuf_addc(out, '\n');
		return;
	}
	sbuf_addc(out, '(');
	while (value.len > 0) {
		sbuf_adds(out, "\n\t");
		add_string(out, span_take(value, ZONE_STRING_MAX));
		value = span_skip(value, ZONE_STRING_MAX);
	}
	sbuf_adds(out, " )\n");
}

void zone_add_dkim_value(struct sbuf *out, bool ed25519, struct span public_key_base64)
{
	sbuf_adds(out, ed25519 ? "v=DKIM1; k=ed25519; p=" : "v=DKIM1; k=rsa; p=");
	sbuf_add(out, public_key_base64);
}
