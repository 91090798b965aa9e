/*
 * Writes the request log (reqlog.h) to a file.  Records gather in memory and
 * are written once a second, or when there are many: the loop waits for the
 * kernel then, not for the disk.  The file is bounded; a reload opens it anew.
 */
#ifndef POLICYD_RECORDER_H
#define POLICYD_RECORDER_H

#include "lib/base/sbuf.h"

#define RECORDER_WAITING_MAX (256u << 10) /* bytes in memory; at half of it they are written */

struct recorder;

enum recorder_state { RECORDER_OK, RECORDER_FULL, RECORDER_FAILED };

/* PATH "" gives NULL, on which all functions do nothing.  The file is made, mode
 * 0600, or added to. */
int recorder_open(const char *path, uint64_t max_bytes, struct recorder **recorder_out,
		  struct sbuf *error) MUST_CHECK;
/* Writes what waits. */
void recorder_close(struct recorder **recorder);
/* Notes the bytes of a request, or with an empty span the end of the connection. */
void recorder_add(struct recorder *recorder, int64_t wall_ms, uint64_t connection, struct span request);
/* Writes what waits.  Anything but RECORDER_OK is returned once, and nothing is
 * recorded after it. */
enum recorder_state recorder_flush(struct recorder *recorder);
/* The file, "" for NULL. */
const char *recorder_path(const struct recorder *recorder);

#endif
