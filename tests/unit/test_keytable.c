/* Tests of milter-dkim/keytable: OpenDKIM's files, the good and the broken ones. */
#include "milter-dkim/keytable.h"
#include "milter-dkim/keytable_spec.h"
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
	if (strcmp(path, "/keys/rsa.private") == 0 || strcmp(path, "/base/./rsa.private") == 0) {
		sbuf_adds(out, RSA_PRIVATE);
		return 0;
	}
	return ERR_NOT_FOUND;
}

static int check_file(void *arg, const char *path)
{
	struct sbuf text;
	sbuf_init_heap(&text, 1 << 16);
	int rc = read_file(arg, path, &text);
	sbuf_done(&text);
	return rc;
}

static void broken(void *arg, bool signing, unsigned line, const char *reason)
{
	const char *table = signing ? "SigningTable" : "KeyTable";
	struct files *files = arg;
	files->broken++;
	snprintf(files->last, sizeof(files->last), "%s:%u: %.40s", table, line, reason);
}

#define PATTERNS 1u
#define KEY_PATTERNS 2u
#define MULTIPLE 4u

static struct keytable *load(const char *keys, const char *signing, unsigned form, struct files *files)
{
	struct keytable *table;
	struct keytable_source source = {
		.keys = span_str(keys), .signing = span_str(signing), .patterns = form & PATTERNS,
		.key_patterns = form & KEY_PATTERNS, .multiple = form & MULTIPLE, .folder = "/base",
		.read = read_file, .check = check_file, .broken = broken, .arg = files,
		.cache = signkey_cache_new(3),
	};
	ck_assert_int_eq(keytable_load(&source, &table), 0);
	signkey_cache_unref(&source.cache);
	return table;
}

#define KEYS                                                              \
	"# comment\n\n"                                                   \
	"main\texample.com:mail:/keys/rsa.private\n"                      \
	"ed example.com:ed:/keys/ed.private # another comment\n"          \
	"old example.com:old:/keys/rsa.private\n"                         \
	"any  %:any:/keys/%/ed\r\n"                                       \
	"inline %:inline:" ED25519_PRIVATE "\n"

/* SELECTOR@DOMAIN of all keys for ADDRESS, with i= in brackets, joined by spaces. */
static const char *found(struct keytable *table, const char *address)
{
	static char text[512];
	struct keytable_match matches[4];
	struct span domain = span_str(address), local;
	struct arena arena;
	struct sbuf out;
	sbuf_init(&out, text, sizeof(text));
	arena_init(&arena, 1 << 16);
	span_cut(&domain, '@', &local);
	size_t count = keytable_find(table, local, domain, &arena, matches, COUNT_OF(matches));
	for (size_t i = 0; i < count; i++) {
		struct crypto_key *key;
		const char *reason;
		if (i > 0)
			sbuf_addc(&out, ' ');
		if (signkey_get(matches[i].key, &key, &reason) == 0) {
			sbuf_add(&out, signkey_selector(matches[i].key));
			sbuf_addc(&out, '@');
			sbuf_add(&out, signkey_domain(matches[i].key));
			crypto_key_unref(&key);
		} else {
			sbuf_adds(&out, "BROKEN");
		}
		if (matches[i].identity.len > 0)
			sbuf_addf(&out, "[%.*s]", SPAN_ARG(matches[i].identity));
		signkey_unref(&matches[i].key);
	}
	arena_done(&arena);
	return sbuf_cstr(&out);
}

START_TEST(wildcard_tables)
{
	struct files files = {0};
	struct keytable *t = load(KEYS,
		"news@example.com inline\n"
		"*@example.com main\n"
		"*@example.com ed\n"
		"*@example.com old\n"
		"*@*.example.com main\n"
		"a*z@example.net inline\n"
		"*@example.org any\n", PATTERNS, &files);
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
		"root@* old\n* any\n", 0, &files);
	static const char *const rows[][2] = {
		{"news@example.com", "inline@example.com"}, {"a@example.com", "ed@example.com"},
		{"a@sub.example.com", "mail@example.com"}, {"x@a.example.net", "inline@a.example.net"},
		{"x@b.a.example.net", "inline@b.a.example.net"},
		{"root@example.edu", "old@example.com"}, {"b@example.org", "any@example.org"},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		ck_assert_str_eq(found(t, rows[i][0]), rows[i][1]);
	keytable_unref(&t);
	/* .domain is for what lies below it, not for itself. */
	t = load(KEYS, "x@.example.net inline\n.example.net main\n", 0, &files);
	ck_assert_str_eq(found(t, "x@example.net"), "");
	ck_assert_str_eq(found(t, "y@a.example.net"), "mail@example.com");
	ck_assert_str_eq(found(t, "y@net"), "");
	keytable_unref(&t);
}
END_TEST

