/* Asking quotad. */
#include "lib/run/conf.h"
#include "lib/run/control.h"
#include "postern/quota.h"

#define SPEC_MAX 512

int quota_call(struct cli *cli, const char *const *words, size_t count, json_t **result_out,
	       char error_out[QUOTA_ERROR_MAX])
{
	char spec_mem[SPEC_MAX];
	struct sbuf error, spec;
	sbuf_init(&error, error_out, QUOTA_ERROR_MAX);
	sbuf_init(&spec, spec_mem, sizeof(spec_mem));
	sbuf_addf(&spec, "unix:%s/quotad.control.sock", conf_get_string(cli->conf, cli->config, "runtime_dir"));
	if (!sbuf_ok(&spec)) {
		sbuf_adds(&error, "runtime_dir is too long");
		return ERR_LIMIT;
	}
	const int rc = control_call(sbuf_cstr(&spec), words, count,
				    conf_get_number(cli->conf, cli->config, "control_timeout"), result_out, &error);
	(void)sbuf_cstr(&error);
	return rc;
}
