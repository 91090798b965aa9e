/* Tests of lmtp-indexer/doveadm: the reader of replies, and the client against a
 * server that says just what it is told. */
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/run/listen.h"
#include "lmtp-indexer/doveadm.h"
#include "tests/unit/runner.h"

struct got {
	char mem[1024];
	struct sbuf text; /* values, each followed by '|' */
	size_t values;
};

static void take(void *arg, size_t index, struct span bytes, bool last)
{
	struct got *g = arg;
	ck_assert_uint_eq(index, g->values);
	sbuf_add(&g->text, bytes);
	if (last) {
		sbuf_addc(&g->text, '|');
		g->values++;
	}
}

static void got_init(struct got *g)
{
	g->values = 0;
	sbuf_init(&g->text, g->mem, sizeof(g->mem));
}

static const struct {
	const char *reply, *values, *why;
	int want;
} replies[] = {
	{"\n+\n", "", "+", 0},
	{"1\t2\t\n+\n", "1|2|", "+", 0},
	{"a\x01" "nb\x01tc\x01" "1d\t\n+\n", "a\nb\tc\x01" "d|", "+", 0},
	{"\t\t\n+\n", "||", "+", 0},
	{"1\t\n-NOUSER\n", "1|", "-NOUSER", ERR_NOT_FOUND},
	{"\n-75\n", "", "-75", ERR_PERM},
	{"\n-\n", "", "-", ERR_PERM},
	{"1\n+\n", "1", "", ERR_SYNTAX},
	{"1\x01x\t\n+\n", "1", "", ERR_SYNTAX},
	{"1\t\nx\n", "1|", "", ERR_SYNTAX},
	{"1\t\n\n", "1|", "", ERR_SYNTAX},
	{"1\t\n+\n+\n", "1|", "", ERR_SYNTAX},
	{"1\t2", "1|2", "", ERR_AGAIN},
	{"1\t\n", "1|", "", ERR_AGAIN},
};

/* Whole, and byte by byte. */
START_TEST(replies_are_read)
{
	struct doveadm_reply r;
	struct got g;
	for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
		struct span in = span_str(replies[i].reply);
		got_init(&g);
		doveadm_reply_init(&r, take, &g);
		ck_assert_int_eq(doveadm_reply_feed(&r, in), replies[i].want);
		ck_assert_str_eq(sbuf_cstr(&g.text), replies[i].values);
		if (r.done && replies[i].want != ERR_SYNTAX)
			ck_assert_str_eq(r.why, replies[i].why);
		got_init(&g);
		doveadm_reply_init(&r, take, &g);
		int rc = ERR_AGAIN;
		for (size_t at = 0; at < in.len && (rc == ERR_AGAIN || (rc == 0 && r.done)); at++)
			rc = doveadm_reply_feed(&r, span_of(in.ptr + at, 1));
		ck_assert_int_eq(rc, replies[i].want);
		ck_assert_str_eq(sbuf_cstr(&g.text), replies[i].values);
	}
}
END_TEST

START_TEST(a_long_reason_is_cut)
{
	for (size_t more = 0; more < 2; more++) {
		char text[DOVEADM_WHY_MAX + 16];
		struct sbuf b;
		struct doveadm_reply r;
		struct got g;
		got_init(&g);
		sbuf_init(&b, text, sizeof(text));
		sbuf_adds(&b, "\n-");
		while (b.len < DOVEADM_WHY_MAX + more + 1)
			sbuf_addc(&b, 'w');
		sbuf_addc(&b, '\n');
		doveadm_reply_init(&r, take, &g);
		ck_assert_int_eq(doveadm_reply_feed(&r, sbuf_span(&b)), ERR_PERM);
		ck_assert_uint_eq(strlen(r.why), DOVEADM_WHY_MAX);
	}
}
END_TEST

START_TEST(words_are_escaped)
{
	char mem[64];
	struct sbuf b;
	sbuf_init(&b, mem, sizeof(mem));
	doveadm_word_add(&b, SPAN_LIT("fetch"));
	doveadm_word_add(&b, SPAN_LIT("a\tb\nc\x01\0r"));
	ck_assert(span_eq(sbuf_span(&b), SPAN_LIT("fetch\ta\x01tb\x01nc\x01" "1\x01" "0r")));
}
END_TEST

/* ---- The client ---- */

struct script {
	struct listen_set set; /* one socket */
	const char *const *says; /* what each connection answers: greeting, password, command ...; NULL ends it */
	size_t connections;
};

/* A long one comes in pieces. */
static bool receive_line(int fd)
{
	char in[4096];
	ssize_t n;
	do
		n = recv(fd, in, sizeof(in), 0);
	while (n > 0 && in[n - 1] != '\n');
	return n > 0;
}

