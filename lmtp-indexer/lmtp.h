/*
 * The words of LMTP (RFC 2033, with 1652, 2034, 2920, 3030): commands of the
 * client, replies of the backend, capabilities.  Pure.
 *
 * Everything parsed borrows from the input.  Nothing that came from the other
 * side is passed on without having gone through a parser here, so that no CR,
 * LF or NUL slips into a command or a reply.
 */
#ifndef INDEXER_LMTP_H
#define INDEXER_LMTP_H

#include "lib/base/sbuf.h"

#define LMTP_LINE_MAX 4096      /* bytes of a command line with its CRLF */
#define LMTP_PATH_MAX 512       /* bytes between < and > */
#define LMTP_REPLY_LINE_MAX 2048 /* bytes of one line of a reply with its CRLF */
#define LMTP_REPLY_MAX 16384    /* bytes of a whole reply */

enum lmtp_verb {
	LMTP_UNKNOWN,
	LMTP_LHLO,
	LMTP_MAIL,
	LMTP_RCPT,
	LMTP_DATA,
	LMTP_BDAT,
	LMTP_RSET,
	LMTP_NOOP,
	LMTP_VRFY,
	LMTP_QUIT,
};

struct lmtp_command {
	enum lmtp_verb verb;
	struct span path;     /* MAIL, RCPT: without the angle brackets */
	struct span params;   /* MAIL, RCPT: "KEY=value KEY ...", "" if none */
	struct span name;     /* LHLO */
	uint64_t chunk_bytes; /* BDAT */
	bool last;            /* BDAT */
};

/*
 * Parses a line without its line end.  ERR_SYNTAX where the arguments do not
 * fit the verb; the verb is then still given, so that the reply can be 501 or
 * 500.
 */
int lmtp_command_parse(struct span line, struct lmtp_command *command_out) MUST_CHECK;

struct lmtp_caps {
	bool eightbitmime, smtputf8, enhanced, pipelining, chunking, dsn, size;
	uint64_t size_max; /* with `size`; 0: not told */
	bool xclient_session, xclient_timeout;
};

/*
 * Are the parameters of MAIL (or RCPT) allowed under what was offered?
 * ERR_SYNTAX for one that is not well formed (501), ERR_PERM for one that was
 * not offered (555).
 */
int lmtp_params_check(struct span params, bool rcpt, const struct lmtp_caps *offered) MUST_CHECK;

struct lmtp_reply {
	unsigned code;      /* 200 to 599 */
	struct span raw;    /* all lines, as they came */
	struct span text;   /* the last line behind the code, without line end */
};

/*
 * Takes the first whole reply from IN; *USED_OUT is its length.  ERR_AGAIN
 * where it is not complete, ERR_SYNTAX or ERR_LIMIT where it is none.
 */
int lmtp_reply_parse(struct span in, struct lmtp_reply *reply_out, size_t *used_out) MUST_CHECK;

/* Adds the reply to OUT with CRLF line ends. */
void lmtp_reply_add(struct sbuf *out, const struct lmtp_reply *reply);
/* The enhanced status code that begins the text ("5.1.1"), or empty. */
struct span lmtp_reply_status(const struct lmtp_reply *reply);

/* What the LHLO reply of a backend offers. */
struct lmtp_caps lmtp_caps_parse(const struct lmtp_reply *reply);
/* Adds our LHLO reply: what we and the backend both can. */
void lmtp_caps_add(struct sbuf *out, struct span host, const struct lmtp_caps *caps);

/*
 * Commands for the backend leg.  They refuse (ERR_SYNTAX, nothing added) paths
 * and parameters with CR, LF, NUL, and paths with < or > outside quotes.
 */
int lmtp_mail_add(struct sbuf *out, struct span path, struct span params) MUST_CHECK;
int lmtp_rcpt_add(struct sbuf *out, struct span path, struct span params) MUST_CHECK;

#endif
