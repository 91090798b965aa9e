/* Tests of messages within messages. */
#include <check.h>

#include "lmtp-indexer/extract_internal.h"
#include "tests/unit/runner.h"

static const struct extract_limits limits = {.depth_max = 5, .parts_max = 6, .text_max_bytes = 65536};

#define HEAD "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\nContent-Type: message/rfc822\r\n"
#define TAIL "\r\n--B--\r\n"

static struct extract *extract_of(struct span mail)
{
	extract_start();
	struct extract_source source = {.bytes = mail, .fd = -1};
	return extract_new(&limits, "", &source);
}

START_TEST(attached_mail_has_its_name)
{
	struct extract *x = extract_of(SPAN_LIT(HEAD
				       "Content-Disposition: attachment; filename*=utf-8''%C3%BC.eml\r\n\r\n"
				       "Subject: inner subject\r\n\r\ninner text" TAIL));
	ck_assert_uint_eq(x->attachment_count, 1);
	ck_assert(span_eq(x->attachments[0].name, SPAN_LIT("\xc3\xbc.eml")));
	ck_assert(span_starts(x->text, SPAN_LIT("inner subject\ninner text")));
	extract_free(&x);
}
END_TEST

#define ALTERNATIVE "Content-Type: multipart/alternative; boundary=A\r\n\r\n--A\r\nContent-Type: text/plain\r\n\r\n"
#define RELATED "\r\n--A\r\nContent-Type: multipart/related; boundary=R\r\n\r\n--R\r\nContent-Type: text/html\r\n\r\n<p>html</p>\r\n"
#define IMAGE "--R\r\nContent-Type: image/png; name=i.png\r\n\r\nx\r\n"
#define END "--R--\r\n--A--\r\n"

static const struct {
	const char *name, *mail, *text;
	size_t files;
} alternatives[] = {
	{"HTML with its image", ALTERNATIVE "plain" RELATED IMAGE END, "plain", 1},
	{"no words in the plain one", ALTERNATIVE " " RELATED IMAGE END, "html", 1},
	{"no words in it, but below", ALTERNATIVE " " RELATED "--R\r\n\r\nfooter\r\n" END, "html footer", 0},
	{"no words in it, but in a mail", ALTERNATIVE " " RELATED "--R\r\nContent-Type: message/rfc822\r\n\r\n\r\ninner\r\n" END,
	 "html inner", 1},
	{"a mail with HTML of its own", ALTERNATIVE "plain" RELATED "--R\r\nContent-Type: message/rfc822\r\n\r\n"
	 "Content-Type: text/html\r\n\r\n<p>inner</p>\r\n" END, "plain inner", 1},
	{"alternatives within", ALTERNATIVE "plain" RELATED "--R\r\nContent-Type: multipart/alternative; boundary=C\r\n\r\n--C\r\n"
	 "\r\nplain too\r\n--C\r\nContent-Type: text/html\r\n\r\n<p>more</p>\r\n--C--\r\n" END, "plain plain too", 0},
	{"alternatives beside", HEAD "\r\n" ALTERNATIVE "plain" RELATED END "\r\n--B\r\nContent-Type: text/html\r\n\r\n<p>last</p>" TAIL,
	 "plain last", 1},
};

START_TEST(html_within_alternatives)
{
	for (size_t i = 0; i < sizeof(alternatives) / sizeof(alternatives[0]); i++) {
		struct extract *x = extract_of(span_str(alternatives[i].mail));
		ck_assert_msg(span_eq(x->snippet, span_str(alternatives[i].text)), "%s: '%.*s'", alternatives[i].name,
			      SPAN_ARG(x->snippet));
		ck_assert_msg(x->attachment_count == alternatives[i].files, "%s: %zu", alternatives[i].name, x->attachment_count);
		ck_assert_int_eq((int)x->state, EXTRACT_PARSED);
		extract_free(&x);
	}
}
END_TEST

#define BASE64 \
	"U3ViamVjdDogPT91dGYtOD9RP2lubmVyPz0gc3ViamVjdA0KQ29udGVudC1UeXBlOiBtdWx0aXBh\r\n" \
	"cnQvbWl4ZWQ7IGJvdW5kYXJ5PUMNCg0KLS1DDQoNCmlubmVyIHdvcmRzDQotLUMNCkNvbnRlbnQt\r\n" \
	"VHlwZTogYXBwbGljYXRpb24vcGRmOyBuYW1lPWluLnBkZg0KDQp4DQotLUMtLQ0K\r\n"

