/* The configuration of the `postern` command, from options.def. */
#ifndef POSTERN_CONFIG_H
#define POSTERN_CONFIG_H

#include "lib/run/conf.h"

struct postern_config {
#define OPTION CONF_MEMBER
#include "postern/options.def"
#undef OPTION
};

#define POSTERN_CONFIG_PATH "/etc/postern/postern.conf"

extern const struct conf_spec postern_conf;

#endif
