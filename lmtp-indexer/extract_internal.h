/* What the files of extract share: the state of one run. */
#ifndef INDEXER_EXTRACT_INTERNAL_H
#define INDEXER_EXTRACT_INTERNAL_H

#include <gmime/gmime.h>

#include "lib/base/sbuf.h"
#include "lmtp-indexer/extract.h"

/* The message in hand. */
struct extract_mail {
	GMimeObject *root;   /* NULL: it has no part */
	const char *charset; /* of its text; NULL: none, or not looked for yet */
	bool looked;
	bool no_html; /* its words were found in a plain text beside it */
};

struct extract_run {
	struct extract *x;
	const struct extract_limits *limits;
	const char *authserv_id;
	struct extract_mail mail;
	unsigned parts;   /* leaf parts seen */
	size_t encoded;   /* bytes of messages that were decoded */
	size_t header_bytes; /* as EXTRACT_HEADERS_MAX counts them */
	bool cut; /* at that cap */
	bool unread_encoding; /* an attached message has one that GMime does not know by its name */
	bool mend_encodings;  /* for it */
	struct sbuf text; /* decoded text so far, valid UTF-8 */
};

/* Marks that something of the message is missing. */
void extract_partial(struct extract_run *run);

/* A copy of TEXT in the arena as valid UTF-8 without control characters, cut
 * after CHARS characters; "" where it does not fit. */
struct span extract_keep(struct extract_run *run, const char *text, size_t chars);

/* Once a process. */
void extract_register_streams(void);
/* NULL for what GMime cannot take; what it returns may still be no message, or be cut. */
GMimeMessage *extract_parse(struct extract_run *run, const struct extract_source *source);
bool extract_is_message(GMimeMessage *message);
/* What the FIELD (may be NULL) Content-Transfer-Encoding says; what stands between quotes or in front of a ';' may be a name. */
GMimeContentEncoding extract_encoding(const char *field);
/* Reads the top header. */
void extract_headers(struct extract_run *run, GMimeMessage *message);
/* Walks over the parts. */
void extract_parts(struct extract_run *run);

/*
 * Adds BYTES of CHARSET (NULL: unknown) to OUT as UTF-8 with LF line ends;
 * what cannot be converted becomes '?'.  False where something was lost.
 */
bool extract_add_utf8(struct sbuf *out, const char *charset, struct span bytes);
/* The same for a header field; false unless all of it is valid in CHARSET, which has ASCII at its place. */
bool extract_add_exact(struct sbuf *out, const char *charset, struct span bytes);
/* Or ASCII, or nothing. */
bool extract_is_utf8(const char *charset);

/* The charset that has all of CHARSET, byte by byte, and more, if it is commonly sent under that name; else NULL. */
const char *extract_superset(const char *charset);

/* TEXT of format=flowed (RFC 3676), with LF line ends, with its paragraphs on one line each; DELSP as its parameter. */
void extract_join_flowed(struct sbuf *text, bool delsp);

#define EXTRACT_WORD_MAX 4096 /* bytes of an encoded word; a longer one is left as it is */

/* FIELD with its encoded words as they are meant, for GMime to decode; owned, NULL where they are that already. */
char *extract_mend_words(const char *field);

/* The bytes of the first field NAME; NULL where there is none. */
const char *extract_raw_field(GMimeObject *object, const char *name);
/* FIELD (may be NULL) in UTF-8 and with its encoded words as they are meant; owned, NULL where GMime shall take it as it is. */
char *extract_mend_field(struct extract_run *run, const char *field);
/* The decoded subject of MESSAGE, the one in hand; owned, NULL where there is none. */
char *extract_subject(struct extract_run *run, GMimeMessage *message);
/* The name that a part is sent under; owned, NULL where there is none. */
char *extract_file_name(struct extract_run *run, GMimeObject *object);

/* False for a message that GMime cannot take without using up the stack, or memory for its header. */
bool extract_guard(const struct extract_source *source) MUST_CHECK;

#endif