static const char *const encoded[] = {
	HEAD "Content-Transfer-Encoding: base64\r\n\r\n" BASE64 TAIL,
	HEAD "Content-Transfer-Encoding: quoted-printable\r\n\r\nSubject: inner subject\r\n"
	"Content-Type: multipart/mixed; boundary=3DC\r\n\r\n--C\r\n\r\ninner =\r\nwords\r\n--C\r\nContent-Type: application/pdf; name=3Din.pdf\r\n\r\nx\r\n--C--\r\n" TAIL,
	"Content-Type: message/global\r\nContent-Transfer-Encoding: BASE64\r\n\r\n" BASE64,
	HEAD "Content-Transfer-Encoding: base64;\r\n\r\n" BASE64 TAIL,
	HEAD "Content-Transfer-Encoding:\r\n \"Base64\" ; x=y\r\n\r\n" BASE64 TAIL,
};

START_TEST(encoded_messages_are_read)
{
	for (size_t i = 0; i < sizeof(encoded) / sizeof(encoded[0]); i++) {
		struct extract *x = extract_of(span_str(encoded[i]));
		ck_assert_uint_eq(x->attachment_count, 2);
		ck_assert(span_eq(x->attachments[0].name, SPAN_LIT("inner subject")));
		ck_assert_uint_ge(x->attachments[0].size_bytes, 150);
		ck_assert(span_eq(x->attachments[1].name, SPAN_LIT("in.pdf")));
		ck_assert(span_find(x->text, SPAN_LIT("inner words")) != SPAN_NPOS);
		ck_assert_int_eq((int)x->state, EXTRACT_PARSED);
		extract_free(&x);
	}
}
END_TEST

#define ENCODED "Content-Type: multipart/mixed;\r\n boundary=C\r\nContent-Transfer-Encoding: "
#define BASE64_PARTS \
	"LS1DDQpDb250ZW50LVR5cGU6IHRleHQvcGxhaW47IGNoYXJzZXQ9dXRmLTgNCg0Kw6nDqSB3b3Jk\r\n" \
	"cw0KLS1DDQpDb250ZW50LVR5cGU6IGFwcGxpY2F0aW9uL3BkZjsgbmFtZT1pbi5wZGYNCg0KeA0K\r\n" \
	"LS1DLS0NCg==\r\n"

static const struct {
	const char *name, *mail, *text;
	size_t files;
	enum extract_state state;
} multiparts[] = {
	{"the mail itself", ENCODED "base64\r\n\r\n" BASE64_PARTS, "éé words", 1, EXTRACT_PARSED},
	{"with a semicolon", ENCODED "base64;\r\n\r\n" BASE64_PARTS, "éé words", 1, EXTRACT_PARSED},
	{"within another", "Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n" ENCODED "base64\r\n\r\n" BASE64_PARTS
	 "--B\r\n\r\nlast\r\n--B--", "éé words last", 1, EXTRACT_PARSED},
	{"quoted-printable", ENCODED "quoted-printable\r\n\r\n=2D-C\r\n\r\nwo=\r\nrds\r\n=2D-C--", "words", 0, EXTRACT_PARSED},
	{"that only says so", ENCODED "base64\r\n\r\n--C\r\n\r\nwords\r\n--C--", "words", 0, EXTRACT_PARSED},
	{"without parts", ENCODED "base64\r\n\r\nd29yZHM=\r\n", "words", 0, EXTRACT_PARTIAL},
	{"without anything", ENCODED "base64\r\n\r\n", "", 0, EXTRACT_PARTIAL},
};

START_TEST(encoded_multiparts_are_read)
{
	for (size_t i = 0; i < sizeof(multiparts) / sizeof(multiparts[0]); i++) {
		struct extract *x = extract_of(span_str(multiparts[i].mail));
		ck_assert_msg(span_eq(x->snippet, span_str(multiparts[i].text)), "%s: '%.*s'", multiparts[i].name,
			      SPAN_ARG(x->snippet));
		ck_assert_msg(x->attachment_count == multiparts[i].files, "%s: %zu", multiparts[i].name, x->attachment_count);
		ck_assert_msg(x->state == multiparts[i].state, "%s: state %d", multiparts[i].name, (int)x->state);
		extract_free(&x);
	}
}
END_TEST

