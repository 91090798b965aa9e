/* Tests of postern/reports/content, archive, zip and inflate. */
#include <check.h>

#include "postern/reports/archive.h"
#include "tests/unit/packed.h"
#include "tests/unit/runner.h"

struct outcome {
	int rc;
	char error[512];
	size_t members;
	struct sbuf text; /* "name=content;" of each */
};

/* Reads all of FILE in pieces of STEP bytes. */
static struct outcome read_all(struct span bytes, const struct archive_limits *limits, size_t step)
{
	static const struct archive_limits defaults = ARCHIVE_LIMITS_DEFAULT;
	struct outcome o = {.rc = 0};
	struct sbuf error;
	struct archive *a = NULL;
	const struct zip_file file = archive_file_of(&bytes);
	char *piece = mem_alloc(step);
	struct span name;
	sbuf_init(&error, o.error, sizeof(o.error));
	sbuf_init_heap(&o.text, 256u << 20);
	o.rc = archive_open(&file, limits == NULL ? &defaults : limits, &a, &error);
	while (o.rc == 0 && (o.rc = archive_next(a, &name)) == 0) {
		o.members++;
		sbuf_add(&o.text, name);
		sbuf_addc(&o.text, '=');
		size_t got;
		while ((o.rc = archive_read(a, piece, step, &got, &error)) == 0 && got > 0)
			sbuf_add(&o.text, span_of(piece, got));
		sbuf_addc(&o.text, ';');
	}
	if (o.rc == ERR_NOT_FOUND)
		o.rc = 0;
	archive_free(&a);
	free(piece);
	return o;
}

static void expect(struct span bytes, const char *want)
{
	static const size_t steps[] = {1, 7, 65536};
	for (size_t i = 0; i < 3; i++) {
		struct outcome o = read_all(bytes, NULL, steps[i]);
		ck_assert_msg(o.rc == 0, "%s", o.error);
		ck_assert_str_eq(sbuf_cstr(&o.text), want);
		sbuf_done(&o.text);
	}
}

static void expect_refusal(const char *what, struct span bytes, const struct archive_limits *limits,
			   int rc, const char *why)
{
	struct outcome o = read_all(bytes, limits, 4096);
	ck_assert_msg(o.rc == rc && strstr(o.error, why) != NULL, "%s: %d \"%s\", not %d \"%s\"",
		      what, o.rc, o.error, rc, why);
	sbuf_done(&o.text);
}