static void *serve(void *arg)
{
	struct script *s = arg;
	const char *const *say = s->says;
	for (size_t i = 0; i < s->connections; i++) {
		int fd;
		while ((fd = accept(s->set.fds[0], NULL, NULL)) < 0)
			poll(&(struct pollfd){.fd = s->set.fds[0], .events = POLLIN}, 1, -1);
		for (; *say != NULL; say++) {
			if (!receive_line(fd))
				break;
			IGNORE_RESULT(write(fd, *say, strlen(*say)) < 0);
		}
		say++;
		close(fd);
	}
	return NULL;
}

static int run(struct doveadm *d, struct got *g, char error[256])
{
	static const char *const words[] = {"fetch", "uid", "all"};
	struct sbuf e;
	got_init(g);
	sbuf_init(&e, error, 256);
	return doveadm_run(d, "u@x", words, 3, take, g, &e);
}

static struct doveadm *client(const char *const *says, size_t connections, pthread_t *thread, struct script *s, char path[256])
{
	struct sbuf b, error;
	char why[256];
	sbuf_init(&b, path, 256);
	sbuf_init(&error, why, sizeof(why));
	sbuf_addf(&b, "unix:%s/d", getenv("TMPDIR"));
	*s = (struct script){.says = says, .connections = connections};
	ck_assert_int_eq(listen_open(path, "none", 0600, &s->set, &error), 0);
	ck_assert_int_eq(pthread_create(thread, NULL, serve, s), 0);
	return doveadm_new(path, "secret", 500, NULL);
}

START_TEST(client_greets_asks_and_keeps_the_connection)
{
	static const char *const says[] = {"-\n", "+\n", "1\t\n+\n", "2\t\n+\n", NULL, "+\n", "3\t\n+\n", NULL};
	pthread_t thread;
	struct script s;
	struct got g;
	char path[256], error[256];
	struct doveadm *d = client(says, 2, &thread, &s, path);
	for (int i = 1; i <= 3; i++) { /* the third finds the connection closed and makes a new one */
		ck_assert_msg(run(d, &g, error) == 0, "%d: %s", i, error);
		ck_assert_int_eq(g.mem[0], '0' + i);
	}
	doveadm_free(&d);
	pthread_join(thread, NULL);
	listen_close(&s.set);
}
END_TEST

/* A line that fits goes out, one that is a byte longer is refused without a word to the server. */
START_TEST(command_cap)
{
	static const char *const says[] = {"+\n", "1\t\n+\n", NULL};
	static char word[DOVEADM_LINE_MAX];
	const char *const words[] = {word};
	pthread_t thread;
	struct script s;
	struct got g;
	char path[256], error[256];
	struct sbuf e;
	struct doveadm *d = client(says, 1, &thread, &s, path);
	memset(word, 'w', DOVEADM_LINE_MAX - strlen("\tu@x\t\n"));
	got_init(&g);
	sbuf_init(&e, error, sizeof(error));
	ck_assert_int_eq(doveadm_run(d, "u@x", words, 1, take, &g, &e), 0);
	ck_assert_int_eq(doveadm_run(d, "uu@x", words, 1, take, &g, &e), ERR_PERM);
	doveadm_free(&d);
	pthread_join(thread, NULL);
	listen_close(&s.set);
}
END_TEST

START_TEST(client_tells_failures_apart)
{
	static const char *const says[] = {"-\n", "-\n", NULL, "+\n", "\n-NOUSER\n", "\n-73\n", "1\t", NULL, "?\n", NULL};
	pthread_t thread;
	struct script s;
	struct got g;
	char path[256], error[256];
	struct doveadm *d = client(says, 3, &thread, &s, path);
	ck_assert_int_eq(run(d, &g, error), ERR_TEMP);
	ck_assert_ptr_nonnull(strstr(error, "password"));
	ck_assert_int_eq(run(d, &g, error), ERR_NOT_FOUND);
	ck_assert_int_eq(run(d, &g, error), ERR_PERM);
	ck_assert_ptr_nonnull(strstr(error, "-73"));
	ck_assert_int_eq(run(d, &g, error), ERR_TEMP); /* half an answer */
	ck_assert_int_eq(run(d, &g, error), ERR_TEMP); /* no doveadm server */
	doveadm_free(&d);
	pthread_join(thread, NULL);
	listen_close(&s.set);
	d = doveadm_new("unix:/nonexistent", "", 500, NULL);
	ck_assert_int_eq(run(d, &g, error), ERR_TEMP);
	doveadm_free(&d);
}
END_TEST

static const TTest *const *const tests[] = {
	&replies_are_read, &a_long_reason_is_cut, &words_are_escaped, &client_greets_asks_and_keeps_the_connection,
	&command_cap, &client_tells_failures_apart, NULL,
};

TEST_MAIN("indexer_doveadm", tests)
