/*
 * What a file or a part of a mail is, told from its first bytes: names and
 * media types of reports are wrong too often to go by.  Pure.
 */
#ifndef POSTERN_REPORTS_CONTENT_H
#define POSTERN_REPORTS_CONTENT_H

#include "lib/base/span.h"

enum content_kind {
	CONTENT_EMPTY, /* nothing, or nothing but white space */
	CONTENT_XML,   /* also as UTF-16, with a byte order mark or white space in front */
	CONTENT_JSON,  /* an object */
	CONTENT_GZIP,
	CONTENT_ZIP,
	CONTENT_MAIL, /* begins with a header field, or with the "From " line of an mbox */
	CONTENT_UNKNOWN,
};

#define CONTENT_SNIFF_BYTES 1024 /* as many of the first bytes are enough */

enum content_kind content_sniff(struct span first_bytes);
/* "XML", "gzip", ... */
const char *content_name(enum content_kind kind);

/* How many bytes of a UTF-8 byte order mark and white space TEXT begins with. */
size_t content_blank_len(struct span text);

#endif
