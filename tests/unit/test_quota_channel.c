/* Tests of when quotad reads what came without waking it, with sockets and a loop of libev. */
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dovecot-plugin-quota/quotad/channel.h"
#include "tests/unit/quota_ledger.h"

#define PEERS 3

static struct channels all;
static struct ev_loop *ev;
static int broken;

static struct peer {
	struct ledger_owner owner;
	struct channel channel;
	int fd; /* the mail process's end */
	int taken;
} peers[PEERS];

static int take(void *arg, struct span line)
{
	struct peer *p = arg;
	struct quota_request request;

	p->taken++;
	if (quota_request_decode(line, &request) < 0)
		return ERR_SYNTAX;
	(void)call(&p->owner, ledger_add(l, request.user), request);
	channel_note(&all, &p->channel);
	return 0;
}

/* As the server does: its connection ends at once. */
static void break_off(void *arg)
{
	struct peer *p = arg;
	broken++;
	channel_close(&all, &p->channel);
	ledger_owner_gone(l, &p->owner);
}

static const struct channel_handler handler = {take, break_off};

static void begin(void)
{
	l = ledger_new(&caps);
	ev = ev_loop_new(0);
	channels_start(&all, ev, l, &handler, PEERS);
	broken = 0;
	for (size_t i = 0; i < PEERS; i++) {
		struct peer *p = &peers[i];
		int ends[2];
		*p = (struct peer){.owner = {.instance = i + 1}};
		channel_init(&p->channel, &p->owner, p);
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
		p->fd = ends[0];
		ck_assert_int_eq(channel_open(&all, &p->channel, ends[1]), 0);
	}
}

static void end(void)
{
	for (size_t i = 0; i < PEERS; i++) {
		channel_close(&all, &peers[i].channel);
		ledger_owner_gone(l, &peers[i].owner);
		close(peers[i].fd);
	}
	channels_stop(&all);
	ev_loop_destroy(ev);
	ledger_free(&l);
}

static uint64_t grant(struct peer *p, struct ledger_user *u, uint64_t bytes)
{
	const struct quota_reply reply = reserve(&p->owner, u, 0, bytes);
	ck_assert_int_eq(reply.word, QUOTA_OK);
	channel_note(&all, &p->channel);
	return reply.id;
}

