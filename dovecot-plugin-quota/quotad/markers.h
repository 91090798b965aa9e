/*
 * Takes the markers (lib/run/marker.h) that mail processes left while quotad was
 * away, each second: such a process may still be about to leave one when quotad is
 * back.  Belongs to the loop's thread.
 */
#ifndef QUOTAD_MARKERS_H
#define QUOTAD_MARKERS_H

#include <ev.h>

#include "lib/base/span.h"

struct markers {
	struct ev_loop *ev;
	struct ev_timer timer;
	const char *dir;
	bool (*fn)(void *arg, struct span user);
	void *arg;
};

/* DIR (borrowed; "": nothing is ever taken) is looked at from now on; FN must remember
 * USER beyond a crash of this process, or return false: then the marker stays for later. */
void markers_start(struct markers *m, struct ev_loop *ev, const char *dir, bool (*fn)(void *arg, struct span user),
		   void *arg);
/* Harmless where it was never started. */
void markers_stop(struct markers *m);

#endif
