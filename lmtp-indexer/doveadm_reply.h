/*
 * The answers of Dovecot's doveadm server in its own protocol, read as they
 * come in.  Pure.  (Chosen before its HTTP API because that one replaces every
 * byte of a mail that is not UTF-8.)
 *
 *   reply   *(value TAB) LF ( "+" / "-" WHY ) LF
 *   value   bytes, with SOH 0 for NUL, SOH 1 for SOH, SOH t, r, n for TAB, CR, LF
 */
#ifndef INDEXER_DOVEADM_REPLY_H
#define INDEXER_DOVEADM_REPLY_H

#include "lib/base/sbuf.h"

#define DOVEADM_WHY_MAX 256 /* bytes of the reason of a failure */

struct doveadm_reply {
	/* A piece of value number INDEX (from 0); LAST: the value ends with it. */
	void (*piece)(void *arg, size_t index, struct span bytes, bool last);
	void *arg;
	size_t index;
	bool within;  /* a value has begun */
	bool escaped; /* the last byte was SOH */
	bool ending;  /* the values are over */
	bool done;
	char why[DOVEADM_WHY_MAX + 1]; /* "+" or "-..." */
	size_t why_len;
};

void doveadm_reply_init(struct doveadm_reply *r, void (*piece)(void *, size_t, struct span, bool), void *arg);
/*
 * Takes BYTES.  ERR_AGAIN: more is to come.  0: the command was done.
 * ERR_NOT_FOUND: there is no such user; ERR_PERM: the command failed, why is in
 * r->why.  ERR_SYNTAX: that is no reply, or something stands behind it.
 */
int doveadm_reply_feed(struct doveadm_reply *r, struct span bytes) MUST_CHECK;

/* Adds one word of a command, with a TAB in front of all but the first. */
void doveadm_word_add(struct sbuf *line, struct span word);

#endif
