/* Tests of milter-dkim/wire: the constants against libmilter's headers, what is read
 * and what is written. */
#include <libmilter/mfapi.h>
#include <libmilter/mfdef.h>

#include "milter-dkim/wire.h"
#include "tests/unit/runner.h"

#define SAME(ours, theirs) {#ours, (unsigned long)(ours), (unsigned long)(theirs)}

START_TEST(values_are_those_of_the_protocol)
{
	static const struct {
		const char *name;
		unsigned long ours, theirs;
	} rows[] = {
		SAME(WIRE_VERSION, SMFI_PROT_VERSION),
		SAME(WIRE_HEAD_BYTES, MILTER_LEN_BYTES + 1),
		SAME(WIRE_ABORT, SMFIC_ABORT),
		SAME(WIRE_BODY, SMFIC_BODY),
		SAME(WIRE_CONNECT, SMFIC_CONNECT),
		SAME(WIRE_MACRO, SMFIC_MACRO),
		SAME(WIRE_END_OF_BODY, SMFIC_BODYEOB),
		SAME(WIRE_HELO, SMFIC_HELO),
		SAME(WIRE_QUIT_NEXT, SMFIC_QUIT_NC),
		SAME(WIRE_HEADER, SMFIC_HEADER),
		SAME(WIRE_MAIL, SMFIC_MAIL),
		SAME(WIRE_END_OF_HEADER, SMFIC_EOH),
		SAME(WIRE_NEGOTIATE, SMFIC_OPTNEG),
		SAME(WIRE_QUIT, SMFIC_QUIT),
		SAME(WIRE_RCPT, SMFIC_RCPT),
		SAME(WIRE_DATA, SMFIC_DATA),
		SAME(WIRE_UNKNOWN, SMFIC_UNKNOWN),
		SAME(WIRE_CONTINUE, SMFIR_CONTINUE),
		SAME(WIRE_INSERT_HEADER, SMFIR_INSHEADER),
		SAME(WIRE_CHANGE_HEADER, SMFIR_CHGHEADER),
		SAME(WIRE_QUARANTINE, SMFIR_QUARANTINE),
		SAME(WIRE_REJECT, SMFIR_REJECT),
		SAME(WIRE_TEMPFAIL, SMFIR_TEMPFAIL),
		SAME(WIRE_REPLY_CODE, SMFIR_REPLYCODE),
		SAME(WIRE_MAY_ADD_HEADERS, SMFIF_ADDHDRS),
		SAME(WIRE_MAY_CHANGE_HEADERS, SMFIF_CHGHDRS),
		SAME(WIRE_MAY_QUARANTINE, SMFIF_QUARANTINE),
		SAME(WIRE_MAY_CHOOSE_MACROS, SMFIF_SETSYMLIST),
		SAME(WIRE_NO_RCPT, SMFIP_NORCPT),
		SAME(WIRE_NO_END_OF_HEADER, SMFIP_NOEOH),
		SAME(WIRE_NO_UNKNOWN, SMFIP_NOUNKNOWN),
		SAME(WIRE_NO_DATA, SMFIP_NODATA),
		SAME(WIRE_SILENT_HEADER, SMFIP_NR_HDR),
		SAME(WIRE_SILENT_CONNECT, SMFIP_NR_CONN),
		SAME(WIRE_SILENT_HELO, SMFIP_NR_HELO),
		SAME(WIRE_SILENT_MAIL, SMFIP_NR_MAIL),
		SAME(WIRE_SILENT_RCPT, SMFIP_NR_RCPT),
		SAME(WIRE_SILENT_DATA, SMFIP_NR_DATA),
		SAME(WIRE_SILENT_UNKNOWN, SMFIP_NR_UNKN),
		SAME(WIRE_SILENT_END_OF_HEADER, SMFIP_NR_EOH),
		SAME(WIRE_SILENT_BODY, SMFIP_NR_BODY),
		SAME(WIRE_LEADING_SPACE, SMFIP_HDR_LEADSPC),
		SAME(WIRE_STAGE_CONNECT, SMFIM_CONNECT),
		SAME(WIRE_STAGE_MAIL, SMFIM_ENVFROM),
		SAME(WIRE_STAGE_END, SMFIM_EOM),
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		ck_assert_msg(rows[i].ours == rows[i].theirs, "%s", rows[i].name);
}
END_TEST

START_TEST(packets_come_off_one_by_one)
{
	static const char bytes[] = "\0\0\0\1N\0\0\0\3Bxy\0\0";
	struct wire_packet packet;
	size_t missing = 0;
	struct span in = span_of(bytes, sizeof(bytes) - 1);
	ck_assert_int_eq(wire_next(&in, &packet, &missing), 0);
	ck_assert_int_eq(packet.command, WIRE_END_OF_HEADER);
	ck_assert_uint_eq(packet.data.len, 0);
	ck_assert_int_eq(wire_next(&in, &packet, &missing), 0);
	ck_assert_int_eq(packet.command, WIRE_BODY);
	ck_assert(span_eq(packet.data, SPAN_LIT("xy")));
	ck_assert_int_eq(wire_next(&in, &packet, &missing), ERR_AGAIN);
	ck_assert_uint_eq(missing, 3);
	ck_assert_uint_eq(in.len, 2);
}
END_TEST

START_TEST(what_is_missing)
{
	static const char bytes[] = "\0\0\0\4Mabc";
	static const size_t wanted[] = {5, 4, 3, 2, 4, 3, 2, 1};
	for (size_t len = 0; len < sizeof(bytes) - 1; len++) {
		struct span in = span_of(bytes, len);
		struct wire_packet packet;
		size_t missing = 0;
		ck_assert_int_eq(wire_next(&in, &packet, &missing), ERR_AGAIN);
		ck_assert_uint_eq(missing, wanted[len]);
		ck_assert_uint_eq(in.len, len);
	}
}
END_TEST

START_TEST(length_cap)
{
	static const struct {
		const char bytes[4];
		int rc;
	} rows[] = {
		{{0, 0, 0, 0}, ERR_SYNTAX},
		{{0, 0x10, 0, 0}, ERR_AGAIN}, /* the command and WIRE_DATA_MAX bytes */
		{{0, 0x10, 0, 1}, ERR_LIMIT},
		{{(char)0xff, (char)0xff, (char)0xff, (char)0xff}, ERR_LIMIT},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct span in = span_of(rows[i].bytes, 4);
		struct wire_packet packet;
		size_t missing;
		ck_assert_int_eq(wire_next(&in, &packet, &missing), rows[i].rc);
	}
}
END_TEST

#define CLIENT(literal) SPAN_LIT("c.example\0" literal)

START_TEST(clients)
{
	static const struct {
		struct span data;
		const char *ip; /* "": none; NULL: malformed */
		unsigned port;
	} rows[] = {
		{CLIENT("4\x01\x02" "192.0.2.7\0"), "192.0.2.7", 258},
		{CLIENT("6\0\0" "2001:db8::1\0"), "2001:db8::1", 0},
		{CLIENT("6\0\x19" "IPv6:2001:db8::1\0"), "2001:db8::1", 25},
		{CLIENT("6\0\x19" "::ffff:192.0.2.7\0"), "192.0.2.7", 25},
		{CLIENT("L\0\0" "/run/socket\0"), "", 0},
		{CLIENT("U"), "", 0},
		{CLIENT("Z"), NULL, 0},
		{CLIENT("\0"), NULL, 0},
		{CLIENT(""), NULL, 0},
		{CLIENT("4"), NULL, 0},
		{CLIENT("4\0"), NULL, 0},
		{CLIENT("4\0\x19"), NULL, 0},
		{CLIENT("4\0\x19" "192.0.2.7"), NULL, 0},
		{CLIENT("4\0\x19" "nowhere\0"), NULL, 0},
		{CLIENT("4\0\x19" "IPv6:2001:db8::1\0"), NULL, 0},
		{SPAN_LIT("c.example"), NULL, 0},
		{SPAN_LIT(""), NULL, 0},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct wire_client client;
		char mem[IP_TEXT_SIZE];
		struct sbuf text;
		sbuf_init(&text, mem, sizeof(mem));
		int rc = wire_read_client(rows[i].data, &client);
		ck_assert_msg(rc == (rows[i].ip == NULL ? ERR_SYNTAX : 0), "row %zu", i);
		if (rc < 0)
			continue;
		ck_assert(span_eq(client.name, SPAN_LIT("c.example")));
		if (client.ip.bits > 0)
			ip_format(&client.ip, &text);
		ck_assert_str_eq(sbuf_cstr(&text), rows[i].ip);
		ck_assert_uint_eq(client.port, rows[i].port);
	}
}
END_TEST

static void check_written(const struct sbuf *out, struct span wanted)
{
	ck_assert(sbuf_ok(out));
	ck_assert_uint_eq(out->len, wanted.len);
	ck_assert_mem_eq(out->ptr, wanted.ptr, wanted.len);
}

START_TEST(replies)
{
	char mem[256];
	struct sbuf out;
	const struct wire_offer offer = {6, 0x131, 0x180308};
	const struct wire_macro_list lists[] = {{WIRE_STAGE_CONNECT, "j"}, {WIRE_STAGE_END, "i"}};
	sbuf_init(&out, mem, sizeof(mem));
	wire_add(&out, WIRE_CONTINUE);
	check_written(&out, SPAN_LIT("\0\0\0\1c"));
	sbuf_reset(&out);
	wire_add_offer(&out, &offer, lists, 2);
	check_written(&out, SPAN_LIT("\0\0\0\x19O\0\0\0\6\0\0\1\x31\0\x18\3\x08\0\0\0\0j\0\0\0\0\5i\0"));
	sbuf_reset(&out);
	ck_assert_int_eq(wire_add_insert(&out, SPAN_LIT("X"), SPAN_LIT(" a\n b")), 0);
	check_written(&out, SPAN_LIT("\0\0\0\x0di\0\0\0\0X\0 a\n b\0"));
	sbuf_reset(&out);
	ck_assert_int_eq(wire_add_remove(&out, SPAN_LIT("X"), 258), 0);
	check_written(&out, SPAN_LIT("\0\0\0\x08m\0\0\1\2X\0\0"));
	sbuf_reset(&out);
	ck_assert_int_eq(wire_add_quarantine(&out, SPAN_LIT("held")), 0);
	check_written(&out, SPAN_LIT("\0\0\0\6qheld\0"));
	sbuf_reset(&out);
	ck_assert_int_eq(wire_add_reply_code(&out, SPAN_LIT("550"), SPAN_LIT("5.7.1"), SPAN_LIT("100 % no")), 0);
	check_written(&out, SPAN_LIT("\0\0\0\x15y550 5.7.1 100 %% no\0"));
}
END_TEST

START_TEST(delimiters_are_refused)
{
	char mem[256];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	ck_assert_int_eq(wire_add_insert(&out, SPAN_LIT("X\0Y"), SPAN_LIT("a")), ERR_SYNTAX);
	ck_assert_int_eq(wire_add_insert(&out, SPAN_LIT("X"), SPAN_LIT("a\0b")), ERR_SYNTAX);
	ck_assert_int_eq(wire_add_insert(&out, SPAN_EMPTY, SPAN_LIT("a")), ERR_SYNTAX);
	ck_assert_int_eq(wire_add_remove(&out, SPAN_LIT("X\0"), 1), ERR_SYNTAX);
	ck_assert_int_eq(wire_add_quarantine(&out, SPAN_LIT("a\0b")), ERR_SYNTAX);
	const struct span texts[] = {SPAN_LIT("a\0b"), SPAN_LIT("a\rb"), SPAN_LIT("a\nb")};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		ck_assert_int_eq(wire_add_reply_code(&out, SPAN_LIT("550"), SPAN_LIT("5.7.1"), texts[i]), ERR_SYNTAX);
	ck_assert_uint_eq(out.len, 0);
}
END_TEST

START_TEST(reply_text_cap)
{
	static char text[WIRE_REPLY_TEXT_MAX + 1];
	struct sbuf out;
	memset(text, 'x', sizeof(text));
	sbuf_init_heap(&out, 4096);
	ck_assert_int_eq(wire_add_reply_code(&out, SPAN_LIT("550"), SPAN_LIT("5.7.1"),
					     span_of(text, sizeof(text))), ERR_SYNTAX);
	ck_assert_int_eq(wire_add_reply_code(&out, SPAN_LIT("550"), SPAN_LIT("5.7.1"),
					     span_of(text, sizeof(text) - 1)), 0);
	text[0] = '%'; /* counts twice */
	ck_assert_int_eq(wire_add_reply_code(&out, SPAN_LIT("550"), SPAN_LIT("5.7.1"),
					     span_of(text, sizeof(text) - 1)), ERR_SYNTAX);
	sbuf_done(&out);
}
END_TEST

static const TTest *const *const tests[] = {
	&values_are_those_of_the_protocol, &packets_come_off_one_by_one, &what_is_missing, &length_cap, &clients,
	&replies, &delimiters_are_refused, &reply_text_cap, NULL,
};

TEST_MAIN("milter_wire", tests)
