/* Tests of lib/run/conf: every type, the file's grammar, errors with their place. */
#include <check.h>
#include <unistd.h>

#include "lib/run/conf.h"
#include "lib/run/conf_reader.h"
#include "tests/unit/runner.h"

#define TEST_OPTIONS                                                          \
	OPTION(name, STRING, "", 0, 8, "", "A string.")                       \
	OPTION(dir, STRING, "", 1, 64, "/run", "A string that must be there.") \
	OPTION(count, INT, "things", 1, 10, "3", "A number.")                 \
	OPTION(fast, BOOL, "", 0, 0, "no", "A switch.")                       \
	OPTION(wait, DURATION, "", 100, 60000, "10s", "A time.")              \
	OPTION(room, SIZE, "", 0, 1048576, "64K", "A size.")                  \
	OPTION(role, ENUM, "auto|sign|verify", 0, 0, "auto", "A word.")       \
	OPTION(limit, LIST, "", 0, 3, "a\nb", "Several.")                     \
	OPTION(network, LIST, "", 0, 100, "", "Several, none by default.")

struct conf {
#define OPTION CONF_MEMBER
	TEST_OPTIONS
#undef OPTION
};

#define CONF_STRUCT struct conf
static const struct conf_option options[] = {
#define OPTION CONF_ROW
	TEST_OPTIONS
#undef OPTION
};

static int check_name(const void *config, struct sbuf *error);
static const struct conf_spec spec = {options, sizeof(options) / sizeof(options[0]), sizeof(struct conf),
				      check_name};

static int check_name(const void *config, struct sbuf *error)
{
	const struct conf *c = config;
	for (size_t i = 0; i < c->network.count; i++)
		if (strcmp(c->network.items[i].value, "bad") == 0)
			return conf_fail(error, &c->network.items[i], "no network: %s", "bad");
	if (strcmp(c->name, "evil") == 0)
		return conf_fail_option(&spec, config, "name", error, "not that name");
	return 0;
}

static char error_mem[1024];
static struct sbuf error;

static int load_with(const char *text, const char *const *overrides, size_t count, void **config_out)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/conf.XXXXXX", tmpdir());
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	sbuf_init(&error, error_mem, sizeof(error_mem));
	int rc = conf_load(&spec, path, overrides, count, config_out, &error);
	unlink(path);
	return rc;
}

static struct conf *load(const char *text)
{
	void *config = NULL;
	ck_assert_msg(load_with(text, NULL, 0, &config) == 0, "%s", error_mem);
	return config;
}

static void drop(struct conf *config)
{
	void *any = config;
	conf_free(&spec, &any);
	ck_assert_ptr_null(any);
}

START_TEST(defaults)
{
	void *any = NULL;
	sbuf_init(&error, error_mem, sizeof(error_mem));
	ck_assert_int_eq(conf_load(&spec, NULL, NULL, 0, &any, &error), 0);
	struct conf *c = any;
	ck_assert_str_eq(c->name, "");
	ck_assert_str_eq(c->dir, "/run");
	ck_assert_int_eq(c->count, 3);
	ck_assert(!c->fast);
	ck_assert_int_eq(c->wait, 10000);
	ck_assert_int_eq(c->room, 65536);
	ck_assert_int_eq(c->role, 0);
	ck_assert_uint_eq(c->limit.count, 2);
	ck_assert_str_eq(c->limit.items[1].value, "b");
	ck_assert_uint_eq(c->network.count, 0);
	drop(c);
}
END_TEST

START_TEST(values_and_continuations)
{
	struct conf *c = load("# comment\n"
			      "\n"
			      "name = x y\r\n"
			      "count=10\n"
			      "fast = YES\n"
			      "wait =\n"
			      "   # not the value\n"
			      "\n"
			      "\t1m\n"
			      "room = 1M\n"
			      "role = verify\n"
			      "limit = one\n"
			      "   and\n"
			      " \t more # $x\n"
			      "limit = two");
	ck_assert_str_eq(c->name, "x y");
	ck_assert_int_eq(c->count, 10);
	ck_assert(c->fast);
	ck_assert_int_eq(c->wait, 60000);
	ck_assert_int_eq(c->room, 1048576);
	ck_assert_int_eq(c->role, 2);
	ck_assert_uint_eq(c->limit.count, 2);
	ck_assert_str_eq(c->limit.items[0].value, "one and more # $x");
	ck_assert_uint_eq(c->limit.items[0].line, 12);
	ck_assert_str_eq(c->limit.items[1].value, "two");
	drop(c);
}
END_TEST

