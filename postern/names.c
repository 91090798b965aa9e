/* Each function builds its result aside and adds it to OUT only when all checks
 * have passed. */
#include "postern/names.h"

#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "postern/table.h"

#define SELECTOR_MAX 63
#define SCRATCH 512

static int fail(struct sbuf *error, struct span text, const char *why)
{
	sbuf_add_escaped(error, text);
	sbuf_adds(error, why);
	return ERR_SYNTAX;
}

static bool is_label(struct span label, bool underscore)
{
	if (label.len == 0 || label.len > DNSNAME_LABEL_MAX || label.ptr[0] == '-' ||
	    label.ptr[label.len - 1] == '-')
		return false;
	for (size_t i = 0; i < label.len; i++) {
		char c = label.ptr[i];
		if (!ascii_isalnum(c) && c != '-' && !(underscore && c == '_'))
			return false;
	}
	return true;
}

static bool are_labels(struct span name, bool underscore)
{
	struct span label;
	bool more;
	do {
		more = span_cut(&name, '.', &label);
		if (!is_label(label, underscore))
			return false;
	} while (more);
	return true;
}

int names_domain(struct span text, struct sbuf *out, struct sbuf *error)
{
	char mem[SCRATCH];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	if (idn_to_ascii(dnsname_trim(text), &ascii) < 0)
		return fail(error, text, " is not a domain name: letters that IDNA does not allow");
	struct span name = sbuf_span(&ascii);
	if (!sbuf_ok(&ascii) || name.len > DNSNAME_MAX)
		return fail(error, span_take(text, 64), "... is too long for a domain name");
	if (!are_labels(name, false) || !dnsname_mail_valid(name))
		return fail(error, text, " is not a domain name");
	sbuf_add(out, name);
	return 0;
}

static bool is_local_char(char c, enum names_kind kind)
{
	if (ascii_isalnum(c) || (unsigned char)c >= 0x80)
		return true;
	if (c == '\0')
		return false;
	return strchr(kind == NAMES_DESTINATION ? "!#$%&'*+-/=?^_`{|}~" : "_-=+", c) != NULL;
}

static bool is_local(struct span local, enum names_kind kind)
{
	char before = '.';
	for (size_t i = 0; i < local.len; i++) {
		char c = local.ptr[i];
		if (c == '.' ? before == '.' : !is_local_char(c, kind))
			return false;
		before = c;
	}
	return before != '.' && local.len <= NAMES_LOCAL_MAX && table_is_plain(local);
}

int names_address(struct span text, enum names_kind kind, struct sbuf *out, struct sbuf *error)
{
	char mem[SCRATCH];
	struct sbuf address;
	sbuf_init(&address, mem, sizeof(mem));
	size_t at = span_rchr(text, '@');
	if (at == SPAN_NPOS)
		return fail(error, text, " is not an address: it has no @");
	struct span local = span_take(text, at);
	if (!(kind == NAMES_SOURCE && local.len == 0) && !is_local(local, kind))
		return fail(error, text,
			    " is not an address: its part before the @ cannot be used");
	sbuf_add_lower(&address, local);
	sbuf_addc(&address, '@');
	int rc = names_domain(span_skip(text, at + 1), &address, error);
	if (rc < 0)
		return rc;
	if (!sbuf_ok(&address) || address.len > NAMES_ADDRESS_MAX)
		return fail(error, span_take(text, 64), "... is too long for an address");
	sbuf_add(out, sbuf_span(&address));
	return 0;
}

int names_selector(struct span text, struct sbuf *out, struct sbuf *error)
{
	if (text.len > SELECTOR_MAX || !are_labels(text, true))
		return fail(error, span_take(text, 64), " is not a selector");
	sbuf_add_lower(out, text);
	return 0;
}

struct span names_domain_of(struct span address)
{
	size_t at = span_rchr(address, '@');
	return at == SPAN_NPOS ? SPAN_EMPTY : span_skip(address, at + 1);
}
