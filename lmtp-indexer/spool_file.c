/*
 * Large messages go to a file each while they stream, written by a thread of
 * their own, so that a slow sync of a gigabyte holds up nobody else's group.
 * A write that fails makes the whole file worthless: the message passes and is
 * a gap of the index.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lmtp-indexer/spool_internal.h"

enum file_action { FILE_WRITE, FILE_FINISH, FILE_DROP };

struct spool_file_job {
	struct spool_file_job *next;
	enum file_action action;
	struct spool_file *file;
	char *bytes; /* owned */
	size_t len;
	struct spool_job *then;
};

struct spool_file {
	struct spool *spool;
	struct ulid id;
	int fd; /* of the thread; -1: failed or not yet made */
	bool failed, finished;
	uint64_t size;
	atomic_size_t waiting;
};

void spool_file_path(const struct spool *spool, const struct ulid *id, char path[SPOOL_PATH_MAX])
{
	struct sbuf b;
	sbuf_init(&b, path, SPOOL_PATH_MAX);
	sbuf_addf(&b, "%s/big/%s", spool->dir, id->text);
}

static void submit(struct spool *s, struct spool_file_job job)
{
	struct spool_file_job *copy = mem_alloc(sizeof(*copy));
	*copy = job;
	copy->next = NULL;
	pthread_mutex_lock(&s->file_queue.lock);
	*s->file_jobs_end = copy;
	s->file_jobs_end = &copy->next;
	pthread_cond_signal(&s->file_queue.filled);
	pthread_mutex_unlock(&s->file_queue.lock);
}

/* ---- On the loop ---- */

struct spool_file *spool_file_new(struct spool *spool, const struct ulid *id)
{
	struct spool_file *f = mem_zalloc(sizeof(*f));
	f->spool = spool;
	f->id = *id;
	f->fd = -1;
	return f;
}

void spool_file_write(struct spool_file *f, struct span bytes)
{
	atomic_fetch_add(&f->waiting, bytes.len);
	submit(f->spool, (struct spool_file_job){
				 .action = FILE_WRITE, .file = f, .bytes = span_dup(bytes), .len = bytes.len});
}

size_t spool_file_waiting(struct spool_file *f)
{
	return atomic_load(&f->waiting);
}

void spool_file_finish(struct spool_file *f, struct spool_job *then)
{
	submit(f->spool, (struct spool_file_job){.action = FILE_FINISH, .file = f, .then = then});
}

void spool_file_drop(struct spool_file **file)
{
	if (*file != NULL)
		submit((*file)->spool, (struct spool_file_job){.action = FILE_DROP, .file = *file});
	*file = NULL;
}

/* ---- On the thread ---- */

static bool has_room(struct spool *s, size_t len)
{
	return atomic_load(&s->file_bytes) + seglog_bytes(s->log) + len <= s->max_bytes;
}

static bool write_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		bytes += n;
		len -= (size_t)n;
	}
	return true;
}

static void do_write(struct spool_file *f, const struct spool_file_job *job)
{
	char path[SPOOL_PATH_MAX];
	if (f->fd < 0 && !f->failed) {
		spool_file_path(f->spool, &f->id, path);
		f->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		f->failed = f->fd < 0;
	}
	if (!f->failed && has_room(f->spool, job->len) && write_all(f->fd, job->bytes, job->len)) {
		f->size += job->len;
		atomic_fetch_add(&f->spool->file_bytes, job->len);
	} else {
		f->failed = true;
	}
	atomic_fetch_sub(&f->waiting, job->len);
}

static bool sync_directory(const struct spool *s)
{
	char path[SPOOL_PATH_MAX];
	struct sbuf b;
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/big", s->dir);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	return ok;
}

static void do_finish(struct spool_file *f, struct spool_job *then)
{
	if (f->failed || fdatasync(f->fd) < 0 || !sync_directory(f->spool)) {
		spool_answer_failed(f->spool, then);
		return;
	}
	f->finished = true;
	spool_submit(f->spool, then);
}

/* After FINISH the file belongs to its record; spool_done() removes it. */
static void do_drop(struct spool_file *f)
{
	char path[SPOOL_PATH_MAX];
	if (f->fd >= 0)
		close(f->fd);
	if (f->size > 0 && !f->finished) {
		spool_file_path(f->spool, &f->id, path);
		unlink(path);
		atomic_fetch_sub(&f->spool->file_bytes, f->size);
	}
	free(f);
}

static void *run(void *arg)
{
	struct spool *s = arg;
	struct spool_queue *q = &s->file_queue;
	pthread_mutex_lock(&q->lock);
	while (!q->stopping || s->file_jobs != NULL) {
		struct spool_file_job *job = s->file_jobs;
		if (job == NULL) {
			pthread_cond_wait(&q->filled, &q->lock);
			continue;
		}
		s->file_jobs = job->next;
		if (s->file_jobs == NULL)
			s->file_jobs_end = &s->file_jobs;
		pthread_mutex_unlock(&q->lock);
		if (job->action == FILE_WRITE)
			do_write(job->file, job);
		else if (job->action == FILE_FINISH)
			do_finish(job->file, job->then);
		else
			do_drop(job->file);
		free(job->bytes);
		free(job);
		pthread_mutex_lock(&q->lock);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

int spool_files_start(struct spool *s)
{
	s->file_jobs_end = &s->file_jobs;
	pthread_mutex_init(&s->file_queue.lock, NULL);
	pthread_cond_init(&s->file_queue.filled, NULL);
	return pthread_create(&s->file_queue.thread, NULL, run, s) == 0 ? 0 : ERR_TEMP;
}

void spool_files_stop(struct spool *s)
{
	pthread_mutex_lock(&s->file_queue.lock);
	s->file_queue.stopping = true;
	pthread_cond_signal(&s->file_queue.filled);
	pthread_mutex_unlock(&s->file_queue.lock);
	pthread_join(s->file_queue.thread, NULL);
	pthread_mutex_destroy(&s->file_queue.lock);
	pthread_cond_destroy(&s->file_queue.filled);
}

static bool is_named(const struct delivery_table *table, struct span id)
{
	for (const struct delivery *d = table->first; d != NULL; d = d->next)
		if (d->in_file && span_eq(ulid_span(&d->id), id))
			return true;
	return false;
}

void spool_files_sweep(struct spool *s, const struct delivery_table *table)
{
	char path[SPOOL_PATH_MAX];
	struct sbuf b;
	struct stat st;
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/big", s->dir);
	DIR *dir = opendir(path);
	if (dir == NULL)
		return;
	for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
		if (!ulid_valid(span_str(e->d_name)))
			continue;
		bool named = is_named(table, span_str(e->d_name));
		if (!named)
			unlinkat(dirfd(dir), e->d_name, 0);
		else if (fstatat(dirfd(dir), e->d_name, &st, 0) == 0)
			atomic_fetch_add(&s->file_bytes, (uint64_t)st.st_size);
	}
	closedir(dir);
}
