/*
 * Addresses and networks.  Text conversion is that of inet_pton(3) and
 * inet_ntop(3), which accept no octal or shortened IPv4 forms; IPv4 is read here, since
 * servers read an address with each request.
 */
#include "ip.h"

#include <arpa/inet.h>

#include "num.h"

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* Four decimal numbers without leading zeros; false where S is none. */
static bool ipv4_parse(struct span s, uint8_t bytes[4])
{
	if (s.len == 0)
		return false;
	const char *at = s.ptr, *end = s.ptr + s.len;
	for (int part = 0; part < 4; part++) {
		if (part > 0 && (at == end || *at++ != '.'))
			return false;
		const char *first = at;
		unsigned value = 0;
		for (; at < end && at - first < 3 && ascii_isdigit(*at); at++)
			value = value * 10 + (unsigned)(*at - '0');
		if (at == first || value > 255 || (*first == '0' && at > first + 1))
			return false;
		bytes[part] = (uint8_t)value;
	}
	return at == end;
}

int ip_parse(struct span s, struct ip *ip_out)
{
	char text[IP_TEXT_SIZE];
	struct ip ip = {0};
	if (ipv4_parse(s, ip.bytes)) {
		ip.bits = 32;
		*ip_out = ip;
		return 0;
	}
	if (span_copy_cstr(s, text, sizeof(text)) < 0)
		return ERR_SYNTAX;
	if (inet_pton(AF_INET6, text, ip.bytes) == 1) {
		ip.bits = 128;
		if (memcmp(ip.bytes, mapped_prefix, sizeof(mapped_prefix)) == 0) {
			ip.bits = 32;
			memmove(ip.bytes, ip.bytes + 12, 4);
			memset(ip.bytes + 4, 0, 12);
		}
	} else {
		return ERR_SYNTAX;
	}
	*ip_out = ip;
	return 0;
}

int ip_net_parse(struct span s, struct ip_net *net_out)
{
	struct span address, rest = s;
	struct ip ip;
	bool has_prefix = span_cut(&rest, '/', &address);
	if (span_starts(address, SPAN_LIT("[")) && span_ends(address, SPAN_LIT("]")) && address.len > 2)
		address = span_of(address.ptr + 1, address.len - 2);
	if (ip_parse(address, &ip) < 0)
		return ERR_SYNTAX;
	const unsigned mapped = ip.bits == 32 && span_chr(address, ':') != SPAN_NPOS ? 96 : 0;
	uint64_t prefix = ip.bits;
	if (has_prefix && num_parse_u64(rest, ip.bits + mapped, &prefix) < 0)
		return ERR_SYNTAX;
	if (prefix > ip.bits && prefix < mapped)
		return ERR_SYNTAX;
	prefix -= prefix > ip.bits ? mapped : 0;
	*net_out = ip_net_of(&ip, (unsigned)prefix);
	return 0;
}

void ip_format(const struct ip *ip, struct sbuf *b)
{
	char text[IP_TEXT_SIZE];
	if (ip->bits == 0)
		sbuf_adds(b, "unknown");
	else if (inet_ntop(ip->bits == 32 ? AF_INET : AF_INET6, ip->bytes, text, sizeof(text)) != NULL)
		sbuf_adds(b, text);
}

void ip_net_format(const struct ip_net *net, struct sbuf *b)
{
	ip_format(&net->base, b);
	sbuf_addc(b, '/');
	sbuf_addu(b, net->prefix);
}

bool ip_eq(const struct ip *a, const struct ip *b)
{
	return a->bits == b->bits && memcmp(a->bytes, b->bytes, a->bits / 8u) == 0;
}

struct ip_net ip_net_of(const struct ip *ip, unsigned prefix)
{
	struct ip_net net = {.base = *ip, .prefix = (uint8_t)(prefix < ip->bits ? prefix : ip->bits)};
	const unsigned whole = net.prefix / 8; /* bytes that stay as they are */
	if (whole == sizeof(net.base.bytes))
		return net;
	net.base.bytes[whole] &= (uint8_t)(0xff00u >> net.prefix % 8);
	memset(net.base.bytes + whole + 1, 0, sizeof(net.base.bytes) - whole - 1);
	return net;
}

bool ip_net_has(const struct ip_net *net, const struct ip *ip)
{
	if (ip->bits == 0 || ip->bits != net->base.bits)
		return false;
	struct ip_net masked = ip_net_of(ip, net->prefix);
	return ip_eq(&masked.base, &net->base);
}
