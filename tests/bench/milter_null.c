/*
 * The empty milter: what any milter costs Postfix.  It looks at nothing and
 * inserts one field.  With -n it negotiates that Postfix waits for no answer
 * before the end of the message, as milter-dkim does.
 *
 * usage: milter_null [-n] SOCKET
 */
#include <libmilter/mfapi.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/err.h"

static bool no_replies;

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *addr)
{
	(void)ctx;
	(void)host;
	(void)addr;
	return no_replies ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat on_text(SMFICTX *ctx, char *text)
{
	(void)ctx;
	(void)text;
	return no_replies ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat on_words(SMFICTX *ctx, char **words)
{
	(void)ctx;
	(void)words;
	return no_replies ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
	(void)ctx;
	(void)name;
	(void)value;
	return no_replies ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat on_step(SMFICTX *ctx)
{
	(void)ctx;
	return no_replies ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *bytes, size_t len)
{
	(void)ctx;
	(void)bytes;
	(void)len;
	return no_replies ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat on_end_of_message(SMFICTX *ctx)
{
	char name[] = "X-Null", value[] = "1";
	return smfi_insheader(ctx, 0, name, value) == MI_SUCCESS ? SMFIS_CONTINUE : SMFIS_TEMPFAIL;
}

static sfsistat on_end(SMFICTX *ctx)
{
	(void)ctx;
	return SMFIS_CONTINUE;
}

static sfsistat on_negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps, unsigned long f2,
			     unsigned long f3, unsigned long *actions_out, unsigned long *steps_out,
			     unsigned long *f2_out, unsigned long *f3_out)
{
	const unsigned long quiet = SMFIP_NR_CONN | SMFIP_NR_HELO | SMFIP_NR_MAIL | SMFIP_NR_RCPT |
				    SMFIP_NR_DATA | SMFIP_NR_HDR | SMFIP_NR_EOH | SMFIP_NR_BODY |
				    SMFIP_NOUNKNOWN;
	(void)ctx;
	(void)actions;
	(void)f2;
	(void)f3;
	*actions_out = SMFIF_ADDHDRS;
	*steps_out = no_replies ? steps & quiet : 0;
	*f2_out = *f3_out = 0;
	return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
	char name[] = "null";
	struct smfiDesc milter = {
		.xxfi_name = name,
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_ADDHDRS,
		.xxfi_connect = on_connect,
		.xxfi_helo = on_text,
		.xxfi_envfrom = on_words,
		.xxfi_envrcpt = on_words,
		.xxfi_header = on_header,
		.xxfi_eoh = on_step,
		.xxfi_body = on_body,
		.xxfi_eom = on_end_of_message,
		.xxfi_abort = on_end,
		.xxfi_close = on_end,
		.xxfi_data = on_step,
		.xxfi_negotiate = on_negotiate,
	};
	no_replies = argc == 3 && strcmp(argv[1], "-n") == 0;
	if (argc != (no_replies ? 3 : 2)) {
		fprintf(stderr, "usage: milter_null [-n] SOCKET\n");
		return 64;
	}
	umask(0);
	if (smfi_setconn(argv[argc - 1]) != MI_SUCCESS || smfi_register(milter) != MI_SUCCESS)
		return 1;
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
