/* What `auth check --trace` tells about each method, on standard error. */
#ifndef POSTERN_AUTH_TRACE_H
#define POSTERN_AUTH_TRACE_H

#include <stdio.h>

#include "milter-dkim/inbound.h"

/* BODY as it came; VIEW has the answers of IN's verdicts. */
void auth_trace(FILE *err, const struct inbound *in, struct span body, const struct dns_view *view);

#endif
