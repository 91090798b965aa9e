/* Tests of what outlives quotad's process, and of what recounts have found. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "dovecot-plugin-quota/quotad/findings.h"
#include "dovecot-plugin-quota/quotad/openmap.h"
#include "tests/unit/runner.h"

static char path[128], taken_mem[65536];
static struct sbuf taken;
static size_t takes;

static bool take(void *arg, struct span user)
{
	ck_assert_ptr_null(arg);
	takes++;
	sbuf_addc(&taken, ' ');
	sbuf_add(&taken, span_take(user, 10));
	return false;
}

static struct openmap *open_anew(void)
{
	char mem[256];
	struct sbuf error;
	struct openmap *m = NULL;
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_msg(openmap_open(path, &m, &error) == 0, "%s", sbuf_cstr(&error));
	sbuf_init(&taken, taken_mem, sizeof(taken_mem));
	takes = 0;
	openmap_take(m, take, NULL);
	return m;
}

static void begin(void)
{
	(void)snprintf(path, sizeof(path), "%s/openmap-%d", tmpdir(), (int)getpid());
	(void)unlink(path);
}

START_TEST(names_outlive_the_process)
{
	begin();
	struct openmap *m = open_anew();
	ck_assert_uint_eq(takes, 0);
	const uint32_t a = openmap_add(m, SPAN_LIT("a@d"));
	(void)openmap_add(m, SPAN_LIT("b@d"));
	openmap_del(m, a);
	(void)openmap_add(m, SPAN_LIT("c@d"));
	/* Another one opens what a process that was killed leaves behind. */
	struct openmap *next = open_anew();
	ck_assert_uint_eq(takes, 2);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&taken), "b@d"));
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&taken), "c@d"));
	openmap_close(&next);
	openmap_close(&m);
	m = open_anew();
	ck_assert_uint_eq(takes, 0);
	openmap_close(&m);
	openmap_close(&m);
	unlink(path);
}
END_TEST

static bool holds(const char *name)
{
	static char all[OPENMAP_SLOTS * (QUOTA_USER_MAX + 4)];
	FILE *f = fopen(path, "rb");
	ck_assert_ptr_nonnull(f);
	const size_t n = fread(all, 1, sizeof(all), f);
	fclose(f);
	return span_find(span_of(all, n), span_str(name)) != SPAN_NPOS;
}

/* Of a user who may be removed; also what a process that was killed, or an older one, left. */
START_TEST(free_slots_hold_no_name)
{
	begin();
	struct openmap *m = open_anew();
	const uint32_t a = openmap_add(m, SPAN_LIT("aaa@d"));
	(void)openmap_add(m, SPAN_LIT("bbb@d"));
	ck_assert(holds("aaa@d"));
	openmap_del(m, a);
	ck_assert(!holds("aaa@d") && holds("bbb@d"));
	openmap_close(&m);
	m = open_anew();
	ck_assert(!holds("bbb@d"));
	openmap_close(&m);
	unlink(path);
}
END_TEST

static struct openmap *taken_from;

static bool in_file(struct span name)
{
	static char all[OPENMAP_SLOTS * (QUOTA_USER_MAX + 4) + 4];
	FILE *f = fopen(path, "rb");
	ck_assert_ptr_nonnull(f);
	const size_t n = fread(all, 1, sizeof(all), f);
	fclose(f);
	for (size_t at = 4; at + name.len <= n; at += QUOTA_USER_MAX + 4) { /* length, name */
		uint32_t len;
		memcpy(&len, all + at - 4, sizeof(len));
		if (len == name.len && memcmp(all + at, name.ptr, len) == 0)
			return true;
	}
	return false;
}

static bool take_on(void *arg, struct span user)
{
	(void)arg;
	ck_assert(in_file(user));
	takes++;
	if (span_eq(user, SPAN_LIT("gone@d")))
		return true;
	ck_assert_uint_ne(openmap_add(taken_from, user), 0);
	ck_assert(in_file(user));
	return true;
}

/* A process that is killed while it takes over forgets nobody. */
START_TEST(names_stay_while_they_are_taken_over)
{
	begin();
	struct openmap *m = open_anew();
	(void)openmap_add(m, SPAN_LIT("a@d"));
	(void)openmap_add(m, SPAN_LIT("gone@d"));
	(void)openmap_add(m, SPAN_LIT("b@d"));
	takes = 0;
	taken_from = m;
	openmap_take(m, take_on, NULL);
	ck_assert_uint_eq(takes, 3);
	ck_assert(in_file(SPAN_LIT("a@d")) && in_file(SPAN_LIT("b@d")));
	ck_assert(!in_file(SPAN_LIT("gone@d")));
	for (size_t i = 2; i < OPENMAP_SLOTS; i++) /* no place is lost, none is given out twice */
		ck_assert_uint_ne(openmap_add(m, SPAN_LIT("c@d")), 0);
	ck_assert_uint_eq(openmap_add(m, SPAN_LIT("c@d")), 0);
	ck_assert(in_file(SPAN_LIT("a@d")) && in_file(SPAN_LIT("b@d")));
	openmap_close(&m);
	unlink(path);
}
END_TEST