/* Files of that type that hold none: nothing, no header, one that GMime must not see. */
START_TEST(encoded_messages_that_are_none)
{
	static const char *const bodies[] = {"", "=00=01", "To: =41"};
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		struct sbuf mail;
		sbuf_init_heap(&mail, 4096);
		sbuf_addf(&mail, HEAD "Content-Transfer-Encoding: quoted-printable\r\n\r\n%s", bodies[i]);
		for (size_t n = 0; i == 2 && n < 101; n++)
			sbuf_adds(&mail, "=61=3A");
		sbuf_adds(&mail, TAIL);
		struct extract *x = extract_of(sbuf_span(&mail));
		ck_assert_uint_eq(x->attachment_count, 1);
		ck_assert_msg(x->state == EXTRACT_PARTIAL && x->text.len == 0, "row %zu", i);
		extract_free(&x);
		sbuf_done(&mail);
	}
}
END_TEST

/* Adds BYTES as base64. */
static void add_base64(struct sbuf *mail, struct span bytes)
{
	char *text = g_base64_encode((const guchar *)bytes.ptr, bytes.len);
	sbuf_adds(mail, text);
	g_free(text);
}

/* Two of them share what is decoded at most; one byte more, and the second one is only a file. */
START_TEST(most_bytes_of_encoded_messages)
{
	for (size_t more = 0; more < 2; more++) {
		struct sbuf mail, inner;
		sbuf_init_heap(&mail, 4 * EXTRACT_ENCODED_MAX);
		sbuf_init_heap(&inner, EXTRACT_ENCODED_MAX + 1);
		sbuf_adds(&inner, "Subject: first\r\n\r\nx");
		size_t first = inner.len;
		sbuf_adds(&mail, HEAD "Content-Transfer-Encoding: base64\r\n\r\n");
		add_base64(&mail, sbuf_span(&inner));
		sbuf_adds(&mail, "\r\n--B\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n");
		sbuf_reset(&inner);
		sbuf_adds(&inner, "Subject: second\r\n\r\n");
		while (inner.len < EXTRACT_ENCODED_MAX - first + more)
			sbuf_addc(&inner, 'x');
		add_base64(&mail, sbuf_span(&inner));
		sbuf_adds(&mail, TAIL);
		ck_assert(sbuf_ok(&mail) && sbuf_ok(&inner));
		struct extract *x = extract_of(sbuf_span(&mail));
		ck_assert_uint_eq(x->attachment_count, 2);
		ck_assert(span_eq(x->attachments[0].name, SPAN_LIT("first")));
		ck_assert(span_eq(x->attachments[1].name, more == 0 ? SPAN_LIT("second") : SPAN_EMPTY));
		ck_assert_uint_eq(x->attachments[1].size_bytes, EXTRACT_ENCODED_MAX - first + more);
		ck_assert((x->state == EXTRACT_PARTIAL) == (more > 0));
		extract_free(&x);
		sbuf_done(&mail);
		sbuf_done(&inner);
	}
}
END_TEST

/* With its type in front; one byte more, and it is left out. */
START_TEST(most_bytes_of_an_encoded_multipart)
{
	static const char type[] = "Content-Type: multipart/mixed; boundary=C\n";
	for (size_t more = 0; more < 2; more++) {
		struct sbuf mail, inner;
		sbuf_init_heap(&mail, 2 * EXTRACT_ENCODED_MAX);
		sbuf_init_heap(&inner, EXTRACT_ENCODED_MAX);
		sbuf_adds(&inner, "--C\n\nwords\n--C\nContent-Type: application/x\n\n");
		while (inner.len < EXTRACT_ENCODED_MAX - strlen(type) - strlen("\n\n") + more)
			sbuf_addc(&inner, 'x');
		sbuf_addf(&mail, "%sContent-Transfer-Encoding: base64\n\n", type);
		add_base64(&mail, sbuf_span(&inner));
		ck_assert(sbuf_ok(&mail) && sbuf_ok(&inner));
		struct extract *x = extract_of(sbuf_span(&mail));
		ck_assert_int_eq((int)x->state, (more == 0 ? EXTRACT_PARSED : EXTRACT_PARTIAL));
		ck_assert(span_eq(x->text, more == 0 ? SPAN_LIT("words") : SPAN_EMPTY));
		extract_free(&x);
		sbuf_done(&mail);
		sbuf_done(&inner);
	}
}
END_TEST

