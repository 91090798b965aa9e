/*
 * When a failing DMARC policy is not enforced, because someone whom we trust
 * tells why it fails (RFC 9989 section 5.4, RFC 8617 section 7.2).  Pure.
 *
 *   trusted_forwarder  the client is one of ours to trust
 *   local_policy       the ARC chain passes, and a trusted sealer saw the message
 *                      pass for its Author Domain, and every sealer since is
 *                      trusted too
 *
 * Sets below the run of trusted seals on top count for nothing: who sealed after
 * them could have replaced the message.  In that run it is enough that one set
 * says so, as all that changed the message since are trusted.  Messages without
 * exactly one Author Domain are never overridden.
 */
#ifndef MILTER_OVERRIDE_H
#define MILTER_OVERRIDE_H

#include "milter-dkim/hostset.h"
#include "milter-dkim/inbound.h"

#define OVERRIDE_COMMENT_MAX 1024 /* bytes */

struct override_trust {
	const struct hostset *sealers; /* names and .DOMAIN only */
	const struct hostset *forwarders;
};

/* NAME is the client's verified host name.  Leaves *OVERRIDE_OUT empty where
 * nothing is to be overridden, or nobody trusted speaks for the message. */
void override_decide(const struct override_trust *trust, const struct inbound *in, struct span name,
		     struct override *override_out);

#endif
