/*
 * GZIP (RFC 1952) of a stream into bounded memory; equal input gives equal
 * output.
 */
#ifndef POSTERN_GZIP_H
#define POSTERN_GZIP_H

#include "lib/base/sbuf.h"

struct gzip;

/* OUT is borrowed and gets the compressed bytes.  Returns owned. */
struct gzip *gzip_new(struct sbuf *out);
void gzip_free(struct gzip **gz);
/* ERR_LIMIT where OUT is full; the stream is then of no use. */
int gzip_add(struct gzip *gz, struct span bytes) MUST_CHECK;
int gzip_end(struct gzip *gz) MUST_CHECK;

#endif
