/*
 * quotad's socket: reads requests, lets the ledger decide, and sends a reply
 * when the change that it acknowledges is on disk.
 */
#ifndef QUOTAD_SERVER_H
#define QUOTAD_SERVER_H

#include "dovecot-plugin-quota/quotad/findings.h"
#include "dovecot-plugin-quota/quotad/store.h"
#include "lib/run/conn.h"

struct server;

/* Opens the socket, the journal and the database's threads. */
int server_open(struct skel *skel, struct server **server_out, struct sbuf *error) MUST_CHECK;
/* Accepts no more; calls skel_stopped() when all replies are out. */
void server_stop(struct server *server);
void server_close(struct server **server);

/* What is in memory of the user, with all that mail processes have told; NULL: nothing. */
const struct ledger_user *server_user(struct server *server, struct span name);
struct store *server_store(struct server *server);

/* Has the mails of USER counted, soon; without FIX nothing is changed.  ERR_NOT_FOUND
 * where nobody counts for us, ERR_LIMIT where too many wait. */
int server_verify(struct server *server, struct span user, bool fix) MUST_CHECK;
const struct findings *server_findings(const struct server *server);

#endif
