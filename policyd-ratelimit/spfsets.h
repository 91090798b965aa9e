/*
 * The networks of exempt senders, each set under the domain whose SPF record
 * named them, and the file in which they outlive a restart:
 *
 *   postern-spf-networks 1
 *   domain NAME RESOLVED TTL SKIPPED      RESOLVED in Unix seconds
 *   NETWORK                               one a line
 *   ...
 *   end
 *
 * Pure; a set of sets belongs to one thread at a time and travels whole.
 */
#ifndef POLICYD_SPFSETS_H
#define POLICYD_SPFSETS_H

#include "lib/spf/spf_networks.h"
#include "policyd-ratelimit/rules.h"

/* Bytes of a file: each network takes at most 44. */
#define SPFSETS_FILE_MAX ((size_t)RULES_SPF_MAX * (SPF_NETWORKS_MAX + 8) * 48)

struct spfset {
	char *domain;
	struct ip_net *nets; /* sorted */
	size_t count;
	int64_t resolved_s; /* Unix time of the last good answer; 0: none yet */
	uint32_t ttl_s;
	unsigned skipped;    /* terms that name no networks */
	const char *problem; /* static: why the last attempt was none, or NULL */
};

struct spfsets {
	struct spfset items[RULES_SPF_MAX];
	size_t count;
};

/* Empty sets for the domains of RULES, in their order. */
struct spfsets *spfsets_new(const struct rules *rules);
struct spfsets *spfsets_clone(const struct spfsets *sets);
void spfsets_free(struct spfsets **sets);

/* Copies the sets of FROM whose domains are in SETS, too. */
void spfsets_inherit(struct spfsets *sets, const struct spfsets *from);

/* Takes the content of NETWORKS as what SET was at NOW_S; says how many networks came and went. */
void spfset_take(struct spfset *set, struct spf_networks *networks, int64_t now_s, size_t *added_out,
		 size_t *removed_out);

/* All networks as one map; the value is the domain's number + 1. */
void spfsets_map(const struct spfsets *sets, struct netmap *map_out);
size_t spfsets_networks(const struct spfsets *sets);

/* OUT with room for SPFSETS_FILE_MAX. */
void spfsets_encode(const struct spfsets *sets, struct sbuf *out);
/* Reads a file into the sets of its domains that are in SETS; what is not there is
 * left out.  ERR_SYNTAX where it is no such file, whole: SETS is unchanged then. */
int spfsets_decode(struct span text, struct spfsets *sets) MUST_CHECK;

#endif
