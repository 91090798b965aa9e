/*
 * One connection of the MTA and the messages on it: from what it tells to
 * a verdict and a plan of edits.  Pure: no socket, clock, log or thread.
 *
 *   session_connect, session_helo             once
 *   session_begin                             each MAIL FROM
 *   session_header ..., session_header_end    each field, then the end
 *   session_body ...                          what nobody needs is passed over
 *   session_end                               until it no longer returns ERR_AGAIN
 *
 * A message is either ours, and gets signed, or comes from outside, and gets
 * judged; see session_settings.role.  Trouble on the way is kept and becomes the
 * outcome at the end, because the MTA waits for no earlier reply.
 */
#ifndef MILTER_SESSION_H
#define MILTER_SESSION_H

#include "milter-dkim/edits.h"
#include "milter-dkim/hostset.h"
#include "milter-dkim/inbound.h"
#include "milter-dkim/keyring.h"
#include "milter-dkim/keytable.h"
#include "milter-dkim/override.h"
#include "milter-dkim/sealing.h"

#define SESSION_SIGNATURES_MAX 4
#define SESSION_ARENA_MAX (8u << 20) /* what one message may take besides its fields */

#define SESSION_QUARANTINE_FIELD "X-Postern-Quarantine"

enum session_enforce { SESSION_ENFORCE_NO, SESSION_ENFORCE_QUARANTINE, SESSION_ENFORCE_REJECT };

enum session_role { SESSION_AUTO, SESSION_SIGN, SESSION_VERIFY };

/* Never changed while a message uses it. */
struct session_settings {
	enum session_role role;
	struct hostset internal_hosts;
	const char *daemon_names; /* those that mean ours, separated by commas or spaces */
	const char *authserv_id;  /* "": the MTA's host name */
	enum canon header_canon, body_canon;
	const char *sign_headers; /* "": sign_names() */
	int64_t expire_s;
	struct mail_limits limits;
	bool ignores_testing_keys; /* as in struct inbound_request */
	const struct dmarc_psl *psl; /* NULL: DMARC by the tree walk */
	enum session_enforce dmarc_enforce;
	bool quarantine_holds; /* else it adds SESSION_QUARANTINE_FIELD */
	struct hostset trusted_sealers, trusted_forwarders;
	struct sealing_settings seal;
	bool received_spf;     /* a Received-SPF field is added, too */
	bool reject_bad_from;  /* what author_problem() objects to, in judged mail */
};

/* What a message signs with; valid as long as the message. */
struct session_keys {
	struct keytable *table;       /* NULL: none configured */
	const struct keyring *ring;   /* NULL: none configured */
	bool missing;                 /* SQL is configured but was never read */
};

struct session_envelope {
	struct span mail_from;   /* without < > */
	struct span login;       /* {auth_authen} */
	struct span daemon_name; /* {daemon_name} */
	struct span host_name;   /* j, or our own */
	int64_t now;
};

enum session_action { SESSION_ACCEPT, SESSION_TEMPFAIL, SESSION_REJECT };

struct session_outcome {
	enum session_action action;
	const char *code, *status; /* "451", "4.7.1"; set unless accepted */
	const char *reason;        /* text of the reply and the log */
	bool quarantined;
	const char *hold;          /* why it goes on hold; NULL: it does not */
	struct edits edits;        /* ordered; only where accepted */
	bool ours;
	struct span author_domain; /* of From: the first, of ours the first that a key is for; or empty */
	size_t removed;            /* forged fields in our name */
	size_t signature_count;    /* that we made */
	enum crypto_alg signed_with[SESSION_SIGNATURES_MAX];
	struct span problem;       /* domain of the key that is broken, or empty */
	const char *problem_reason;
	const struct inbound *inbound; /* NULL where ours */
	enum sealing_state sealed;
	const char *seal_problem; /* static; where sealed is SEALING_FAILED */
	/* Why less was done than the published policy says: a reason of RFC 9990
	 * (local_policy, trusted_forwarder, policy_test_mode; static), and more about it
	 * (static or in the arena); both NULL: all of it was done. */
	const char *override_type, *override_comment;
	/* for the record of the message; the session's memory */
	struct span helo, mail_from, login;
	const struct mail_header *header;
	struct span signed_domain[SESSION_SIGNATURES_MAX], signed_selector[SESSION_SIGNATURES_MAX];
};

struct session;

struct session *session_new(void);
/* Takes NULL, and nulls the pointer. */
void session_free(struct session **s);

/* LOCAL: there is no SMTP client (sendmail, bounces). */
void session_connect(struct session *s, struct span client_name, const struct ip *ip, bool local);
void session_helo(struct session *s, struct span name);

/* Forgets the message before.  SETTINGS and KEYS are borrowed until the next
 * session_begin() or session_reset(). */
void session_begin(struct session *s, const struct session_settings *settings,
		   const struct session_keys *keys, const struct session_envelope *envelope,
		   struct keycache *cache, const struct dns_view *view);
void session_header(struct session *s, struct span name, struct span value);
void session_header_end(struct session *s, const struct dns_view *view);
void session_body(struct session *s, struct span bytes);
/* 0: *OUTCOME_OUT is valid until the next begin or reset; ERR_AGAIN: answers are
 * missing. */
int session_end(struct session *s, const struct dns_view *view,
		const struct session_outcome **outcome_out) MUST_CHECK;
/* The message is gone; memory and borrowed things are given back. */
void session_reset(struct session *s);

#endif
