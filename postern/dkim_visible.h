/*
 * Whether a key record is seen by every one of several DNS servers.  Where none are
 * named, these are the resolvers of the system and, one by one, the servers that the NS
 * records of the record's zone name; the latter not where the record is an alias, for
 * then they do not hold it.
 */
#ifndef POSTERN_DKIM_VISIBLE_H
#define POSTERN_DKIM_VISIBLE_H

#include "milter-dkim/keycheck.h"
#include "postern/cli.h"

#define DKIM_SERVERS_MAX 16

struct dkim_servers;

/* LIST is "ADDRESS[:PORT], ..."; "": the servers of the zone, and those of the system, which are
 * asked as one.
 * EX_OK, or a status that was told. */
int dkim_servers_open(struct cli *cli, const char *list, struct dkim_servers **servers_out) MUST_CHECK;
/* Takes NULL. */
void dkim_servers_close(struct dkim_servers **servers);

struct dkim_visibility {
	enum keycheck_state state;  /* of the first server where it is wrong, else where it is not ok */
	char problem[KEYCHECK_TEXT]; /* with the server's address; "" where all is ok */
	uint32_t absent_s;          /* how long resolvers may remember an answer other than this record */
};

/* Asks all servers, each time anew. */
void dkim_servers_check(struct dkim_servers *servers, const char *domain, const char *selector,
			const struct crypto_key *key, struct dkim_visibility *visibility_out);

#endif
