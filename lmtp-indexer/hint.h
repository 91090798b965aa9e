/*
 * What the plug-in in Dovecot's processes tells the indexer: a user's mail has
 * changed, and how.  A hint only, never the truth: it may be lost, doubled or
 * late.  Pure.
 *
 *   hint   "1" TAB KINDS TAB USER LF     one record of the socket, or several
 *
 * KINDS are letters, in any order, each at most once; one that a reader does
 * not know stands for some change.
 */
#ifndef INDEXER_HINT_H
#define INDEXER_HINT_H

#include "lib/base/sbuf.h"

#define HINT_USER_MAX 320
#define HINT_MAX (HINT_USER_MAX + 32) /* bytes, the LF included */

enum hint_kind {
	HINT_SAVE = 1 << 0,	 /* s: a mail was saved or appended */
	HINT_COPY = 1 << 1,	 /* c: copied or moved here */
	HINT_FLAGS = 1 << 2,	 /* f: flags or keywords changed */
	HINT_EXPUNGE = 1 << 3,	 /* x */
	HINT_CREATE = 1 << 4,	 /* n: a mailbox is new */
	HINT_RENAME = 1 << 5,	 /* r */
	HINT_DELETE = 1 << 6,	 /* d */
	HINT_MOVE = 1 << 7,	 /* m: mails are about to be moved here: mc follows when they are, and then x */
	HINT_OTHER = 1 << 8,	 /* what a newer writer knows */
};

struct hint {
	unsigned kinds; /* of enum hint_kind, not 0 */
	struct span user;
};

/* ERR_SYNTAX for a user that cannot be told (empty, too long, control characters). */
int hint_encode(const struct hint *hint, struct sbuf *out) MUST_CHECK;
/*
 * Takes the first hint from *REST, which is moved behind it.  ERR_AGAIN: the
 * rest is no whole line.  ERR_SYNTAX: the line was none; it is skipped.
 */
int hint_decode(struct span *rest, struct hint *hint_out) MUST_CHECK;

#endif
