/* What quotad counts and logs of a request, and keeps for whoever asked for a recount. */
#ifndef QUOTAD_TELL_H
#define QUOTAD_TELL_H

#include "dovecot-plugin-quota/quotad/findings.h"
#include "dovecot-plugin-quota/quotad/ledger.h"

/* FINDING is that of the user, or NULL. */
void tell_result(const struct quota_request *request, const struct ledger_result *result,
		 struct finding *finding);

#endif
