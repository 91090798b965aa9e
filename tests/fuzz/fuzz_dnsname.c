/*
 * Domain names, as they are cut, compared and made ASCII: what IDNA gives is
 * ASCII, in lower case, and is given again when asked anew; the parts of a name
 * add up to it.  The input is two names, cut at a newline.
 */
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NAME_MAX_BYTES 4096

static void check_ascii(struct span name)
{
	char mem[2][NAME_MAX_BYTES];
	struct sbuf once, twice;
	sbuf_init(&once, mem[0], sizeof(mem[0]));
	sbuf_init(&twice, mem[1], sizeof(mem[1]));
	if (idn_to_ascii(name, &once) < 0) {
		if (once.len > 0)
			PANIC("a failure leaves something behind");
		return;
	}
	if (!sbuf_ok(&once))
		return;
	if (!idn_is_ascii(sbuf_span(&once)))
		PANIC("not ASCII");
	for (size_t i = 0; i < once.len; i++)
		if (once.ptr[i] >= 'A' && once.ptr[i] <= 'Z')
			PANIC("not lower case");
	if (idn_to_ascii(sbuf_span(&once), &twice) < 0 || !span_eq(sbuf_span(&once), sbuf_span(&twice)))
		PANIC("a name in A-labels changes");
	if (idn_is_ascii(name) && !span_ieq(name, sbuf_span(&once)))
		PANIC("a name of ASCII becomes another one");
}

static void check_parts(struct span name)
{
	if (dnsname_mail_valid(name) && !idn_is_ascii(name))
		return;
	if (dnsname_mail_valid(name) && !dnsname_valid(name))
		PANIC("a name of mail that DNS does not know");
	if (!dnsname_valid(name))
		return;
	size_t labels = dnsname_labels(name);
	struct span parent = dnsname_parent(name);
	if (labels == 0 || labels > 127 || dnsname_labels(parent) != labels - 1)
		PANIC("labels are lost");
	if (!span_eq(dnsname_tail(name, labels), name) || !span_eq(dnsname_tail(name, labels - 1), parent))
		PANIC("the tail is not the end");
	if (!dnsname_under(name, name) || (parent.len > 0 && (!dnsname_under(name, parent) || dnsname_under(parent, name))))
		PANIC("a name is not below its parent");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span b = span_of(data, size), a;
	(void)span_cut(&b, '\n', &a);
	check_ascii(a);
	check_ascii(b);
	check_parts(dnsname_trim(a));
	check_parts(dnsname_trim(b));
	if (dnsname_valid(a) && dnsname_valid(b) && dnsname_under(a, b)) {
		if (!span_ieq(dnsname_tail(a, dnsname_labels(b)), b))
			PANIC("below a name that it does not end with");
		if (dnsname_under(b, a) && !span_ieq(a, b))
			PANIC("two names below each other");
	}
	return 0;
}
