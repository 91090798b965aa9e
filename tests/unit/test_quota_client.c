/*
 * Tests of the mail process's side against a quotad that the test plays: what
 * happens when it hangs, dies, restarts, or says nonsense.
 */
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/quota_client.h"

/* ---- the other side, one step at a time ---- */

static char got[65536];
static size_t got_len;

/* What the client sent on FD until nothing more comes for a moment. */
static const char *sent_on(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	while (poll(&p, 1, 30) > 0) {
		const ssize_t n = read(fd, got + got_len, sizeof(got) - 1 - got_len);
		if (n <= 0)
			break;
		got_len += (size_t)n;
	}
	got[got_len] = '\0';
	return got;
}

START_TEST(a_mail_is_reserved_and_committed)
{
	static const char *const lines[] = {OK_REPLY, "OK\t0\t1000\t0\t400\t4\t600\t4611686018427387904\t6\t0\t1\n", NULL};
	struct script s;
	begin();
	script_start(&s, lines);
	struct usage u = root(0);
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
	ck_assert_uint_eq(save.id, 7);
	usage_commit(&u, &save);
	ck_assert_uint_eq(client.owed_count, 1);
	usage_lookup(&u);
	ck_assert_uint_eq(client.owed_count, 0); /* acknowledged meanwhile */
	ck_assert_uint_eq(u.state.used, 400);
	script_end(&s);
	ck_assert_ptr_nonnull(strstr(s.seen, "HELLO\t2\t"));
	ck_assert_ptr_nonnull(strstr(s.seen, "RESERVE\t" USER "\t0\t100\t0\t0\t0\t0\t0\t0\t\nCOMMIT\t" USER
					     "\t7\t1\t100\t1\nLOOKUP"));
	end();
}
END_TEST

START_TEST(a_refusal_sticks_to_the_transaction)
{
	static const char *const lines[] = {"OVER\t0\t1000\t0\t990\t3\t10\t4611686018427387904\t5\t0\t0\n",
					    "BIG\t0\t50\t0\t0\t0\t50\t4611686018427387904\t5\t0\t0\n", NULL};
	struct script s;
	begin();
	script_start(&s, lines);
	struct usage u = root(0);
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OVER);
	ck_assert_int_eq(save.refusal, USAGE_OVER);
	ck_assert_uint_eq(save.messages, 0);
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_BIG);
	script_end(&s);
	end();
}
END_TEST

START_TEST(a_recount_is_made_when_asked_for)
{
	static const char *const lines[] = {
		"RECOUNT\t0\t1000\t0\t0\t0\t1000\t4611686018427387904\t41\t1\t0\n",
		"OK\t0\t1000\t0\t0\t0\t1000\t4611686018427387904\t41\t1\t0\n",
		"RETRY\t0\t1000\t0\t0\t0\t1000\t4611686018427387904\t42\t1\t0\n",
		"OK\t0\t1000\t0\t0\t0\t1000\t4611686018427387904\t42\t1\t0\n",
		"OK\t0\t1000\t0\t555\t5\t445\t4611686018427387904\t42\t0\t0\n",
		OK_REPLY,
		NULL,
	};
	struct script s;
	begin();
	mailbox_bytes = 555;
	mailbox_messages = 5;
	script_start(&s, lines);
	struct usage u = root(0);
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
	script_end(&s);
	ck_assert_int_eq(counts, 2);
	ck_assert_ptr_nonnull(strstr(s.seen, "COUNTED\t" USER "\t41\t555\t5\n"));
	ck_assert_ptr_nonnull(strstr(s.seen, "COUNTED\t" USER "\t42\t555\t5\n"));
	ck_assert_ptr_nonnull(strstr(s.seen, "RESERVE\t" USER "\t0\t100\t0\t0\t2\t0\t0\t0\t\n"));
	end();
}
END_TEST

START_TEST(a_hanging_quotad_costs_one_wait)
{
	begin();
	mailbox_bytes = 850;
	mailbox_messages = 8;
	struct usage u = root(1000);
	const int64_t since = quota_client_now_ms();
	for (int i = 0; i < 3; i++) {
		struct usage_save save = {0};
		ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
		ck_assert(save.unseen);
		usage_commit(&u, &save);
	}
	const int64_t took = quota_client_now_ms() - since;
	ck_assert_int_ge(took, QUOTA_CLIENT_TIMEOUT_MS - 5);
	ck_assert_int_lt(took, 2 * QUOTA_CLIENT_TIMEOUT_MS);
	/* the limit holds by the count, for what the transaction has already, too */
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OVER);
	usage_release(&u, &save);

	/* It goes on: what it finds makes it recount the user. */
	const int first = accept(listener, NULL, NULL), second = accept(listener, NULL, NULL);
	ck_assert_ptr_nonnull(strstr(sent_on(first), "RESERVE\t" USER));
	got_len = 0;
	ck_assert_ptr_nonnull(
		strstr(sent_on(second), "STALE\t" USER "\nSTALE\t" USER "\nSTALE\t" USER "\n"));
	close(first);
	close(second);
	end();
}
END_TEST