START_TEST(errors_name_file_line_and_reason)
{
	static const struct {
		const char *text, *message; /* behind the path */
	} rows[] = {
		{"\nnmae = x\n", ":2: unknown key \"nmae\" (did you mean \"name\"?)"},
		{"zzzzzzzz = x\n", ":1: unknown key \"zzzzzzzz\""},
		{"name = 123456789\n",
		 ":1: bad value \"123456789\" for name: its length must be from 0 to 8 bytes"},
		{"count = 0\n", ":1: bad value \"0\" for count: it must be from 1 to 10"},
		{"count = 11\n", ":1: bad value \"11\" for count: it must be from 1 to 10"},
		{"count = -1\n", ":1: bad value \"-1\" for count: it must be a number"},
		{"count =\n", ":1: bad value \"\" for count: it must be a number"},
		{"count = 3 # three\n", ":1: bad value \"3 # three\" for count: it must be a number"},
		{"wait = 99ms\n", ":1: bad value \"99ms\" for wait: it must be from 100ms to 1m"},
		{"wait = 61s\n", ":1: bad value \"61s\" for wait: it must be from 100ms to 1m"},
		{"room = 2M\n", ":1: bad value \"2M\" for room: it must be from 0 to 1M"},
		{"fast = true\n", ":1: bad value \"true\" for fast: it must be yes or no"},
		{"role = seal\n", ":1: bad value \"seal\" for role: it must be one of auto|sign|verify"},
		{"role =\n", ":1: bad value \"\" for role: it must be one of auto|sign|verify"},
		{"count = 4\n\ncount = 4\n", ":3: count is already set in line 1"},
		{"limit = 1\nlimit = 2\nlimit = 3\nlimit = 4\n", ":4: more than 3 times \"limit\""},
		{"dir =\n", ":1: bad value \"\" for dir: its length must be from 1 to 64 bytes"},
		{" name = x\n", ":1: the line begins with white space but continues nothing"},
		{"# c\nname\n", ":2: expected \"key = value\""},
		{"= x\n", ":1: expected \"key = value\""},
		{"na me = x\n", ":1: expected \"key = value\""},
		{"name = \x01\n", ":1: control character in the line"},
		{"network = good\n\nnetwork =\n  bad\n", ":3: no network: bad"},
		{"count = 3\nname = evil\n", ":2: not that name"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		void *config = NULL;
		ck_assert_int_eq(load_with(rows[i].text, NULL, 0, &config), ERR_SYNTAX);
		ck_assert_ptr_null(config);
		const char *behind = strchr(error_mem, ':');
		ck_assert_ptr_nonnull(behind);
		ck_assert_str_eq(behind, rows[i].message);
	}
}
END_TEST

START_TEST(overrides_win)
{
	void *any = NULL;
	const char *const set[] = {"count=7", "count = 8", "limit=x", "limit=y"};
	ck_assert_int_eq(load_with("count = 2\nlimit = file\n", set, 4, &any), 0);
	struct conf *c = any;
	ck_assert_int_eq(c->count, 8);
	ck_assert_uint_eq(c->limit.count, 2);
	ck_assert_str_eq(c->limit.items[0].value, "x");
	ck_assert_str_eq(c->limit.items[0].file, "command line");
	ck_assert_uint_eq(c->limit.items[0].line, 0);
	drop(c);
	any = NULL;
	ck_assert_int_eq(load_with("", (const char *const[]){"count=x"}, 1, &any), ERR_SYNTAX);
	ck_assert_str_eq(error_mem, "command line: bad value \"x\" for count: it must be a number");
}
END_TEST

START_TEST(empty_list_value_adds_none)
{
	struct conf *c = load("limit =\n");
	ck_assert_uint_eq(c->limit.count, 0);
	drop(c);
	c = load("limit = 1\nlimit =\nlimit = 2\nlimit = 3\n");
	ck_assert_uint_eq(c->limit.count, 3);
	drop(c);
}
END_TEST

START_TEST(file_that_is_not_there)
{
	void *config = NULL;
	sbuf_init(&error, error_mem, sizeof(error_mem));
	ck_assert_int_eq(conf_load(&spec, "/nonexistent/x.conf", NULL, 0, &config, &error), ERR_NOT_FOUND);
	ck_assert_str_eq(error_mem, "/nonexistent/x.conf: No such file or directory");
}
END_TEST

START_TEST(prints_changed_and_all)
{
	struct sbuf out;
	sbuf_init_heap(&out, 4096);
	struct conf *c = load("count = 4\nwait = 10000ms\nroom = 1536\nlimit = a\nname =\n");
	conf_print(&spec, c, true, &out);
	ck_assert_str_eq(sbuf_cstr(&out), "count = 4\nroom = 1536\nlimit = a\n");
	drop(c);
	sbuf_reset(&out);
	conf_print(&spec, NULL, false, &out);
	ck_assert_str_eq(sbuf_cstr(&out), "name =\ndir = /run\ncount = 3\nfast = no\nwait = 10s\n"
					  "room = 64K\nrole = auto\nlimit = a\nlimit = b\nnetwork =\n");
	/* What is printed can be read again, and says the same. */
	c = load(sbuf_cstr(&out));
	sbuf_reset(&out);
	conf_print(&spec, c, true, &out);
	ck_assert_uint_eq(out.len, 0);
	drop(c);
	sbuf_done(&out);
}
END_TEST

START_TEST(access_by_name)
{
	struct conf *c = load("role = sign\nfast = yes\n");
	ck_assert_str_eq(conf_get_string(&spec, c, "dir"), "/run");
	ck_assert_int_eq(conf_get_number(&spec, c, "wait"), 10000);
	ck_assert_int_eq(conf_get_number(&spec, c, "role"), 1);
	ck_assert_int_eq(conf_get_number(&spec, c, "fast"), 1);
	ck_assert(conf_has(&spec, "limit"));
	ck_assert(!conf_has(&spec, "limits"));
	drop(c);
}
END_TEST

START_TEST(long_lists_keep_every_item)
{
	struct sbuf text;
	sbuf_init_heap(&text, 65536);
	for (int i = 0; i < 100; i++)
		sbuf_addf(&text, "network = n%d\n", i);
	struct conf *c = load(sbuf_cstr(&text));
	ck_assert_uint_eq(c->network.count, 100);
	for (int i = 0; i < 100; i++) {
		char want[16];
		snprintf(want, sizeof(want), "n%d", i);
		ck_assert_str_eq(c->network.items[i].value, want);
		ck_assert_uint_eq(c->network.items[i].line, (unsigned)i + 1);
	}
	drop(c);
	sbuf_adds(&text, "network = one more\n");
	void *config = NULL;
	ck_assert_int_eq(load_with(sbuf_cstr(&text), NULL, 0, &config), ERR_SYNTAX);
	sbuf_done(&text);
}
END_TEST

/* A logical line of LEN bytes, by itself or out of two parts. */
static int read_line_of(size_t len, bool continued)
{
	struct sbuf text;
	struct conf_reader reader;
	struct conf_line line;
	sbuf_init_heap(&text, 2 * CONF_LINE_MAX);
	sbuf_adds(&text, "name = ");
	if (continued)
		sbuf_adds(&text, "x\n ");
	while (text.len < len + (continued ? 1 : 0))
		sbuf_addc(&text, 'y');
	conf_reader_init(&reader, sbuf_span(&text));
	sbuf_init(&error, error_mem, sizeof(error_mem));
	int rc = conf_reader_next(&reader, &line, &error);
	conf_reader_done(&reader);
	sbuf_done(&text);
	return rc;
}

START_TEST(line_cap)
{
	ck_assert_int_eq(read_line_of(CONF_LINE_MAX, false), 1);
	ck_assert_int_eq(read_line_of(CONF_LINE_MAX + 1, false), ERR_SYNTAX);
	ck_assert_int_eq(read_line_of(CONF_LINE_MAX, true), 1);
	ck_assert_int_eq(read_line_of(CONF_LINE_MAX + 1, true), ERR_SYNTAX);
}
END_TEST

static const TTest *const *const tests[] = {
	&defaults,
	&values_and_continuations,
	&errors_name_file_line_and_reason,
	&overrides_win,
	&empty_list_value_adds_none,
	&file_that_is_not_there,
	&prints_changed_and_all,
	&access_by_name,
	&long_lists_keep_every_item,
	&line_cap,
	NULL,
};

TEST_MAIN("conf", tests)
