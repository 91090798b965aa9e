/* What `auth check --trace` tells about each signature, on standard error. */
#ifndef POSTERN_AUTH_TRACE_H
#define POSTERN_AUTH_TRACE_H

#include <stdio.h>

#include "milter-dkim/inbound.h"

void auth_trace_signatures(FILE *err, const struct inbound *in, const struct mail_header *header, struct span body,
			   const struct dns_view *view);

#endif