START_TEST(nobody_listens_and_nobody_waits)
{
	begin();
	end();
	ck_assert_int_eq(quota_client_init(&client, path, ""), 0);
	struct usage u = root(0);
	const int64_t since = quota_client_now_ms();
	for (int i = 0; i < 100; i++) {
		struct usage_save save = {0};
		ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
		usage_commit(&u, &save);
		usage_intent(&u);
		usage_freed(&u, 1, 1);
	}
	ck_assert_int_lt(quota_client_now_ms() - since, QUOTA_CLIENT_TIMEOUT_MS);
}
END_TEST

static bool is_marked(void)
{
	char marker[128];
	(void)snprintf(marker, sizeof(marker), "%s/" USER, tmpdir());
	return unlink(marker) == 0;
}

START_TEST(a_marker_is_left_where_nobody_listens)
{
	begin();
	end();
	ck_assert_int_eq(quota_client_init(&client, path, tmpdir()), 0);
	struct usage u = root(0);
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
	ck_assert(!is_marked()); /* nothing has changed yet */
	usage_commit(&u, &save);
	ck_assert(is_marked());
	usage_freed(&u, 1, 1);
	ck_assert(is_marked());
	usage_login(&u);
	ck_assert(!is_marked());
	quota_client_done(&client);
}
END_TEST

/* A session that ends: what it expunged is told to a quotad that may never read it. */
START_TEST(a_marker_is_left_of_what_nobody_read)
{
	begin();
	for (int reads = 0; reads < 2; reads++) {
		ck_assert_int_eq(quota_client_init(&client, path, tmpdir()), 0);
		struct usage u = root(0);
		usage_freed(&u, 1, 1);
		const int fd = accept(listener, NULL, NULL);
		got_len = 0;
		if (reads == 1)
			ck_assert_ptr_nonnull(strstr(sent_on(fd), "FREE\t" USER "\t1\t1\t1\n"));
		quota_client_done(&client);
		ck_assert_int_eq(is_marked(), reads == 0);
		close(fd);
	}
	end();
}
END_TEST

static void *read_late(void *arg)
{
	(void)poll(NULL, 0, QUOTA_CLIENT_LINGER_MS / 10);
	(void)sent_on(*(const int *)arg);
	return NULL;
}

START_TEST(no_marker_where_it_is_read_a_little_late)
{
	pthread_t reader;
	begin();
	ck_assert_int_eq(quota_client_init(&client, path, tmpdir()), 0);
	struct usage u = root(0);
	usage_freed(&u, 1, 1);
	int fd = accept(listener, NULL, NULL);
	got_len = 0;
	client.linger_ms = PATIENCE_MS;
	ck_assert_int_eq(pthread_create(&reader, NULL, read_late, &fd), 0);
	quota_client_done(&client);
	pthread_join(reader, NULL);
	ck_assert(!is_marked());
	close(fd);
	end();
}
END_TEST

/* It read the change, and may have ended before it noted it. */
START_TEST(a_marker_is_left_of_what_a_dead_one_read)
{
	begin();
	ck_assert_int_eq(quota_client_init(&client, path, tmpdir()), 0);
	struct usage u = root(0);
	usage_freed(&u, 1, 1);
	const int fd = accept(listener, NULL, NULL);
	got_len = 0;
	ck_assert_ptr_nonnull(strstr(sent_on(fd), "FREE\t"));
	close(fd);
	quota_client_done(&client);
	ck_assert(is_marked());
	end();
}
END_TEST

/* It may go on and read the note, or be ended with the note unread. */
START_TEST(a_marker_is_left_where_it_hangs)
{
	begin();
	ck_assert_int_eq(quota_client_init(&client, path, tmpdir()), 0);
	struct usage u = root(0);
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
	usage_commit(&u, &save);
	ck_assert(is_marked());
	const int first = accept(listener, NULL, NULL), second = accept(listener, NULL, NULL);
	ck_assert_ptr_nonnull(strstr(sent_on(second), "STALE\t" USER "\n"));
	close(first);
	close(second);
	end();
}
END_TEST

