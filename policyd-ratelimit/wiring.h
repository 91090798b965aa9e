/*
 * Whether Postfix asks in the right places, judged by what it asks.  A server
 * that is asked at the wrong ones limits nothing, or too late, and no single
 * request shows it; so evidence is gathered over a sample of messages.  Pure.
 */
#ifndef POLICYD_WIRING_H
#define POLICYD_WIRING_H

#include <stdbool.h>
#include <stdint.h>

/* END-OF-MESSAGE that was seen in the past counts no more after so long. */
#define WIRING_END_AGE_MS INT64_C(86400000)

enum wiring_fault {
	WIRING_NO_END,   /* messages were reserved, and none was reported as ended */
	WIRING_ONLY_END, /* all messages were asked about at their end only */
	WIRING_REPEATED, /* half of a sample's messages were asked about twice before their end */
	WIRING_NO_STAGE, /* nothing but CONNECT, EHLO and the like, where nothing is counted */
	WIRING_FAULTS,
};

/* Embed it, zeroed but for sample. */
struct wiring {
	uint64_t sample;                 /* messages that it takes to judge; 0: never */
	uint64_t unended, strange, bare; /* in a row; bare: asked about at the end only */
	uint64_t messages, repeated;     /* of the sample that is being gathered */
	int64_t end_ms;                  /* of the last END-OF-MESSAGE; 0: none was seen */
	unsigned faults;                 /* a bit for each that stands now */
};

/* A request at a stage where nothing is counted. */
void wiring_stranger(struct wiring *w);
/* A request at another stage; IS_END: END-OF-MESSAGE. */
void wiring_request(struct wiring *w, bool is_end, int64_t now_ms);
/* A message begins; AT_END: with the request at its end. */
void wiring_message(struct wiring *w, bool at_end);
/* The first time that a message was asked about once more, by another list or at
 * another stage: not a retry, which comes when the connection is gone. */
void wiring_repeat(struct wiring *w);
/* A message that had reserved something ended otherwise. */
void wiring_unended(struct wiring *w, int64_t now_ms);

/* One sentence on what is wrong, and one on what to do; for fault AT. */
const char *wiring_text(enum wiring_fault fault);
const char *wiring_advice(enum wiring_fault fault);

#endif
