/*
 * Whose usage is in the air: notes it beyond the end of this process (openmap.h), and
 * has those counted whom an earlier one has left so.  Belongs to the loop's thread.
 */
#ifndef QUOTAD_AIR_H
#define QUOTAD_AIR_H

#include "dovecot-plugin-quota/quotad/ledger.h"
#include "dovecot-plugin-quota/quotad/openmap.h"
#include "dovecot-plugin-quota/quotad/recount.h"

struct air {
	struct openmap *map;
	struct ledger *ledger;
	struct recount *recount;
};

/* Opens the file in STATE_DIR; whoever stands there is counted.  LEDGER and RECOUNT are borrowed. */
int air_open(struct air *air, const char *state_dir, struct ledger *ledger, struct recount *recount,
	     struct sbuf *error) MUST_CHECK;
/* Harmless where it was never opened. */
void air_close(struct air *air);

/* Notes, or strikes out, that something about the user is in the air. */
void air_note(struct air *air, struct ledger_user *user);

/* ARG is the air.  Something of the user changed unseen, and this is the only one who
 * knows.  False while there is no room to remember it beyond our own end. */
bool air_remember(void *arg, struct span name);

#endif
