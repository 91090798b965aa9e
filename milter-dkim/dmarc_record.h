/*
 * DMARC policy records as data (RFC 9989 sections 4.7 and 4.8).
 */
#ifndef MILTER_DMARC_RECORD_H
#define MILTER_DMARC_RECORD_H

#include "lib/base/span.h"

enum dmarc_policy { DMARC_NONE, DMARC_QUARANTINE, DMARC_REJECT };
enum dmarc_psd { DMARC_PSD_UNKNOWN, DMARC_PSD_NO, DMARC_PSD_YES };

struct dmarc_record {
	struct span text;            /* the whole record, as published */
	enum dmarc_policy p, sp, np; /* as they apply: np falls back on sp, sp on p */
	bool has_sp, has_np;         /* they stand in the record */
	bool invalid;      /* p, sp or np is wrong and no rua makes up for it (section 4.10.1) */
	bool strict_dkim, strict_spf;
	bool testing;      /* t=y */
	enum dmarc_psd psd;
	struct span rua, ruf, fo; /* as they stand; empty where absent */
};

/*
 * ERR_SYNTAX where TEXT is no DMARC record of version 1 at all.  Everything
 * else is a record: unknown tags are ignored, wrong values are the default.
 * Borrows from TEXT.
 */
int dmarc_record_parse(struct span text, struct dmarc_record *record_out) MUST_CHECK;

/*
 * Takes the next syntactically valid URI of a rua or ruf list off *LIST,
 * without the obsolete size behind "!".  False at the end.
 */
bool dmarc_uri_next(struct span *list, struct span *uri_out);

const char *dmarc_policy_name(enum dmarc_policy policy);

#endif
