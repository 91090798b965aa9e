/*
 * Whose usage is in the air: the users with open reservations, or with changes that
 * are not on disk yet, in a file that is mapped into memory.  What is written there
 * outlives the process, whatever ends it (not the machine: a power cut ends the mail
 * processes too, and every user is counted at the first contact then).
 */
#ifndef QUOTAD_OPENMAP_H
#define QUOTAD_OPENMAP_H

#include "lib/base/sbuf.h"
#include "lib/quota/proto.h"

struct openmap;

#define OPENMAP_SLOTS 4096

/* Makes or takes over the file PATH. */
int openmap_open(const char *path, struct openmap **map_out, struct sbuf *error) MUST_CHECK;
void openmap_close(struct openmap **map);

/* Calls FN for each name that an earlier process left, and forgets them, whatever it returns. */
void openmap_take(struct openmap *map, bool (*fn)(void *arg, struct span user), void *arg);

/* A number above 0 that names the entry; 0 where all are taken. */
uint32_t openmap_add(struct openmap *map, struct span user);
void openmap_del(struct openmap *map, uint32_t slot);

#endif
