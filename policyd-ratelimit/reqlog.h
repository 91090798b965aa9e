/*
 * The request log: what Postfix asked, to be replayed against other limits.
 * Pure.
 *
 * A record is a request as Postfix sent it with lines before it, or in the
 * place of it, and ends with an empty line like one:
 *
 *   time=SECONDS[.MILLISECONDS]   wall clock, since 1970; always the first line
 *   connection=NUMBER             optional; the same for requests of one connection
 *   end                           in the place of a request: the connection ended
 *
 * Where a record names no connection, requests whose instance begins alike (up
 * to the first dot, where Postfix puts the process) are taken for those of one.
 */
#ifndef POLICYD_REQLOG_H
#define POLICYD_REQLOG_H

#include "policyd-ratelimit/proto.h"

#define REQLOG_HEAD_MAX 96 /* bytes of the lines before the request */
#define REQLOG_RECORD_MAX (REQLOG_HEAD_MAX + PROTO_REQUEST_MAX)
#define REQLOG_TIME_MAX_S UINT64_C(253402300799) /* the end of the year 9999 */

struct reqlog_record {
	int64_t wall_ms;
	uint64_t connection;
	bool is_end;
	struct proto_request request; /* unless is_end; borrows from the input */
};

/* Adds a record of the bytes REQUEST, or with an empty span of the connection's end. */
void reqlog_add(int64_t wall_ms, uint64_t connection, struct span request, struct sbuf *out);

/*
 * Parses one whole record, its empty line included.  ERR_SYNTAX with a REASON
 * that is static, and the LINE in the record (from 0) that is wrong or, for
 * what the request itself lacks, where it begins.
 */
int reqlog_parse(struct span record, struct reqlog_record *record_out, const char **reason, unsigned *line) MUST_CHECK;

#endif
