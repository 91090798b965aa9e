/* A request as the tests of open messages need it. */
#ifndef TESTS_UNIT_POLICYD_REQUEST_H
#define TESTS_UNIT_POLICYD_REQUEST_H

#include <check.h>

#include "policyd-ratelimit/session.h"

/* What is asked of 192.0.2.1 and s@example.com. */
struct question {
	const char *state;
	unsigned instance;
	const char *account, *recipient;
	unsigned recipients;
	int64_t now_ms;
};

/* Asks Q on CONN; what became of it is good until the next. */
static inline const struct session_outcome *answered(struct session *s, struct session_client *conn,
						     const struct question *q)
{
	static struct proto_request request;
	static struct session_outcome outcome;
	static char text[2 * PROTO_LINE_MAX], mem[1024];
	struct sbuf reply;
	int len = snprintf(text, sizeof(text),
			   "request=smtpd_access_policy\nprotocol_state=%s\ninstance=%u\nclient_address=192.0.2.1\n"
			   "sasl_username=%s\nsender=s@example.com\nrecipient=%s\nrecipient_count=%u\n\n",
			   q->state, q->instance, q->account, q->recipient, q->recipients);
	ck_assert_int_eq(proto_request_parse(span_of(text, (size_t)len), &request), 0);
	sbuf_init(&reply, mem, sizeof(mem));
	session_request(s, conn, &request, q->now_ms, INT64_C(1795305600000), &reply, &outcome);
	return &outcome;
}

/* The same about message INSTANCE, of no account, which is granted. */
static inline const struct session_outcome *granted(struct session *s, struct session_client *conn, const char *state,
						    unsigned instance, const char *recipient, unsigned recipients,
						    int64_t now_ms)
{
	const struct question q = {state, instance, "", recipient, recipients, now_ms};
	const struct session_outcome *outcome = answered(s, conn, &q);
	ck_assert_int_eq(outcome->action, PROTO_DUNNO);
	return outcome;
}

#endif
