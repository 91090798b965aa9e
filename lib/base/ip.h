/*
 * IP addresses and networks as values.  IPv4-mapped IPv6 addresses
 * (::ffff:0:0/96) are turned into IPv4 when parsed, so that one client has one
 * form.  Zone identifiers are not accepted.
 */
#ifndef BASE_IP_H
#define BASE_IP_H

#include "sbuf.h"

struct ip {
	uint8_t bits;      /* 32 or 128; 0 means no address */
	uint8_t bytes[16]; /* network order; an IPv4 address uses the first four */
};

struct ip_net {
	struct ip base; /* host bits are zero */
	uint8_t prefix; /* 0 to base.bits */
};

#define IP_TEXT_SIZE 46 /* longest text with its NUL */

int ip_parse(struct span s, struct ip *ip_out) MUST_CHECK;
/*
 * ADDRESS or ADDRESS/PREFIX, host bits ignored. An optional [ ] around the
 * address is accepted.  The prefix of a mapped address counts the bits of either
 * form: ::ffff:192.0.2.0/120 and /24 are 192.0.2.0/24, between 32 and 96 is none.
 */
int ip_net_parse(struct span s, struct ip_net *net_out) MUST_CHECK;
void ip_format(const struct ip *ip, struct sbuf *b);
void ip_net_format(const struct ip_net *net, struct sbuf *b);

bool ip_eq(const struct ip *a, const struct ip *b);
/* The network of PREFIX bits around IP; PREFIX is capped at ip->bits. */
struct ip_net ip_net_of(const struct ip *ip, unsigned prefix);
bool ip_net_has(const struct ip_net *net, const struct ip *ip);

#endif
