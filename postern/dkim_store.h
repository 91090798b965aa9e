/* The rows of dkim_keys, as several commands change them, and the DNS record of a
 * key.  Functions that return an exit status have told why where it is not EX_OK. */
#ifndef POSTERN_DKIM_STORE_H
#define POSTERN_DKIM_STORE_H

#include "postern/cli.h"
#include "postern/keys.h"

const char *dkim_algorithm_name(bool ed25519);

/* Adds a pending key.  EX_CANTCREAT where that name is taken. */
int dkim_store_insert(struct cli *cli, const char *domain, const char *selector, bool ed25519,
		      const struct keys_pair *pair) MUST_CHECK;
/* Makes the key sign, and its predecessors of the same algorithm retire; to be called
 * inside of a transaction, so that there is never a moment without an active key. */
int dkim_store_activate(struct cli *cli, const char *domain, const char *selector) MUST_CHECK;

struct dkim_record {
	struct sbuf name, value, zone; /* zone is the text for a zone file */
};

void dkim_record_init(struct dkim_record *record, const char *domain, const char *selector, bool ed25519,
		      struct span public_key);
void dkim_record_done(struct dkim_record *record);

#endif