START_TEST(multiple_signatures)
{
	struct files files = {0};
	struct keytable *t = load(KEYS, "*@example.com main\n*@example.com old\n* inline\n*@example.com main\n",
				  PATTERNS | MULTIPLE, &files);
	ck_assert_str_eq(found(t, "a@example.com"), "mail@example.com old@example.com inline@example.com");
	ck_assert_str_eq(found(t, "a@example.net"), "inline@example.net");
	keytable_unref(&t);
	t = load(KEYS, "example.com main\na@example.com inline\n.com old\n* ed\na@* main\n", MULTIPLE, &files);
	ck_assert_str_eq(found(t, "a@example.com"),
			 "inline@example.com mail@example.com old@example.com ed@example.com");
	keytable_unref(&t);
}
END_TEST

/* The second value of a SigningTable is for i=, where it does no harm. */
START_TEST(identities)
{
	static const char *const rows[][2] = {
		{"main:@example.com", "mail@example.com[@example.com]"},
		{"main:joe@sub.example.com", "mail@example.com[joe@sub.example.com]"},
		{"main:joe@example.net", "mail@example.com"},
		{"main:joe@xexample.com", "mail@example.com"},
		{"main:joe@..example.com", "mail@example.com"},
		{"main:joe", "mail@example.com"},
		{"main:", "mail@example.com"},
		{"main:u@%", "mail@example.com[u@example.com]"},
		{"inline:%@%", "inline@example.com[example.com@example.com]"},
		{"main:a;b=c@example.com", "mail@example.com[a=3Bb=3Dc@example.com]"},
		{"main:\xc3\xa4@b\xc3\xbc" "cher.example.com", "mail@example.com[=C3=A4@xn--bcher-kva.example.com]"},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct files files = {0};
		char line[128];
		snprintf(line, sizeof(line), "*@example.com %s\n", rows[i][0]);
		struct keytable *t = load(KEYS, line, PATTERNS, &files);
		ck_assert_str_eq(found(t, "a@example.com"), rows[i][1]);
		ck_assert_uint_eq(files.broken, i == 5);
		keytable_unref(&t);
	}
}
END_TEST

/* The author's domain as the name of a key, and a KeyTable of patterns. */
START_TEST(names_from_the_address)
{
	struct files files = {0};
	struct keytable *t = load("example.com example.com:one:/keys/rsa.private\n*.org %:two:/keys/%/ed\n*:x y\n",
				  "* %\n", PATTERNS | KEY_PATTERNS, &files);
	ck_assert_uint_eq(files.broken, 1);
	ck_assert_str_eq(found(t, "a@example.com"), "one@example.com");
	ck_assert_str_eq(found(t, "a@example.org"), "two@example.org");
	ck_assert_str_eq(found(t, "a@missing.org"), "BROKEN");
	ck_assert_str_eq(found(t, "a@example.net"), "BROKEN");
	/* Once more, from what is kept. */
	ck_assert_str_eq(found(t, "a@example.org"), "two@example.org");
	keytable_unref(&t);
	t = load("r example.com:one:./rsa.private\n", "* r\n", PATTERNS, &files);
	ck_assert_str_eq(found(t, "a@example.com"), "one@example.com");
	keytable_unref(&t);
}
END_TEST

/* Names in Unicode are those of the address, which has A-labels. */
START_TEST(internationalised_names)
{
	struct files files = {0};
	struct keytable *t = load("b b\xc3\xbc" "cher.example:s:/keys/rsa.private\n",
				  "*@b\xc3\xbc" "cher.example b\n", PATTERNS, &files);
	ck_assert_uint_eq(files.broken, 0);
	ck_assert_str_eq(found(t, "a@xn--bcher-kva.example"), "s@xn--bcher-kva.example");
	keytable_unref(&t);
	t = load("b \xff.example:s:/keys/rsa.private\n", ".b\xc3\xbc" "cher.example b\n", 0, &files);
	ck_assert_uint_eq(files.broken, 1);
	ck_assert_str_eq(found(t, "a@x.xn--bcher-kva.example"), "BROKEN");
	keytable_unref(&t);
}
END_TEST

