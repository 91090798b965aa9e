/* Tests of lmtp-indexer/delivery and payload: records, the fold over them, events. */
#include <check.h>

#include "lmtp-indexer/delivery.h"
#include "lmtp-indexer/payload.h"
#include "tests/unit/runner.h"

static struct delivery *sample(uint64_t n)
{
	struct lmtp_session_rcpt rcpts[] = {{.path = SPAN_LIT("a@y")}, {.path = SPAN_LIT("no@y")},
					    {.path = SPAN_LIT("Bob+x@Y")}};
	uint16_t order[] = {0, 2};
	uint8_t random[10] = {0};
	struct lmtp_session_envelope e = {.id = ulid_make((int64_t)n, random), .sender = SPAN_LIT("s@x"),
					  .rcpts = rcpts, .rcpt_count = 3, .order = order, .accepted = 2,
					  .size_bytes = 7};
	return delivery_new(&e, 1000);
}

START_TEST(prepared_comes_back)
{
	struct sbuf b;
	struct delivery *d = sample(1), *back;
	sbuf_init_heap(&b, 4096);
	delivery_add_prepared(&b, d, SPAN_LIT("content"));
	ck_assert_int_eq(delivery_record_kind(sbuf_span(&b)), RECORD_PREPARED);
	ck_assert_int_eq(delivery_read_prepared(sbuf_span(&b), &back), 0);
	ck_assert_str_eq(back->id.text, d->id.text);
	ck_assert(span_eq(back->sender, SPAN_LIT("s@x")) && back->rcpt_count == 2);
	ck_assert(span_eq(back->rcpts[1].path, SPAN_LIT("Bob+x@Y")));
	ck_assert(span_eq(back->content, SPAN_LIT("content")));
	ck_assert(back->received_ms == 1000 && back->size_bytes == 7 && !back->in_file);
	delivery_free(&back);
	for (size_t cut = 0; cut < b.len; cut++)
		ck_assert_int_eq(delivery_read_prepared(span_take(sbuf_span(&b), cut), &back), ERR_SYNTAX);
	sbuf_addc(&b, 'x');
	ck_assert_int_eq(delivery_read_prepared(sbuf_span(&b), &back), ERR_SYNTAX);
	delivery_free(&d);
	sbuf_done(&b);
}
END_TEST

START_TEST(result_and_done_come_back)
{
	char mem[64];
	struct sbuf b;
	struct delivery_result r = {77, 3, OUTCOME_REPLIED, 452, 123456789}, back;
	uint64_t seq;
	sbuf_init(&b, mem, sizeof(mem));
	delivery_add_result(&b, &r);
	ck_assert_int_eq(delivery_read_result(sbuf_span(&b), &back), 0);
	ck_assert(back.prepared_seq == 77 && back.index == 3 && back.outcome == OUTCOME_REPLIED);
	ck_assert(back.code == 452 && back.settled_ms == 123456789);
	for (size_t cut = 0; cut < b.len; cut++)
		ck_assert_int_eq(delivery_read_result(span_take(sbuf_span(&b), cut), &back), ERR_SYNTAX);
	sbuf_reset(&b);
	delivery_add_done(&b, 78);
	ck_assert_int_eq(delivery_read_done(sbuf_span(&b), &seq), 0);
	ck_assert_uint_eq(seq, 78);
	ck_assert_int_eq(delivery_read_result(sbuf_span(&b), &back), ERR_SYNTAX);
}
END_TEST

static void replay(struct delivery_table *t, uint64_t seq, const struct sbuf *b)
{
	ck_assert_int_eq(delivery_table_replay(t, seq, sbuf_span(b)), 0);
}

START_TEST(fold_cap)
{
	struct delivery_table t;
	struct sbuf b;
	sbuf_init_heap(&b, 4096);
	delivery_table_init(&t, 3);
	for (uint64_t n = 1; n <= 4; n++) {
		struct delivery *d = sample(n);
		sbuf_reset(&b);
		delivery_add_prepared(&b, d, SPAN_EMPTY);
		ck_assert_int_eq(delivery_table_replay(&t, n, sbuf_span(&b)), n <= 3 ? 0 : ERR_LIMIT);
		delivery_free(&d);
	}
	ck_assert_uint_eq(t.last->seq, 3);
	sbuf_done(&b);
	delivery_table_done(&t);
}
END_TEST

