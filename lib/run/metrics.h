/*
 * Counters, gauges and histograms, declared in a daemon's metrics.def:
 *
 *   METRIC(id, TYPE, family, labels, unit, help)
 *
 *   id      identifier; becomes METRIC_id
 *   TYPE    COUNTER GAUGE HISTOGRAM
 *   family  OpenMetrics name without unit and _total suffix; rows that differ
 *           in labels only share it and stand together
 *   labels  "" or e.g. "result=\"pass\""
 *   unit    "" or seconds, bytes, ...
 *   help    one sentence
 *
 * Each metrics.def begins with #include "lib/run/metrics-common.def".
 * Updates are atomic and may come from any thread.
 */
#ifndef RUN_METRICS_H
#define RUN_METRICS_H

#include "lib/base/sbuf.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_row {
	enum metric_type type;
	const char *family, *labels, *unit, *help;
};

#define METRIC_ENUM(id, type, family, labels, unit, help) METRIC_##id,
#define METRIC_ROW(id, type, family, labels, unit, help) \
	{METRIC_##type, family, labels, unit, help},

/* ROWS must stay valid; COUNT is at most METRICS_MAX.  Before this, updates do
 * nothing. */
#define METRICS_MAX 256
void metrics_init(const struct metric_row *rows, size_t count);

void metrics_add(unsigned id, uint64_t n);
static inline void metrics_inc(unsigned id)
{
	metrics_add(id, 1);
}
/* For a GAUGE that counts things which come and go. */
void metrics_dec(unsigned id);
/* Also for a COUNTER that is kept elsewhere and only copied by a collector. */
void metrics_set(unsigned id, int64_t value);
/* Buckets from 50 us to 60 s. */
void metrics_observe(unsigned id, double seconds);
/* The value of a counter or gauge (for tests and status). */
int64_t metrics_get(unsigned id);

/* FN is called before each scrape, to set gauges that are cheap to pull. */
#define METRICS_COLLECTORS_MAX 16
void metrics_on_collect(void (*fn)(void *), void *arg);

/* Calls FN with the full sample name (labels included) of each counter, gauge
 * and histogram's count, after the collectors ran. */
void metrics_each(void (*fn)(void *arg, const char *name, int64_t value), void *arg);

/* The OpenMetrics 1.0 exposition, with "# EOF". */
void metrics_print(struct sbuf *out);

#endif
