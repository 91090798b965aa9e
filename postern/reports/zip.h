/*
 * The directory of a zip file, read in full and checked before anything is
 * unpacked.  The central directory is what counts; each local header must tell
 * the same, members must lie in front of the directory and must not overlap.
 * Refused: zip64 that is needed (what only repeats the rest is taken), encryption, several disks, methods other than stored and
 * deflated, anything in front of the first or behind the last record.  Pure.
 */
#ifndef POSTERN_REPORTS_ZIP_H
#define POSTERN_REPORTS_ZIP_H

#include "lib/base/sbuf.h"

/* A file that can be read anywhere. */
struct zip_file {
	uint64_t size;
	/* Reads exactly LEN bytes, which lie within the file; 0 or ERR_TEMP. */
	int (*read_at)(void *arg, uint64_t at, char *mem, size_t len);
	void *arg;
};

#define ZIP_NAME_MAX 255   /* bytes of a member's name */
#define ZIP_EXTRA_MAX 4096 /* bytes of extra fields and of the comment of a member */

struct zip_member {
	char name[ZIP_NAME_MAX + 1]; /* as it stands; may hold any byte but NUL */
	bool deflated;		     /* else stored */
	bool folder;
	uint32_t crc32;
	uint64_t packed_bytes, bytes; /* as the directory says; equal where stored */
	uint64_t header_at, data_at;
};

struct zip_directory {
	struct zip_member *members; /* in the order of the directory */
	size_t count;
};

/*
 * DIR_OUT is owned and ended by zip_directory_done().  ERR_SYNTAX for what is
 * damaged or refused, ERR_LIMIT past MEMBERS_MAX or a cap from above (both with
 * a sentence in ERROR), or the error of read_at.
 */
int zip_directory_read(const struct zip_file *file, size_t members_max,
		       struct zip_directory *dir_out, struct sbuf *error) MUST_CHECK;
void zip_directory_done(struct zip_directory *dir);

#endif
