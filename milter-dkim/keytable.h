/*
 * OpenDKIM's KeyTable and SigningTable, read unchanged (opendkim.conf(5)).
 *
 *   KeyTable      NAME  DOMAIN:SELECTOR:KEY    KEY is a path or the key itself;
 *                                              % is the author's domain
 *   SigningTable  PATTERN  NAME[:SIGNER]       SIGNER is for i=; % as NAME and
 *                                              in SIGNER is the author's domain
 *
 * The first PATTERN that matches decides.  Where several lines carry it, each of
 * them signs, one a kind of key: so a domain has an RSA and an Ed25519 signature.
 * With `multiple` (MultipleSignatures) every line that matches signs.  A line
 * that is malformed, names no key, or whose key file cannot be read stands for a
 * broken key: its mail is deferred, never sent unsigned.
 *
 * A table is never changed after loading; reference-counted, thread-safe.
 */
#ifndef MILTER_KEYTABLE_H
#define MILTER_KEYTABLE_H

#include "lib/base/arena.h"
#include "milter-dkim/signkey.h"

#define KEYTABLE_LINES_MAX 1000000
#define KEYTABLE_ADDRESS_MAX 1023 /* bytes; a longer one is nobody's, whatever the patterns */
#define KEYTABLE_EXPANDED_MAX 10000 /* keys with a % in their path that are kept */

struct keytable;

struct keytable_source {
	struct span keys, signing; /* the texts of the two tables */
	bool key_patterns;         /* the KeyTable is a refile: its names are patterns */
	bool patterns;             /* the SigningTable is one */
	bool multiple;
	const char *folder;        /* relative key paths start there; "" leaves them */
	struct signkey_cache *cache;
	signkey_read_fn *read; /* of key files, at their first use; called from any thread */
	/* 0 where the file could be read; at loading. */
	int (*check)(void *arg, const char *path);
	/* Told of each line that stands for a broken key; may be NULL. */
	void (*broken)(void *arg, bool signing, unsigned line, const char *reason);
	void *arg;
};

/* ERR_LIMIT for more than KEYTABLE_LINES_MAX lines. */
int keytable_load(const struct keytable_source *source, struct keytable **table_out) MUST_CHECK;
struct keytable *keytable_ref(struct keytable *table);
void keytable_unref(struct keytable **table);
/* Lines of the KeyTable. */
size_t keytable_count(const struct keytable *table);

struct keytable_match {
	struct signkey *key;  /* the caller owns a reference */
	struct span identity; /* for i=, in A; or empty */
};

/*
 * What signs for LOCAL@DOMAIN: up to MAX, in the order of the table.  DOMAIN is
 * in A-labels.
 */
size_t keytable_find(struct keytable *table, struct span local, struct span domain, struct arena *a,
		     struct keytable_match *matches_out, size_t max);

/* A reference to the key of the line NUMBER (below keytable_count()) of the KeyTable
 * where it signs for DOMAIN; NULL where it is for another.  For tools. */
struct signkey *keytable_key(struct keytable *table, size_t number, struct span domain);

#endif
