/*
 * Domain names as text, without the final dot: shape and labels.  Nothing is
 * asked of the DNS here.
 */
#ifndef MAIL_DNSNAME_H
#define MAIL_DNSNAME_H

#include "lib/base/span.h"

#define DNSNAME_MAX 253
#define DNSNAME_LABEL_MAX 63

/* Could be asked of the DNS (RFC 1035 section 3.1): 1 to 253 bytes, labels of
 * 1 to 63 bytes, no NUL.  Any other byte may stand in a label. */
bool dnsname_valid(struct span name);
/* As above, of letters, digits, hyphens, underscores and bytes above 127
 * (U-labels), the last label not a number: names a host. */
bool dnsname_host_valid(struct span name);
/* As above with two labels at least: what may stand behind the @ of an address. */
bool dnsname_mail_valid(struct span name);

/* Without one final dot. */
struct span dnsname_trim(struct span name);
/* 0 for the empty name. */
size_t dnsname_labels(struct span name);
/* Without its first label; empty where there was only one. */
struct span dnsname_parent(struct span name);
/* The last COUNT labels, or all of a shorter name. */
struct span dnsname_tail(struct span name, size_t count);
/* NAME is PARENT or lies below it; letter case does not matter. */
bool dnsname_under(struct span name, struct span parent);

#endif
