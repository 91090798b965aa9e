/* Tests of postern/migrations. */
#include <check.h>

#include "postern/migrations.h"
#include "tests/unit/runner.h"

#define SUM_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SUM_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static struct migration_list files, recorded;
static struct sbuf error;
static char error_mem[512];

static void fill(struct migration_list *list, const char *const *names)
{
	list->count = 0;
	for (; *names != NULL; names++) /* a trailing ! stands for other content */
		ck_assert_int_eq(
			migrations_add(list, span_take(span_str(*names), strcspn(*names, "!")),
				       strchr(*names, '!') ? SPAN_LIT(SUM_B) : SPAN_LIT(SUM_A)),
			0);
	migrations_sort(list);
}

START_TEST(names)
{
	static const struct {
		const char *name;
		bool valid;
	} rows[] = {
		{"001-a.sql", true},  {"999-a-b2.sql", true}, {"001-.sql", false},
		{"01-a.sql", false},  {"0001-a.sql", false},  {"001_a.sql", false},
		{"001-A.sql", false}, {"001-a.sql~", false},  {"001-a.sql.sql", false},
		{"roles.sql", false}, {".sql", false},	      {"", false},
		{"README.md", false}, {"001-a/b.sql", false},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(migration_name_valid(span_str(rows[i].name)) == rows[i].valid, "%s",
			      rows[i].name);
	char name[MIGRATION_NAME_MAX + 2];
	for (size_t len = MIGRATION_NAME_MAX; len <= MIGRATION_NAME_MAX + 1; len++) {
		memset(name, 'a', sizeof(name));
		memcpy(name, "001-", 4);
		memcpy(name + len - 4, ".sql", 4);
		ck_assert(migration_name_valid(span_of(name, len)) == (len == MIGRATION_NAME_MAX));
	}
}
END_TEST

START_TEST(plans)
{
	static const struct {
		const char *name, *files[5], *recorded[5];
		int rc;
		size_t applied;
	} rows[] = {
		{"nothing applied", {"002-b.sql", "001-a.sql"}, {NULL}, 0, 0},
		{"all applied", {"001-a.sql", "002-b.sql"}, {"002-b.sql", "001-a.sql"}, 0, 2},
		{"one pending", {"001-a.sql", "002-b.sql"}, {"001-a.sql"}, 0, 1},
		{"changed", {"001-a.sql!", "002-b.sql"}, {"001-a.sql"}, ERR_PERM, 0},
		{"changed the other way", {"001-a.sql"}, {"001-a.sql!"}, ERR_PERM, 0},
		{"renamed", {"001-z.sql"}, {"001-a.sql"}, ERR_PERM, 0},
		{"file gone", {"001-a.sql"}, {"001-a.sql", "002-b.sql"}, ERR_PERM, 0},
		{"gap filled later",
		 {"001-a.sql", "002-b.sql", "003-c.sql"},
		 {"001-a.sql", "003-c.sql"},
		 ERR_PERM,
		 0},
		{"new one in front", {"000-z.sql", "001-a.sql"}, {"001-a.sql"}, ERR_PERM, 0},
		{"number twice", {"001-a.sql", "001-b.sql"}, {NULL}, ERR_PERM, 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t applied = 0;
		sbuf_init(&error, error_mem, sizeof(error_mem));
		fill(&files, rows[i].files);
		fill(&recorded, rows[i].recorded);
		int rc = migrations_plan(&files, &recorded, &error);
		ck_assert_msg(rc == rows[i].rc, "%s: %d %s", rows[i].name, rc, error_mem);
		ck_assert_msg((error.len > 0) == (rc < 0), "%s", rows[i].name);
		for (size_t k = 0; k < files.count && rc == 0; k++)
			applied += files.items[k].applied;
		ck_assert_msg(rc < 0 || applied == rows[i].applied, "%s", rows[i].name);
	}
}
END_TEST

START_TEST(caps)
{
	char name[32];
	files.count = 0;
	for (unsigned i = 0; i < MIGRATIONS_MAX; i++) {
		snprintf(name, sizeof(name), "%04u", i);
		ck_assert_int_eq(migrations_add(&files, span_str(name), SPAN_LIT(SUM_A)), 0);
	}
	ck_assert_int_eq(migrations_add(&files, SPAN_LIT("x"), SPAN_LIT(SUM_A)), ERR_LIMIT);
	files.count = 0;
	ck_assert_int_eq(migrations_add(&files, SPAN_LIT("x"), SPAN_LIT(SUM_A "a")), ERR_LIMIT);
	ck_assert_uint_eq(files.count, 0);
}
END_TEST

static const TTest *const *const tests[] = {&names, &plans, &caps, NULL};

TEST_MAIN("postern_migrations", tests)