/* LEN bytes of header, the last of them its empty line, and a text. */
static void add_message(struct sbuf *mail, size_t len)
{
	const size_t end = mail->len + len;
	sbuf_adds(mail, "Subject: inner\r\n");
	while (mail->len + 6 < end)
		sbuf_adds(mail, "a:\n");
	while (mail->len + 3 < end)
		sbuf_addc(mail, 'b');
	sbuf_adds(mail, "\n\r\ninner words");
	ck_assert(sbuf_ok(mail));
}

/* MAIL in memory and in a file. */
static void check_header(struct span mail, bool fits)
{
	FILE *file = tmpfile();
	ck_assert_uint_eq(fwrite(mail.ptr, 1, mail.len, file), mail.len);
	fflush(file);
	struct extract_source sources[] = {{.bytes = mail, .fd = -1}, {.fd = fileno(file)}};
	for (size_t i = 0; i < 2; i++) {
		struct extract *x = extract_new(&limits, "", &sources[i]);
		ck_assert_int_eq((int)x->state, fits ? EXTRACT_PARSED : EXTRACT_FAILED);
		extract_free(&x);
	}
	fclose(file);
}

/* MAIL attached in ENCODING. */
static void check_inner_header(struct span mail, const char *encoding, bool fits)
{
	struct sbuf outer;
	sbuf_init_heap(&outer, 4 * EXTRACT_HEADER_MAX);
	sbuf_addf(&outer, HEAD "Content-Transfer-Encoding: %s\r\n\r\n", encoding);
	if (span_eq(span_str(encoding), SPAN_LIT("base64")))
		add_base64(&outer, mail);
	else
		sbuf_add(&outer, mail);
	sbuf_adds(&outer, TAIL);
	ck_assert(sbuf_ok(&outer));
	struct extract *x = extract_of(sbuf_span(&outer));
	ck_assert_int_eq((int)x->state, fits ? EXTRACT_PARSED : EXTRACT_PARTIAL);
	ck_assert_uint_eq(x->attachment_count, 1);
	ck_assert_uint_eq(x->attachments[0].size_bytes, mail.len);
	ck_assert(span_eq(x->attachments[0].name, fits ? SPAN_LIT("inner") : SPAN_EMPTY));
	ck_assert_int_eq(span_find(x->text, SPAN_LIT("inner words")) != SPAN_NPOS, fits);
	extract_free(&x);
	sbuf_done(&outer);
}

/* A line of two CR does not end a header for GMime. */
START_TEST(header_that_only_seems_to_end)
{
	struct sbuf mail;
	sbuf_init_heap(&mail, 2 * EXTRACT_HEADER_MAX);
	sbuf_adds(&mail, "a: b\r\n\r\r\n");
	while (mail.len <= EXTRACT_HEADER_MAX)
		sbuf_adds(&mail, "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n");
	sbuf_adds(&mail, "\r\nwords\r\n");
	check_header(sbuf_span(&mail), false);
	sbuf_done(&mail);
}
END_TEST

/* One byte more, and it is a file. */
START_TEST(longest_header)
{
	for (size_t more = 0; more < 2; more++) {
		struct sbuf mail;
		sbuf_init_heap(&mail, 2 * EXTRACT_HEADER_MAX);
		add_message(&mail, EXTRACT_HEADER_MAX + more);
		check_inner_header(sbuf_span(&mail), "base64", more == 0);
		check_inner_header(sbuf_span(&mail), "quoted-printable", more == 0);
		check_header(sbuf_span(&mail), more == 0);
		sbuf_done(&mail);
	}
}
END_TEST

