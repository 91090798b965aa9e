/*
 * dmarc_report_exclude: who gets no reports.  Entries are separated by commas or
 * white space:
 *
 *   example.com     this domain: no report about it, none to addresses at it
 *   .example.com    likewise all names below it
 *   a@example.com   this address
 *
 * Pure.
 */
#ifndef POSTERN_REPORT_RULES_H
#define POSTERN_REPORT_RULES_H

#include "lib/base/span.h"

/* ERR_SYNTAX, and *BAD_OUT is the entry that is none of these. */
int report_rules_check(struct span rules, struct span *bad_out) MUST_CHECK;
bool report_rules_exclude_domain(struct span rules, struct span domain);
/* Also where its domain is excluded. */
bool report_rules_exclude_address(struct span rules, struct span address);

#endif
