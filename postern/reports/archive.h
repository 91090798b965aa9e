/*
 * A file as a row of members, each read from its beginning to its end: a zip
 * file, a gzip file (one member, whatever it was joined from), or any other file
 * (one member, as it is).  Hostile archives are bounded by the caps below; a
 * member's length and CRC are checked at its end, so what was read of it counts
 * only then.  Constant memory.  Pure.
 *
 * Archives within archives are the caller's to refuse: it sees the bytes.
 */
#ifndef POSTERN_REPORTS_ARCHIVE_H
#define POSTERN_REPORTS_ARCHIVE_H

#include "postern/reports/content.h"
#include "postern/reports/zip.h"

#define ARCHIVE_PACKED_MAX (UINT64_C(64) << 20) /* bytes of a gzip or zip file */
#define ARCHIVE_UNPACKED_MAX                                                                       \
	(UINT64_C(2) << 30)   /* bytes of all members together; of a plain file */
#define ARCHIVE_RATIO_MAX 250 /* reports of distinct sources stay below 150 */
#define ARCHIVE_RATIO_FLOOR                                                                        \
	(UINT64_C(8) << 20)	/* bytes of a member up to which any ratio is fine */
#define ARCHIVE_MEMBERS_MAX 256 /* of a zip file; streams that a gzip file is joined from */

struct archive_limits {
	uint64_t packed_bytes, unpacked_bytes, ratio, ratio_floor_bytes;
	size_t members;
};

#define ARCHIVE_LIMITS_DEFAULT                                                                     \
	((struct archive_limits){ARCHIVE_PACKED_MAX, ARCHIVE_UNPACKED_MAX, ARCHIVE_RATIO_MAX,      \
				 ARCHIVE_RATIO_FLOOR, ARCHIVE_MEMBERS_MAX})

struct archive;

/*
 * Borrows FILE and LIMITS until archive_free().  What it is, is told by its
 * first bytes (content.h).  ERR_SYNTAX, ERR_LIMIT with a sentence in ERROR, or
 * the error of read_at.
 */
int archive_open(const struct zip_file *file, const struct archive_limits *limits,
		 struct archive **archive_out, struct sbuf *error) MUST_CHECK;
void archive_free(struct archive **archive);

/* What the file is: CONTENT_GZIP, CONTENT_ZIP, or that of a plain file. */
enum content_kind archive_kind(const struct archive *a);

/*
 * Moves on to the next member; folders and what macOS adds for itself are
 * passed over.  *NAME_OUT is "" where it has none and lives until the next
 * call.  ERR_NOT_FOUND behind the last one.
 */
int archive_next(struct archive *a, struct span *name_out) MUST_CHECK;

/*
 * Reads up to SIZE > 0 bytes of the member; 0 bytes at its end, when all checks
 * have passed.  Errors as above.
 */
int archive_read(struct archive *a, char *mem, size_t size, size_t *got_out,
		 struct sbuf *error) MUST_CHECK;

/* A file in memory; ARG points to a span that outlives it. */
struct zip_file archive_file_of(const struct span *bytes);

#endif
