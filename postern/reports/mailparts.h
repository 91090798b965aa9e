/*
 * The reports within a mail: its attachments, or its body where that is one.
 * What a part is, is told by its content (content.h); the text that
 * introduces a report is passed over.  Mails that are attached are looked
 * into; of an mbox, each mail.  Reads untrusted mail with GMime.
 */
#ifndef POSTERN_REPORTS_MAILPARTS_H
#define POSTERN_REPORTS_MAILPARTS_H

#include "lib/base/sbuf.h"

#define MAILPARTS_BYTES_MAX (64u << 20) /* of a mail; of a decoded part */
#define MAILPARTS_DEPTH_MAX 8		/* nested multiparts and messages */
#define MAILPARTS_MAX 64		/* leaf parts that are looked at, of all mails */
#define MAILPARTS_HEADER_MAX (1u << 20) /* bytes of all lines that look like header fields */
#define MAILPARTS_DASHES_MAX 10000	/* lines that begin with "--", as boundaries do */
#define MAILPARTS_COLONS_MAX 100 /* in an address field: GMime's parser of groups calls itself */
#define MAILPARTS_NAME_MAX 255	 /* bytes of a file name; the rest is dropped */

/* A part that may be a report; NAME is its file name, UTF-8, or "".  Less than
 * 0 ends the walk with that. */
typedef int mailparts_fn(void *arg, struct span name, struct span content);

/*
 * Calls FOUND for each.  ERR_SYNTAX for what is no mail or holds no report,
 * ERR_LIMIT past a cap, both with a sentence in ERROR; or the error of FOUND.
 */
int mailparts_each(struct span mail, mailparts_fn *found, void *arg, struct sbuf *error) MUST_CHECK;

#endif
