/*
 * What the files of the daemon share: its configuration, events and metrics, and
 * the settings of a message made from the configuration.
 */
#ifndef MILTER_DAEMON_H
#define MILTER_DAEMON_H

#include "lib/dns/resolver.h"
#include "lib/run/conf.h"
#include "lib/run/log.h"
#include "lib/run/metrics.h"
#include "milter-dkim/session.h"

struct milter_config { /* NOLINT(clang-analyzer-optin.performance.Padding) in the order of the man page */
#define OPTION CONF_MEMBER
#include "milter-dkim/options.def"
#undef OPTION
};

extern const struct conf_spec milter_conf;

enum {
#define METRIC METRIC_ENUM
#include "milter-dkim/metrics.def"
#undef METRIC
};

#define EVENT EVENT_DECLARE
#include "milter-dkim/events.def"
#undef EVENT

/*
 * What a message needs of the configuration, with the resolver that it asks.
 * Never changed after making, reference-counted: a reload makes new settings,
 * and messages in hand keep theirs.
 */
struct settings;

/* OLD may be NULL; its resolver is used again where nothing changed for it.
 * ERROR says what is wrong. */
int settings_new(const struct milter_config *config, const struct settings *old,
		 struct settings **settings_out, struct sbuf *error) MUST_CHECK;
struct settings *settings_ref(struct settings *settings);
void settings_unref(struct settings **settings);
const struct session_settings *settings_session(const struct settings *settings);
/* A new question set under dns_timeout. */
struct resolver_set *settings_questions(const struct settings *settings);
struct resolver *settings_resolver(const struct settings *settings);

/* Adds the content of PATH to OUT. */
int read_file(void *unused, const char *path, struct sbuf *out);

#endif