static void say(const struct peer *p, const char *line)
{
	ck_assert_int_eq(send(p->fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
}

static void tell_commit(const struct peer *p, const struct ledger_user *u, uint64_t id, uint64_t bytes)
{
	const struct quota_request r = {.verb = QUOTA_COMMIT,
					.user = span_str(u->name),
					.id = id,
					.op = next_op++,
					.bytes = bytes,
					.messages = 1};
	char mem[QUOTA_LINE_MAX];
	struct sbuf line;
	sbuf_init(&line, mem, sizeof(mem));
	ck_assert_int_eq(quota_request_encode(&r, &line), 0);
	say(p, sbuf_cstr(&line));
}

START_TEST(a_request_comes_after_what_its_process_told_before)
{
	begin();
	struct ledger_user *u = user_with("u@d", 1000, 100);
	const uint64_t id = grant(&peers[0], u, 300);
	tell_commit(&peers[0], u, id, 300);
	ck_assert_uint_eq(u->used, 100);
	ck_assert_int_eq(channel_read(&all, &peers[0].channel), 0);
	ck_assert_uint_eq(u->used, 400);
	ck_assert_uint_eq(u->reserved, 0);
	ck_assert(!u->stale);
	end();
}
END_TEST

START_TEST(a_question_comes_after_what_others_told_of_that_user)
{
	begin();
	struct ledger_user *u = user_with("u@d", 1000, 0), *v = user_with("v@d", 1000, 0);
	tell_commit(&peers[0], u, grant(&peers[0], u, 300), 300);
	tell_commit(&peers[1], u, grant(&peers[1], u, 200), 200);
	tell_commit(&peers[2], v, grant(&peers[2], v, 100), 100);
	channels_read_user(&all, &peers[1].channel, SPAN_LIT("U@d"));
	ck_assert_uint_eq(u->used, 300);
	ck_assert_int_eq(peers[1].taken, 0); /* its own is the caller's affair */
	ck_assert_int_eq(peers[2].taken, 0);
	channels_read_user(&all, NULL, SPAN_LIT("u@d"));
	ck_assert_uint_eq(u->used, 500);
	ck_assert_uint_eq(u->open, 0);
	ck_assert_int_eq(peers[2].taken, 0);
	channels_read_user(&all, NULL, SPAN_LIT("nobody@d"));
	ck_assert_int_eq(peers[2].taken, 0);
	end();
}
END_TEST

START_TEST(a_count_waits_for_nobody_who_is_done)
{
	begin();
	struct ledger_user *u = user_with("u@d", 1000, 0);
	struct ledger_owner *counting = &peers[1].owner;
	tell_commit(&peers[0], u, grant(&peers[0], u, 300), 300);
	ck_assert_int_eq(simple(counting, u, QUOTA_COUNT).reply.word, QUOTA_RETRY);
	channels_read_user(&all, &peers[1].channel, span_str(u->name));
	const struct quota_reply begun = simple(counting, u, QUOTA_COUNT).reply;
	ck_assert_int_eq(begun.word, QUOTA_OK);
	/* Another one comes, and is done, while the mailbox is counted. */
	tell_commit(&peers[0], u, grant(&peers[0], u, 100), 100);
	channels_read_user(&all, &peers[1].channel, span_str(u->name));
	ck_assert_int_eq(counted(counting, u, begun.seq, 300, 1).reply.word, QUOTA_RETRY);
	end();
}
END_TEST

/* Whoever has nothing open has nothing to say. */
START_TEST(only_who_has_something_open_is_looked_at)
{
	begin();
	struct ledger_user *u = user_with("u@d", 1000, 0);
	const uint64_t id = grant(&peers[0], u, 300);
	ck_assert_ptr_eq(all.lenders.first, &peers[0].channel.lends);
	tell_commit(&peers[0], u, id, 300);
	channels_read(&all);
	ck_assert_ptr_null(all.lenders.first);
	say(&peers[0], "COMMIT\n");
	channels_read(&all);
	ck_assert_int_eq(channel_read(&all, &peers[0].channel), 0);
	ck_assert_int_eq(peers[0].taken, 1);
	ck_assert_int_eq(broken, 0);
	end();
}
END_TEST

START_TEST(the_rest_is_read_soon)
{
	begin();
	struct ledger_user *u = user_with("u@d", 1000, 0);
	const uint64_t id = grant(&peers[0], u, 300);
	ck_assert(ev_is_active(&all.timer));
	ev_run(ev, EVRUN_ONCE); /* it is still at the storage's commit */
	ck_assert(ev_is_active(&all.timer));
	ck_assert_uint_eq(u->used, 0);
	tell_commit(&peers[0], u, id, 300);
	ev_run(ev, EVRUN_ONCE);
	ck_assert_uint_eq(u->used, 300);
	ck_assert(!ev_is_active(&all.timer)); /* nobody has anything open: no more ticks */
	grant(&peers[1], u, 1);
	ck_assert(ev_is_active(&all.timer));
	end();
}
END_TEST

START_TEST(who_ends_after_telling_leaves_no_doubt)
{
	begin();
	struct ledger_user *u = user_with("u@d", 1000, 0);
	for (int told = 1; told >= 0; told--) {
		struct peer *p = &peers[told];
		const uint64_t id = grant(p, u, 300);
		if (told == 1)
			tell_commit(p, u, id, 300);
		close(p->fd);
		channel_close(&all, &p->channel);
		ledger_owner_gone(l, &p->owner);
		ck_assert_uint_eq(u->used, 300);
		ck_assert_int_eq(u->stale, told == 0);
		p->fd = -1;
	}
	end();
}
END_TEST

START_TEST(a_side_that_ends_early_is_let_go)
{
	begin();
	struct ledger_user *u = user_with("u@d", 1000, 0);
	const uint64_t id = grant(&peers[0], u, 300);
	close(peers[0].fd);
	peers[0].fd = -1;
	channels_read(&all);
	ck_assert_int_eq(peers[0].channel.fd, -1);
	ck_assert_ptr_null(all.lenders.first);
	ck_assert_int_eq(broken, 0);
	(void)commit(&peers[0].owner, u, id, 300, 1); /* by its connection */
	channel_note(&all, &peers[0].channel);
	end();
}
END_TEST

START_TEST(nonsense_ends_its_connection_only)
{
	static const char *const lines[] = {"COMMIT\n", "\n", "COMMIT\tu@d\t1\t1\t1\t1", "NOPE\n"};
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		begin();
		struct ledger_user *u = user_with("u@d", 1000, 0);
		const uint64_t ids[] = {grant(&peers[0], u, 1), grant(&peers[1], u, 1), grant(&peers[2], u, 1)};
		say(&peers[1], lines[i]);
		tell_commit(&peers[1], u, ids[1], 1); /* is not read any more */
		tell_commit(&peers[0], u, ids[0], 1);
		tell_commit(&peers[2], u, ids[2], 1);
		channels_read_user(&all, NULL, span_str(u->name));
		ck_assert_int_eq(broken, 1);
		ck_assert_uint_eq(u->used, 2);
		ck_assert(u->stale);
		ck_assert_int_eq(peers[1].channel.fd, -1);
		end();
	}
}
END_TEST

START_TEST(a_line_has_its_cap)
{
	char line[QUOTA_LINE_MAX + 2];
	begin();
	struct ledger_user *u = user_with("u@d", 1000, 0);
	(void)grant(&peers[0], u, 1);
	(void)grant(&peers[1], u, 1);
	memset(line, 'x', sizeof(line));
	line[QUOTA_LINE_MAX - 1] = '\n';
	line[QUOTA_LINE_MAX] = '\0';
	say(&peers[0], line);
	ck_assert_int_eq(channel_read(&all, &peers[0].channel), ERR_SYNTAX);
	ck_assert_int_eq(peers[0].taken, 1); /* was shown, and is no request */
	line[QUOTA_LINE_MAX - 1] = 'x';
	line[QUOTA_LINE_MAX] = '\n';
	line[QUOTA_LINE_MAX + 1] = '\0';
	say(&peers[1], line);
	ck_assert_int_eq(channel_read(&all, &peers[1].channel), ERR_SYNTAX);
	ck_assert_int_eq(peers[1].taken, 0);
	end();
}
END_TEST

START_TEST(so_many_are_read_at_a_time)
{
	begin();
	struct ledger_user *u = user_with("u@d", 1000, 0);
	(void)grant(&peers[0], u, 1);
	for (int i = 0; i < CHANNEL_READ_MAX + 1; i++)
		tell_commit(&peers[0], u, 0, 1);
	ck_assert_int_eq(channel_read(&all, &peers[0].channel), 0);
	ck_assert_int_eq(peers[0].taken, CHANNEL_READ_MAX);
	ck_assert_int_eq(channel_read(&all, &peers[0].channel), 0);
	ck_assert_int_eq(peers[0].taken, CHANNEL_READ_MAX + 1);
	end();
}
END_TEST

START_TEST(only_a_socket_of_packets_is_taken_and_only_one)
{
	begin();
	int ends[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
	ck_assert_int_eq(channel_open(&all, &peers[0].channel, ends[1]), ERR_SYNTAX);
	ck_assert_int_lt(send(ends[0], "x", 1, MSG_NOSIGNAL), 0); /* it was closed */
	close(ends[0]);
	channel_close(&all, &peers[0].channel);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	ck_assert_int_eq(channel_open(&all, &peers[0].channel, ends[1]), ERR_SYNTAX);
	ck_assert_int_lt(send(ends[0], "x", 1, MSG_NOSIGNAL), 0);
	close(ends[0]);
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(channel_open(&all, &peers[0].channel, ends[0]), ERR_SYNTAX);
	close(ends[1]);
	end();
}
END_TEST

/* Nobody is harmed by having none. */
START_TEST(there_are_so_many_at_most)
{
	struct channel more;
	int ends[2];
	begin(); /* as many as there may be */
	channel_init(&more, &peers[0].owner, &peers[0]);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
		ck_assert_int_eq(channel_open(&all, &more, ends[1]), 0);
		ck_assert_int_eq(more.fd >= 0, i == 1);
		ck_assert_int_eq(send(ends[0], "x", 1, MSG_NOSIGNAL), i == 1 ? 1 : -1);
		close(ends[0]);
		channel_close(&all, &peers[0].channel);
	}
	channel_close(&all, &more);
	ck_assert_uint_eq(all.count, PEERS - 1);
	end();
}
END_TEST

/* Connections that wait for a user; going on with the first ends all that are its own. */
struct waits {
	struct waiter wait; /* first */
	const char *user;
	bool ends_others;
	int *gone_on;
};

static struct waits *those[4];

static void end_waits(struct waits **w)
{
	if (*w == NULL)
		return;
	waiting_del(&(*w)->wait);
	free(*w);
	*w = NULL;
}

static bool waits_for(const struct waiter *w, const void *user)
{
	return strcmp(((const struct waits *)w)->user, user) == 0;
}

static void go_on(struct waiter *waiter)
{
	struct waits *w = (struct waits *)waiter;
	waiting_del(waiter);
	(*w->gone_on)++;
	if (!w->ends_others)
		return;
	end_waits(&those[1]);
	end_waits(&those[2]);
}

START_TEST(who_goes_on_may_end_others_who_wait)
{
	static const char *const users[] = {"u@d", "u@d", "v@d", "u@d"};
	struct waiting list = {0};
	int gone_on[4] = {0};
	for (size_t i = 0; i < 4; i++) {
		those[i] = mem_zalloc(sizeof(*those[i]));
		*those[i] = (struct waits){.user = users[i], .ends_others = i == 0, .gone_on = &gone_on[i]};
		waiting_add(&list, &those[i]->wait);
	}
	waiting_go_on(&list, waits_for, go_on, "u@d");
	ck_assert_int_eq(gone_on[0], 1);
	ck_assert_int_eq(gone_on[1], 0); /* it is no more */
	ck_assert_int_eq(gone_on[3], 1);
	ck_assert_ptr_null(list.first);
	for (size_t i = 0; i < 4; i++)
		end_waits(&those[i]);
}
END_TEST

static const TTest *const *const tests[] = {
	&who_goes_on_may_end_others_who_wait,
	&a_request_comes_after_what_its_process_told_before,
	&a_question_comes_after_what_others_told_of_that_user,
	&a_count_waits_for_nobody_who_is_done,
	&only_who_has_something_open_is_looked_at,
	&the_rest_is_read_soon,
	&who_ends_after_telling_leaves_no_doubt,
	&a_side_that_ends_early_is_let_go,
	&nonsense_ends_its_connection_only,
	&a_line_has_its_cap,
	&so_many_are_read_at_a_time,
	&only_a_socket_of_packets_is_taken_and_only_one,
	&there_are_so_many_at_most,
	NULL,
};

TEST_MAIN("quota_channel", tests)
