/*
 * Recounts by ourselves: users whose usage became doubtful are counted by a doveadm
 * that Dovecot runs for us, behind a socket that can do nothing else.
 */
#ifndef QUOTAD_RECOUNT_H
#define QUOTAD_RECOUNT_H

#include "dovecot-plugin-quota/quotad/ledger.h"
#include "dovecot-plugin-quota/quotad/quotad.h"

struct recount;

/* Starts the thread; without recount_socket nothing is ever asked for.  SETTLED(ARG) is
 * called for a user whose account is gone and who is not asked for any more. */
struct recount *recount_new(struct skel *skel, struct ledger *ledger,
			    void (*settled)(void *arg, struct ledger_user *user), void *arg);
void recount_free(struct recount **recount);

/* Takes over whom the ledger has become suspicious of. */
void recount_look(struct recount *recount);
/* Counts the mails themselves, soon.  ERR_LIMIT where the queue is full, ERR_NOT_FOUND
 * without recount_socket. */
int recount_thoroughly(struct recount *recount, struct span user) MUST_CHECK;
/* Users in the queue. */
size_t recount_waiting(const struct recount *recount);

#endif
