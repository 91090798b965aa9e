/*
 * Where the reports of one policy domain go: its rua or ruf, verified and without
 * what is excluded.
 */
#ifndef POSTERN_REPORT_PLAN_H
#define POSTERN_REPORT_PLAN_H

#include "lib/dns/resolver.h"
#include "lib/run/conf.h"
#include "milter-dkim/report_external.h"

#define REPORT_DESTINATIONS_MAX 20
#define REPORT_DNS_MS 20000 /* for all questions of one report */

/* The DNS of a whole run. */
struct report_network {
	struct resolver *resolver;
	struct dmarc_psl psl; /* opened when a row says that it was used */
};

/* SERVERS may be NULL: those of the system.  ERR_* of resolver_open(). */
int report_network_open(struct report_network *net, const char *servers, struct sbuf *error) MUST_CHECK;
void report_network_close(struct report_network *net);

struct report_destination {
	struct span address;
	struct span published; /* as it stands in the policy record */
	const char *result;    /* own, allowed, replaced, denied, undecided, excluded */
	const char *reason;    /* why not, or NULL */
	bool send;
};

struct report_plan {
	struct arena arena; /* what the destinations live in */
	struct report_destination items[REPORT_DESTINATIONS_MAX];
	size_t count;
	size_t refused;  /* URIs that cannot be used */
	bool more;       /* addresses past a cap */
	bool undecided;  /* DNS failed for one of them */
};

struct report_plan_request {
	struct span domain;    /* policy domain */
	struct span discovery; /* how it was found: "psl" or "treewalk" */
	const struct dmarc_record *record;
	enum report_tag tag;   /* which of its tags is asked */
	const struct conf_list *excludes; /* items of dmarc_report_exclude */
};

/* Asks the DNS.  ERR_LIMIT where the record is too large to be followed. */
int report_plan_make(struct report_network *net, const struct report_plan_request *request,
		     struct report_plan *plan) MUST_CHECK;
void report_plan_done(struct report_plan *plan);
/* How many of them get the report. */
size_t report_plan_senders(const struct report_plan *plan);

#endif