START_TEST(slots_and_names_are_capped)
{
	char name[QUOTA_USER_MAX + 1];
	begin();
	memset(name, 'n', sizeof(name));
	struct openmap *m = open_anew();
	ck_assert_uint_eq(openmap_add(m, span_of(name, QUOTA_USER_MAX + 1)), 0);
	ck_assert_uint_eq(openmap_add(m, SPAN_EMPTY), 0);
	for (size_t i = 0; i < OPENMAP_SLOTS; i++)
		ck_assert_uint_ne(openmap_add(m, span_of(name, QUOTA_USER_MAX)), 0);
	ck_assert_uint_eq(openmap_add(m, SPAN_LIT("one more")), 0);
	openmap_del(m, 17);
	ck_assert_uint_eq(openmap_add(m, SPAN_LIT("one more")), 17);
	openmap_close(&m);
	m = open_anew();
	ck_assert_uint_eq(takes, OPENMAP_SLOTS);
	openmap_close(&m);
	unlink(path);
}
END_TEST

START_TEST(a_broken_file_is_empty)
{
	begin();
	const int fd = open(path, O_WRONLY | O_CREAT, 0600);
	char junk[1000];
	memset(junk, 0xff, sizeof(junk));
	ck_assert_int_eq(write(fd, junk, sizeof(junk)), sizeof(junk));
	close(fd);
	struct openmap *m = open_anew();
	ck_assert_uint_eq(takes, 0);
	ck_assert_uint_ne(openmap_add(m, SPAN_LIT("a@d")), 0);
	openmap_close(&m);
	unlink(path);
	char mem[256];
	struct sbuf error;
	sbuf_init(&error, mem, sizeof(mem));
	ck_assert_int_eq(openmap_open("/nowhere/at/all", &m, &error), ERR_TEMP);
	ck_assert_ptr_nonnull(strstr(sbuf_cstr(&error), "/nowhere/at/all"));
}
END_TEST

START_TEST(causes)
{
	struct findings *all = findings_new();
	struct finding *f = findings_open(all, SPAN_LIT("U@d"), true);
	ck_assert_ptr_eq(findings_get(all, SPAN_LIT("u@D")), f);
	ck_assert_ptr_null(findings_get(all, SPAN_LIT("v@d")));
	finding_begin(f, (struct finding_sizes){100, 2});
	finding_begin(f, (struct finding_sizes){50, 1}); /* again: the first counts */
	finding_end(f, (struct finding_sizes){100, 2});
	ck_assert_ptr_null(finding_cause(f));
	finding_end(f, (struct finding_sizes){100, 3});
	ck_assert_str_eq(finding_cause(f), "counter");
	finding_add(f, SPAN_LIT("A"), (struct finding_sizes){10, 2}, (struct finding_sizes){5, 1});
	finding_add(f, SPAN_LIT("A"), (struct finding_sizes){0, 0}, (struct finding_sizes){5, 1});
	finding_add(f, SPAN_LIT("B"), (struct finding_sizes){5, 1}, (struct finding_sizes){9, 2});
	finding_add(f, SPAN_LIT("C"), (struct finding_sizes){5, 1}, (struct finding_sizes){6, 1});
	ck_assert_uint_eq(f->folder_count, 3);
	ck_assert_str_eq(finding_cause(f), "files_removed");
	ck_assert_str_eq(finding_folder_cause(&f->folders[1]), "files_added");
	ck_assert_str_eq(finding_folder_cause(&f->folders[2]), "sizes_changed");
	f = findings_open(all, SPAN_LIT("u@d"), false);
	ck_assert_uint_eq(f->folder_count, 0);
	findings_free(&all);
}
END_TEST

START_TEST(findings_are_capped)
{
	char name[32];
	struct findings *all = findings_new();
	struct finding *f = findings_open(all, SPAN_LIT("first@d"), false);
	for (unsigned i = 0; i <= FINDINGS_FOLDERS; i++) {
		(void)snprintf(name, sizeof(name), "f%u", i);
		finding_add(f, span_str(name), (struct finding_sizes){0, 0}, (struct finding_sizes){1, 1});
	}
	ck_assert_uint_eq(f->folder_count, FINDINGS_FOLDERS + 1);
	for (unsigned i = 1; i < FINDINGS_USERS; i++) {
		(void)snprintf(name, sizeof(name), "u%u@d", i);
		(void)findings_open(all, span_str(name), false);
	}
	ck_assert_ptr_nonnull(findings_get(all, SPAN_LIT("first@d")));
	(void)findings_open(all, SPAN_LIT("last@d"), false);
	ck_assert_ptr_null(findings_get(all, SPAN_LIT("first@d")));
	ck_assert_ptr_nonnull(findings_get(all, SPAN_LIT("u1@d")));
	findings_free(&all);
}
END_TEST

static const TTest *const *const tests[] = {
	&names_outlive_the_process, &free_slots_hold_no_name,
	&names_stay_while_they_are_taken_over,
	&slots_and_names_are_capped,
	&a_broken_file_is_empty,
	&causes,
	&findings_are_capped,
	NULL,
};

TEST_MAIN("quota_drift", tests)
