/* Tests of milter-dkim/canon and milter-dkim/bodyhash. */
#include "milter-dkim/bodyhash.h"
#include "milter-dkim/canon.h"
#include "tests/unit/runner.h"

static void append(void *arg, const char *bytes, size_t len)
{
	sbuf_add(arg, span_of(bytes, len));
}

static void run_body(enum canon canon, struct span body, size_t piece, struct sbuf *out)
{
	struct canon_body b;
	canon_body_init(&b, canon, append, out);
	for (size_t at = 0; at < body.len; at += piece)
		canon_body_push(&b, span_take(span_skip(body, at), piece));
	canon_body_finish(&b);
}

START_TEST(bodies_of_the_rfc_and_edges)
{
	static const struct {
		const char *body, *simple, *relaxed;
	} rows[] = {
		/* RFC 6376 section 3.4.5 */
		{" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"},
		/* sections 3.4.3 and 3.4.4 on empty bodies */
		{"", "\r\n", ""},
		{"\r\n", "\r\n", ""},
		{"\r\n\r\n\r\n", "\r\n", ""},
		{" \t\r\n", " \t\r\n", ""},
		{"x", "x\r\n", "x\r\n"},
		{"x \t", "x \t\r\n", "x\r\n"},
		{"x\r\n \r\n\r\n", "x\r\n \r\n", "x\r\n"},
		{"\r\n\r\nx\r\n", "\r\n\r\nx\r\n", "\r\n\r\nx\r\n"},
		/* LF alone ends a line, CR alone does not */
		{"a\nb \n\n", "a\r\nb \r\n", "a\r\nb\r\n"},
		{"a\rb\r\r\nc\r", "a\rb\r\r\nc\r\r\n", "a\rb\r\r\nc\r\r\n"},
		{"a \rb\t\r\n", "a \rb\t\r\n", "a \rb\r\n"},
		{"a  b\t\tc \td", "a  b\t\tc \td\r\n", "a b c d\r\n"},
	};
	char mem[256];
	struct sbuf out;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (size_t piece = 1; piece < 20; piece++) {
			sbuf_init(&out, mem, sizeof(mem));
			run_body(CANON_SIMPLE, span_str(rows[i].body), piece, &out);
			ck_assert_msg(span_eq(sbuf_span(&out), span_str(rows[i].simple)),
				      "simple row %zu piece %zu", i, piece);
			sbuf_reset(&out);
			run_body(CANON_RELAXED, span_str(rows[i].body), piece, &out);
			ck_assert_msg(span_eq(sbuf_span(&out), span_str(rows[i].relaxed)),
				      "relaxed row %zu piece %zu", i, piece);
		}
	}
}
END_TEST

/* What the RFC says, one byte after the other, for complete lines in CRLF or LF. */
static void relaxed_by_the_book(struct span body, struct sbuf *out)
{
	size_t blank = 0;
	bool last = false;
	while (!last && body.len > 0) {
		struct span line;
		last = !span_cut(&body, '\n', &line);
		if (!last && line.len > 0 && line.ptr[line.len - 1] == '\r')
			line.len--;
		while (line.len > 0 && (line.ptr[line.len - 1] == ' ' || line.ptr[line.len - 1] == '\t'))
			line.len--;
		if (line.len == 0) {
			blank++;
			continue;
		}
		for (; blank > 0; blank--)
			sbuf_adds(out, "\r\n");
		for (size_t i = 0; i < line.len; i++) {
			bool wsp = line.ptr[i] == ' ' || line.ptr[i] == '\t';
			if (!wsp)
				sbuf_addc(out, line.ptr[i]);
			else if (line.ptr[i + 1] != ' ' && line.ptr[i + 1] != '\t')
				sbuf_addc(out, ' ');
		}
		sbuf_adds(out, "\r\n");
	}
}

START_TEST(random_bodies_in_random_pieces)
{
	static const char *const words[] = {"word", " ", "\t", "\r\n", "\r\n", "\n", "\r",
		"  ", "a longer run of plain text that fills more than one block of sixty-four bytes"};
	srand(7);
	for (int round = 0; round < 3000; round++) {
		struct sbuf body, want, got;
		sbuf_init_heap(&body, 1 << 16);
		sbuf_init_heap(&want, 1 << 16);
		sbuf_init_heap(&got, 1 << 16);
		for (int n = rand() % 60; n >= 0; n--)
			sbuf_adds(&body, words[(size_t)rand() % 9]);
		relaxed_by_the_book(sbuf_span(&body), &want);
		run_body(CANON_RELAXED, sbuf_span(&body), (size_t)(rand() % 90) + 1, &got);
		ck_assert(span_eq(sbuf_span(&want), sbuf_span(&got)));
		struct sbuf whole, pieces;
		sbuf_init_heap(&whole, 1 << 16);
		sbuf_init_heap(&pieces, 1 << 16);
		run_body(CANON_SIMPLE, sbuf_span(&body), 1 << 16, &whole);
		run_body(CANON_SIMPLE, sbuf_span(&body), (size_t)(rand() % 9) + 1, &pieces);
		ck_assert(span_eq(sbuf_span(&whole), sbuf_span(&pieces)));
		sbuf_done(&whole);
		sbuf_done(&pieces);
		sbuf_done(&body);
		sbuf_done(&want);
		sbuf_done(&got);
	}
}
END_TEST

