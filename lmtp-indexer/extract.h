/*
 * What the index keeps of a message: decoded headers, addresses, text,
 * attachments, the words to search by.  Reads untrusted mail with GMime; no
 * other file does.  Runs in the parsers (parser.h); a call keeps no state.
 *
 * Never fails: what cannot be read is left out and `state` says so.
 */
#ifndef INDEXER_EXTRACT_H
#define INDEXER_EXTRACT_H

#include "lib/base/arena.h"

#define EXTRACT_ARENA_MAX (8u << 20)
#define EXTRACT_ADDRESSES_MAX 500
#define EXTRACT_ATTACHMENTS_MAX 200
#define EXTRACT_REFS_MAX 64    /* Message-IDs of References that are looked at */
#define EXTRACT_SNIPPET_CHARS 200
#define EXTRACT_ENCODED_MAX (8u << 20) /* bytes, decoded, of attached messages in base64 or quoted-printable */
#define EXTRACT_HEADER_MAX (1u << 20) /* bytes of the header of a message, also of an attached one in an encoding */
#define EXTRACT_HEADERS_MAX (8u << 20) /* bytes of all headers of a mail, its parts and attached messages included */
#define EXTRACT_FIELD_BYTES 20         /* that each field counts beside what stands in it */
#define EXTRACT_HASH_LEN 16
#define EXTRACT_DATE_MIN_S INT64_C(0)
#define EXTRACT_DATE_MAX_S INT64_C(7258118400)

/* In characters: the widths of the columns. */
#define EXTRACT_SUBJECT_CHARS 2000
#define EXTRACT_ADDRESS_CHARS 320
#define EXTRACT_ID_CHARS 998
#define EXTRACT_NAME_CHARS 512
#define EXTRACT_TYPE_CHARS 255

struct extract_limits {
	unsigned depth_max;    /* nesting of multiparts and messages */
	unsigned parts_max;    /* leaf parts that are looked at */
	size_t text_max_bytes; /* of text kept and searched */
};

/* Where the message is: `bytes`, or where those are empty, the open file `fd`. */
struct extract_source {
	struct span bytes;
	int fd;
};

enum extract_state { EXTRACT_PARSED, EXTRACT_PARTIAL, EXTRACT_FAILED };

enum extract_kind { KIND_FROM, KIND_SENDER, KIND_REPLY_TO, KIND_TO, KIND_CC, KIND_BCC };

struct extract_address {
	enum extract_kind kind;
	struct span address;
	struct span display; /* "" where there is none */
};

struct extract_attachment {
	struct span name; /* "" where there is none */
	struct span media_type;
	uint64_t size_bytes; /* decoded */
	uint8_t sha256[32];  /* of the decoded content */
};

struct extract {
	struct arena arena; /* holds all that follows */
	enum extract_state state;
	struct span subject, message_id, in_reply_to; /* ids without < > */
	bool has_subject, has_date;
	int64_t date_s; /* Unix time of the Date field */
	struct extract_address *addresses;
	size_t address_count;
	struct extract_attachment *attachments;
	size_t attachment_count;
	struct span snippet;
	struct span text;
	bool truncated; /* there was more text than the limit */
	struct span terms; /* the words to search by, see terms.h */
	struct span spf, dkim, dmarc, arc; /* results of our own milter, "" if none */

	/*
	 * Threading: hashes of the Message-IDs that this message is tied to,
	 * the thread's root first as far as it is known, then its own.
	 * subject_hash finds (for a reply without references) or offers (for
	 * any other mail) a thread by the subject.
	 */
	uint8_t (*refs)[EXTRACT_HASH_LEN];
	size_t ref_count;
	bool has_subject_hash, subject_joins;
	uint8_t subject_hash[EXTRACT_HASH_LEN];
};

/* Once a process, before the threads. */
void extract_start(void);

/*
 * AUTHSERV_ID is the name under which our milter writes Authentication-Results;
 * "" reads none.  Returns owned.
 */
struct extract *extract_new(const struct extract_limits *limits, const char *authserv_id,
			    const struct extract_source *source);
/* One of a message that could not be parsed: empty, EXTRACT_FAILED. */
struct extract *extract_new_failed(const struct extract_limits *limits);
void extract_free(struct extract **extract);

/* Most bytes of the terms of a message. */
size_t extract_terms_max(const struct extract_limits *limits);

/* Cuts UTF-8 after CHARS characters. */
struct span extract_cut(struct span text, size_t chars);

#endif
