/* What spool.c, spool_file.c and spool_reader.c share. */
#ifndef INDEXER_SPOOL_INTERNAL_H
#define INDEXER_SPOOL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "lib/run/seglog.h"
#include "lmtp-indexer/spool.h"

#define SPOOL_PATH_MAX 512

/* A delivery that is in the log and not done. */
struct spool_open_entry {
	uint64_t seq; /* growing */
	int64_t received_ms;
	bool done;
};

struct spool_job {
	struct spool_job *next;
	enum delivery_record kind;
	struct delivery *d; /* PREPARED */
	struct span record;
	char *owned;        /* memory of `record`; NULL: the delivery's */
	uint64_t seq;
	spool_answer *answer;
	void *arg;
	bool kept;
};

struct spool_queue {
	pthread_mutex_t lock;
	pthread_cond_t filled;
	pthread_t thread;
	bool stopping;
};

struct spool_file_job;

struct spool {
	struct loop *loop;
	struct seglog *log;
	char dir[SPOOL_PATH_MAX];
	uint64_t max_bytes;
	atomic_uint_fast64_t file_bytes;
	atomic_uint_fast64_t groups, records, failures;

	struct spool_queue log_queue;
	struct spool_job *jobs, **jobs_end;
	size_t waiting; /* how many */
	size_t awaited; /* of them: somebody waits for the answer */
	size_t enough;	/* so many of those wake the thread */
	size_t processors;
	atomic_size_t transactions;

	struct spool_queue file_queue;
	struct spool_file_job *file_jobs, **file_jobs_end;

	pthread_mutex_t open_lock;
	struct spool_open_entry *open; /* a window of a growing array */
	size_t open_first, open_count, open_size;
	size_t open_left; /* of them not done */
};

/* Is the delivery of that PREPARED record not done? */
bool spool_is_open(struct spool *spool, uint64_t seq);
/* Appends to the log's queue; takes JOB. */
void spool_submit(struct spool *spool, struct spool_job *job);
/* A job that failed before it reached the log; from any thread. */
void spool_answer_failed(struct spool *spool, struct spool_job *job);

void spool_file_path(const struct spool *spool, const struct ulid *id, char path[SPOOL_PATH_MAX]);
int spool_files_start(struct spool *spool);
void spool_files_stop(struct spool *spool);
/* Removes the files that no delivery of TABLE names, counts the others. */
void spool_files_sweep(struct spool *spool, const struct delivery_table *table);
/* Syncs the file, then submits JOB. */
void spool_file_finish(struct spool_file *file, struct spool_job *job);

#endif
