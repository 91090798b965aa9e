/* A message on its way through the verifier, for unit tests. */
#ifndef TESTS_UNIT_DKIM_MESSAGE_H
#define TESTS_UNIT_DKIM_MESSAGE_H

#include <check.h>

#include "milter-dkim/sign.h"
#include "milter-dkim/verify.h"
#include "tests/unit/dns_table.h"

struct dkim_message {
	struct arena arena;
	struct mail_header header;
	struct mail_splitter splitter;
	struct bodyhash *bodies;
	struct verify verify;
	struct span body;
};

static inline void message_open(struct dkim_message *m, struct span text)
{
	arena_init(&m->arena, 8 << 20);
	mail_header_init(&m->header, &m->arena, &MAIL_LIMITS_DEFAULT);
	mail_splitter_init(&m->splitter, &m->header);
	m->bodies = bodyhash_new();
	ck_assert_int_eq(mail_splitter_push(&m->splitter, text, &m->body), 0);
	ck_assert_int_eq(mail_splitter_finish(&m->splitter), 0);
}

static inline void message_close(struct dkim_message *m)
{
	bodyhash_free(&m->bodies);
	mail_splitter_done(&m->splitter);
	arena_done(&m->arena);
}

/* Verifies TEXT; the results stay until message_close(). */
static inline void message_verify(struct dkim_message *m, struct span text, struct dns_table *dns,
				  int64_t now)
{
	struct dns_view view = dns_table_view(dns);
	message_open(m, text);
	ck_assert_int_eq(verify_begin(&m->verify, &m->header, m->bodies, NULL, &m->arena, now), 0);
	bodyhash_push(m->bodies, m->body);
	bodyhash_finish(m->bodies);
	int rc = ERR_AGAIN;
	for (int i = 0; i < 4 && rc == ERR_AGAIN; i++)
		rc = verify_run(&m->verify, &view, NULL);
	ck_assert_int_eq(rc, 0);
}

/* Signs TEXT and adds the signed message to OUT. */
static inline int message_sign(const struct sign_spec *spec, struct span text, struct sbuf *out)
{
	struct dkim_message m;
	struct sbuf value;
	unsigned index;
	message_open(&m, text);
	sbuf_init_heap(&value, SIGN_FIELD_MAX);
	ck_assert_int_eq(bodyhash_want(m.bodies, spec->body_canon, BODYHASH_WHOLE, &index), 0);
	bodyhash_push(m.bodies, m.body);
	bodyhash_finish(m.bodies);
	int rc = sign_field(spec, &m.header, bodyhash_digest(m.bodies, index), &value);
	if (rc == 0) {
		sbuf_adds(out, "DKIM-Signature:");
		sbuf_add(out, sbuf_span(&value));
		sbuf_adds(out, spec->eol);
		sbuf_add(out, text);
	}
	sbuf_done(&value);
	message_close(&m);
	return rc;
}

#endif
