/*
 * The request inside a record is not copied or changed: the codec of the
 * protocol reads it, so that a log can hold no request that Postfix could not
 * have sent.
 */
#include "reqlog.h"

#include "lib/base/hash.h"
#include "lib/base/num.h"

void reqlog_add(int64_t wall_ms, uint64_t connection, struct span request, struct sbuf *out)
{
	sbuf_addf(out, "time=%lld.%03d\nconnection=%llu\n", (long long)(wall_ms / 1000), (int)(wall_ms % 1000),
		  (unsigned long long)connection);
	sbuf_add(out, request.len > 0 ? request : SPAN_LIT("end\n\n"));
}

/* Takes the line NAME=VALUE where it is the next one. */
static bool line_take(struct span *rest, struct span name, struct span *value_out)
{
	struct span after = *rest, line;
	if (!span_starts(*rest, name) || !span_cut(&after, '\n', &line))
		return false;
	*value_out = span_skip(line, name.len);
	*rest = after;
	return true;
}

static int time_parse(struct span text, int64_t *wall_ms_out)
{
	struct span seconds;
	uint64_t s = 0, ms = 0;
	bool has_point = span_cut(&text, '.', &seconds);
	if (num_parse_u64(seconds, REQLOG_TIME_MAX_S, &s) < 0)
		return ERR_SYNTAX;
	if (has_point) {
		struct span digits = span_take(text, 3);
		uint64_t rest = 0;
		/* Finer than milliseconds is cut off. */
		if (text.len > 9 || num_parse_u64(text, 999999999, &rest) < 0 || num_parse_u64(digits, 999, &ms) < 0)
			return ERR_SYNTAX;
		for (size_t i = digits.len; i < 3; i++)
			ms *= 10;
	}
	*wall_ms_out = (int64_t)(s * 1000 + ms);
	return 0;
}

static uint64_t connection_of(const struct proto_request *request)
{
	static const struct hash_key fixed = {3, 4};
	struct span rest = request->attr[PROTO_INSTANCE], process;
	(void)span_cut(&rest, '.', &process);
	return hash_siphash(&fixed, process);
}

static int fail(const char **reason, const char *text)
{
	*reason = text;
	return ERR_SYNTAX;
}

int reqlog_parse(struct span record, struct reqlog_record *r, const char **reason, unsigned *line)
{
	struct span value;
	*line = 0;
	r->is_end = false;
	if (!line_take(&record, SPAN_LIT("time="), &value))
		return fail(reason, "a record begins with time=");
	if (time_parse(value, &r->wall_ms) < 0)
		return fail(reason, "the time is not SECONDS.MILLISECONDS");
	*line = 1;
	bool named = line_take(&record, SPAN_LIT("connection="), &value);
	if (named && num_parse_u64(value, UINT64_MAX, &r->connection) < 0)
		return fail(reason, "the connection is no number");
	*line += named;
	r->is_end = named && span_eq(record, SPAN_LIT("end\n\n"));
	if (r->is_end)
		return 0;
	int rc = record.len == 0 ? ERR_AGAIN : proto_request_parse(record, &r->request);
	if (rc == 0 && r->request.len != record.len)
		rc = ERR_SYNTAX;
	if (rc < 0)
		return fail(reason, rc == ERR_AGAIN   ? "the request does not end with an empty line"
				    : rc == ERR_LIMIT ? "the request passes a cap of the protocol"
						      : "not a request of the policy protocol");
	if (!named)
		r->connection = connection_of(&r->request);
	return 0;
}
