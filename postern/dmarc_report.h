/* What `dmarc report preview` and `dmarc report send` share. */
#ifndef POSTERN_DMARC_REPORT_H
#define POSTERN_DMARC_REPORT_H

#include "postern/cli.h"
#include "postern/report_build.h"
#include "postern/report_plan.h"

/* Both say what is wrong and return an exit status. */
int dmarc_report_network(struct cli *cli, struct report_network *net_out) MUST_CHECK;
/* --day, or yesterday; TODAY_OUT is the begin of this day. */
int dmarc_report_day(struct cli *cli, int64_t *begin_out, int64_t *today_out) MUST_CHECK;
/* The optional DOMAIN in A-labels; "" where TEXT is NULL. */
int dmarc_report_domain(struct cli *cli, const char *text, char name_out[REPORT_DOMAIN_SIZE]) MUST_CHECK;

/*
 * Calls EACH for every report of the day, or for that about ONLY where it is
 * not "".  EACH returns an exit status; anything but EX_OK ends the walk.
 */
typedef int dmarc_report_each(void *arg, struct report *report);
int dmarc_report_walk(struct cli *cli, const struct report_sender *sender, const struct report_period *period,
		      const char *only, dmarc_report_each *each, void *arg) MUST_CHECK;

/* report_plan_make() for a report. */
int dmarc_report_plan(struct cli *cli, struct report_network *net, const struct report *report,
		      struct report_plan *plan) MUST_CHECK;
/* A row about one destination for people and for --json. */
json_t *dmarc_report_row(const struct report *report, const struct report_destination *d);

int dmarc_report_send(struct cli *cli);

#endif
