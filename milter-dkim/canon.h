/*
 * Canonicalisation (RFC 6376 section 3.4) of fields and, as a stream, of
 * bodies.  A line end is LF with or without CR in front and becomes CRLF; a CR
 * alone is data.
 */
#ifndef MILTER_CANON_H
#define MILTER_CANON_H

#include "lib/mail/rfc5322.h"

enum canon { CANON_SIMPLE, CANON_RELAXED };

/* "simple" or "relaxed", any case. */
int canon_parse(struct span word, enum canon *canon_out) MUST_CHECK;
const char *canon_name(enum canon canon);

/* Adds the field, with its CRLF where FINAL_CRLF. */
void canon_field(enum canon canon, const struct mail_field *field, bool final_crlf, struct sbuf *out);

/*
 * The same for a signature field over itself: the value of its b= tag is taken
 * out (section 3.7) and there is no CRLF.
 */
void canon_signature(enum canon canon, const struct mail_field *field, struct sbuf *out);

#define CANON_BUFFER 2048

/* Embedded object; needs no _done. */
struct canon_body {
	enum canon canon;
	bool pending_wsp, pending_cr; /* seen, but what follows decides */
	bool content;                 /* something was written */
	uint64_t pending_lines;       /* line ends that count only if content follows */
	void (*write)(void *arg, const char *bytes, size_t len);
	void *arg;
	size_t len; /* in buffer */
	char buffer[CANON_BUFFER];
};

/* WRITE gets the canonical bytes in pieces. */
void canon_body_init(struct canon_body *b, enum canon canon,
		     void (*write)(void *arg, const char *bytes, size_t len), void *arg);
/* Pieces may end anywhere, also between CR and LF. */
void canon_body_push(struct canon_body *b, struct span bytes);
void canon_body_finish(struct canon_body *b);

#endif
