/*
 * The Received-SPF field (RFC 7208 section 9.1), written and recognised.
 */
#ifndef MILTER_RECEIVEDSPF_H
#define MILTER_RECEIVEDSPF_H

#include "lib/spf/spf.h"

#define RECEIVEDSPF_NAME "Received-SPF"

/*
 * Adds the value of the field for one identity, which begins with a space; EOL is
 * the line end inside of it.  What comes from outside is quoted, shortened, and
 * stands on a line of its own.
 */
void receivedspf_write(const struct spf_request *request, const struct spf_verdict *verdict, const char *eol,
		       struct sbuf *out);

/* Whether VALUE names RECEIVER as who wrote it, in receiver= or in front of its
 * comment.  It rather says yes to what is malformed. */
bool receivedspf_is_from(struct span value, struct span receiver);

#endif
