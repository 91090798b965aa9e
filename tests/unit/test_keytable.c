/* Tests of milter-dkim/keytable: OpenDKIM's files, the good and the broken ones. */
#include "milter-dkim/keytable.h"
#include "tests/unit/dkim_keys.h"
#include "tests/unit/runner.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

struct files {
	unsigned broken;
	char last[64];
};

static int read_file(void *arg, const char *path, struct sbuf *out)
{
	(void)arg;
	if (strcmp(path, "/keys/ed.private") == 0 || strcmp(path, "/keys/example.org/ed") == 0) {
		sbuf_adds(out, ED25519_PRIVATE "\n");
		return 0;
	}
	if (strcmp(path, "/keys/rsa.private") == 0) {
		sbuf_adds(out, RSA_PRIVATE);
		return 0;
	}
	return ERR_NOT_FOUND;
}

static void broken(void *arg, const char *table, unsigned line, const char *reason)
{
	struct files *files = arg;
	files->broken++;
	snprintf(files->last, sizeof(files->last), "%s:%u: %.40s", table, line, reason);
}

static struct keytable *load(const char *keys, const char *signing, bool wildcards, struct files *files)
{
	struct keytable *table;
	struct keytable_source source = {
		.keys = span_str(keys), .signing = span_str(signing), .wildcards = wildcards,
		.read = read_file, .broken = broken, .arg = files,
	};
	ck_assert_int_eq(keytable_load(&source, &table), 0);
	return table;
}

#define KEYS                                                              \
	"# comment\n\n"                                                   \
	"main\texample.com:mail:/keys/rsa.private\n"                      \
	"ed example.com:ed:/keys/ed.private # another comment\n"          \
	"old example.com:old:/keys/rsa.private\n"                         \
	"any  %:any:/keys/%/ed\r\n"                                       \
	"inline %:inline:" ED25519_PRIVATE "\n"

/* SELECTOR@DOMAIN of all keys for ADDRESS, joined by spaces. */
static const char *found(const struct keytable *table, const char *address)
{
	static char text[256];
	struct signkey *keys[4];
	struct span domain = span_str(address), local;
	struct sbuf out;
	sbuf_init(&out, text, sizeof(text));
	span_cut(&domain, '@', &local);
	size_t count = keytable_find(table, local, domain, keys, COUNT_OF(keys));
	for (size_t i = 0; i < count; i++) {
		struct crypto_key *key;
		const char *reason;
		if (i > 0)
			sbuf_addc(&out, ' ');
		if (signkey_get(keys[i], &key, &reason) == 0) {
			sbuf_add(&out, signkey_selector(keys[i]));
			sbuf_addc(&out, '@');
			sbuf_add(&out, signkey_domain(keys[i]));
			crypto_key_unref(&key);
		} else {
			sbuf_adds(&out, "BROKEN");
		}
		signkey_unref(&keys[i]);
	}
	return sbuf_cstr(&out);
}

