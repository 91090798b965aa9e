/*
 * The batches that wait for the disk, in two halves of a file that is mapped
 * into memory: what is marked there outlives the process, whatever ends it, and
 * costs no system call.  It does not outlive the machine, so a file of another
 * boot or of another journal counts for nothing.
 *
 * The file belongs into a file system in memory: the memory is then never
 * written to a disk that the loop could have to wait for.
 *
 * No locks: whoever uses it serialises the calls for one half.
 */
#ifndef POLICYD_STORE_MAP_H
#define POLICYD_STORE_MAP_H

#include "lib/base/sbuf.h"

struct store_map;

#define STORE_MAP_HALVES 2

/* Which journal the batches are of. */
struct store_map_owner {
	uint64_t boot_id; /* 0: not known, equal to no other */
	uint64_t device, inode;
};

/*
 * Makes the file PATH, or takes it over with what lies in it, with room for
 * HALF_BYTES in each half.  Where that cannot be, PROBLEM says why, and memory of the
 * process alone stands in.
 */
struct store_map *store_map_open(const char *path, const struct store_map_owner *owner, size_t half_bytes,
				 struct sbuf *problem);
void store_map_close(struct store_map **map);

/* What an earlier process left in HALF, borrowed until store_map_begin(). ERR_NOT_FOUND: nothing. */
int store_map_left(const struct store_map *map, unsigned half, uint64_t *number_out,
		   struct span *batch_out) MUST_CHECK;
/* Empties HALF for the batch NUMBER; *BATCH_OUT builds in it. */
void store_map_begin(struct store_map *map, unsigned half, uint64_t number, struct sbuf *batch_out);
/* The first LEN bytes of HALF are whole: from now on they outlive the process. */
void store_map_mark(struct store_map *map, unsigned half, size_t len);

#endif
