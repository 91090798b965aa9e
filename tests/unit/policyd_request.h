/* A request as the tests of open messages need it. */
#ifndef TESTS_UNIT_POLICYD_REQUEST_H
#define TESTS_UNIT_POLICYD_REQUEST_H

#include <check.h>

#include "policyd-ratelimit/session.h"

/* Asks about message INSTANCE of 192.0.2.1, which is granted; what became of it is good until the next. */
static const struct session_outcome *granted(struct session *s, struct session_client *conn, const char *state,
					     unsigned instance, const char *recipient, unsigned recipients, int64_t now_ms)
{
	static struct proto_request request;
	static struct session_outcome outcome;
	char text[512], mem[1024];
	struct sbuf reply;
	int len = snprintf(text, sizeof(text),
			   "request=smtpd_access_policy\nprotocol_state=%s\ninstance=%u\nclient_address=192.0.2.1\n"
			   "sender=s@example.com\nrecipient=%s\nrecipient_count=%u\n\n",
			   state, instance, recipient, recipients);
	ck_assert_int_eq(proto_request_parse(span_of(text, (size_t)len), &request), 0);
	sbuf_init(&reply, mem, sizeof(mem));
	session_request(s, conn, &request, now_ms, INT64_C(1795305600000), &reply, &outcome);
	ck_assert_int_eq(outcome.action, PROTO_DUNNO);
	return &outcome;
}

#endif
