/*
 * Tests of what a mail process tells quotad without waking it, and when it does not: against
 * a quotad that the test plays, step by step.
 */
#include <poll.h>
#include <sys/wait.h>

#include "tests/unit/quota_client.h"

#define TAKES "\t16\t0\n"
#define TAKES_STALE "\t17\t0\n"
#define TAKES_BLIND "\t18\t0\n"
#define TAKES_NONE "\t0\t0\n"
#define GRANTED(flags_and_acked) "OK\t7\t1000\t0\t300\t3\t600\t4611686018427387904\t5" flags_and_acked

static struct usage u;
static int quotad = -1, channel = -1;
static char text[8192];

/* What stands on FD now, with the descriptor that came with it. */
static const char *there(int fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(sizeof(size_t))));
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t len = 0;

	while (poll(&p, 1, 0) > 0) {
		struct iovec part = {.iov_base = text + len, .iov_len = sizeof(text) - 1 - len};
		struct msghdr m = {.msg_iov = &part,
				   .msg_iovlen = 1,
				   .msg_control = control,
				   .msg_controllen = sizeof(control)};
		const ssize_t n = recvmsg(fd, &m, 0);
		if (n <= 0)
			break;
		len += (size_t)n;
		const struct cmsghdr *head = CMSG_FIRSTHDR(&m);
		if (head == NULL)
			continue;
		ck_assert_int_eq(channel, -1);
		memcpy(&channel, CMSG_DATA(head), sizeof(channel));
	}
	text[len] = '\0';
	return text;
}

struct answer {
	pthread_t thread;
	const char *reply;
	char seen[8192];
};

/* Reads on the connection until a RESERVE or LOOKUP is there, and answers it. */
static void *answer(void *arg)
{
	struct answer *a = arg;
	size_t len = 0;
	if (quotad < 0)
		quotad = accept(listener, NULL, NULL);
	while (strstr(a->seen, "RESERVE") == NULL && strstr(a->seen, "LOOKUP") == NULL) {
		struct pollfd p = {.fd = quotad, .events = POLLIN};
		(void)poll(&p, 1, -1);
		const char *more = there(quotad);
		memcpy(a->seen + len, more, strlen(more) + 1);
		len += strlen(more);
	}
	(void)send(quotad, a->reply, strlen(a->reply), MSG_NOSIGNAL);
	return NULL;
}

static struct answer last;

static void expect_request(const char *reply)
{
	last = (struct answer){.reply = reply};
	ck_assert_int_eq(pthread_create(&last.thread, NULL, answer, &last), 0);
}

static struct usage_save granted(const char *reply)
{
	struct usage_save save = {0};
	expect_request(reply);
	ck_assert_int_eq(usage_reserve(&u, &save, &mail100), USAGE_OK);
	pthread_join(last.thread, NULL);
	return save;
}

static void commit_one(const char *reply)
{
	struct usage_save save = granted(reply);
	usage_commit(&u, &save);
}

static void begin_told(void)
{
	begin();
	u = root(0);
}

/* ... and the channel is open. */
static void begin_open(void)
{
	begin_told();
	commit_one(GRANTED(TAKES));
	ck_assert_str_eq(there(quotad), "CHANNEL\nCOMMIT\t" USER "\t7\t1\t100\t1\n");
	ck_assert_int_ge(channel, 0);
	ck_assert_str_eq(there(channel), "");
}

static void close_both(void)
{
	if (channel >= 0)
		close(channel);
	if (quotad >= 0)
		close(quotad);
	channel = quotad = -1;
}

static void end_told(void)
{
	end();
	close_both();
}

START_TEST(a_commit_goes_through_the_channel)
{
	begin_open();
	for (int i = 2; i < 5; i++) {
		char line[128];
		commit_one(GRANTED(TAKES));
		(void)snprintf(line, sizeof(line), "COMMIT\t" USER "\t7\t%d\t100\t1\n", i);
		ck_assert_str_eq(there(channel), line);
		ck_assert_str_eq(there(quotad), "");
		ck_assert_ptr_null(strstr(last.seen, "COMMIT"));
	}
	ck_assert_uint_eq(client.owed_count, 4);
	end_told();
}
END_TEST

