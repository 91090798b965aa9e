/*
 * Gathers what is written to a connection in one round of the event loop and
 * sends it in one piece before the loop sleeps: a transaction is many small
 * commands and replies, and each send of its own would wake the other side.
 */
#ifndef INDEXER_CORK_H
#define INDEXER_CORK_H

#include "lib/run/conn.h"

#define CORK_MAX (16u << 10) /* bytes that are gathered; more go out at once */

struct cork;

struct cork_list {
	struct loop *loop;
	struct ev_prepare prepare;
	struct cork *first; /* those with something to send */
};

struct cork {
	struct cork_list *list;
	struct cork *next;
	struct conn *conn; /* NULL: writes are dropped */
	struct sbuf out;
	bool waiting; /* on the list */
	bool finish;  /* conn_finish() after the send */
};

void cork_list_init(struct cork_list *list, struct loop *loop);
void cork_list_done(struct cork_list *list);

void cork_init(struct cork *cork, struct cork_list *list, struct conn *conn);
/* Drops what was not sent. */
void cork_done(struct cork *cork);
/* The connection is gone or another one. */
void cork_switch(struct cork *cork, struct conn *conn);
void cork_write(struct cork *cork, struct span bytes);
/* Goes out with the next cork_write(). */
void cork_hold(struct cork *cork, struct span bytes);
/* conn_finish() once everything is out. */
void cork_finish(struct cork *cork);
size_t cork_pending(const struct cork *cork);

#endif
