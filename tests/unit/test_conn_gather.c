/*
 * Tests of lib/run/conn_server: input and output that are gathered.
 */
#include "tests/unit/conn_fixture.h"

static int gathered_fds[CONN_GATHER_MAX];

/* COUNT requests come in at once; returns how many are answered when the loop has
 * taken them all, before it looks for more. */
static int answered_in_one_round(int count)
{
	int answered = 0;
	char c;
	for (int i = 0; i < count; i++)
		gathered_fds[i] = dial();
	PUMP(t.opened == count);
	for (int i = 0; i < count; i++)
		say(gathered_fds[i], "x\n");
	ev_run(loop_ev(t.loop), EVRUN_NOWAIT);
	ck_assert_int_eq(t.shown, count);
	for (int i = 0; i < count; i++)
		answered += recv(gathered_fds[i], &c, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
	return answered;
}

START_TEST(replies_of_a_round_go_together)
{
	static const struct {
		int count, at_once;
	} rows[] = {{CONN_GATHER_MAX - 1, 0}, {CONN_GATHER_MAX, CONN_GATHER_MAX}};
	struct conn_limits l = limits;
	l.max_conns = CONN_GATHER_MAX;
	l.gather = true;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		t.opened = t.closed = t.shown = 0;
		setup(&l);
		ck_assert_int_eq(answered_in_one_round(rows[i].count), rows[i].at_once);
		for (int k = 0; k < rows[i].count; k++) {
			expect(gathered_fds[k], "x\n");
			close(gathered_fds[k]);
		}
		teardown();
	}
}
END_TEST

START_TEST(gathered_output_outlives_nothing)
{
	struct conn_limits l = limits;
	l.gather = true;
	setup(&l);
	int other = dial(), ends = dial(), gone = dial();
	PUMP(t.opened == 3);
	say(other, "l\n");
	say(gone, "x\n"); /* served first: its reply waits when the other one closes it */
	say(ends, "x\n");
	shutdown(ends, SHUT_WR);
	PUMP(t.closed >= 2);
	expect(ends, "x\n");
	expect_end(ends);
	expect_end(gone);
	close(other);
	PUMP(t.closed == 3);
	teardown();
}
END_TEST

/* The loop ends in the round in which replies were written. */
START_TEST(gathered_output_goes_before_the_end)
{
	struct conn_limits l = limits;
	l.max_conns = CONN_GATHER_MAX;
	l.gather = true;
	t.opened = t.closed = t.shown = 0;
	setup(&l);
	ck_assert_int_eq(answered_in_one_round(2), 0);
	teardown();
	for (int i = 0; i < 2; i++) {
		expect(gathered_fds[i], "x\n");
		close(gathered_fds[i]);
	}
}
END_TEST

/* What each handler call may do to the others whose input was read in the same round. */
static size_t pause_or_close_others(struct conn *c, void *state, struct span in)
{
	(void)state;
	t.shown++;
	for (int i = 0; i < t.opened; i++) {
		if (t.conns[i] == c)
			continue;
		if (in.ptr[0] == 'p')
			conn_pause(t.conns[i], true);
		else if (in.ptr[0] == 'c')
			conn_close(t.conns[i]);
	}
	conn_write(c, in);
	return in.len;
}

static void setup_others(int count)
{
	static const struct conn_handler others = {on_open, pause_or_close_others, on_close};
	struct conn_limits l = limits;
	l.gather = true;
	t.opened = t.closed = t.shown = 0;
	setup(&l);
	conn_server_free(&t.server);
	t.server = conn_server_new(t.loop, &t.set, &l, &others, &t);
	for (int i = 0; i < count; i++)
		gathered_fds[i] = dial();
	PUMP(t.opened == count);
}

