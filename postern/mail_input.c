/*
 * A private key is wiped from memory as soon as it is parsed.
 */
#include "postern/mail_input.h"

#include "lib/mail/idn.h"
#include "milter-dkim/sig.h"
#include "milter-dkim/sigwrite.h"

int mail_input_name(struct cli *cli, const char *option, struct mail_input_name *name_out)
{
	const char *given = cli_option(cli, option);
	struct span name = span_str(given);
	struct sbuf ascii;
	sbuf_init(&ascii, name_out->mem, sizeof(name_out->mem));
	int rc = 0;
	if (idn_is_ascii(name))
		sbuf_add(&ascii, name);
	else
		rc = idn_to_ascii(name, &ascii);
	name_out->text = sbuf_span(&ascii);
	if (rc < 0 || !sbuf_ok(&ascii) || !dnsname_valid(name_out->text) || !sigwrite_value_valid(name_out->text))
		return cli_fail(cli, EX_USAGE, "--%s: \"%s\" is no name", option, given);
	return EX_OK;
}

int mail_input_headers(struct cli *cli, struct span *names_out)
{
	*names_out = span_str(cli_option(cli, "headers"));
	if (cli_has(cli, "headers") && !sigwrite_names_valid(*names_out))
		return cli_fail(cli, EX_USAGE, "--headers: expected at most %d names of fields separated by "
				"colons, From among them", SIG_NAMES_MAX);
	return EX_OK;
}

int mail_input_key(struct cli *cli, struct crypto_key **key_out)
{
	const char *path = cli_option(cli, "key");
	struct sbuf text;
	sbuf_init_heap(&text, CRYPTO_KEY_TEXT_MAX);
	int status = cli_read_file(cli, path, &text);
	int rc = status == EX_OK ? crypto_private_new(sbuf_span(&text), key_out) : 0;
	if (rc < 0)
		status = cli_fail(cli, EX_NOINPUT, "%s holds no key to sign with: %s", path, crypto_private_problem(rc));
	if (text.ptr != NULL)
		explicit_bzero(text.ptr, text.size);
	sbuf_done(&text);
	return status;
}

struct span mail_input_envelope(struct span text)
{
	size_t lf = span_chr(text, '\n');
	if (!span_starts(text, SPAN_LIT("From ")) || lf == SPAN_NPOS)
		return SPAN_EMPTY;
	/* White space in front of the colon is obsolete, but that is a field. */
	if (span_starts(span_trim(span_skip(text, strlen("From"))), SPAN_LIT(":")))
		return SPAN_EMPTY;
	return span_take(text, lf + 1);
}
