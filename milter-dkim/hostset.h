/*
 * Sets of hosts as in OpenDKIM's TrustedHosts: addresses, networks
 * (ADDRESS/BITS), host names, and .DOMAIN or *.DOMAIN for all names below a
 * domain; an exclamation mark in front excludes.  The most specific entry decides.
 * Separators are white space and commas; # begins a comment.  U-labels are taken
 * as their A-labels.
 */
#ifndef MILTER_HOSTSET_H
#define MILTER_HOSTSET_H

#include "lib/base/ip.h"

#define HOSTSET_MAX 65536

struct hostset_entry;

struct hostset {
	struct hostset_entry *entries;
	size_t count, size;
};

void hostset_done(struct hostset *set);
/* Adds the entries of TEXT.  ERR_SYNTAX for one that is neither address nor
 * name (*BAD_OUT is it), ERR_LIMIT past HOSTSET_MAX. */
int hostset_add(struct hostset *set, struct span text, struct span *bad_out) MUST_CHECK;
/* Whether any entry is an address or a network. */
bool hostset_has_addresses(const struct hostset *set);
/* IP with bits == 0 is none, NAME may be empty. */
bool hostset_has(const struct hostset *set, const struct ip *ip, struct span name);

#endif
