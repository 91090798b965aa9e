/*
 * Listening sockets from text: `unix:/path`, `inet:HOST:PORT`,
 * `inet6:[ADDR]:PORT`, several separated by commas or white space; or those
 * that systemd hands over (LISTEN_FDS), which then take their place.
 * `seqpacket:/path` is a unix socket that keeps the bounds of records.
 */
#ifndef RUN_LISTEN_H
#define RUN_LISTEN_H

#include <sys/stat.h>

#include "lib/base/sbuf.h"

#define LISTEN_MAX 16 /* sockets of one option */

struct listen_set {
	int fds[LISTEN_MAX];
	size_t count;
	char *paths[LISTEN_MAX]; /* unix sockets made here, to be unlinked; else NULL */
};

/* Only the syntax; for -t. ERROR gets the reason. */
int listen_check(const char *spec, struct sbuf *error) MUST_CHECK;
/* The same, and every address must be a unix socket or a numeric loopback one. */
int listen_check_local(const char *spec, struct sbuf *error) MUST_CHECK;

/*
 * Opens SPEC; NAME is the FileDescriptorName under which systemd may have
 * handed sockets over.  A stale unix socket is replaced, one that answers is
 * not (ERR_EXISTS).  MODE is that of unix sockets; it holds before the first
 * client can connect.  Sockets are non-blocking, close-on-exec, with a backlog
 * of 1024.  ERR_SYNTAX for a bad SPEC, ERR_PERM where the system refuses.
 */
int listen_open(const char *spec, const char *name, mode_t mode, struct listen_set *set_out,
		struct sbuf *error) MUST_CHECK;
/* Closes them and unlinks the unix sockets made here; twice does no harm. */
void listen_close(struct listen_set *set);

/*
 * A non-blocking stream socket to unix:/PATH, inet:HOST:PORT or
 * inet6:[ADDR]:PORT (numeric host), whose connect may still be in progress.
 * ERR_NOT_FOUND where nobody listens, ERR_TEMP where the backlog is full or
 * another failure may pass.
 */
int listen_connect(const char *spec, int *fd_out, struct sbuf *error) MUST_CHECK;

#endif
