/*
 * The milter protocol, version 6, as bytes: what the MTA sends and what it is
 * answered.  Pure.  A packet is a length of four bytes (big endian, of what follows),
 * a byte that says what it is, and data; texts end with a NUL.
 *
 * The names and values of the protocol are those of Sendmail, where it comes from.
 */
#ifndef MILTER_WIRE_H
#define MILTER_WIRE_H

#include "lib/base/ip.h"
#include "lib/base/sbuf.h"

#define WIRE_VERSION 6u
/* Data of a packet that is read, as with the protocol's SMFIP_MDS_1M. */
#define WIRE_DATA_MAX ((1u << 20) - 1)
#define WIRE_HEAD_BYTES 5u
#define WIRE_REPLY_TEXT_MAX 980u /* bytes of an SMTP reply behind its two codes */

enum wire_command {
	WIRE_ABORT = 'A',
	WIRE_BODY = 'B',
	WIRE_CONNECT = 'C',
	WIRE_MACRO = 'D',
	WIRE_END_OF_BODY = 'E',
	WIRE_HELO = 'H',
	WIRE_QUIT_NEXT = 'K', /* another client follows on this connection */
	WIRE_HEADER = 'L',
	WIRE_MAIL = 'M',
	WIRE_END_OF_HEADER = 'N',
	WIRE_NEGOTIATE = 'O',
	WIRE_QUIT = 'Q',
	WIRE_RCPT = 'R',
	WIRE_DATA = 'T',
	WIRE_UNKNOWN = 'U', /* of SMTP */
};

enum wire_reply {
	WIRE_CONTINUE = 'c',
	WIRE_INSERT_HEADER = 'i',
	WIRE_CHANGE_HEADER = 'm',
	WIRE_QUARANTINE = 'q',
	WIRE_REJECT = 'r',
	WIRE_TEMPFAIL = 't',
	WIRE_REPLY_CODE = 'y',
};

/* What a milter may do. */
#define WIRE_MAY_ADD_HEADERS 0x01u
#define WIRE_MAY_CHANGE_HEADERS 0x10u
#define WIRE_MAY_QUARANTINE 0x20u
#define WIRE_MAY_CHOOSE_MACROS 0x100u

/* Steps that the MTA leaves out, or takes without waiting for a reply. */
#define WIRE_NO_RCPT 0x08u
#define WIRE_NO_END_OF_HEADER 0x40u
#define WIRE_NO_UNKNOWN 0x100u
#define WIRE_NO_DATA 0x200u
#define WIRE_SILENT_HEADER 0x80u
#define WIRE_SILENT_CONNECT 0x1000u
#define WIRE_SILENT_HELO 0x2000u
#define WIRE_SILENT_MAIL 0x4000u
#define WIRE_SILENT_RCPT 0x8000u
#define WIRE_SILENT_DATA 0x10000u
#define WIRE_SILENT_UNKNOWN 0x20000u
#define WIRE_SILENT_END_OF_HEADER 0x40000u
#define WIRE_SILENT_BODY 0x80000u
#define WIRE_LEADING_SPACE 0x100000u /* a field's value begins behind its colon */

/* Where the MTA tells its macros. */
enum wire_stage { WIRE_STAGE_CONNECT = 0, WIRE_STAGE_MAIL = 2, WIRE_STAGE_END = 5 };

struct wire_packet {
	char command;
	struct span data;
};

struct wire_offer {
	uint32_t version, actions, steps;
};

struct wire_macro_list {
	enum wire_stage stage;
	const char *names; /* "j {daemon_name}" */
};

/* Who has connected.  IP.bits is 0 where it is no address (a unix socket, unknown). */
struct wire_client {
	struct span name;
	struct ip ip;
	uint16_t port;
};

/*
 * Takes the packet at the beginning of IN off it.  ERR_AGAIN: it is not whole yet, and
 * *MISSING_OUT more bytes are needed at least; ERR_LIMIT: its data is longer than
 * WIRE_DATA_MAX; ERR_SYNTAX: it has not even a command.
 */
int wire_next(struct span *in, struct wire_packet *packet_out, size_t *missing_out) MUST_CHECK;

/* Takes a text off DATA; ERR_SYNTAX where no NUL ends it. */
int wire_text(struct span *data, struct span *text_out) MUST_CHECK;
int wire_read_offer(struct span data, struct wire_offer *offer_out) MUST_CHECK;
int wire_read_client(struct span data, struct wire_client *client_out) MUST_CHECK;

/*
 * What is added to OUT are whole packets.  A text that holds a NUL is ERR_SYNTAX, one
 * of a reply that holds CR or LF or is too long, too, and then OUT is as it was.
 */
void wire_add_offer(struct sbuf *out, const struct wire_offer *offer, const struct wire_macro_list *lists,
		    size_t list_count);
void wire_add(struct sbuf *out, enum wire_reply reply);
/* A field on top of the header.  VALUE is what stands behind the colon. */
int wire_add_insert(struct sbuf *out, struct span name, struct span value) MUST_CHECK;
/* Removes the ORDINAL-th (from 1) of the fields NAME. */
int wire_add_remove(struct sbuf *out, struct span name, uint32_t ordinal) MUST_CHECK;
int wire_add_quarantine(struct sbuf *out, struct span reason) MUST_CHECK;
/* CODE is "451", STATUS "4.7.1" (RFC 3463). */
int wire_add_reply_code(struct sbuf *out, struct span code, struct span status, struct span text) MUST_CHECK;

#endif