START_TEST(one_that_takes_none_is_asked_for_none)
{
	begin_told();
	for (int i = 0; i < 2; i++) {
		commit_one(GRANTED(TAKES_NONE));
		ck_assert_ptr_null(strstr(last.seen, "CHANNEL"));
		ck_assert_int_eq(strncmp(there(quotad), "COMMIT\t", 7), 0);
	}
	ck_assert_int_eq(client.channel, -1);
	end_told();
}
END_TEST

START_TEST(a_user_in_doubt_is_told_of_at_once)
{
	begin_open();
	commit_one(GRANTED(TAKES_STALE));
	ck_assert_str_eq(there(quotad), "COMMIT\t" USER "\t7\t2\t100\t1\n");
	commit_one(GRANTED(TAKES_BLIND));
	ck_assert_str_eq(there(quotad), "COMMIT\t" USER "\t7\t3\t100\t1\n");
	ck_assert_str_eq(there(channel), "");
	end_told();
}
END_TEST

/* What goes through the channel would overtake what was not read yet. */
START_TEST(nothing_overtakes_what_is_on_its_way)
{
	begin_open();
	struct usage_save save = granted(GRANTED(TAKES));
	usage_intent(&u);
	usage_commit(&u, &save);
	ck_assert_str_eq(there(quotad), "INTENT\t" USER "\nCOMMIT\t" USER "\t7\t2\t100\t1\n");
	save = granted(GRANTED(TAKES));
	usage_freed(&u, 1, 1);
	usage_commit(&u, &save);
	ck_assert_str_eq(there(quotad), "FREE\t" USER "\t3\t1\t1\nCOMMIT\t" USER "\t7\t4\t100\t1\n");
	ck_assert_str_eq(there(channel), "");
	/* A reply says that all before it was read. */
	save = granted(GRANTED(TAKES));
	usage_intent(&u);
	expect_request(GRANTED(TAKES));
	usage_lookup(&u);
	pthread_join(last.thread, NULL);
	usage_commit(&u, &save);
	ck_assert_str_eq(there(quotad), "");
	ck_assert_str_eq(there(channel), "COMMIT\t" USER "\t7\t5\t100\t1\n");
	end_told();
}
END_TEST

START_TEST(only_what_frees_nothing_waits)
{
	begin_open();
	struct usage_save save = granted(GRANTED(TAKES));
	usage_release(&u, &save);
	ck_assert_str_eq(there(quotad), "RELEASE\t" USER "\t7\n");
	expect_request(GRANTED(TAKES));
	usage_lookup(&u);
	pthread_join(last.thread, NULL);
	usage_freed(&u, 1, 1);
	ck_assert_str_eq(there(quotad), "FREE\t" USER "\t2\t1\t1\n");
	ck_assert_str_eq(there(channel), "");
	end_told();
}
END_TEST

/* quotad does not know the whole of it by this connection. */
START_TEST(a_reservation_of_another_connection)
{
	begin_open();
	struct usage_save save = granted(GRANTED(TAKES)), both = granted(GRANTED(TAKES));
	close_both();
	expect_request(GRANTED(TAKES));
	ck_assert_int_eq(usage_reserve(&u, &both, &mail100), USAGE_OK);
	pthread_join(last.thread, NULL);
	usage_commit(&u, &save);
	ck_assert_str_eq(there(quotad), "COMMIT\t" USER "\t7\t2\t100\t1\n");
	commit_one(GRANTED(TAKES));
	ck_assert_str_eq(there(quotad), "CHANNEL\nCOMMIT\t" USER "\t7\t3\t100\t1\n");
	expect_request(GRANTED(TAKES));
	usage_lookup(&u);
	pthread_join(last.thread, NULL);
	usage_commit(&u, &both);
	ck_assert_str_eq(there(quotad), "COMMIT\t" USER "\t7\t4\t200\t2\n");
	ck_assert_str_eq(there(channel), "");
	end_told();
}
END_TEST