START_TEST(sniffing)
{
	static const struct {
		struct span bytes;
		enum content_kind kind;
	} rows[] = {
		{SPAN_LIT("<feedback>"), CONTENT_XML},
		{SPAN_LIT("\xef\xbb\xbf \r\n<?xml"), CONTENT_XML},
		{SPAN_LIT("\xff\xfe<\0?\0"), CONTENT_XML},
		{SPAN_LIT("\xfe\xff\0<\0?"), CONTENT_XML},
		{SPAN_LIT("<\0?\0x\0"), CONTENT_XML},
		{SPAN_LIT("\0<\0?\0x"), CONTENT_XML},
		{SPAN_LIT("\xef\xbb\xbf{\"a\":1}"), CONTENT_JSON},
		{SPAN_LIT("[]"), CONTENT_UNKNOWN},
		{SPAN_LIT("\x1f\x8b\x08"), CONTENT_GZIP},
		{SPAN_LIT("PK\3\4"), CONTENT_ZIP},
		{SPAN_LIT("PK\5\6"), CONTENT_ZIP},
		{SPAN_LIT("Received: from x"), CONTENT_MAIL},
		{SPAN_LIT("From x@example.org Mon"), CONTENT_MAIL},
		{SPAN_LIT(": x"), CONTENT_UNKNOWN},
		{SPAN_LIT("no field: x"), CONTENT_UNKNOWN},
		{SPAN_LIT(" \n"), CONTENT_EMPTY},
		{SPAN_LIT(""), CONTENT_EMPTY},
		{SPAN_LIT("Rar!\x1a"), CONTENT_UNKNOWN},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(content_sniff(rows[i].bytes) == rows[i].kind, "row %zu: %s", i,
			      content_name(content_sniff(rows[i].bytes)));
}
END_TEST

START_TEST(plain_file_is_one_member)
{
	expect(SPAN_LIT("<a/>"), "=<a/>;");
	expect(SPAN_LIT(""), "=;");
}
END_TEST

START_TEST(gzip)
{
	struct sbuf b;
	sbuf_init_heap(&b, PACKED_MAX);
	packed_gzip(&b, SPAN_LIT("<one/>"));
	expect(sbuf_span(&b), "=<one/>;");
	size_t one = b.len;
	packed_gzip(&b, SPAN_LIT(""));
	packed_gzip(&b, SPAN_LIT("<two/>"));
	expect(sbuf_span(&b), "=<one/><two/>;");
	sbuf_add(&b, SPAN_LIT("\0\0\0\r\n"));
	expect(sbuf_span(&b), "=<one/><two/>;");
	sbuf_addc(&b, 'x');
	expect_refusal("tail", sbuf_span(&b), NULL, ERR_SYNTAX, "garbage");
	for (size_t cut = 2; cut < one; cut++)
		expect_refusal("cut", span_take(sbuf_span(&b), cut), NULL, ERR_SYNTAX, "cut off");
	b.ptr[one - 5] ^= 1; /* the CRC; the last four bytes are the length */
	expect_refusal("crc", span_take(sbuf_span(&b), one), NULL, ERR_SYNTAX, "damaged");
	b.ptr[one - 5] ^= 1;
	b.ptr[one - 1] ^= 1;
	expect_refusal("length", span_take(sbuf_span(&b), one), NULL, ERR_SYNTAX, "damaged");
	sbuf_done(&b);
}
END_TEST

START_TEST(zip)
{
	struct packed_zip z;
	packed_zip_init(&z);
	packed_zip_add(&z, "a.xml", SPAN_LIT("<a/>"), PACKED_STORED);
	packed_zip_add(&z, "folder/", SPAN_LIT(""), PACKED_STORED);
	packed_zip_add(&z, "folder/b.xml", SPAN_LIT("<b>bbbbbbbbbbbbbbbb</b>"), PACKED_DEFLATED);
	packed_zip_add(&z, "c.xml", SPAN_LIT("<c/>"), PACKED_DEFLATED | PACKED_DESCRIPTOR);
	packed_zip_add(&z, "d.xml", SPAN_LIT("<d/>"), PACKED_DESCRIPTOR);
	packed_zip_add(&z, "__MACOSX/._a.xml", SPAN_LIT("\0\5\26\7"), PACKED_STORED);
	packed_zip_add(&z, "empty", SPAN_LIT(""), PACKED_DEFLATED);
	packed_zip_finish(&z);
	expect(sbuf_span(&z.out),
	       "a.xml=<a/>;folder/b.xml=<b>bbbbbbbbbbbbbbbb</b>;c.xml=<c/>;d.xml=<d/>;empty=;");
	/* Cut anywhere, it is no zip file any more. */
	for (size_t cut = 4; cut < z.out.len; cut++) {
		struct outcome o = read_all(span_take(sbuf_span(&z.out), cut), NULL, 512);
		ck_assert_int_eq(o.rc, ERR_SYNTAX);
		sbuf_done(&o.text);
	}
	/* A comment of the file belongs to it. */
	bytes_put(z.out.ptr + z.out.len - 2, 3, 2);
	expect_refusal("no comment", sbuf_span(&z.out), NULL, ERR_SYNTAX, "end record");
	sbuf_adds(&z.out, "hey");
	struct outcome o = read_all(sbuf_span(&z.out), NULL, 512);
	ck_assert_int_eq(o.rc, 0);
	ck_assert_int_eq((int)o.members, 5);
	sbuf_done(&o.text);
	packed_zip_done(&z);
}
END_TEST

START_TEST(empty_zip)
{
	struct packed_zip z;
	packed_zip_init(&z);
	packed_zip_finish(&z);
	expect(sbuf_span(&z.out), "");
	packed_zip_done(&z);
}
END_TEST

/* Two members of 30 + 1 + 20 bytes, then the directory with entries of 46 + 1. */
#define MEMBER 51
#define ENTRY 47
#define END(offset) (2 * MEMBER + 2 * ENTRY + (offset))
#define DIR(offset) (2 * MEMBER + (offset))

START_TEST(lying_zip)
{
	static const struct {
		const char *what;
		size_t at;
		unsigned width;
		uint64_t value;
		const char *why;
	} rows[] = {
		{"crc in both", 14, 4, 1, "differs"},
		{"crc in directory", DIR(16), 4, 1, "differs"},
		{"size in directory", DIR(24), 4, 21, "two sizes"},
		{"packed size in directory", DIR(20), 4, 19, "two sizes"},
		{"size in header", 22, 4, 1000, "differs"},
		{"method in header", 8, 2, 8, "differs"},
		{"method", DIR(10), 2, 12, "method"},
		{"encrypted", DIR(8), 2, 1, "encrypted"},
		{"strong encryption", DIR(8), 2, 0x40, "encrypted"},
		{"masked", DIR(8), 2, 0x2000, "encrypted"},
		{"encrypted in header", 6, 2, 1, "differs"},
		{"name in header", 30, 1, 'z', "differs"},
		{"name length in header", 26, 2, 2, "differs"},
		{"signature of header", MEMBER, 4, 0x05044b50, "differs"},
		{"extra in header", 28, 2, 45, "overlap"},
		{"extra beyond the directory", MEMBER + 28, 2, 1, "outside"},
		{"NUL in name", DIR(46), 1, 0, "no usable name"},
		{"second member is the first", DIR(ENTRY + 42), 4, 0, "differs"},
		{"offset beyond", DIR(42), 4, 500, "outside"},
		{"offset of zip64", DIR(42), 4, 0xffffffff, "zip64"},
		{"size of zip64", DIR(24), 4, 0xffffffff, "zip64"},
		{"packed size of zip64", DIR(20), 4, 0xffffffff, "zip64"},
		{"disk of member", DIR(34), 2, 1, "disks"},
		{"signature of entry", DIR(0), 1, 'X', "damaged"},
		{"name past the end", DIR(ENTRY + 28), 2, 200, "cut off"},
		{"comment too long", DIR(32), 2, ZIP_EXTRA_MAX + 1, "too long"},
		{"name too long", DIR(28), 2, ZIP_NAME_MAX + 1, "too long"},
		{"disk", END(4), 2, 1, "disks"},
		{"disk of directory", END(6), 2, 1, "disks"},
		{"members here", END(8), 2, 1, "disks"},
		{"directory size", END(12), 4, 93, "where its end record says"},
		{"directory offset", END(16), 4, 0, "where its end record says"},
		{"directory of zip64", END(16), 4, 0xffffffff, "zip64"},
		{"count of zip64", END(10), 2, 0xffff, "zip64"},
		{"comment length", END(20), 2, 1, "end record"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct packed_zip z;
		packed_zip_init(&z);
		packed_zip_add(&z, "a", SPAN_LIT("<a>0123456789123</a>"), PACKED_STORED);
		packed_zip_add(&z, "b", SPAN_LIT("<b>0123456789123</b>"), PACKED_STORED);
		ck_assert_uint_eq(packed_zip_finish(&z), DIR(0));
		ck_assert_uint_eq(z.out.len, END(22));
		bytes_put(z.out.ptr + rows[i].at, rows[i].value, rows[i].width);
		int rc = strstr(rows[i].why, "too long") != NULL ? ERR_LIMIT : ERR_SYNTAX;
		expect_refusal(rows[i].what, sbuf_span(&z.out), NULL, rc, rows[i].why);
		packed_zip_done(&z);
	}
}
END_TEST

/* Both headers tell the same lie; only unpacking shows it. */
START_TEST(lying_sizes)
{
	static const struct {
		unsigned how;
		unsigned field; /* 0 crc, 4 packed size, 8 size */
		int by;
		const char *why;
	} rows[] = {
		{PACKED_STORED, 0, 1, "checksum"},   {PACKED_DEFLATED, 0, 1, "checksum"},
		{PACKED_DEFLATED, 8, 1, "size"},     {PACKED_DEFLATED, 8, -1, "size"},
		{PACKED_DEFLATED, 4, -1, "cut off"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct packed_zip z;
		packed_zip_init(&z);
		packed_zip_add(&z, "a", SPAN_LIT("<a>00000000000000000000000000000000000</a>"),
			       rows[i].how);
		size_t dir = packed_zip_finish(&z);
		const size_t at[] = {14 + rows[i].field, dir + 16 + rows[i].field};
		for (size_t k = 0; k < 2; k++)
			bytes_put(z.out.ptr + at[k],
				  bytes_get_u32(z.out.ptr + at[k]) + (uint64_t)rows[i].by, 4);
		expect_refusal("lie", sbuf_span(&z.out), NULL, ERR_SYNTAX, rows[i].why);
		packed_zip_done(&z);
	}
}
END_TEST

/* The directory names one member's data twice: a file that unpacks to more than it holds. */
START_TEST(overlapping_members)
{
	struct packed_zip z;
	packed_zip_init(&z);
	packed_zip_add(&z, "a", SPAN_LIT("<a/>"), PACKED_DEFLATED);
	struct sbuf once;
	sbuf_init_heap(&once, 1024);
	sbuf_add(&once, sbuf_span(&z.dir));
	sbuf_add(&z.dir, sbuf_span(&once));
	z.count = 2;
	packed_zip_finish(&z);
	expect_refusal("twice", sbuf_span(&z.out), NULL, ERR_SYNTAX, "overlap");
	sbuf_done(&once);
	packed_zip_done(&z);
}
END_TEST

START_TEST(zip64_locator)
{
	struct packed_zip z;
	packed_zip_init(&z);
	packed_zip_add(&z, "a", SPAN_LIT("<a/>"), PACKED_STORED);
	sbuf_add(&z.dir, SPAN_LIT("PK\6\7aaaabbbbccccdddd"));
	packed_zip_finish(&z);
	expect_refusal("locator", sbuf_span(&z.out), NULL, ERR_SYNTAX, "zip64");
	packed_zip_done(&z);
}
END_TEST

/* As writers do it that do not know how small a file will be; each byte that says something else is refused. */
START_TEST(zip64_without_need)
{
	struct packed_zip z;
	packed_zip_init(&z);
	packed_zip_add(&z, "a", SPAN_LIT("<a/>"), PACKED_STORED | PACKED_ZIP64);
	packed_zip_add(&z, "b", SPAN_LIT("<bbbbbbbbbbbbbb/>"), PACKED_DEFLATED | PACKED_ZIP64);
	packed_zip_add(&z, "c", SPAN_LIT("<c/>"), PACKED_DEFLATED | PACKED_DESCRIPTOR | PACKED_ZIP64);
	packed_zip_finish_as(&z, true);
	expect(sbuf_span(&z.out), "a=<a/>;b=<bbbbbbbbbbbbbb/>;c=<c/>;");
	const size_t end64 = z.out.len - 22 - PACKED_END64;
	const struct { size_t from, to; } ranges[] = {
		{30 + 1, 30 + 1 + PACKED_EXTRA64}, {end64, end64 + 12}, {end64 + 16, z.out.len - 22},
	};
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		for (size_t at = ranges[i].from; at < ranges[i].to; at++) {
			z.out.ptr[at] ^= 0x40;
			expect_refusal("another byte", sbuf_span(&z.out), NULL, ERR_SYNTAX, "");
			z.out.ptr[at] ^= 0x40;
		}
	packed_zip_done(&z);
}
END_TEST

START_TEST(member_cap)
{
	for (size_t count = ARCHIVE_MEMBERS_MAX; count <= ARCHIVE_MEMBERS_MAX + 1; count++) {
		struct packed_zip z;
		struct sbuf b;
		packed_zip_init(&z);
		sbuf_init_heap(&b, PACKED_MAX);
		for (size_t i = 0; i < count; i++) {
			packed_zip_add(&z, "a", SPAN_LIT("x"), PACKED_STORED);
			packed_gzip(&b, SPAN_LIT("x"));
		}
		packed_zip_finish(&z);
		if (count == ARCHIVE_MEMBERS_MAX) {
			struct outcome o = read_all(sbuf_span(&z.out), NULL, 64);
			ck_assert_uint_eq(o.members, count);
			sbuf_done(&o.text);
			o = read_all(sbuf_span(&b), NULL, 64);
			ck_assert_uint_eq(o.text.len, count + 2);
			sbuf_done(&o.text);
		} else {
			expect_refusal("members", sbuf_span(&z.out), NULL, ERR_LIMIT,
				       "too many members");
			expect_refusal("streams", sbuf_span(&b), NULL, ERR_LIMIT,
				       "too many streams");
		}
		sbuf_done(&b);
		packed_zip_done(&z);
	}
}
END_TEST

START_TEST(name_cap)
{
	char name[ZIP_NAME_MAX + 2];
	for (size_t len = ZIP_NAME_MAX; len <= ZIP_NAME_MAX + 1; len++) {
		struct packed_zip z;
		packed_zip_init(&z);
		memset(name, 'n', len);
		name[len] = '\0';
		packed_zip_add(&z, name, SPAN_LIT("x"), PACKED_STORED);
		packed_zip_finish(&z);
		struct outcome o = read_all(sbuf_span(&z.out), NULL, 64);
		ck_assert_int_eq(o.rc, len == ZIP_NAME_MAX ? 0 : ERR_LIMIT);
		sbuf_done(&o.text);
		packed_zip_done(&z);
	}
}
END_TEST

START_TEST(size_caps)
{
	struct archive_limits limits = ARCHIVE_LIMITS_DEFAULT;
	struct sbuf b;
	struct packed_zip z;
	sbuf_init_heap(&b, PACKED_MAX);
	packed_gzip(&b, SPAN_LIT("0123456789"));
	packed_zip_init(&z);
	packed_zip_add(&z, "a", SPAN_LIT("012345"), PACKED_DEFLATED);
	packed_zip_add(&z, "b", SPAN_LIT("6789"), PACKED_STORED);
	packed_zip_finish(&z);
	const struct span files[] = {SPAN_LIT("0123456789"), sbuf_span(&b), sbuf_span(&z.out)};
	for (size_t i = 0; i < 3; i++) {
		limits = ARCHIVE_LIMITS_DEFAULT;
		limits.unpacked_bytes = 10;
		struct outcome o = read_all(files[i], &limits, 3);
		ck_assert_msg(o.rc == 0, "%zu: %s", i, o.error);
		sbuf_done(&o.text);
		limits.unpacked_bytes = 9;
		expect_refusal("unpacked", files[i], &limits, ERR_LIMIT,
			       i == 0 ? "too large" : "too much");
		if (i == 0)
			continue;
		limits.unpacked_bytes = 10;
		limits.packed_bytes = files[i].len;
		o = read_all(files[i], &limits, 3);
		ck_assert_int_eq(o.rc, 0);
		sbuf_done(&o.text);
		limits.packed_bytes = files[i].len - 1;
		expect_refusal("packed", files[i], &limits, ERR_LIMIT, "too large");
	}
	packed_zip_done(&z);
	sbuf_done(&b);
}
END_TEST

/* Zeros pack at some 1000 to 1: fine up to the floor, a bomb above it. */
START_TEST(ratio_cap)
{
	for (size_t over = 0; over < 2; over++) {
		size_t len = ARCHIVE_RATIO_FLOOR + over;
		char *zeros = mem_zalloc(len);
		struct sbuf b;
		sbuf_init_heap(&b, PACKED_MAX);
		packed_gzip(&b, span_of(zeros, len));
		struct outcome o = read_all(sbuf_span(&b), NULL, 65536);
		ck_assert_int_eq(o.rc, over ? ERR_LIMIT : 0);
		if (over)
			ck_assert_ptr_nonnull(strstr(o.error, "packed too well"));
		sbuf_done(&o.text);
		struct archive_limits limits = ARCHIVE_LIMITS_DEFAULT;
		limits.ratio = 1100;
		o = read_all(sbuf_span(&b), &limits, 65536);
		ck_assert_int_eq(o.rc, 0);
		sbuf_done(&o.text);
		sbuf_done(&b);
		free(zeros);
	}
}
END_TEST

static int fail_read(void *arg, uint64_t at, char *mem, size_t len)
{
	struct {
		struct span bytes;
		int left;
	} *f = arg;
	if (f->left-- == 0)
		return ERR_TEMP;
	memcpy(mem, f->bytes.ptr + at, len);
	return 0;
}

/* Each read of the file fails in turn. */
START_TEST(read_errors)
{
	static const struct archive_limits defaults = ARCHIVE_LIMITS_DEFAULT;
	struct packed_zip z;
	packed_zip_init(&z);
	packed_zip_add(&z, "a", SPAN_LIT("<a/>"), PACKED_STORED);
	packed_zip_add(&z, "b", SPAN_LIT("<b/>"), PACKED_DEFLATED);
	packed_zip_finish(&z);
	int rc = ERR_TEMP;
	for (int turn = 0; rc != ERR_NOT_FOUND; turn++) {
		struct {
			struct span bytes;
			int left;
		} f = {sbuf_span(&z.out), turn};
		const struct zip_file file = {z.out.len, fail_read, &f};
		char error_mem[256], piece[64];
		struct sbuf error;
		struct archive *a = NULL;
		struct span name;
		size_t got;
		sbuf_init(&error, error_mem, sizeof(error_mem));
		rc = archive_open(&file, &defaults, &a, &error);
		while (rc == 0 && (rc = archive_next(a, &name)) == 0)
			while ((rc = archive_read(a, piece, sizeof(piece), &got, &error)) == 0 &&
			       got > 0)
				;
		archive_free(&a);
		ck_assert(rc == ERR_TEMP || (rc == ERR_NOT_FOUND && turn >= 8));
		ck_assert_str_eq(sbuf_cstr(&error), "");
	}
	packed_zip_done(&z);
}
END_TEST

static const TTest *const *const tests[] = {
	&sniffing,	&plain_file_is_one_member,
	&gzip,		&zip,
	&empty_zip,	&lying_zip,
	&lying_sizes,	&overlapping_members,
	&zip64_locator, &zip64_without_need, &member_cap,
	&name_cap,	&size_caps,
	&ratio_cap,	&read_errors,
	NULL,
};

TEST_MAIN("reports_archive", tests)
