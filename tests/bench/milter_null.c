/*
 * The empty milter, over libmilter: what milters cost Postfix.  It looks at nothing and
 * inserts one field.  With -n it negotiates that Postfix waits for no answer
 * before the end of the message; with -m it negotiates just what milter-dkim does;
 * with -s it does that, too, and makes one bare signature with KEY for each message:
 * the least that any milter that signs can cost.
 *
 * usage: milter_null [-n | -m | -s KEY.pem] SOCKET
 */
#include <fcntl.h>
#include <libmilter/mfapi.h>
#include <sys/stat.h>
#include <unistd.h>

#include "milter-dkim/crypto.h"

#define NO_REPLIES                                                                               \
	(SMFIP_NR_CONN | SMFIP_NR_HELO | SMFIP_NR_MAIL | SMFIP_NR_RCPT | SMFIP_NR_DATA |         \
	 SMFIP_NR_HDR | SMFIP_NR_EOH | SMFIP_NR_BODY | SMFIP_NOUNKNOWN)
/* See on_negotiate() and macro_lists in milter-dkim/milter.c. */
#define AS_MILTER_DKIM                                                                           \
	(SMFIP_NR_CONN | SMFIP_NR_HELO | SMFIP_NR_HDR | SMFIP_NR_BODY | SMFIP_NOEOH |            \
	 SMFIP_NORCPT | SMFIP_NODATA | SMFIP_NOUNKNOWN | SMFIP_HDR_LEADSPC)

static char connect_macros[] = "j {daemon_name}", mail_macros[] = "{auth_authen}", end_macros[] = "i";

static unsigned long steps_wanted;
static struct crypto_key *signer; /* NULL: nothing is signed */

/* The same for all connections, as they all come from Postfix. */
static sfsistat answer(unsigned long flag)
{
	return (steps_wanted & flag) != 0 ? SMFIS_NOREPLY : SMFIS_CONTINUE;
}

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *addr)
{
	(void)ctx;
	(void)host;
	(void)addr;
	return answer(SMFIP_NR_CONN);
}

static sfsistat on_helo(SMFICTX *ctx, char *text)
{
	(void)ctx;
	(void)text;
	return answer(SMFIP_NR_HELO);
}

static sfsistat on_mail(SMFICTX *ctx, char **words)
{
	(void)ctx;
	(void)words;
	return answer(SMFIP_NR_MAIL);
}

static sfsistat on_recipient(SMFICTX *ctx, char **words)
{
	(void)ctx;
	(void)words;
	return answer(SMFIP_NR_RCPT);
}

static sfsistat on_data(SMFICTX *ctx)
{
	(void)ctx;
	return answer(SMFIP_NR_DATA);
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
	(void)ctx;
	(void)name;
	(void)value;
	return answer(SMFIP_NR_HDR);
}

static sfsistat on_header_end(SMFICTX *ctx)
{
	(void)ctx;
	return answer(SMFIP_NR_EOH);
}

static sfsistat on_body(SMFICTX *ctx, unsigned char *bytes, size_t len)
{
	(void)ctx;
	(void)bytes;
	(void)len;
	return answer(SMFIP_NR_BODY);
}

static sfsistat on_end_of_message(SMFICTX *ctx)
{
	static const uint8_t digest[CRYPTO_SHA256_BYTES];
	char name[] = "X-Null", value[] = "1", mem[CRYPTO_SIGNATURE_MAX + 1];
	struct sbuf signature;
	sbuf_init(&signature, mem, sizeof(mem));
	if (signer != NULL && crypto_sign(signer, digest, &signature) < 0)
		return SMFIS_TEMPFAIL;
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
	(void)actions;
	(void)f2;
	(void)f3;
	if ((steps & steps_wanted) != steps_wanted)
		PANIC("this is not Postfix");
	*actions_out = SMFIF_ADDHDRS;
	if (steps_wanted == AS_MILTER_DKIM) {
		*actions_out |= SMFIF_SETSYMLIST;
		if (smfi_setsymlist(ctx, SMFIM_CONNECT, connect_macros) != MI_SUCCESS ||
		    smfi_setsymlist(ctx, SMFIM_ENVFROM, mail_macros) != MI_SUCCESS ||
		    smfi_setsymlist(ctx, SMFIM_EOM, end_macros) != MI_SUCCESS)
			return SMFIS_REJECT;
	}
	*steps_out = steps_wanted;
	*f2_out = *f3_out = 0;
	return SMFIS_CONTINUE;
}

static int read_key(const char *path)
{
	char text[CRYPTO_KEY_TEXT_MAX];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (fd >= 0)
		close(fd);
	return n < 0 ? ERR_NOT_FOUND : crypto_private_new(span_of(text, (size_t)n), &signer);
}

/* What stands before the socket. */
static int read_options(int count, char **words)
{
	if (count == 1 && strcmp(words[0], "-n") == 0)
		steps_wanted = NO_REPLIES;
	else if (count >= 1)
		steps_wanted = AS_MILTER_DKIM;
	if (count == 2 && strcmp(words[0], "-s") == 0)
		return read_key(words[1]);
	return count == 0 || (count == 1 && (words[0][1] == 'n' || words[0][1] == 'm')) ? 0 : ERR_SYNTAX;
}

int main(int argc, char **argv)
{
	char name[] = "null";
	struct smfiDesc milter = {
		.xxfi_name = name,
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_ADDHDRS,
		.xxfi_connect = on_connect,
		.xxfi_helo = on_helo,
		.xxfi_envfrom = on_mail,
		.xxfi_envrcpt = on_recipient,
		.xxfi_header = on_header,
		.xxfi_eoh = on_header_end,
		.xxfi_body = on_body,
		.xxfi_eom = on_end_of_message,
		.xxfi_abort = on_end,
		.xxfi_close = on_end,
		.xxfi_data = on_data,
		.xxfi_negotiate = on_negotiate,
	};
	if (argc < 2 || read_options(argc - 2, argv + 1) < 0) {
		fprintf(stderr, "usage: milter_null [-n | -m | -s KEY.pem] SOCKET\n");
		return 64;
	}
	umask(0);
	if (smfi_setconn(argv[argc - 1]) != MI_SUCCESS || smfi_register(milter) != MI_SUCCESS)
		return 1;
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
