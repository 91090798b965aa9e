/*
 * The header and body of a message (RFC 5322, with UTF-8 as in RFC 6532).
 *
 * A field is kept as it came: its value is everything behind the colon up to
 * the end of its last line, folding included, the final line end excluded.
 * Line ends are LF, with or without a CR in front; a CR alone is an ordinary
 * byte.  That is how Postfix shows a message to a milter.
 */
#ifndef MAIL_RFC5322_H
#define MAIL_RFC5322_H

#include "lib/base/arena.h"
#include "lib/base/sbuf.h"

struct mail_field {
	struct span name;  /* without the white space in front of the colon */
	struct span value; /* begins with the white space behind the colon */
	size_t gap;        /* bytes of white space between name and colon, in memory behind name */
};

/* What is beyond a cap makes the header ERR_LIMIT. */
struct mail_limits {
	size_t header_bytes; /* all fields with their line ends */
	size_t field_bytes;  /* one field */
	size_t fields;
};

#define MAIL_LIMITS_DEFAULT ((struct mail_limits){1 << 20, 256 << 10, 10000})

/* The fields of one message, top to bottom; memory is the arena's. */
struct mail_header {
	struct arena *arena;
	struct mail_limits limits;
	struct mail_field *fields;
	size_t count;
	size_t size;  /* allocated fields */
	size_t bytes; /* so far */
};

void mail_header_init(struct mail_header *h, struct arena *arena, const struct mail_limits *limits);

/* Adds a copy at the bottom; white space at the end of NAME is its gap.  ERR_LIMIT
 * past a cap or with the arena full. */
int mail_header_add(struct mail_header *h, struct span name, struct span value) MUST_CHECK;

/*
 * Adds all fields of TEXT, which borrows from TEXT.  An empty line ends it.
 * ERR_SYNTAX for a line that is neither a field nor a continuation.
 */
int mail_header_parse(struct mail_header *h, struct span text) MUST_CHECK;

/* Index of the first field NAME (any case) at or behind FROM, or SPAN_NPOS. */
size_t mail_header_find(const struct mail_header *h, struct span name, size_t from);
/* How many fields NAME there are. */
size_t mail_header_count(const struct mail_header *h, struct span name);

/* A field name is printable ASCII without space and colon. */
bool mail_name_valid(struct span name);
/* Adds VALUE on one line: line ends dropped, white space at both ends too. */
void mail_value_unfold(struct span value, struct sbuf *out);

/*
 * Splits a message that arrives in pieces of any size.  The header is parsed
 * when its end has come; body bytes are handed back as parts of the input.
 */
struct mail_splitter {
	struct mail_header *header; /* borrowed; complete once in_body is set */
	struct sbuf text;           /* the header's bytes, which the fields point into */
	bool in_body;
	bool crlf; /* the first line end was CRLF */
};

void mail_splitter_init(struct mail_splitter *s, struct mail_header *header);
/* The fields of the header are gone with it. */
void mail_splitter_done(struct mail_splitter *s);
/* *BODY_OUT is the part of BYTES that belongs to the body, or empty. */
int mail_splitter_push(struct mail_splitter *s, struct span bytes, struct span *body_out) MUST_CHECK;
/* The end of the message: a header without body is complete now. */
int mail_splitter_finish(struct mail_splitter *s) MUST_CHECK;

#endif
