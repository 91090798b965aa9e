/*
 * The bound that policy servers are measured against: answers DUNNO to whatever ends in
 * an empty line, one read and one write a request.
 *
 *   policy_echo SPEC        unix:/PATH or inet:HOST:PORT; until SIGTERM
 */
#include <unistd.h>

#include "lib/base/span.h"
#include "tests/bench/sink.h"

#define READ_SIZE 65536

static void *on_open(int fd)
{
	int *client = mem_zalloc(sizeof(*client));
	*client = fd;
	return client;
}

static bool on_ready(void *state)
{
	static char input[READ_SIZE];
	static const char reply[] = "action=DUNNO\n\n";
	const int *client = state;
	const ssize_t n = read(*client, input, sizeof(input));
	if (n <= 0)
		return false;
	return !span_ends(span_of(input, (size_t)n), SPAN_LIT("\n\n")) ||
	       write(*client, reply, sizeof(reply) - 1) >= 0;
}

static void on_close(void *state)
{
	int *client = state;
	close(*client);
	free(client);
}

int main(int argc, char **argv)
{
	static const struct sink_handler handler = {on_open, on_ready, on_close};
	return sink_main(argc, argv, &handler);
}
