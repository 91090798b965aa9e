/*
 * The public suffix list of the system (libpsl) for dmarc_discovery = psl.
 * This is the only user of libpsl.
 */
#ifndef MILTER_PSL_H
#define MILTER_PSL_H

#include "milter-dkim/dmarc.h"

/* ERR_NOT_FOUND where the system has no list.  Valid until psl_close(). */
int psl_open(struct dmarc_psl *psl_out) MUST_CHECK;
void psl_close(struct dmarc_psl *psl);

#endif