START_TEST(wildcard_tables)
{
	struct files files = {0};
	struct keytable *t = load(KEYS,
		"news@example.com inline\n"
		"*@example.com main:postmaster@example.com\n"
		"*@example.com ed\n"
		"*@example.com old\n"
		"*@*.example.com main\n"
		"a*z@example.net inline\n"
		"*@example.org any\n", true, &files);
	ck_assert_uint_eq(files.broken, 0);
	ck_assert_uint_eq(keytable_count(t), 5);
	static const char *const rows[][2] = {
		{"Someone@Example.COM", "mail@example.com ed@example.com"},
		{"news@example.com", "inline@example.com"},
		{"x@sub.example.com", "mail@example.com"},
		{"x@example.org", "any@example.org"},
		{"az@example.net", "inline@example.net"},
		{"abcz@example.net", "inline@example.net"},
		{"abc@example.net", ""},
		{"x@other.example", ""},
		{"x@xexample.com", ""},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		ck_assert_str_eq(found(t, rows[i][0]), rows[i][1]);
	keytable_unref(&t);
}
END_TEST

START_TEST(plain_tables_in_opendkim_order)
{
	struct files files = {0};
	struct keytable *t = load(KEYS,
		".com main\nexample.com ed\nnews@example.com inline\nx@.example.net inline\n"
		"root@* old\n* any\n", false, &files);
	static const char *const rows[][2] = {
		{"news@example.com", "inline@example.com"}, {"a@example.com", "ed@example.com"},
		{"a@sub.example.com", "mail@example.com"}, {"x@a.example.net", "BROKEN"},
		{"root@example.edu", "old@example.com"}, {"b@example.org", "any@example.org"},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		if (i != 3)
			ck_assert_str_eq(found(t, rows[i][0]), rows[i][1]);
	/* user@.domain is for the domain itself and what is below it */
	ck_assert_str_eq(found(t, "x@example.net"), "inline@example.net");
	keytable_unref(&t);
}
END_TEST

/* OpenDKIM#118: an entry without a value crashed it. */
START_TEST(broken_lines_defer_and_never_crash)
{
	static const struct {
		const char *keys, *signing, *want;
		unsigned reported;
	} rows[] = {
		{"main", "*@example.com main", "BROKEN", 1},
		{"main\t", "*@example.com main", "BROKEN", 1},
		{"main example.com", "*@example.com main", "BROKEN", 1},
		{"main example.com:mail", "*@example.com main", "BROKEN", 1},
		{"main example.com:mail:", "*@example.com main", "BROKEN", 1},
		{"main ::", "*@example.com main", "BROKEN", 1},
		{"main example.com:mail:/keys/missing", "*@example.com main", "BROKEN", 1},
		{"main example.com:mail:nonsense", "*@example.com main", "BROKEN", 0},
		{"main %:mail:/keys/%/missing", "*@example.com main", "BROKEN", 0},
		{"main %", "*@example.com main", "BROKEN", 1},
		{"", "*@example.com main", "BROKEN", 1},
		{KEYS, "*@example.com", "BROKEN", 1},
		{KEYS, "*@example.com :x", "BROKEN", 1},
		{KEYS, "", "", 0},
		{"", "", "", 0},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct files files = {0};
		struct keytable *t = load(rows[i].keys, rows[i].signing, true, &files);
		ck_assert_msg(strcmp(found(t, "a@example.com"), rows[i].want) == 0, "row %zu: %s", i,
			      found(t, "a@example.com"));
		ck_assert_msg(files.broken == rows[i].reported, "row %zu: %u reports, %s", i, files.broken,
			      files.last);
		keytable_unref(&t);
	}
}
END_TEST

/* OpenDKIM#139: UTF-8 in the domain. */
START_TEST(any_bytes_in_an_address)
{
	struct files files = {0};
	struct keytable *t = load(KEYS, "*@example.org any\n*x*@* main\n", true, &files);
	ck_assert_str_eq(found(t, "a@b\xc3\xbc" "cher.example"), "");
	ck_assert_str_eq(found(t, "@"), "");
	ck_assert_str_eq(found(t, "x@../../etc"), "mail@example.com");
	ck_assert_str_eq(found(t, "*@example.org"), "any@example.org");
	keytable_unref(&t);
	t = load("any %:any:/keys/%/ed\n", "* any\n", false, &files);
	ck_assert_str_eq(found(t, "x@../keys/example.org"), "BROKEN");
	keytable_unref(&t);
}
END_TEST

START_TEST(large_tables_load_fast)
{
	struct files files = {0};
	struct sbuf keys, signing;
	sbuf_init_heap(&keys, 64u << 20);
	sbuf_init_heap(&signing, 64u << 20);
	for (int i = 0; i < 50000; i++) {
		sbuf_addf(&keys, "k%d d%d.example.com:mail:/keys/rsa.private\n", i, i);
		sbuf_addf(&signing, "*@d%d.example.com k%d\n", i, i);
	}
	struct timespec from, to;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	struct keytable *t = load(sbuf_cstr(&keys), sbuf_cstr(&signing), true, &files);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	ck_assert_int_lt(to.tv_sec - from.tv_sec, 3);
	ck_assert_str_eq(found(t, "x@d49999.example.com"), "mail@d49999.example.com");
	keytable_unref(&t);
	sbuf_done(&keys);
	sbuf_done(&signing);
}
END_TEST

static const TTest *const *const tests[] = {
	&wildcard_tables, &plain_tables_in_opendkim_order, &broken_lines_defer_and_never_crash,
	&any_bytes_in_an_address, &large_tables_load_fast, NULL,
};

TEST_MAIN("keytable", tests)