/* Each encoded within the other, as deep as all parts may be, and one deeper. */
START_TEST(depth_of_encoded_messages)
{
	for (unsigned more = 0; more < 2; more++) {
		struct sbuf inner, outer;
		sbuf_init_heap(&inner, 65536);
		sbuf_init_heap(&outer, 65536);
		sbuf_adds(&inner, "Subject: s\r\n\r\nwords");
		for (unsigned i = 1; i < limits.depth_max + more; i++) {
			sbuf_reset(&outer);
			sbuf_adds(&outer, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n");
			add_base64(&outer, sbuf_span(&inner));
			sbuf_reset(&inner);
			sbuf_add(&inner, sbuf_span(&outer));
		}
		struct extract *x = extract_of(sbuf_span(&inner));
		ck_assert_int_eq(span_find(x->text, SPAN_LIT("words")) == SPAN_NPOS, more);
		ck_assert_int_eq(x->state == EXTRACT_PARTIAL, more);
		extract_free(&x);
		sbuf_done(&inner);
		sbuf_done(&outer);
	}
}
END_TEST

/* A field NAME of LEN bytes; returns what it counts. */
static size_t add_field(struct sbuf *mail, const char *name, size_t len)
{
	sbuf_addf(mail, "%s:", name);
	for (size_t i = 0; i < len; i++)
		sbuf_addc(mail, 'x');
	sbuf_addc(mail, '\n');
	return EXTRACT_FIELD_BYTES + strlen(name) + len + 1;
}

/* Headers that count COUNT in all, in fields of LEN bytes: of the mail, an attached one, and a part of it. */
static void add_headers(struct sbuf *mail, size_t count, size_t len)
{
	const size_t tail = EXTRACT_FIELD_BYTES + 1 + 1;
	sbuf_adds(mail, "Content-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=B\n");
	size_t counted = 2 * EXTRACT_FIELD_BYTES + mail->len - 3;
	while (counted + 2 * tail + 2 * len < count)
		counted += add_field(mail, "\xff", len);
	sbuf_adds(mail, "\n--B\n\nfirst words\n--B\n");
	ck_assert_uint_eq(counted + add_field(mail, "a", count - counted - tail), count);
	sbuf_addc(mail, '\n');
	for (size_t i = 0; i < 4 * 4096; i++)
		sbuf_addc(mail, 'x');
	sbuf_adds(mail, "\n--B\n\nlast words\n--B--\n");
	ck_assert(sbuf_ok(mail));
}

/* One byte more in the header of a part, and what comes behind it is left out. */
START_TEST(most_bytes_of_all_headers)
{
	static const size_t lengths[] = {0, 1000};
	extract_start();
	for (size_t i = 0; i < 4; i++) {
		const size_t more = i % 2;
		FILE *file = tmpfile();
		struct sbuf mail;
		sbuf_init_heap(&mail, 2 * EXTRACT_HEADERS_MAX);
		add_headers(&mail, EXTRACT_HEADERS_MAX + more, lengths[i / 2]);
		ck_assert_uint_eq(fwrite(mail.ptr, 1, mail.len, file), mail.len);
		fflush(file);
		const struct extract_source sources[] = {{.bytes = sbuf_span(&mail), .fd = -1}, {.fd = fileno(file)}};
		for (size_t from = 0; from < 2; from++) {
			struct extract *x = extract_new(&limits, "", &sources[from]);
			ck_assert_int_eq((int)x->state, (more == 0 ? EXTRACT_PARSED : EXTRACT_PARTIAL));
			ck_assert(span_find(x->text, SPAN_LIT("first words")) != SPAN_NPOS);
			ck_assert_int_eq(span_find(x->text, SPAN_LIT("last words")) != SPAN_NPOS, more == 0);
			extract_free(&x);
		}
		fclose(file);
		sbuf_done(&mail);
	}
}
END_TEST

static const TTest *const *const tests[] = {
	&most_bytes_of_all_headers, &attached_mail_has_its_name, &html_within_alternatives, &encoded_messages_are_read, &encoded_multiparts_are_read, &most_bytes_of_an_encoded_multipart,
	&encoded_messages_that_are_none,
	&most_bytes_of_encoded_messages, &longest_header, &header_that_only_seems_to_end, &depth_of_encoded_messages, NULL,
};

TEST_MAIN("indexer-inner", tests)
