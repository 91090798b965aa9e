/*
 * The bytes of a message on their way through the proxy, as streams: dots of
 * DATA taken off (RFC 5321 section 4.5.2), the trace header of others removed,
 * dots put on again for a backend without CHUNKING.  Pure; split anywhere, the
 * output is the same.
 *
 * Output goes to a sink in pieces that are valid during the call only.
 */
#ifndef INDEXER_BODY_H
#define INDEXER_BODY_H

#include "lib/base/sbuf.h"

typedef void body_sink(void *arg, struct span bytes);

/* ---- DATA to content ---- */

struct body_unstuff {
	int state;
	bool done; /* CRLF "." CRLF was seen; bare LFs never end a message */
};

void body_unstuff_init(struct body_unstuff *u);
/* Returns the bytes used; fewer than IN only when `done`. */
size_t body_unstuff(struct body_unstuff *u, struct span in, body_sink *sink, void *arg);

/* ---- Content to DATA ---- */

struct body_stuff {
	char last; /* the byte before */
	bool bol;  /* at the beginning of a line */
};

void body_stuff_init(struct body_stuff *s);
/* Bare LF becomes CRLF. */
void body_stuff(struct body_stuff *s, struct span in, body_sink *sink, void *arg);
/* The end: a line end where it is missing, and the dot. */
void body_stuff_end(struct body_stuff *s, body_sink *sink, void *arg);

/* ---- Removing header fields of one name ---- */

#define BODY_NAME_MAX 64

struct body_strip {
	const char *name; /* borrowed: the field's name without colon */
	int state;
	size_t matched;            /* bytes of the line's beginning held back */
	char held[BODY_NAME_MAX + 8];
	unsigned removed; /* fields taken out */
};

/* Panics where NAME is longer than BODY_NAME_MAX. */
void body_strip_init(struct body_strip *s, const char *name);
void body_strip(struct body_strip *s, struct span in, body_sink *sink, void *arg);
/* Gives out what was held back at the end of the content. */
void body_strip_end(struct body_strip *s, body_sink *sink, void *arg);

#endif
