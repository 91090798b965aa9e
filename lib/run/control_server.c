/*
 * The daemon's side of the control socket: one line in, one JSON value out,
 * then the end.  Commands run on the loop, so they must be quick.
 */
#include "control.h"

#define CONNS_MAX 32
#define IDLE_MS 60000
#define ERROR_MAX 1024

struct table {
	const struct control_command *commands;
	void *arg;
};

struct control_server {
	struct conn_server *conns;
	struct table tables[CONTROL_TABLES_MAX];
	size_t tables_count;
};

/* How many words of the request the command's fixed words take; 0: no match. */
static size_t match(const struct control_command *command, const struct span *words, size_t count)
{
	struct span rest = span_str(command->words), word;
	size_t n = 0;
	while (rest.len > 0) {
		span_cut(&rest, ' ', &word);
		if (n == count || !span_eq(word, words[n]))
			return 0;
		n++;
	}
	return n;
}

static const struct control_command *find(const struct control_server *server,
					  const struct span *words, size_t count, void **arg_out,
					  size_t *fixed_out)
{
	const struct control_command *best = NULL;
	size_t most = 0;
	for (size_t t = 0; t < server->tables_count; t++) {
		const struct control_command *c = server->tables[t].commands;
		for (; c->words != NULL; c++) {
			size_t n = match(c, words, count);
			if (n <= most)
				continue;
			most = n;
			best = c;
			*arg_out = server->tables[t].arg;
		}
	}
	*fixed_out = most;
	return best;
}

static json_t *run(const struct control_server *server, struct span line, struct sbuf *error)
{
	char mem[CONTROL_LINE_MAX];
	struct sbuf decoded;
	struct span words[CONTROL_WORDS_MAX];
	size_t count = 0, fixed = 0;
	void *arg = NULL;
	sbuf_init(&decoded, mem, sizeof(mem));
	if (control_words_parse(line, &decoded, words, &count) < 0) {
		sbuf_adds(error, "malformed request");
		return NULL;
	}
	const struct control_command *command = find(server, words, count, &arg, &fixed);
	if (command == NULL) {
		sbuf_adds(error, "unknown command");
		return NULL;
	}
	return command->run(arg, words + fixed, count - fixed, error);
}

/* The answer's text, for free(3). */
static char *answer(json_t *result, const struct sbuf *error)
{
	json_t *reply;
	if (result != NULL)
		reply = json_pack("{s:b, s:o}", "ok", 1, "result", result);
	else
		reply = json_pack("{s:b, s:s%}", "ok", 0, "error", sbuf_cstr(error), error->len);
	/* Only a text that is not UTF-8 cannot be packed. */
	if (reply == NULL)
		reply = json_pack("{s:b, s:s}", "ok", 0, "error", "the answer is not UTF-8");
	char *text = json_dumps(reply, JSON_COMPACT | JSON_ENCODE_ANY);
	json_decref(reply);
	if (text == NULL)
		PANIC("out of memory");
	return text;
}

static size_t on_data(struct conn *c, void *state, struct span in)
{
	struct span line, rest = in;
	if (!span_cut(&rest, '\n', &line))
		return 0;
	char mem[ERROR_MAX];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	char *text = answer(run(state, span_trim(line), &error), &error);
	if (strlen(text) >= CONTROL_REPLY_MAX) {
		free(text);
		sbuf_reset(&error);
		sbuf_adds(&error, "the answer is too long");
		text = answer(NULL, &error);
	}
	conn_write(c, span_str(text));
	conn_write(c, SPAN_LIT("\n"));
	conn_finish(c);
	free(text);
	return in.len;
}

static void *on_open(struct conn *c, void *server_arg)
{
	(void)c;
	return server_arg;
}

struct control_server *control_server_new(struct loop *loop, const struct listen_set *set)
{
	static const struct conn_handler handler = {.open = on_open, .data = on_data};
	const struct conn_limits limits = {.in_max_bytes = CONTROL_LINE_MAX,
					   .out_max_bytes = CONTROL_REPLY_MAX,
					   .max_conns = CONNS_MAX,
					   .idle_ms = IDLE_MS,
					   .internal = true};
	struct control_server *server = mem_zalloc(sizeof(*server));
	server->conns = conn_server_new(loop, set, &limits, &handler, server);
	return server;
}

void control_server_add(struct control_server *server, const struct control_command *commands, void *arg)
{
	if (server->tables_count == CONTROL_TABLES_MAX)
		PANIC("more tables of commands than CONTROL_TABLES_MAX");
	server->tables[server->tables_count++] = (struct table){commands, arg};
}

void control_server_free(struct control_server **server)
{
	if (*server == NULL)
		return;
	conn_server_free(&(*server)->conns);
	free(*server);
	*server = NULL;
}
