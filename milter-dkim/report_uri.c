/*
 * The address is decoded first and checked afterwards, so that no escape gets
 * a byte past the check.  A local part that begins with a hyphen could be taken
 * for an option of a program and is refused, too.
 */
#include "milter-dkim/report_uri.h"

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/dmarc_record.h"

#define SCHEME "mailto:"

static int decode(struct span text, struct sbuf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		if (text.ptr[i] != '%') {
			sbuf_addc(out, text.ptr[i]);
			continue;
		}
		if (text.len - i < 3 || sbuf_add_unhex(out, span_of(text.ptr + i + 1, 2)) < 0)
			return ERR_SYNTAX;
		i += 2;
	}
	return sbuf_ok(out) ? 0 : ERR_SYNTAX;
}

/* dot-atom-text of RFC 5322 section 3.2.3. */
static bool is_dot_atom(struct span s)
{
	if (s.len == 0 || s.ptr[0] == '.' || s.ptr[s.len - 1] == '.')
		return false;
	for (size_t i = 0; i < s.len; i++) {
		char c = s.ptr[i];
		if (c == '.' ? s.ptr[i - 1] == '.' : !ascii_isalnum(c) && (c == '\0' || strchr("!#$%&'*+-/=?^_`{|}~", c) == NULL))
			return false;
	}
	return true;
}

static int check_address(struct span text, struct arena *a, struct report_uri *uri_out)
{
	char mem[REPORT_ADDRESS_MAX + 1];
	struct sbuf address;
	sbuf_init(&address, mem, sizeof(mem));
	size_t at = span_rchr(text, '@');
	if (at == SPAN_NPOS || at > REPORT_URI_LOCAL_MAX)
		return ERR_SYNTAX;
	struct span local = span_take(text, at), host = span_skip(text, at + 1);
	if (!is_dot_atom(local) || local.ptr[0] == '-' || !dnsname_mail_valid(host))
		return ERR_SYNTAX;
	sbuf_add(&address, local);
	sbuf_addc(&address, '@');
	if (idn_to_ascii(host, &address) < 0 || !sbuf_ok(&address))
		return ERR_SYNTAX;
	/* IDNA maps: what came out is checked again. */
	host = span_skip(sbuf_span(&address), at + 1);
	if (!idn_is_ascii(host) || !dnsname_mail_valid(host))
		return ERR_SYNTAX;
	struct span copy;
	int rc = arena_dup(a, sbuf_span(&address), &copy);
	if (rc == 0)
		*uri_out = (struct report_uri){copy, span_skip(copy, at + 1)};
	return rc;
}

int report_uri_parse(struct span uri, struct arena *a, struct report_uri *uri_out)
{
	char mem[REPORT_URI_MAX + 1];
	struct sbuf text;
	struct span target, rest = span_trim(uri);
	if (!span_istarts(rest, SPAN_LIT(SCHEME)))
		return ERR_NOT_FOUND;
	if (rest.len > REPORT_URI_MAX)
		return ERR_SYNTAX;
	sbuf_init(&text, mem, sizeof(mem));
	rest = span_skip(rest, sizeof(SCHEME) - 1);
	(void)span_cut(&rest, '?', &target);
	int rc = decode(target, &text);
	return rc < 0 ? rc : check_address(sbuf_span(&text), a, uri_out);
}

static bool has_address(const struct report_uri_list *list, struct span address)
{
	for (size_t i = 0; i < list->count; i++)
		if (span_ieq(list->items[i].address, address))
			return true;
	return false;
}

int report_uri_list(struct span value, struct arena *a, struct report_uri_list *list_out)
{
	struct report_uri_list list = {.count = 0};
	struct report_uri item = {.host = SPAN_EMPTY};
	struct span uri;
	while (dmarc_uri_next(&value, &uri)) {
		int rc = report_uri_parse(uri, a, &item);
		if (rc == ERR_LIMIT)
			return rc;
		if (rc < 0) {
			list.refused++;
		} else if (!has_address(&list, item.address)) {
			if (list.count == REPORT_URIS_MAX) {
				list.more = true;
				break;
			}
			list.items[list.count++] = item;
		}
	}
	*list_out = list;
	return 0;
}
