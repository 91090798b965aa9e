/*
 * Markers: empty files, each named after a user, by which a process tells a
 * daemon that is away that something of that user changed.  Whoever may write to
 * the directory leaves them, its owner takes them.  Needs lib/base alone, so that
 * plug-ins can take it along.
 */
#ifndef RUN_MARKER_H
#define RUN_MARKER_H

#include "lib/base/sbuf.h"

#define MARKER_PATH_MAX 1024
#define MARKER_USER_MAX 1023 /* bytes of a name that is taken */

/* Leaves the marker of USER in DIR.  ERR_PERM: it cannot be left, errno says why. */
int marker_leave(const char *dir, struct span user) MUST_CHECK;

/*
 * Calls FN for the user of each marker in DIR, at most MAX of them, and removes it
 * afterwards: what FN notes must be looked at later than this returns, so that a
 * change which finds its marker there already is seen.  False of FN: it has no room,
 * and this marker stays, with those behind it.  A name with a control character is
 * nobody's, and so is a directory, which not everybody can remove.  Returns how many were taken.
 */
size_t marker_take(const char *dir, size_t max, bool (*fn)(void *arg, struct span user), void *arg);

/* Whether DIR can be read and its markers removed; errno says why not. */
bool marker_may_take(const char *dir);

/* Adds the file name of USER's marker: '/', '%', control characters and a dot in front become %HH. */
void marker_name(struct sbuf *out, struct span user);

#endif
