/*
 * The copy on disk of the last set of signing keys, for a start without the
 * database: one file, mode 0600, replaced whole.
 */
#ifndef MILTER_KEYCOPY_H
#define MILTER_KEYCOPY_H

#include "milter-dkim/keyring.h"

/* Writes DIR/dkim-keys and waits for the disk; on failure the file that was there
 * stays. */
int keycopy_save(const char *dir, const struct keyring *ring) MUST_CHECK;
/* ERR_NOT_FOUND without a copy, ERR_SYNTAX where it is damaged, ERR_PERM where it
 * cannot be read. */
int keycopy_load(const char *dir, struct signkey_cache *cache, struct keyring **ring_out) MUST_CHECK;

#endif
