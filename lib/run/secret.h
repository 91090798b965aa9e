/*
 * Reads a small file that holds a secret: keys, tokens.
 */
#ifndef RUN_SECRET_H
#define RUN_SECRET_H

#include "lib/base/sbuf.h"

#define SECRET_MAX 1024 /* bytes with the NUL; what is beyond is not read */

/* PATH "" gives "".  ERR_PERM with "PATH: reason" in ERROR. */
int secret_read(const char *path, char text_out[SECRET_MAX], struct sbuf *error) MUST_CHECK;

#endif
