/* What the files of quotad share: configuration, metrics, events. */
#ifndef QUOTAD_QUOTAD_H
#define QUOTAD_QUOTAD_H

#include "lib/run/skel.h"

struct quotad_config {
#define OPTION CONF_MEMBER
#include "dovecot-plugin-quota/quotad/options.def"
#undef OPTION
};

extern const struct conf_spec quotad_conf;

enum {
#define METRIC METRIC_ENUM
#include "dovecot-plugin-quota/quotad/metrics.def"
#undef METRIC
};

#define EVENT EVENT_DECLARE
#include "dovecot-plugin-quota/quotad/events.def"
#undef EVENT

#endif
