/*
 * A notice of abuse as people and programs read it: the JSON of a webhook and a
 * mail.  What stands in a notice was chosen by strangers; nothing of it ends a
 * line or a string.  Pure.
 */
#ifndef POLICYD_HERALD_TEXT_H
#define POLICYD_HERALD_TEXT_H

#include "policyd-ratelimit/notice.h"

#define HERALD_TEXT_MAX (8 * NOTICE_RECORD_MAX)
#define HERALD_ID_MAX 64

/* The id of a notice, the same in every attempt: letters, digits, underscores. */
void herald_id_add(uint64_t instance, uint64_t seq, struct sbuf *out);

/* {"type":"abuse.step","timestamp":...,"data":{...}} */
void herald_json_add(const struct notice *notice, const char *host, struct sbuf *out);

struct herald_mail {
	const char *from, *to, *host; /* as configured: addresses, a host name */
	struct span id;
};
/* A message whose lines end in LF. */
void herald_mail_add(const struct notice *notice, const struct herald_mail *mail, struct sbuf *out);

/* Whether TEXT is what From and To take: an address or a local name, one of visible ASCII. */
bool herald_address_is_fine(const char *text);

#endif
