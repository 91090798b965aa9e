/*
 * OpenDKIM's KeyTable and SigningTable, read unchanged (opendkim.conf(5)).
 *
 *   KeyTable      NAME  DOMAIN:SELECTOR:KEY    KEY is a path or the key itself;
 *                                              % is the author's domain
 *   SigningTable  PATTERN  NAME[:SIGNER]       SIGNER (i=) is not used
 *
 * Where several lines carry the PATTERN that matches first, each of them signs,
 * one a kind of key: so a domain has an RSA and an Ed25519 signature.  A line
 * that is malformed, names no key, or whose key file cannot be read stands for a
 * broken key: its mail is deferred, never sent unsigned.
 *
 * A table is never changed after loading; reference-counted, thread-safe.
 */
#ifndef MILTER_KEYTABLE_H
#define MILTER_KEYTABLE_H

#include "milter-dkim/signkey.h"

#define KEYTABLE_LINES_MAX 1000000

struct keytable;

struct keytable_source {
	struct span keys, signing; /* the texts of the two files */
	bool wildcards;            /* the SigningTable is a refile: patterns with *, first match */
	/* Adds the content of PATH to OUT: 0 or an error. */
	int (*read)(void *arg, const char *path, struct sbuf *out);
	/* Told of each line that stands for a broken key; may be NULL. */
	void (*broken)(void *arg, const char *table, unsigned line, const char *reason);
	void *arg;
};

/* ERR_LIMIT for more than KEYTABLE_LINES_MAX lines.  READ is also called later,
 * from any thread, for key paths with a %. */
int keytable_load(const struct keytable_source *source, struct keytable **table_out) MUST_CHECK;
struct keytable *keytable_ref(struct keytable *table);
void keytable_unref(struct keytable **table);
/* Lines of the KeyTable. */
size_t keytable_count(const struct keytable *table);

/*
 * The keys that sign for LOCAL@DOMAIN: up to MAX, each with a reference that the
 * caller owns, in the order of the file.
 */
size_t keytable_find(const struct keytable *table, struct span local, struct span domain,
		     struct signkey **keys_out, size_t max);

#endif