START_TEST(fold_keeps_what_is_open)
{
	struct delivery_table t;
	struct sbuf b;
	sbuf_init_heap(&b, 4096);
	delivery_table_init(&t, DELIVERY_TABLE_MAX);
	for (uint64_t n = 1; n <= 3; n++) {
		struct delivery *d = sample(n);
		sbuf_reset(&b);
		delivery_add_prepared(&b, d, SPAN_EMPTY);
		replay(&t, n * 10, &b);
		delivery_free(&d);
	}
	struct delivery_result r = {.prepared_seq = 20, .index = 1, .outcome = OUTCOME_REPLIED, .code = 250};
	sbuf_reset(&b);
	delivery_add_result(&b, &r);
	replay(&t, 40, &b);
	r.index = 9; /* no such recipient */
	sbuf_reset(&b);
	delivery_add_result(&b, &r);
	replay(&t, 41, &b);
	for (uint64_t seq = 10; seq <= 30; seq += 20) {
		sbuf_reset(&b);
		delivery_add_done(&b, seq);
		replay(&t, 42 + seq, &b);
		replay(&t, 43 + seq, &b); /* twice does no harm */
	}
	ck_assert(t.first != NULL && t.first == t.last && t.first->seq == 20 && t.first->again);
	ck_assert_int_eq((int)t.first->rcpts[0].outcome, (int)OUTCOME_NONE);
	ck_assert_int_eq((int)t.first->rcpts[1].outcome, (int)OUTCOME_REPLIED);
	ck_assert(delivery_wanted(t.first) && delivery_has_unknown(t.first));
	t.first->rcpts[0].outcome = OUTCOME_NOT_SENT;
	ck_assert(delivery_wanted(t.first) && !delivery_has_unknown(t.first));
	t.first->rcpts[1].code = 552;
	ck_assert(!delivery_wanted(t.first));
	ck_assert_int_eq(delivery_table_replay(&t, 99, SPAN_LIT("\x09\x01")), ERR_SYNTAX);
	delivery_table_done(&t);
	sbuf_done(&b);
}
END_TEST

