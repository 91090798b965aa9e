/*
 * Whom a request is about: its client, account, sender and recipient in the
 * one form under which they are counted.  Names are in lower case (ASCII
 * only), senders and recipients without their address extension, IPv4-mapped
 * addresses are IPv4.  An empty account is nobody and never counted; the null
 * sender is counted by its client.  Pure.
 */
#ifndef POLICYD_SUBJECT_H
#define POLICYD_SUBJECT_H

#include "policyd-ratelimit/rules.h"

#define SUBJECT_KEY_MAX (PROTO_LINE_MAX + 32) /* bytes of a key, in binary or text */

struct subject {
	struct ip client; /* bits 0: Postfix does not know it */
	struct span account, account_domain;
	struct span sender, sender_domain;
	struct span recipient, recipient_domain;
	char mem[3 * PROTO_LINE_MAX]; /* what the spans point into */
};

/*
 * REQUEST is not needed afterwards; the subject must not be copied.  Only what
 * SCOPES (a bit for each scope) and the allow-list look at is made out.
 */
void subject_init(struct subject *subject, const struct proto_request *request, unsigned scopes,
		  char delimiter);
#define SUBJECT_ALL_SCOPES ((1u << SCOPE_COUNT) - 1)

/*
 * The subject of one key as an administrator writes it: the address, account
 * or domain that SCOPE counts.  ERR_SYNTAX where TEXT is none.
 */
int subject_init_text(struct subject *subject, enum rule_scope scope, struct span text,
		      char delimiter) MUST_CHECK;

/* The address, account or domain that SCOPE counts, empty for clients and global. */
struct span subject_name(const struct subject *subject, enum rule_scope scope);
/* The bytes that RULE counts the subject under, valid as long as SUBJECT and MEM; ERR_NOT_FOUND
 * where it has none (no account, no recipient), so that the rule does not apply. */
#define SUBJECT_CLIENT_KEY_MAX 20
int subject_key(const struct subject *subject, const struct rule *rule, char mem[SUBJECT_CLIENT_KEY_MAX],
		struct span *key_out) MUST_CHECK;
/* The same for people and as an administrator may write it: UTF-8, '?' for what is none and for control bytes. */
void subject_format(const struct subject *subject, const struct rule *rule, struct sbuf *out);
/* As a string of fewer than SIZE bytes, cut between characters. */
void subject_text(const struct subject *subject, const struct rule *rule, char *out, size_t size);

/* The domain whose SPF record names the client, where that exempts it; NULL: none.
 * Who has logged in is an account, wherever from. */
const char *subject_spf_domain(const struct subject *subject, const struct rules *rules);
/* Whether the client or the account is exempt from all limits. */
bool subject_is_allowed(const struct subject *subject, const struct rules *rules);

#endif
