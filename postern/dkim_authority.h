/* The servers that hold the zone of a name, as its NS records tell.  Pure. */
#ifndef POSTERN_DKIM_AUTHORITY_H
#define POSTERN_DKIM_AUTHORITY_H

#include "lib/dns/dns.h"

#define DKIM_AUTHORITY_MAX 16          /* servers of a zone */
#define DKIM_AUTHORITY_ADDRESSES_MAX 8 /* of one server; the rest is left out */

struct dkim_authority {
	size_t count;
	struct {
		char name[256];
		char addresses[DKIM_AUTHORITY_ADDRESSES_MAX * (IP_TEXT_SIZE + 2)]; /* "192.0.2.1, 2001:db8::1" */
	} servers[DKIM_AUTHORITY_MAX];
};

/*
 * Walks from NAME upwards to the first name with NS records.  ERR_AGAIN while answers
 * are missing; ERR_TEMP where the DNS fails; ERR_NOT_FOUND where no name has such
 * records, or no server an address; ERR_LIMIT past DKIM_AUTHORITY_MAX servers.
 */
int dkim_authority_find(const struct dns_view *view, struct span name, struct dkim_authority *authority_out) MUST_CHECK;

#endif
