/*
 * What recounts that somebody asked for have found: for `postern quota verify`.
 * Bounded: the oldest make room.  Pure.
 */
#ifndef QUOTAD_FINDINGS_H
#define QUOTAD_FINDINGS_H

#include "lib/base/span.h"
#include "lib/quota/proto.h"

#define FINDINGS_USERS 256
#define FINDINGS_FOLDERS 64 /* of one user; further ones are only counted */

struct finding_sizes {
	uint64_t bytes, messages;
};

struct finding_folder {
	char name[QUOTA_KEY_MAX + 1];
	struct finding_sizes indexed, found;
};

struct finding {
	char user[QUOTA_USER_MAX + 1];
	bool fixes;		     /* the numbers found were taken over */
	bool begun, done;	     /* the recount */
	struct finding_sizes before; /* in quotad */
	struct finding_sizes found;
	struct finding_folder folders[FINDINGS_FOLDERS];
	size_t folder_count; /* may be more than there is room for */
};

struct findings;

struct findings *findings_new(void);
void findings_free(struct findings **findings);

/* Forgets what was found for USER and waits for a recount. */
struct finding *findings_open(struct findings *f, struct span user, bool fixes);
/* NULL where none was asked for, or it was long ago. */
struct finding *findings_get(const struct findings *f, struct span user);

/* The recount begins; it may begin several times. */
void finding_begin(struct finding *finding, struct finding_sizes before);
/* A folder whose index is wrong; the first that is said of a folder stays. */
void finding_add(struct finding *finding, struct span folder, struct finding_sizes indexed,
		 struct finding_sizes found);
void finding_end(struct finding *finding, struct finding_sizes found);

/* In one word: files_removed, files_added, sizes_changed. */
const char *finding_folder_cause(const struct finding_folder *folder);
/* Of the whole: NULL where all is well, the cause of the first folder, or counter:
 * the indexes are right, changes were not told. */
const char *finding_cause(const struct finding *finding);

#endif
