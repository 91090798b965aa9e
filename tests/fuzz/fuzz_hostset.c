/*
 * TrustedHosts: reading a file twice, or in two parts, changes nothing; a host
 * that no entry names is none of ours.  The input: HOSTS NUL ADDRESS NUL NAME.
 */
#include "milter-dkim/hostset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has(struct span first, struct span second, const struct ip *ip, struct span name, int *rc_out)
{
	struct hostset set = {0};
	struct span bad;
	int rc = hostset_add(&set, first, &bad);
	if (rc == 0)
		rc = hostset_add(&set, second, &bad);
	bool found = rc == 0 && hostset_has(&set, ip, name);
	hostset_done(&set);
	*rc_out = rc;
	return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size), hosts, address;
	struct ip ip = {0};
	int rc, again;
	span_cut(&rest, '\0', &hosts);
	span_cut(&rest, '\0', &address);
	if (ip_parse(address, &ip) < 0)
		ip = (struct ip){0};
	bool found = has(hosts, SPAN_EMPTY, &ip, rest, &rc);
	if (rc == 0 && (has(hosts, hosts, &ip, rest, &again) != found || again != 0))
		PANIC("entries that are there twice count otherwise");
	size_t cut = span_chr(hosts, '\n');
	if (rc == 0 && cut != SPAN_NPOS &&
	    (has(span_take(hosts, cut), span_skip(hosts, cut), &ip, rest, &again) != found || again != 0))
		PANIC("a file in two parts is another one");
	if (found && ip.bits == 0 && rest.len == 0)
		PANIC("a host without address and name is ours");
	return 0;
}