START_TEST(fields_of_the_rfc)
{
	struct mail_field a = {.name = SPAN_LIT("A"), .value = SPAN_LIT(" X")};
	struct mail_field b = {.name = span_take(SPAN_LIT("B "), 1), .gap = 1,
			       .value = SPAN_LIT(" Y\t\r\n\tZ  ")};
	char mem[128];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	canon_field(CANON_RELAXED, &a, true, &out);
	canon_field(CANON_RELAXED, &b, true, &out);
	ck_assert_str_eq(sbuf_cstr(&out), "a:X\r\nb:Y Z\r\n");
	sbuf_reset(&out);
	canon_field(CANON_SIMPLE, &a, true, &out);
	canon_field(CANON_SIMPLE, &b, true, &out);
	ck_assert_str_eq(sbuf_cstr(&out), "A: X\r\nB : Y\t\r\n\tZ  \r\n");
	/* A milter sees folding as LF alone. */
	b.value = SPAN_LIT(" Y\t\n\tZ  ");
	sbuf_reset(&out);
	canon_field(CANON_SIMPLE, &b, true, &out);
	ck_assert_str_eq(sbuf_cstr(&out), "B : Y\t\r\n\tZ  \r\n");
}
END_TEST

START_TEST(signature_without_its_value)
{
	static const struct {
		const char *value, *simple, *relaxed;
	} rows[] = {
		{" bh=x; b=abc\n de; d=y", "S: bh=x; b=; d=y", "s:bh=x; b=; d=y"},
		{" b = abc ", "S: b =", "s:b ="},
		{" a=b; bh=zz", "S: a=b; bh=zz", "s:a=b; bh=zz"},
		{" b=;\r\n\td=y ", "S: b=;\r\n\td=y ", "s:b=; d=y"},
	};
	char mem[128];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct mail_field f = {.name = SPAN_LIT("S"), .value = span_str(rows[i].value)};
		sbuf_reset(&out);
		canon_signature(CANON_SIMPLE, &f, &out);
		ck_assert_str_eq(sbuf_cstr(&out), rows[i].simple);
		sbuf_reset(&out);
		canon_signature(CANON_RELAXED, &f, &out);
		ck_assert_str_eq(sbuf_cstr(&out), rows[i].relaxed);
	}
}
END_TEST

START_TEST(hashes_are_shared_and_limited)
{
	struct bodyhash *set = bodyhash_new();
	unsigned simple, relaxed, again, five, zero;
	ck_assert(!bodyhash_wanted(set));
	ck_assert_int_eq(bodyhash_want(set, CANON_SIMPLE, BODYHASH_WHOLE, &simple), 0);
	ck_assert_int_eq(bodyhash_want(set, CANON_RELAXED, BODYHASH_WHOLE, &relaxed), 0);
	ck_assert_int_eq(bodyhash_want(set, CANON_SIMPLE, BODYHASH_WHOLE, &again), 0);
	ck_assert_uint_eq(simple, again);
	ck_assert_int_eq(bodyhash_want(set, CANON_SIMPLE, 5, &five), 0);
	ck_assert_int_eq(bodyhash_want(set, CANON_SIMPLE, 0, &zero), 0);
	bodyhash_push(set, SPAN_LIT("hel"));
	bodyhash_push(set, SPAN_LIT("lo world"));
	bodyhash_finish(set);
	uint8_t want[CRYPTO_SHA256_BYTES];
	crypto_sha256(SPAN_LIT("hello world\r\n"), want);
	ck_assert_mem_eq(bodyhash_digest(set, simple).ptr, want, sizeof(want));
	ck_assert_mem_eq(bodyhash_digest(set, relaxed).ptr, want, sizeof(want));
	crypto_sha256(SPAN_LIT("hello"), want);
	ck_assert_mem_eq(bodyhash_digest(set, five).ptr, want, sizeof(want));
	crypto_sha256(SPAN_EMPTY, want);
	ck_assert_mem_eq(bodyhash_digest(set, zero).ptr, want, sizeof(want));
	ck_assert_uint_eq(bodyhash_length(set, CANON_SIMPLE), 13);
	bodyhash_reset(set);
	unsigned index;
	for (uint64_t i = 0; i < BODYHASH_MAX; i++)
		ck_assert_int_eq(bodyhash_want(set, CANON_SIMPLE, i, &index), 0);
	ck_assert_int_eq(bodyhash_want(set, CANON_SIMPLE, BODYHASH_MAX, &index), ERR_LIMIT);
	bodyhash_free(&set);
	ck_assert_ptr_null(set);
}
END_TEST

static const TTest *const *const tests[] = {
	&bodies_of_the_rfc_and_edges, &random_bodies_in_random_pieces, &fields_of_the_rfc,
	&signature_without_its_value, &hashes_are_shared_and_limited, NULL,
};

TEST_MAIN("canon", tests)
