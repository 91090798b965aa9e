/*
 * The list is loaded once and only read afterwards, from any thread.
 */
#include "milter-dkim/psl.h"

#include <libpsl.h>

#include "lib/mail/dnsname.h"

static struct span organizational(void *arg, struct span domain)
{
	char name[DNSNAME_MAX + 1];
	if (span_copy_cstr(domain, name, sizeof(name)) < 0)
		return domain;
	const char *registered = psl_registrable_domain(arg, name);
	return registered == NULL ? domain : span_skip(domain, (size_t)(registered - name));
}

int psl_open(struct dmarc_psl *psl_out)
{
	psl_ctx_t *list = psl_latest(NULL);
	if (list == NULL)
		return ERR_NOT_FOUND;
	*psl_out = (struct dmarc_psl){organizational, list};
	return 0;
}

void psl_close(struct dmarc_psl *psl)
{
	psl_free(psl->arg);
	psl->arg = NULL;
}