START_TEST(names_of_tables)
{
	static const struct {
		const char *value;
		int rc;
		enum keytable_kind kind;
		const char *path;
	} rows[] = {
		{"/etc/t", 0, KEYTABLE_FILE, "/etc/t"}, {"file:/etc/t", 0, KEYTABLE_FILE, "/etc/t"},
		{"file:t", 0, KEYTABLE_FILE, "t"}, {"refile:/etc/t", 0, KEYTABLE_PATTERNS, "/etc/t"},
		{"csl:a=b", 0, KEYTABLE_LIST, "a=b"}, {"a=b,c=d", 0, KEYTABLE_LIST, "a=b,c=d"},
		{"db:/etc/t", ERR_PERM, 0, ""}, {"/etc/t.db", ERR_PERM, 0, ""}, {"lmdb:/etc/t", ERR_PERM, 0, ""},
		{"mdb:/etc/t", ERR_PERM, 0, ""}, {"dsn:mysql://u@h/d", ERR_PERM, 0, ""}, {"ldap://h/?a=b", ERR_PERM, 0, ""},
		{"lua:/x", ERR_PERM, 0, ""}, {"file:", ERR_SYNTAX, 0, ""}, {"csl:", ERR_SYNTAX, 0, ""}, {"word", ERR_SYNTAX, 0, ""},
	};
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		char mem[256];
		struct sbuf error;
		struct keytable_spec spec = {.path = ""};
		sbuf_init(&error, mem, sizeof(mem));
		ck_assert_int_eq(keytable_spec_parse(rows[i].value, &spec, &error), rows[i].rc);
		ck_assert((error.len > 0) == (rows[i].rc < 0));
		ck_assert_str_eq(spec.path, rows[i].path);
		ck_assert(spec.kind == rows[i].kind);
	}
	char mem[256];
	struct sbuf lines;
	sbuf_init(&lines, mem, sizeof(mem));
	keytable_spec_lines("a=b:c:QQ==, d = e ,f,", &lines);
	ck_assert_str_eq(sbuf_cstr(&lines), "a b:c:QQ==\nd e\nf\n\n");
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
		struct keytable *t = load(rows[i].keys, rows[i].signing, PATTERNS, &files);
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
	struct keytable *t = load(KEYS, "*@example.org any\n*x*@* main\n", PATTERNS, &files);
	ck_assert_str_eq(found(t, "a@b\xc3\xbc" "cher.example"), "");
	ck_assert_str_eq(found(t, "@"), "");
	ck_assert_str_eq(found(t, "x@../../etc"), "mail@example.com");
	ck_assert_str_eq(found(t, "*@example.org"), "any@example.org");
	keytable_unref(&t);
	/* What cannot stand in i= stays out of it. */
	t = load("any %:any:" ED25519_PRIVATE "\n", "* any:u@%\n", PATTERNS, &files);
	ck_assert_str_eq(found(t, "a@b;c.example"), "any@b;c.example");
	ck_assert_str_eq(found(t, "a@b\x14.example"), "any@b\x14.example");
	ck_assert_str_eq(found(t, "a@b.example"), "any@b.example[u@b.example]");
	keytable_unref(&t);
	t = load("any %:any:/keys/%/ed\n", "* any\n", 0, &files);
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
	struct keytable *t = load(sbuf_cstr(&keys), sbuf_cstr(&signing), PATTERNS, &files);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	ck_assert_int_lt(to.tv_sec - from.tv_sec, 3);
	ck_assert_str_eq(found(t, "x@d49999.example.com"), "mail@d49999.example.com");
	keytable_unref(&t);
	sbuf_done(&keys);
	sbuf_done(&signing);
}
END_TEST

/* In either table; empty lines count, too. */
START_TEST(line_cap)
{
	static const struct {
		bool signing;
		size_t lines;
		int wanted;
	} rows[] = {
		{false, KEYTABLE_LINES_MAX, 0}, {false, KEYTABLE_LINES_MAX + 1, ERR_LIMIT},
		{true, KEYTABLE_LINES_MAX, 0}, {true, KEYTABLE_LINES_MAX + 1, ERR_LIMIT},
	};
	char *text = mem_alloc(KEYTABLE_LINES_MAX + 1);
	memset(text, '\n', KEYTABLE_LINES_MAX + 1);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct span lines = span_of(text, rows[i].lines);
		struct keytable_source source = {
			.keys = rows[i].signing ? SPAN_EMPTY : lines,
			.signing = rows[i].signing ? lines : SPAN_EMPTY,
			.cache = signkey_cache_new(1),
		};
		struct keytable *t = NULL;
		ck_assert_int_eq(keytable_load(&source, &t), rows[i].wanted);
		signkey_cache_unref(&source.cache);
		ck_assert((t != NULL) == (rows[i].wanted == 0));
		keytable_unref(&t);
	}
	free(text);
}
END_TEST

START_TEST(address_cap)
{
	struct files files = {0};
	char address[KEYTABLE_ADDRESS_MAX + 2];
	struct keytable *t = load(KEYS, "* main\n", PATTERNS, &files);
	memset(address, 'a', sizeof(address) - 1);
	address[sizeof(address) - 1] = '\0';
	memcpy(address + sizeof(address) - 1 - strlen("@example.com"), "@example.com", strlen("@example.com"));
	ck_assert_str_eq(found(t, address + 1), "mail@example.com");
	ck_assert_str_eq(found(t, address), "");
	keytable_unref(&t);
}
END_TEST

static const TTest *const *const tests[] = {
	&wildcard_tables, &plain_tables_in_opendkim_order, &broken_lines_defer_and_never_crash,
	&any_bytes_in_an_address, &multiple_signatures, &identities,
	&names_from_the_address, &internationalised_names, &names_of_tables, &large_tables_load_fast, &line_cap, &address_cap, NULL,
};

TEST_MAIN("keytable", tests)