/* It hangs, and no reply was missed that would tell. */
START_TEST(a_marker_is_left_of_a_note_that_nobody_reads)
{
	begin();
	ck_assert_int_eq(quota_client_init(&client, path, tmpdir()), 0);
	struct usage u = root(0);
	usage_stale(&u);
	ck_assert(!client.mute);
	ck_assert(is_marked());
	close(accept(listener, NULL, NULL));
	end();
}
END_TEST

static void *accept_and_read(void *arg)
{
	int *fd = arg;
	ssize_t n = 1;
	*fd = accept(listener, NULL, NULL);
	for (got_len = 0, got[0] = '\0'; n > 0 && strstr(got, "STALE") == NULL; got[got_len] = '\0')
		if ((n = read(*fd, got + got_len, sizeof(got) - 1 - got_len)) > 0)
			got_len += (size_t)n;
	return NULL;
}

/* A quotad that was restarted while the connection was open: nothing is left for later. */
START_TEST(no_marker_where_another_listens)
{
	static const char *const first[] = {OK_REPLY, NULL};
	struct script s;
	pthread_t reader;
	int fd = -1;
	begin();
	ck_assert_int_eq(quota_client_init(&client, path, tmpdir()), 0);
	script_start(&s, first);
	struct usage u = root(0);
	usage_lookup(&u);
	script_end(&s);
	client.linger_ms = PATIENCE_MS;
	ck_assert_int_eq(pthread_create(&reader, NULL, accept_and_read, &fd), 0);
	usage_stale(&u);
	pthread_join(reader, NULL);
	ck_assert(!is_marked());
	ck_assert_ptr_nonnull(strstr(got, "STALE\t" USER "\n"));
	close(fd);
	end();
}
END_TEST

START_TEST(what_is_owed_is_sent_again)
{
	static const char *const first[] = {OK_REPLY, NULL}, *const second[] = {OK_REPLY, NULL};
	struct script s;
	begin();
	script_start(&s, first);
	struct usage u = root(0);
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
	script_end(&s); /* quotad is gone before the commit */
	usage_commit(&u, &save);
	usage_freed(&u, 10, 1);
	ck_assert_uint_eq(client.owed_count, 2);
	close(accept(listener, NULL, NULL)); /* and again before it read them */
	script_start(&s, second);
	usage_lookup(&u);
	script_end(&s);
	ck_assert_ptr_nonnull(
		strstr(s.seen, "COMMIT\t" USER "\t7\t1\t100\t1\nFREE\t" USER "\t2\t10\t1\nLOOKUP"));
	end();
}
END_TEST

START_TEST(too_much_owed_waits_for_the_disk)
{
	static const char *const lines[] = {"OK\t0\t0\t0\t0\t0\t0\t4611686018427387904\t0\t0\t32\n", NULL};
	struct script s;
	begin();
	script_start(&s, lines);
	struct usage u = root(0);
	for (int i = 0; i < QUOTA_CLIENT_OWED_MAX; i++)
		usage_freed(&u, 1, 1);
	ck_assert_uint_eq(client.owed_count, QUOTA_CLIENT_OWED_MAX);
	usage_freed(&u, 1, 1);
	ck_assert_uint_eq(client.owed_count, 1);
	script_end(&s);
	ck_assert_ptr_nonnull(strstr(s.seen, "FREE\t" USER "\t32\t1\t1\nSYNC\n"));
	end();
}
END_TEST

START_TEST(nonsense_is_no_answer)
{
	static const char *const lines[] = {"YES PLEASE\n", NULL};
	struct script s;
	begin();
	script_start(&s, lines);
	struct usage u = root(0);
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
	ck_assert(save.unseen);
	script_end(&s);
	end();
}
END_TEST

