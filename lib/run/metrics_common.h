/*
 * Ids of the metrics that every daemon has, for the code of lib/run.  They come
 * first in each daemon's own table, so the numbers agree; daemons get them with
 * their own rows and do not include this.
 */
#ifndef RUN_METRICS_COMMON_H
#define RUN_METRICS_COMMON_H

#include "lib/run/metrics.h"

enum {
#define METRIC METRIC_ENUM
#include "lib/run/metrics-common.def"
#undef METRIC
};

#endif