START_TEST(one_that_is_lost_is_told_again)
{
	begin_open();
	commit_one(GRANTED(TAKES));
	close_both();
	commit_one(GRANTED(TAKES));
	ck_assert_ptr_nonnull(strstr(last.seen, "COMMIT\t" USER "\t7\t1\t100\t1\nCOMMIT\t" USER
						"\t7\t2\t100\t1\nRESERVE\t"));
	end_told();
}
END_TEST

START_TEST(a_full_channel_holds_up_nobody)
{
	char junk[QUOTA_LINE_MAX] = {0};
	begin_open();
	struct usage_save save = granted(GRANTED(TAKES));
	while (send(client.channel, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	usage_commit(&u, &save);
	ck_assert_str_eq(there(quotad), "COMMIT\t" USER "\t7\t2\t100\t1\n");
	ck_assert_uint_eq(client.owed_count, 2);
	end_told();
}
END_TEST

/* It had no descriptor left for it, say. */
START_TEST(a_channel_that_was_not_kept_is_missed_by_nobody)
{
	begin_open();
	close(channel);
	channel = -1;
	commit_one(GRANTED(TAKES));
	ck_assert_str_eq(there(quotad), "COMMIT\t" USER "\t7\t2\t100\t1\n");
	end_told();
}
END_TEST

static bool is_marked(void)
{
	char marker[128];
	(void)snprintf(marker, sizeof(marker), "%s/" USER, tmpdir());
	return unlink(marker) == 0;
}

struct late {
	char seen[64];
	bool all;
};

static void *read_when_woken(void *arg)
{
	struct late *late = arg;
	struct pollfd p = {.fd = quotad, .events = POLLIN};
	(void)poll(&p, 1, -1);
	(void)snprintf(late->seen, sizeof(late->seen), "%s", there(quotad));
	if (late->all)
		(void)there(channel);
	return NULL;
}

START_TEST(who_ends_has_it_read)
{
	for (int reads = 0; reads < 3; reads++) {
		struct late late = {.all = reads == 2};
		pthread_t thread;
		begin();
		ck_assert_int_eq(quota_client_init(&client, path, tmpdir()), 0);
		u = root(0);
		commit_one(GRANTED(TAKES));
		(void)there(quotad);
		commit_one(GRANTED(TAKES));
		if (late.all)
			client.linger_ms = PATIENCE_MS;
		if (reads > 0)
			ck_assert_int_eq(pthread_create(&thread, NULL, read_when_woken, &late), 0);
		quota_client_done(&client);
		if (reads > 0) {
			pthread_join(thread, NULL);
			ck_assert_str_eq(late.seen, "SYNC\n");
		}
		ck_assert_int_eq(is_marked(), !late.all);
		end_told();
	}
}
END_TEST

START_TEST(a_child_leaves_the_channel_alone)
{
	begin_open();
	struct usage_save save = granted(GRANTED(TAKES));
	const pid_t pid = fork();
	if (pid == 0) {
		close(listener);
		usage_commit(&u, &save);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_str_eq(there(channel), "");
	usage_commit(&u, &save);
	ck_assert_str_eq(there(channel), "COMMIT\t" USER "\t7\t2\t100\t1\n");
	end_told();
}
END_TEST

static const TTest *const *const tests[] = {
	&a_commit_goes_through_the_channel,
	&one_that_takes_none_is_asked_for_none,
	&a_user_in_doubt_is_told_of_at_once,
	&nothing_overtakes_what_is_on_its_way,
	&only_what_frees_nothing_waits,
	&a_reservation_of_another_connection,
	&one_that_is_lost_is_told_again,
	&a_full_channel_holds_up_nobody,
	&a_channel_that_was_not_kept_is_missed_by_nobody,
	&who_ends_has_it_read,
	&a_child_leaves_the_channel_alone,
	NULL,
};

TEST_MAIN("quota_told", tests)
