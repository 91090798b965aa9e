/*
 * Why a signature does not fit, as far as that can be told: changes that mail
 * systems are known for are undone on a copy, one at a time, and the one after
 * which the hash fits is named.  For `auth check --trace`; never part of a
 * verdict.  Pure.
 */
#ifndef MILTER_CULPRIT_H
#define MILTER_CULPRIT_H

#include "milter-dkim/verify.h"

#define CULPRIT_LINES_MAX 400        /* lines at an end of the body that are taken away */
#define CULPRIT_BODY_MAX (64u << 20) /* canonical bytes of the bodies that are looked at */
#define CULPRIT_WORK_MAX (512u << 20) /* steps of work for all signatures of a message: bytes that are hashed, and: */
#define CULPRIT_CHECK_WORK (128u << 10) /* a signature that is checked with a key of up to 2048 bits */
#define CULPRIT_LOOK_WORK 4	     /* a field, or a name in h=, that is compared with a name */
#define CULPRIT_DROPS_MAX 3	     /* fields that were added together; beside another change, one */
#define CULPRIT_TOGETHER_MAX 16	     /* signed fields among which such are looked for */

/* What was done for the signatures of one message; zeroed at its beginning. */
struct culprit_work {
	uint64_t done; /* steps; the one that passes CULPRIT_WORK_MAX is the last */
};

/*
 * The body hash of SIG does not fit BODY (as it came).  Adds a sentence to OUT;
 * ERR_NOT_FOUND where nothing known explains it, ERR_LIMIT where WORK is used up
 * before that can be said.
 */
int culprit_body(const struct sig *sig, const struct mail_header *header, struct span body,
		 struct culprit_work *work, struct sbuf *out) MUST_CHECK;

/*
 * The body hash fits, but the signature in field SELF does not.  VIEW must have
 * the key already.  That a field is gone can only be counted, and is told as
 * probable.  Errors as above.
 */
int culprit_header(const struct sig *sig, const struct mail_header *header, size_t self,
		   const struct dns_view *view, struct culprit_work *work, struct sbuf *out) MUST_CHECK;

static inline bool culprit_is_spent(const struct culprit_work *work)
{
	return work->done >= CULPRIT_WORK_MAX;
}

/* Adds the canonical body as SIG wants it, as far as OUT takes it. */
void culprit_canonical_body(const struct sig *sig, struct span body, struct sbuf *out);

#endif
