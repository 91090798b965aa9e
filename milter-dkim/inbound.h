/*
 * All methods over one incoming message: what the milter does with mail from
 * outside and what `postern auth check` does with a file.  Pure.
 *
 *   inbound_begin()    the envelope is known; asks for what SPF needs
 *   inbound_header()   the header is complete; asks for the body hashes
 *   (the body goes into the bodyhash set, then bodyhash_finish())
 *   inbound_run()      until it no longer returns ERR_AGAIN
 */
#ifndef MILTER_INBOUND_H
#define MILTER_INBOUND_H

#include "lib/spf/spf.h"
#include "milter-dkim/arc.h"
#include "milter-dkim/author.h"
#include "milter-dkim/verify.h"

struct inbound_request {
	struct ip ip; /* bits == 0: no client address, so no SPF */
	struct span helo;
	struct span mail_from; /* without < > */
	struct span receiver;  /* our host name */
	int64_t now;
	const struct dmarc_psl *psl; /* NULL: DMARC by the tree walk */
	bool tells_organizational;   /* as in struct dmarc_request */
	bool ignores_testing_keys;   /* t=y: to DMARC the message is unsigned */
};

/* Why a failing policy is not enforced; see override.h. */
enum override_by { OVERRIDE_NONE, OVERRIDE_ARC, OVERRIDE_FORWARDER };

struct override {
	enum override_by by;
	const char *type;    /* of RFC 9990; static, or NULL */
	const char *comment; /* in the arena or static, or NULL */
};

struct inbound {
	struct inbound_request request; /* its spans live in the arena */
	struct span shown_helo, shown_mail_from; /* as they stand in our fields; set by inbound_header() */
	struct arena *arena;
	struct keycache *cache; /* may be NULL */
	struct spf_verdict spf;  /* of MAIL FROM, or of HELO where that is empty */
	struct spf_verdict helo; /* of HELO beside MAIL FROM; never counts for DMARC */
	bool spf_done, helo_done;
	struct verify dkim;
	struct arc arc;
	struct author author;
	struct dmarc_verdict dmarc;
	bool dmarc_done;
	/* for the caller to set before inbound_authres(); inbound_run() sets what the
	 * Author Domain wishes */
	struct override override;
	enum dmarc_policy applied; /* what is done with the message */
};

/* ERR_LIMIT where the arena is full, here and below. */
int inbound_begin(struct inbound *in, const struct inbound_request *request, struct arena *a,
		  struct keycache *cache, const struct dns_view *view) MUST_CHECK;
int inbound_header(struct inbound *in, const struct mail_header *header, struct bodyhash *bodies,
		   const struct dns_view *view) MUST_CHECK;
/* 0: all is decided; ERR_AGAIN: answers are missing. */
int inbound_run(struct inbound *in, const struct dns_view *view) MUST_CHECK;

/* Adds the value of our Authentication-Results field, which begins with a space;
 * EOL is the line end inside of it. */
void inbound_authres(const struct inbound *in, struct span authserv_id, const char *eol, struct sbuf *out);

/* Adds the value of the Nth Received-SPF field, one for each identity that is
 * named in Authentication-Results; false past the last. */
bool inbound_received_spf(const struct inbound *in, size_t n, const char *eol, struct sbuf *out);

#endif
