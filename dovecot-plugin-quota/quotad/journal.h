/*
 * The record of one change in quotad's journal.  Pure.
 *
 *   u8 1, u64 version, u64 used, u64 messages, u64 instance, u64 op, name
 *
 * Integers are little endian.  The numbers are absolute, so that a record may
 * be applied twice or late without harm.
 */
#ifndef QUOTAD_JOURNAL_H
#define QUOTAD_JOURNAL_H

#include "dovecot-plugin-quota/quotad/ledger.h"

#define JOURNAL_RECORD_MAX (41 + QUOTA_USER_MAX)

struct journal_record {
	struct span user;	     /* borrows */
	struct ledger_change change; /* its USER is not set */
};

void journal_encode(const struct ledger_change *change, struct sbuf *out);
/* ERR_SYNTAX for anything else than a record. */
int journal_decode(struct span payload, struct journal_record *record_out) MUST_CHECK;

#endif
