#include "postern/daemon.h"

#include "lib/run/conf.h"
#include "lib/run/control.h"

#define ERROR_MAX 512
#define SPEC_MAX 512

int daemon_call(struct cli *cli, const char *name, const char *const *words, json_t **result_out)
{
	char error_mem[ERROR_MAX], spec_mem[SPEC_MAX];
	struct sbuf error, spec;
	size_t count = 0;
	while (count < DAEMON_WORDS_MAX && words[count] != NULL)
		count++;
	sbuf_init(&error, error_mem, sizeof(error_mem));
	sbuf_init(&spec, spec_mem, sizeof(spec_mem));
	sbuf_addf(&spec, "unix:%s/%s.control.sock", conf_get_string(cli->conf, cli->config, "runtime_dir"), name);
	if (!sbuf_ok(&spec))
		return cli_fail(cli, EX_CONFIG, "runtime_dir is too long");
	int rc = control_call(sbuf_cstr(&spec), words, count, conf_get_number(cli->conf, cli->config, "control_timeout"),
			      result_out, &error);
	if (rc < 0)
		return cli_fail(cli, rc == ERR_PERM ? EX_DATAERR : EX_UNAVAILABLE, "%s: %s", name, sbuf_cstr(&error));
	return EX_OK;
}
