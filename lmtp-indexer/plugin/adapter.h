/* All that differs between Dovecot 2.3 and 2.4 for this plug-in. */
#ifndef INDEXER_PLUGIN_ADAPTER_H
#define INDEXER_PLUGIN_ADAPTER_H

#include "lib.h"
#include "mail-storage-private.h"
#include "mail-namespace.h"
#include "mail-user.h"
#include "notify-plugin.h"

#if DOVECOT_VERSION_MAJOR > 2 || (DOVECOT_VERSION_MAJOR == 2 && DOVECOT_VERSION_MINOR >= 4)

static inline void adapter_unregister(struct notify_context **context)
{
	notify_unregister(context);
}

/* 2.4 has no free-form settings of plug-ins: the environment of the mail
 * processes (import_environment) takes their place. */
static inline const char *adapter_setting(struct mail_user *user ATTR_UNUSED, const char *setting ATTR_UNUSED,
					  const char *variable)
{
	return getenv(variable);
}

#else

static inline void adapter_unregister(struct notify_context **context)
{
	notify_unregister(*context);
	*context = NULL;
}

static inline const char *adapter_setting(struct mail_user *user, const char *setting,
					  const char *variable ATTR_UNUSED)
{
	return mail_user_plugin_getenv(user, setting);
}

#endif

#endif
