/*
 * Passwords never come from the command line, where every user of the machine
 * could read them, and every copy of ours is wiped.
 */
#include "postern/password.h"

#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include "lib/run/conf.h"

#define BCRYPT_MAX 72
#define PASSWORD_MAX 1024

/* The first line of FD, without its end; ERR_CLOSED where there is none. */
static int read_line(int fd, struct sbuf *line)
{
	char c;
	size_t count = 0;
	for (;;) {
		ssize_t n = read(fd, &c, 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 && count == 0)
			return ERR_CLOSED;
		if (n <= 0 || c == '\n')
			break;
		count++;
		sbuf_addc(line, c);
	}
	if (line->len > 0 && line->ptr[line->len - 1] == '\r')
		sbuf_truncate(line, line->len - 1);
	return sbuf_ok(line) ? 0 : ERR_LIMIT;
}

static int prompt(struct cli *cli, const char *text, struct sbuf *line)
{
	struct termios shown, hidden;
	if (tcgetattr(cli->input_fd, &shown) != 0)
		return ERR_PERM;
	hidden = shown;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	/* First the echo: what is typed at once must neither show nor be flushed. */
	tcsetattr(cli->input_fd, TCSAFLUSH, &hidden);
	fputs(text, cli->err);
	fflush(cli->err);
	int rc = read_line(cli->input_fd, line);
	tcsetattr(cli->input_fd, TCSAFLUSH, &shown);
	fputc('\n', cli->err);
	return rc;
}

static int ask_twice(struct cli *cli, struct sbuf *password)
{
	char mem[PASSWORD_MAX];
	struct sbuf again;
	sbuf_init(&again, mem, sizeof(mem));
	int status = EX_OK;
	if (prompt(cli, "Password: ", password) < 0 || prompt(cli, "Once more: ", &again) < 0)
		status = cli_fail(cli, EX_NOINPUT, "no password was given");
	else if (!span_eq(sbuf_span(password), sbuf_span(&again)))
		status = cli_fail(cli, EX_DATAERR, "the two are not the same");
	explicit_bzero(mem, sizeof(mem));
	return status;
}

static int ask(struct cli *cli, struct sbuf *password)
{
	const char *path = cli_option(cli, "password-file");
	bool from_file = path != NULL && strcmp(path, "-") != 0;
	if (path == NULL && isatty(cli->input_fd))
		return ask_twice(cli, password);
	int fd = from_file ? open(path, O_RDONLY | O_CLOEXEC) : cli->input_fd;
	if (fd < 0)
		return cli_fail(cli, EX_NOINPUT, "cannot read %s: %s", path, strerror(errno));
	int rc = read_line(fd, password);
	if (from_file)
		close(fd);
	if (rc == ERR_CLOSED)
		return cli_fail(cli, EX_NOINPUT, "no password was given");
	return rc < 0 ? cli_fail(cli, EX_DATAERR, "the password is too long") : EX_OK;
}

/* A salt of the scheme asked for; *LABEL_OUT is Dovecot's name for it. */
static int make_salt(struct cli *cli, char salt[CRYPT_GENSALT_OUTPUT_SIZE], const char **label_out,
		     bool *bcrypt_out)
{
	const char *scheme = cli_option(cli, "scheme");
	bool bcrypt = scheme == NULL || strcmp(scheme, "bcrypt") == 0;
	if (!bcrypt && strcmp(scheme, "sha512-crypt") != 0)
		return cli_fail(cli, EX_USAGE, "--scheme is bcrypt or sha512-crypt");
	unsigned long cost = bcrypt ? (unsigned long)conf_get_number(cli->conf, cli->config,
								     "bcrypt_cost")
				    : 0;
	if (crypt_gensalt_rn(bcrypt ? "$2y$" : "$6$", cost, NULL, 0, salt,
			     CRYPT_GENSALT_OUTPUT_SIZE) == NULL)
		return cli_fail(cli, EX_SOFTWARE, "crypt(3) makes no salt: %s", strerror(errno));
	*label_out = bcrypt ? "{BLF-CRYPT}" : "{SHA512-CRYPT}";
	*bcrypt_out = bcrypt;
	return EX_OK;
}

int password_hash(struct cli *cli, struct span password, char hash_out[PASSWORD_HASH_SIZE])
{
	char salt[CRYPT_GENSALT_OUTPUT_SIZE], text[PASSWORD_MAX];
	const char *label = "";
	bool bcrypt = false;
	int status = make_salt(cli, salt, &label, &bcrypt);
	if (status != EX_OK)
		return status;
	if (password.len == 0)
		return cli_fail(cli, EX_DATAERR, "the password is empty");
	if (bcrypt && password.len > BCRYPT_MAX)
		return cli_fail(cli, EX_DATAERR, "bcrypt reads no more than %d bytes of a password",
				BCRYPT_MAX);
	if (span_copy_cstr(password, text, sizeof(text)) < 0)
		return cli_fail(cli, EX_DATAERR, "the password is too long or holds a NUL");
	struct crypt_data *data = mem_zalloc(sizeof(*data));
	const char *hash = crypt_rn(text, salt, data, sizeof(*data));
	struct sbuf out;
	char mem[PASSWORD_HASH_SIZE];
	sbuf_init(&out, mem, sizeof(mem));
	if (hash == NULL) {
		status = cli_fail(cli, EX_SOFTWARE, "crypt(3) fails: %s", strerror(errno));
	} else {
		sbuf_adds(&out, label);
		sbuf_adds(&out, hash);
		memcpy(hash_out, mem, sizeof(mem));
	}
	explicit_bzero(text, sizeof(text));
	explicit_bzero(data, sizeof(*data));
	free(data);
	return status;
}

int password_hash_asked(struct cli *cli, char hash_out[PASSWORD_HASH_SIZE])
{
	char mem[PASSWORD_MAX];
	struct sbuf password;
	sbuf_init(&password, mem, sizeof(mem));
	int status = ask(cli, &password);
	if (status == EX_OK)
		status = password_hash(cli, sbuf_span(&password), hash_out);
	explicit_bzero(mem, sizeof(mem));
	return status;
}
