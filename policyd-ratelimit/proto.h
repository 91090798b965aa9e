/*
 * Postfix's SMTPD access policy delegation, the server's side: requests are
 * lines of `name=value`, ended by an empty line; the reply is one such line,
 * `action=...`, and an empty line.  Pure.
 *
 * Unknown attributes are kept for conditions of rules and otherwise ignored,
 * since each Postfix release adds some.
 */
#ifndef POLICYD_PROTO_H
#define POLICYD_PROTO_H

#include "lib/base/bytemask.h"
#include "lib/base/sbuf.h"

#define PROTO_REQUEST_MAX 16384 /* bytes of one request, its empty line included */
#define PROTO_LINE_MAX 4096     /* bytes of one line without its end */
#define PROTO_ATTRS_MAX 96      /* attributes of one request */
#define PROTO_TEXT_MAX 480      /* bytes of the text in a reply */

enum proto_attr {
	PROTO_REQUEST,
	PROTO_STATE,
	PROTO_INSTANCE,
	PROTO_CLIENT_ADDRESS,
	PROTO_SENDER,
	PROTO_RECIPIENT,
	PROTO_RECIPIENT_COUNT,
	PROTO_SIZE,
	PROTO_SASL_USERNAME,
	PROTO_QUEUE_ID,
	PROTO_ATTR_COUNT,
};

/* Borrows from the input that was parsed. */
struct proto_request {
	struct span attr[PROTO_ATTR_COUNT]; /* empty where it was not sent */
	const char *text;
	size_t line_count;
	uint16_t ends[PROTO_ATTRS_MAX + BYTEMASK_BLOCK]; /* where its lines, NAME=VALUE, end in TEXT */
	size_t len; /* bytes of input that the request took */
};

_Static_assert(PROTO_REQUEST_MAX <= UINT16_MAX, "where a line ends");

/* The name that a line had in an earlier request. */
struct proto_line {
	char name[BYTEMASK_PIECE]; /* and its `=` */
	uint32_t beyond;           /* a bit for each byte of NAME that is not part of it */
	int16_t attr;              /* of enum proto_attr; below 0: none of them */
	uint16_t value_at;         /* 0: a longer name than has room */
};

/* What requests look like: Postfix sends the same attributes in the same order. Zeroed: nothing is known. */
struct proto_shape {
	struct proto_line lines[PROTO_ATTRS_MAX];
};

/* FULL is no action of a limit: the recipient's mailbox has no room. */
enum proto_action { PROTO_DUNNO, PROTO_DEFER, PROTO_REJECT, PROTO_HOLD, PROTO_FULL };

/*
 * Parses the request at the start of IN.  ERR_AGAIN: its end is not there yet,
 * call again with more; ERR_LIMIT: a cap above was passed; ERR_SYNTAX: a line
 * without `=` or without a name, a NUL, a known attribute given twice, or
 * another `request` than smtpd_access_policy.
 */
int proto_request_parse(struct span in, struct proto_request *request_out) MUST_CHECK;
/*
 * The same in less time, where requests look like those before: each line's name is
 * compared with the one that stood there last.  Notes in SHAPE what this one looks like.
 */
int proto_request_parse_alike(struct span in, struct proto_shape *shape, struct proto_request *request_out) MUST_CHECK;

/* Which of enum proto_attr has that name; ERR_NOT_FOUND: none. */
int proto_attr_find(struct span name);
/* The value of any attribute, empty where it was not sent. */
struct span proto_request_attr(const struct proto_request *request, struct span name);

/*
 * Appends the whole reply to OUT.  DUNNO has no text.  The others are
 * "450 4.7.1 TEXT", "550 5.7.1 TEXT", "HOLD TEXT" and "552 5.2.2 TEXT".  ERR_SYNTAX, and nothing
 * appended, where TEXT is empty, holds a control character or is not UTF-8
 * (Postfix takes its default action for that); ERR_LIMIT where it is over
 * PROTO_TEXT_MAX or OUT is full.
 */
int proto_reply_add(enum proto_action action, struct span text, struct sbuf *out) MUST_CHECK;

#endif