START_TEST(a_child_does_not_speak_for_its_parent)
{
	static const char *const lines[] = {OK_REPLY, OK_REPLY, NULL}, *const other[] = {OK_REPLY,
											 NULL};
	struct script s, c;
	begin();
	script_start(&s, lines);
	struct usage u = root(0);
	usage_lookup(&u);
	const uint64_t instance = client.instance;
	script_start(&c, other);
	const pid_t pid = fork();
	if (pid == 0) {
		usage_lookup(&u);
		_exit(u.known && client.instance != instance ? 0 : 1);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	script_end(&c);
	usage_lookup(&u);
	script_end(&s);
	ck_assert_ptr_null(strstr(strchr(s.seen, '\n'), "HELLO"));
	ck_assert_ptr_nonnull(strstr(c.seen, "HELLO"));
	end();
}
END_TEST

START_TEST(an_old_limit_serves_while_it_is_unknown)
{
#define NO_LIMIT "\t4611686018427387904\t4611686018427387904"
	static const char *const lines[] = {"OK\t0\t0\t0\t900\t9" NO_LIMIT "\t1\t2\t0\n",
					    "OK\t0\t0\t0\t900\t9" NO_LIMIT "\t1\t2\t0\n",
					    "OK\t0\t0\t0\t900\t9" NO_LIMIT "\t1\t2\t0\n", NULL};
	struct script s;
	begin();
	script_start(&s, lines);
	struct usage u = root(1000);
	ck_assert_int_eq(usage_check(&u, 50, &none, true), USAGE_OK);
	ck_assert_int_eq(usage_check(&u, 101, &none, false), USAGE_OVER);
	ck_assert_int_eq(usage_check(&u, 1001, &none, false), USAGE_BIG);
	script_end(&s);
	end();
}
END_TEST

START_TEST(what_is_known_lets_pass_and_never_refuses)
{
	static const char *const lines[] = {"OK\t0\t1000\t0\t900\t9\t100\t5\t1\t0\t0\n",
					    "OK\t0\t1000\t0\t100\t1\t900\t5\t1\t0\t0\n",
					    "OK\t0\t1000\t0\t100\t1\t900\t0\t1\t0\t0\n",
					    "OK\t0\t1000\t0\t100\t1\t900\t0\t1\t0\t0\n",
					    "OK\t0\t1000\t0\t100\t1\t900\t0\t1\t0\t0\n", NULL};
	const struct usage_allowance more = {.bytes = 50, .grace = 10};
	struct script s;
	begin();
	script_start(&s, lines);
	struct usage u = root(0);
	ck_assert_int_eq(usage_check(&u, 5000, &none, false), USAGE_OK); /* nothing is known */
	usage_lookup(&u);
	ck_assert_int_eq(usage_check(&u, 100, &none, false), USAGE_OK);
	ck_assert_int_eq(usage_check(&u, 160, &more, false), USAGE_OK);
	ck_assert_int_eq(usage_check(&u, 161, &more, false), USAGE_OK); /* has asked: 900 left */
	ck_assert_int_eq(usage_check(&u, 901, &none, false), USAGE_OVER); /* no message is left */
	ck_assert_int_eq(usage_check(&u, 1060, &more, false), USAGE_OVER);
	ck_assert_int_eq(usage_check(&u, 1061, &more, false), USAGE_BIG); /* were it empty */
	ck_assert_int_eq(strstr(s.seen, "LOOKUP") != NULL, 1);
	script_end(&s);
	end();
}
END_TEST

START_TEST(a_path_has_its_cap)
{
	char text[QUOTA_CLIENT_PATH_MAX + 2];
	memset(text, 'p', sizeof(text));
	text[QUOTA_CLIENT_PATH_MAX] = '\0';
	ck_assert_int_eq(quota_client_init(&client, text, ""), 0);
	text[QUOTA_CLIENT_PATH_MAX] = 'p';
	text[QUOTA_CLIENT_PATH_MAX + 1] = '\0';
	ck_assert_int_eq(quota_client_init(&client, text, ""), ERR_LIMIT);
	char dir[QUOTA_CLIENT_MARKERS_MAX + 2];
	memset(dir, 'd', sizeof(dir));
	dir[QUOTA_CLIENT_MARKERS_MAX] = '\0';
	ck_assert_int_eq(quota_client_init(&client, "s", dir), 0);
	dir[QUOTA_CLIENT_MARKERS_MAX] = 'd';
	dir[QUOTA_CLIENT_MARKERS_MAX + 1] = '\0';
	ck_assert_int_eq(quota_client_init(&client, "s", dir), ERR_LIMIT);
}
END_TEST

static const TTest *const *const tests[] = {
	&what_is_known_lets_pass_and_never_refuses,
	&a_mail_is_reserved_and_committed,
	&a_refusal_sticks_to_the_transaction,
	&a_recount_is_made_when_asked_for,
	&a_hanging_quotad_costs_one_wait,
	&nobody_listens_and_nobody_waits,
	&a_marker_is_left_where_nobody_listens,
	&a_marker_is_left_where_it_hangs,
	&a_marker_is_left_of_a_note_that_nobody_reads,
	&a_marker_is_left_of_what_nobody_read,
	&no_marker_where_it_is_read_a_little_late,
	&a_marker_is_left_of_what_a_dead_one_read,
	&no_marker_where_another_listens,
	&what_is_owed_is_sent_again,
	&too_much_owed_waits_for_the_disk,
	&nonsense_is_no_answer,
	&a_child_does_not_speak_for_its_parent,
	&an_old_limit_serves_while_it_is_unknown,
	&a_path_has_its_cap,
	NULL,
};

TEST_MAIN("quota_client", tests)
