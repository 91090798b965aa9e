/* What became of a message, for the log and the metrics. */
#ifndef MILTER_REPORT_H
#define MILTER_REPORT_H

#include "milter-dkim/daemon.h"

void report_outcome(const struct session_outcome *outcome, struct span queue_id, const struct ip *ip);

#endif
