/* Tests of what a mail process keeps back, to send it with its next request. */
#include <sys/wait.h>

#include "tests/unit/quota_client.h"

static bool is_kept;

static void note_kept(bool kept)
{
	ck_assert(is_kept != kept);
	is_kept = kept;
}

static void begin_keeping(void)
{
	begin();
	is_kept = false;
	client.on_kept = note_kept;
	client.keep_ms = PATIENCE_MS;
}

static void deliver(struct usage *u)
{
	struct usage_save save = {0};
	ck_assert_int_eq(usage_reserve(u, &save, &mail100), USAGE_OK);
	usage_commit(u, &save);
}

#define RESERVED "RESERVE\t" USER "\t0\t100\t0\t1000\t0\t0\t0\t0\t\n"
#define COMMITTED(op) "COMMIT\t" USER "\t7\t" op "\t100\t1\n"

START_TEST(a_commit_goes_with_the_next_request)
{
	static const char *const lines[] = {OK_REPLY, OK_REPLY, OK_REPLY, OK_REPLY, NULL};
	struct script s;
	begin_keeping();
	script_start(&s, lines);
	struct usage u = root(1000);
	deliver(&u);
	ck_assert(!is_kept && !client.kept); /* who knows whether another one comes */
	deliver(&u);
	ck_assert(is_kept);
	deliver(&u);
	ck_assert(is_kept);
	usage_intent(&u);
	ck_assert(!is_kept);
	usage_lookup(&u);
	script_end(&s);
	ck_assert_ptr_nonnull(strstr(s.seen, "\n" RESERVED COMMITTED("1") RESERVED COMMITTED("2") RESERVED COMMITTED("3")
					     "INTENT\t" USER "\nLOOKUP"));
	end();
}
END_TEST

START_TEST(what_is_kept_is_sent_when_its_time_comes)
{
	static const char *const lines[] = {OK_REPLY, OK_REPLY, OK_REPLY, NULL};
	struct script s;
	begin_keeping();
	script_start(&s, lines);
	struct usage u = root(1000);
	deliver(&u);
	deliver(&u);
	quota_client_flush(&client);
	ck_assert(!is_kept);
	quota_client_flush(&client); /* nothing is left to send */
	usage_lookup(&u);
	script_end(&s);
	ck_assert_ptr_nonnull(strstr(s.seen, RESERVED COMMITTED("2") "LOOKUP"));
	end();
}
END_TEST

START_TEST(what_is_kept_is_sent_at_the_end)
{
	static const char *const lines[] = {OK_REPLY, OK_REPLY, "nobody asks for it\n", NULL};
	struct script s;
	begin_keeping();
	script_start(&s, lines);
	struct usage u = root(1000);
	deliver(&u);
	deliver(&u);
	ck_assert(is_kept);
	end();
	script_end(&s);
	ck_assert(!is_kept);
	ck_assert_ptr_nonnull(strstr(s.seen, RESERVED COMMITTED("2")));
}
END_TEST

START_TEST(what_is_kept_survives_the_connection)
{
	static const char *const first[] = {OK_REPLY, OK_REPLY, NULL}, *const second[] = {OK_REPLY, NULL};
	struct script s;
	begin_keeping();
	script_start(&s, first);
	struct usage u = root(1000);
	deliver(&u);
	deliver(&u);
	script_end(&s);
	ck_assert(is_kept);
	script_start(&s, second);
	usage_lookup(&u);
	ck_assert(!is_kept);
	script_end(&s);
	ck_assert_ptr_nonnull(strstr(s.seen, "\n" COMMITTED("1") COMMITTED("2") "LOOKUP"));
	end();
}
END_TEST

/* A reservation keeps others from counting; what has none says nothing of a process that dies. */
START_TEST(some_changes_are_never_kept)
{
#define FLAGGED(flags) "OK\t7\t1000\t0\t300\t3\t600\t4611686018427387904\t5\t" flags "\t0\n"
	static const char *const lines[] = {OK_REPLY, FLAGGED("1"), FLAGGED("8"), OK_REPLY, OK_REPLY, OK_REPLY, NULL};
	struct script s;
	begin_keeping();
	script_start(&s, lines);
	struct usage u = root(1000);
	for (int i = 0; i < 3; i++) {
		deliver(&u); /* the first; one of a user who is stale; of one who is examined */
		ck_assert(!is_kept);
	}
	usage_freed(&u, 1, 1);
	ck_assert(!is_kept);
	client.keep_ms = -1; /* the last one was long ago */
	deliver(&u);
	ck_assert(!is_kept);
	client.keep_ms = PATIENCE_MS;
	client.on_kept = NULL;
	deliver(&u);
	ck_assert(!client.kept);
	usage_lookup(&u);
	script_end(&s);
	ck_assert_ptr_nonnull(strstr(s.seen, COMMITTED("3") "FREE"));
	ck_assert_ptr_nonnull(strstr(s.seen, COMMITTED("6") "LOOKUP"));
	end();
}
END_TEST

START_TEST(a_child_does_not_send_what_its_parent_keeps)
{
	static const char *const lines[] = {OK_REPLY, OK_REPLY, OK_REPLY, NULL}, *const other[] = {OK_REPLY, NULL};
	struct script s, c;
	begin_keeping();
	script_start(&s, lines);
	struct usage u = root(1000);
	deliver(&u);
	deliver(&u);
	script_start(&c, other);
	const pid_t pid = fork();
	if (pid == 0) {
		usage_lookup(&u);
		_exit(is_kept || client.owed_count > 0 ? 1 : 0);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	script_end(&c);
	ck_assert_ptr_null(strstr(c.seen, "COMMIT"));
	ck_assert(is_kept);
	usage_lookup(&u);
	script_end(&s);
	ck_assert_ptr_nonnull(strstr(s.seen, RESERVED COMMITTED("2") "LOOKUP"));
	end();
}
END_TEST

static const TTest *const *const tests[] = {
	&a_commit_goes_with_the_next_request,
	&what_is_kept_is_sent_when_its_time_comes,
	&what_is_kept_is_sent_at_the_end,
	&what_is_kept_survives_the_connection,
	&some_changes_are_never_kept,
	&a_child_does_not_send_what_its_parent_keeps,
	NULL,
};

TEST_MAIN("quota_kept", tests)
