/*
 * `dkim sign`: the signer of milter-dkim over a message from standard input.
 * The message goes out byte for byte as it came in, below the new field, whose
 * line ends are those of the message.
 */
#include <time.h>

#include "lib/base/num.h"
#include "milter-dkim/sign.h"
#include "postern/commands.h"
#include "postern/mail_input.h"

#define MESSAGE_MAX (512u << 20)
#define HEADER_ARENA (16u << 20)

struct signing {
	struct cli *cli;
	struct sign_spec spec;
	struct crypto_key *key;
	struct sbuf message;
	struct arena arena;
	struct mail_header header;
	struct mail_splitter splitter;
	struct bodyhash *bodies;
	struct mail_input_name domain, selector;
	struct span envelope; /* the line of a mailbox file in front of the message */
};

/* "header/body", or "header" alone for a simple body (RFC 6376 section 3.5). */
static int read_canon(struct signing *s, const char *text)
{
	struct span body = span_str(text), header;
	bool both = span_cut(&body, '/', &header);
	s->spec.body_canon = CANON_SIMPLE;
	if (canon_parse(header, &s->spec.header_canon) < 0 ||
	    (both && canon_parse(body, &s->spec.body_canon) < 0))
		return cli_fail(s->cli, EX_USAGE, "--canonicalization is relaxed or simple, twice");
	return EX_OK;
}

static int read_options(struct signing *s)
{
	const char *canon = cli_option(s->cli, "canonicalization"), *now = cli_option(s->cli, "now");
	uint64_t seconds = (uint64_t)time(NULL);
	int status = mail_input_name(s->cli, "domain", &s->domain);
	if (status == EX_OK)
		status = mail_input_name(s->cli, "selector", &s->selector);
	if (status == EX_OK)
		status = mail_input_headers(s->cli, &s->spec.names);
	if (status != EX_OK)
		return status;
	s->spec.domain = s->domain.text;
	s->spec.selector = s->selector.text;
	if (now != NULL && num_parse_u64(span_str(now), 999999999999u, &seconds) < 0)
		return cli_fail(s->cli, EX_USAGE, "--now is no Unix time");
	s->spec.now = (int64_t)seconds;
	return read_canon(s, canon == NULL ? "relaxed/relaxed" : canon);
}

/* Reads the message and computes its body hash under INDEX. */
static int read_message(struct signing *s, unsigned *index_out)
{
	struct span body;
	int status = cli_read_input(s->cli, &s->message);
	if (status != EX_OK)
		return status;
	s->envelope = mail_input_envelope(sbuf_span(&s->message));
	int rc = mail_splitter_push(&s->splitter, span_skip(sbuf_span(&s->message), s->envelope.len), &body);
	if (rc == 0)
		rc = mail_splitter_finish(&s->splitter);
	if (rc == ERR_LIMIT)
		return cli_fail(s->cli, EX_DATAERR, "the header of the message is too large");
	if (rc < 0 || s->header.count == 0)
		return cli_fail(s->cli, EX_DATAERR, "the input is no message");
	if (mail_header_find(&s->header, SPAN_LIT("From"), 0) == SPAN_NPOS)
		return cli_fail(s->cli, EX_DATAERR, "the message has no From field");
	rc = bodyhash_want(s->bodies, s->spec.body_canon, BODYHASH_WHOLE, index_out);
	if (rc < 0)
		return cli_fail(s->cli, EX_SOFTWARE, "%s", err_text(rc));
	bodyhash_push(s->bodies, body);
	bodyhash_finish(s->bodies);
	s->spec.eol = s->splitter.crlf ? "\r\n" : "\n";
	return EX_OK;
}

static void write_signed(struct signing *s, struct span value)
{
	struct span message = span_skip(sbuf_span(&s->message), s->envelope.len);
	if (s->envelope.len > 0)
		fwrite(s->envelope.ptr, 1, s->envelope.len, s->cli->out);
	fprintf(s->cli->out, "DKIM-Signature:%.*s%s", SPAN_ARG(value), s->spec.eol);
	fwrite(message.ptr, 1, message.len, s->cli->out);
}

static int sign(struct signing *s)
{
	unsigned index = 0;
	struct sbuf value;
	int status = read_options(s);
	if (status == EX_OK)
		status = mail_input_key(s->cli, &s->key);
	if (status == EX_OK)
		status = read_message(s, &index);
	if (status != EX_OK)
		return status;
	s->spec.key = s->key;
	sbuf_init_heap(&value, SIGN_FIELD_MAX);
	int rc = sign_field(&s->spec, &s->header, bodyhash_digest(s->bodies, index), &value);
	if (rc < 0)
		status = cli_fail(s->cli, rc == ERR_LIMIT ? EX_DATAERR : EX_SOFTWARE, "the message cannot be signed: %s",
				  err_text(rc));
	else
		write_signed(s, sbuf_span(&value));
	sbuf_done(&value);
	return status;
}

static int dkim_sign(struct cli *cli)
{
	struct signing s = {.cli = cli, .bodies = bodyhash_new()};
	sbuf_init_heap(&s.message, MESSAGE_MAX);
	arena_init(&s.arena, HEADER_ARENA);
	mail_header_init(&s.header, &s.arena, &MAIL_LIMITS_DEFAULT);
	mail_splitter_init(&s.splitter, &s.header);
	int status = sign(&s);
	mail_splitter_done(&s.splitter);
	arena_done(&s.arena);
	sbuf_done(&s.message);
	bodyhash_free(&s.bodies);
	crypto_key_unref(&s.key);
	return status;
}

static const struct cli_option options[] = {
	{"domain", "DOMAIN", "the d= of the signature", CLI_REQUIRED},
	{"selector", "NAME", "the s= of the signature", CLI_REQUIRED},
	{"key", "FILE", "the private key", CLI_REQUIRED},
	{"canonicalization", "C/C", "of header and body: relaxed (the default) or simple", 0},
	{"headers", "A:B:C", "the h= of the signature; default: what a reader sees, oversigned", 0},
	{"now", "UNIX", "the t= of the signature; default: the clock", 0},
	{NULL, NULL, NULL, 0},
};

const struct cli_command commands_dkim_sign[] = {
	{"dkim sign", "", "sign the message on standard input", options, 0, 0, 0, dkim_sign},
	{NULL, NULL, NULL, NULL, 0, 0, 0, NULL},
};
