/*
 * The daemon's options, and the limits that they make.
 */
#ifndef POLICYD_CONFIG_H
#define POLICYD_CONFIG_H

#include "lib/run/conf.h"
#include "policyd-ratelimit/abuse_rules.h"

struct policyd_config {
#define OPTION CONF_MEMBER
#include "policyd-ratelimit/options.def"
#undef OPTION
};

/* In the order of the words of the option store. */
enum policyd_store { POLICYD_STORE_DISK, POLICYD_STORE_REDIS };

extern const struct conf_spec policyd_conf;

/* Returns owned rules, or NULL with "file:line: message" in ERROR. */
struct rules *policyd_config_rules(const struct policyd_config *config, struct sbuf *error);

/* ERR_SYNTAX with "file:line: message" in ERROR. */
int policyd_config_abuse(const struct policyd_config *config, struct abuse_rules *rules_out,
			 struct sbuf *error) MUST_CHECK;

#endif
