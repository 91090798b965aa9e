/*
 * Why a chain of ARC does not hold, as far as that can be told: for `auth check
 * --trace`, like culprit.h; never part of a verdict.  Pure.
 */
#ifndef MILTER_CULPRIT_CHAIN_H
#define MILTER_CULPRIT_CHAIN_H

#include "milter-dkim/arc.h"

/*
 * ARC has failed at a set that is not whole, or at a seal.  VIEW must have the keys
 * already.  Adds a sentence to OUT; ERR_NOT_FOUND where the reason of ARC says all
 * that is known.
 */
int culprit_chain(const struct arc *arc, const struct dns_view *view, struct sbuf *out) MUST_CHECK;

#endif
