/*
 * The client's side, for command-line programs: blocking calls under one
 * deadline for the whole exchange.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"

struct call {
	int fd;
	int64_t deadline_us;
	struct sbuf *error;
};

/* Waits for EVENTS; ERR_TEMP at the deadline. */
static int wait_for(const struct call *call, short events)
{
	struct pollfd p = {.fd = call->fd, .events = events};
	for (;;) {
		int64_t left_ms = (call->deadline_us - clock_mono_us() + 999) / 1000;
		int rc = left_ms <= 0 ? 0 : poll(&p, 1, left_ms > 60000 ? 60000 : (int)left_ms);
		if (rc > 0)
			return 0;
		if (left_ms <= 0 || (rc < 0 && errno != EINTR)) {
			sbuf_adds(call->error, "no answer in time");
			return ERR_TEMP;
		}
	}
}

static int lost(const struct call *call)
{
	sbuf_addf(call->error, "connection lost: %s", strerror(errno));
	return ERR_TEMP;
}

static int send_all(const struct call *call, struct span s)
{
	while (s.len > 0) {
		if (wait_for(call, POLLOUT) < 0)
			return ERR_TEMP;
		ssize_t n = send(call->fd, s.ptr, s.len, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return lost(call);
		s = span_skip(s, n > 0 ? (size_t)n : 0);
	}
	return 0;
}

static int receive_all(const struct call *call, struct sbuf *reply)
{
	char chunk[16384];
	while (sbuf_ok(reply)) {
		if (wait_for(call, POLLIN) < 0)
			return ERR_TEMP;
		ssize_t n = recv(call->fd, chunk, sizeof(chunk), 0);
		if (n == 0)
			return 0;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return lost(call);
		sbuf_add(reply, span_of(chunk, n > 0 ? (size_t)n : 0));
	}
	sbuf_adds(call->error, "the answer is too long");
	return ERR_PERM;
}

static int parse_reply(struct span text, json_t **result_out, struct sbuf *error)
{
	json_t *reply = json_loadb(text.ptr == NULL ? "" : text.ptr, text.len, 0, NULL);
	const char *why = json_string_value(json_object_get(reply, "error"));
	json_t *result = json_object_get(reply, "result");
	int rc = ERR_PERM;
	if (json_is_true(json_object_get(reply, "ok")) && result != NULL) {
		*result_out = json_incref(result);
		rc = 0;
	} else {
		sbuf_adds(error, why != NULL ? why : "the answer is not understood");
	}
	json_decref(reply);
	return rc;
}

static int exchange(const struct call *call, const char *const *words, size_t count,
		    json_t **result_out)
{
	struct sbuf line, reply;
	int rc;
	sbuf_init_heap(&line, CONTROL_LINE_MAX);
	sbuf_init_heap(&reply, CONTROL_REPLY_MAX);
	for (size_t i = 0; i < count; i++)
		control_word_add(&line, span_str(words[i]));
	sbuf_addc(&line, '\n');
	if (!sbuf_ok(&line) || count > CONTROL_WORDS_MAX) {
		sbuf_adds(call->error, "the request is too long");
		rc = ERR_PERM;
	} else {
		rc = send_all(call, sbuf_span(&line));
	}
	if (rc == 0)
		rc = receive_all(call, &reply);
	if (rc == 0)
		rc = parse_reply(sbuf_span(&reply), result_out, call->error);
	sbuf_done(&line);
	sbuf_done(&reply);
	return rc;
}

int control_call(const char *spec, const char *const *words, size_t count, int64_t timeout_ms,
		 json_t **result_out, struct sbuf *error)
{
	struct call call = {.fd = -1,
			    .deadline_us = clock_mono_us() + timeout_ms * 1000,
			    .error = error};
	int rc = listen_connect(spec, &call.fd, error);
	if (rc < 0)
		return rc;
	rc = exchange(&call, words, count, result_out);
	close(call.fd);
	return rc;
}