START_TEST(accounts)
{
	static const char *const rows[][3] = {
		{"Bob+x@Y.Example", "+", "bob@y.example"}, {"bob@y", "", "bob@y"}, {"+x@y", "+", "+x@y"},
		{"a-b+c@y", "+-", "a@y"}, {"local", "+", "local"}, {"\"a@b\"+c@y", "+", "\"a@b\"@y"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char mem[64];
		struct sbuf b;
		sbuf_init(&b, mem, sizeof(mem));
		delivery_account(&b, span_str(rows[i][0]), rows[i][1]);
		ck_assert_str_eq(sbuf_cstr(&b), rows[i][2]);
	}
}
END_TEST

START_TEST(event_is_json)
{
	struct delivery *d = sample(5);
	struct extract_address from = {KIND_FROM, SPAN_LIT("j@x"), SPAN_LIT("J \"q\" \\")};
	struct extract_attachment file = {.name = SPAN_LIT("a.pdf"), .media_type = SPAN_LIT("application/pdf"), .size_bytes = 3};
	struct extract x = {.subject = SPAN_LIT("tab\there"), .addresses = &from, .address_count = 1,
			    .attachments = &file, .attachment_count = 1, .message_id = SPAN_LIT("id@x")};
	struct payload_facts facts = {.d = d, .rcpt = 1, .x = &x, .user = SPAN_LIT("bob@y"), .message = 4, .thread = 6, .sequence = 8};
	struct sbuf b;
	sbuf_init_heap(&b, PAYLOAD_MAX);
	d->rcpts[1].settled_ms = 1795392123045;
	payload_event(&b, &facts);
	ck_assert_str_eq(sbuf_cstr(&b),
			 "{\"type\":\"message.received\",\"timestamp\":\"2026-11-23T00:02:03.045Z\",\"data\":{\"sequence\":8,"
			 "\"message\":4,\"thread\":\"6\",\"size\":7,\"user\":\"bob@y\",\"delivery\":\"00000000050000000000000000\","
			 "\"recipient\":\"Bob+x@Y\",\"message_id\":\"id@x\",\"subject\":\"tab\\u0009here\",\"snippet\":\"\","
			 "\"from\":[{\"address\":\"j@x\",\"name\":\"J \\\"q\\\" \\\\\"}],\"to\":[],\"cc\":[],"
			 "\"attachment_count\":1,\"attachments\":[{\"name\":\"a.pdf\",\"type\":\"application/pdf\",\"size\":3}]}}");
	delivery_free(&d);
	sbuf_done(&b);
}
END_TEST

/* A text of CHARS letters of four bytes. */
static struct span widest(size_t chars)
{
	static char text[EXTRACT_SUBJECT_CHARS * 4];
	ck_assert_uint_le(chars, EXTRACT_SUBJECT_CHARS);
	for (size_t i = 0; i < EXTRACT_SUBJECT_CHARS; i++)
		memcpy(text + 4 * i, "\xf0\x9f\x98\x80", 4);
	return span_of(text, chars * 4);
}

static size_t count_of(struct span text, const char *what)
{
	size_t n = 0;
	for (size_t at = span_find(text, span_str(what)); at != SPAN_NPOS; at = span_find(text, span_str(what))) {
		text = span_skip(text, at + 1);
		n++;
	}
	return n;
}

START_TEST(largest_event)
{
	static const enum extract_kind kinds[] = {KIND_FROM, KIND_TO, KIND_CC};
	struct delivery *d = sample(5);
	for (size_t more = 0; more < 2; more++) {
		struct extract_address addresses[EXTRACT_ADDRESSES_MAX];
		struct extract_attachment files[EXTRACT_ATTACHMENTS_MAX];
		struct sbuf b;
		struct extract x = {.subject = widest(EXTRACT_SUBJECT_CHARS), .addresses = addresses, .attachments = files,
				    .message_id = widest(EXTRACT_ID_CHARS), .snippet = widest(EXTRACT_SNIPPET_CHARS)};
		for (size_t i = 0; i < 3 * (PAYLOAD_ADDRESSES_MAX + more); i++)
			addresses[x.address_count++] = (struct extract_address){
				kinds[i % 3], widest(EXTRACT_ADDRESS_CHARS), widest(EXTRACT_ADDRESS_CHARS)};
		for (size_t i = 0; i < (more ? EXTRACT_ATTACHMENTS_MAX : PAYLOAD_ATTACHMENTS_MAX); i++)
			files[x.attachment_count++] = (struct extract_attachment){
				.name = widest(EXTRACT_NAME_CHARS), .media_type = widest(EXTRACT_TYPE_CHARS), .size_bytes = INT64_MAX};
		struct payload_place place = {.mailbox = widest(255), .mailbox_guid = widest(32), .flags = widest(255)};
		struct payload_facts facts = {.d = d, .rcpt = 1, .x = &x, .user = widest(255), .place = &place};
		sbuf_init_heap(&b, PAYLOAD_MAX);
		payload_event(&b, &facts);
		ck_assert(sbuf_ok(&b));
		ck_assert_uint_eq(count_of(sbuf_span(&b), "{\"address\":"), 3 * PAYLOAD_ADDRESSES_MAX);
		ck_assert_uint_eq(count_of(sbuf_span(&b), "{\"name\":"), PAYLOAD_ATTACHMENTS_MAX);
		sbuf_done(&b);
	}
	delivery_free(&d);
}
END_TEST

static const TTest *const *const tests[] = {
	&prepared_comes_back, &result_and_done_come_back, &fold_cap, &fold_keeps_what_is_open, &accounts,
	&event_is_json, &largest_event, NULL,
};

TEST_MAIN("indexer-delivery", tests)
