/*
 * The networks that a domain's SPF record lets pass, as data: what a receiver
 * needs that wants to know a large sender by its addresses.  Pure; run it again
 * when answers were missing.
 *
 * ip4, ip6, a, mx, include and redirect are followed with the limits and the
 * prefix lengths of RFC 7208.  Order counts as it does there: what an earlier
 * term with another qualifier than + matches is taken out of what a later one
 * names.  ptr, exists and names with macros depend on the message, so they name
 * no networks; they are counted as skipped, as is what is too wide to be
 * somebody's (`all` among them).
 */
#ifndef SPF_NETWORKS_H
#define SPF_NETWORKS_H

#include "lib/dns/dns.h"

#define SPF_NETWORKS_MAX 4096 /* networks of one domain */
#define SPF_NETWORKS_HOLES_MAX 256 /* of one record: networks that it takes out */
#define SPF_NETWORKS_PARTS_MAX 65536 /* looked at on the way, where holes cut networks up */
#define SPF_NETWORKS_IPV4_PREFIX_MIN 8
#define SPF_NETWORKS_IPV6_PREFIX_MIN 16

struct spf_networks {
	struct ip_net *items; /* owned; none within another; in no order */
	size_t count, size;
	uint32_t ttl_s;     /* the smallest of the answers on the way */
	unsigned lookups;   /* terms that ask the DNS, as section 4.6.4 counts them */
	unsigned skipped;   /* terms that named no networks */
	const char *problem; /* why it failed or ended early; static, or NULL */
};

/*
 * Returns 0; ERR_AGAIN where VIEW lacks answers, all that can be told by then
 * having been asked; ERR_NOT_FOUND where DOMAIN has no record; ERR_TEMP where the
 * DNS failed; ERR_LIMIT past a cap.  Where the record ends in what RFC 7208 calls
 * permerror, the networks are those that stand before it, and `problem` says what
 * it is.  *OUT is filled by 0 only, apart from `problem`; release it with
 * spf_networks_done().
 */
int spf_networks(struct span domain, const struct dns_view *view, struct spf_networks *out) MUST_CHECK;
void spf_networks_done(struct spf_networks *networks);

#endif