/* Input that was read and not shown when its connection is closed, or paused, is lost with it, or kept. */
START_TEST(gathered_input_waits_with_its_connection)
{
	setup_others(3);
	for (int i = 0; i < 3; i++)
		say(gathered_fds[i], "p\n");
	ev_run(loop_ev(t.loop), EVRUN_NOWAIT);
	ck_assert_int_eq(t.shown, 1);
	settle();
	ck_assert_int_eq(t.shown, 1);
	for (int i = 0; i < 3; i++)
		conn_pause(t.conns[i], false);
	PUMP(t.shown == 2); /* which pauses the third again */
	for (int i = 0; i < 3; i++)
		conn_pause(t.conns[i], false);
	PUMP(t.shown == 3);
	for (int i = 0; i < 3; i++) {
		expect(gathered_fds[i], "p\n");
		conn_pause(t.conns[i], false);
		close(gathered_fds[i]);
	}
	PUMP(t.closed == 3);
	teardown();
	setup_others(3);
	for (int i = 0; i < 3; i++)
		say(gathered_fds[i], "c\n");
	ev_run(loop_ev(t.loop), EVRUN_NOWAIT);
	ck_assert_int_eq(t.shown, 1);
	PUMP(t.closed == 2);
	for (int i = 0; i < 3; i++)
		close(gathered_fds[i]);
	PUMP(t.closed == 3);
	teardown();
}
END_TEST

#define LONG_BYTES 16000

static size_t count_bytes(struct conn *c, void *state, struct span in)
{
	(void)c;
	(void)state;
	t.left += in.len;
	ck_assert(memcmp(in.ptr, in.ptr + 1, in.len - 1) == 0); /* of one connection */
	return in.len;
}

/* More connections than are gathered, and more bytes than there is room for. libev asks for more
 * events at once after a round that was full, so the last burst comes in one. */
START_TEST(more_than_is_gathered_is_shown_as_well)
{
	enum { COUNT = 3 * CONN_GATHER_MAX + 1, BURSTS = 3 };
	static const struct conn_handler counts = {on_open, count_bytes, on_close};
	static int fds[COUNT];
	static char text[LONG_BYTES];
	struct conn_limits l = limits;
	l.gather = true;
	l.max_conns = COUNT;
	l.in_max_bytes = LONG_BYTES + 1;
	for (size_t len = 1; len <= LONG_BYTES; len += LONG_BYTES - 1) {
		t.opened = t.closed = 0;
		t.left = 0;
		setup(&l);
		conn_server_free(&t.server);
		t.server = conn_server_new(t.loop, &t.set, &l, &counts, &t);
		for (int i = 0; i < COUNT; i++)
			fds[i] = dial();
		PUMP(t.opened == COUNT);
		for (size_t burst = 1; burst <= BURSTS; burst++) {
			for (int i = 0; i < COUNT; i++) {
				memset(text, 'A' + i % 26, len);
				ck_assert_int_eq(send(fds[i], text, len, MSG_NOSIGNAL), (ssize_t)len);
			}
			PUMP(t.left == burst * COUNT * len);
		}
		for (int i = 0; i < COUNT; i++)
			close(fds[i]);
		PUMP(t.closed == COUNT);
		teardown();
	}
}
END_TEST

static void say_more(struct conn *c, void *state)
{
	(void)state;
	conn_write(c, SPAN_LIT("more\n"));
}

static size_t answer_and_drain(struct conn *c, void *state, struct span in)
{
	(void)state;
	t.shown++;
	conn_write(c, SPAN_LIT("x\n"));
	conn_on_drain(c, 0, say_more);
	return in.len;
}

/* What is written because the gathered output is gone: no other round need come for it. */
START_TEST(what_follows_gathered_output_waits_for_nothing)
{
	static const struct conn_handler drains = {on_open, answer_and_drain, on_close};
	struct conn_limits l = limits;
	char got[16] = "";
	l.gather = true;
	t.opened = t.closed = t.shown = 0;
	setup(&l);
	conn_server_free(&t.server);
	t.server = conn_server_new(t.loop, &t.set, &l, &drains, &t);
	int fd = dial();
	PUMP(t.opened == 1);
	say(fd, "x\n");
	PUMP(t.shown == 1);
	ev_run(loop_ev(t.loop), EVRUN_NOWAIT); /* the next one could wait in its poll */
	ck_assert_int_eq(recv(fd, got, sizeof(got), MSG_DONTWAIT), 7);
	ck_assert_str_eq(got, "x\nmore\n");
	close(fd);
	PUMP(t.closed == 1);
	teardown();
}
END_TEST

static const TTest *const *const tests[] = {
	&replies_of_a_round_go_together,
	&gathered_output_outlives_nothing,
	&gathered_output_goes_before_the_end,
	&gathered_input_waits_with_its_connection,
	&more_than_is_gathered_is_shown_as_well,
	&what_follows_gathered_output_waits_for_nothing,
	NULL,
};

TEST_MAIN("conn gather", tests)
