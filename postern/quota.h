/* How the files of `postern quota` talk to quotad. */
#ifndef POSTERN_QUOTA_H
#define POSTERN_QUOTA_H

#include "postern/cli.h"

#define QUOTA_ERROR_MAX 512

/* Calls quotad's control socket; 0 and an owned *RESULT_OUT, or an error whose
 * text is in ERROR_OUT. */
int quota_call(struct cli *cli, const char *const *words, size_t count, json_t **result_out,
	       char error_out[QUOTA_ERROR_MAX]) MUST_CHECK;

#endif
