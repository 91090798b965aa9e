/*
 * The file is made anew under another name, for the owner only from its first
 * moment, and takes its place once it is on the disk.  It is read through a
 * mapping, so that a large one is never in memory twice.
 */
#include "milter-dkim/keycopy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE 1100
#define BUFFER_BYTES (64u << 10)

struct writing {
	int fd;
	size_t len;
	char buffer[BUFFER_BYTES];
};

static int flush(struct writing *w)
{
	size_t done = 0;
	while (done < w->len) {
		ssize_t n = write(w->fd, w->buffer + done, w->len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ERR_TEMP;
		done += (size_t)n;
	}
	w->len = 0;
	return 0;
}

static int add(void *arg, struct span piece)
{
	struct writing *w = arg;
	while (piece.len > 0) {
		struct span part = span_take(piece, BUFFER_BYTES - w->len);
		memcpy(w->buffer + w->len, part.ptr, part.len);
		w->len += part.len;
		piece = span_skip(piece, part.len);
		if (w->len == BUFFER_BYTES && flush(w) < 0)
			return ERR_TEMP;
	}
	return 0;
}

static int write_all(int fd, const struct keyring *ring)
{
	struct writing *w = mem_zalloc(sizeof(*w));
	w->fd = fd;
	int rc = keyring_write(ring, add, w);
	if (rc == 0)
		rc = flush(w);
	if (rc == 0 && fsync(fd) < 0)
		rc = ERR_TEMP;
	explicit_bzero(w, sizeof(*w));
	free(w);
	return rc;
}

static int sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return ERR_TEMP;
	int rc = fsync(fd) == 0 ? 0 : ERR_TEMP;
	close(fd);
	return rc;
}

int keycopy_save(const char *dir, const struct keyring *ring)
{
	char path[PATH_SIZE], made[PATH_SIZE];
	snprintf(path, sizeof(path), "%s/dkim-keys", dir);
	snprintf(made, sizeof(made), "%s/dkim-keys.new", dir);
	/* One that an end in mid-work has left may have other rights. */
	unlink(made);
	int fd = open(made, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return ERR_TEMP;
	int rc = write_all(fd, ring);
	if (close(fd) < 0)
		rc = ERR_TEMP;
	if (rc == 0 && rename(made, path) < 0)
		rc = ERR_TEMP;
	if (rc < 0)
		unlink(made);
	return rc < 0 ? rc : sync_dir(dir);
}

int keycopy_load(const char *dir, struct signkey_cache *cache, struct keyring **ring_out)
{
	char path[PATH_SIZE];
	struct stat st;
	snprintf(path, sizeof(path), "%s/dkim-keys", dir);
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? ERR_NOT_FOUND : ERR_PERM;
	int rc = fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ? ERR_PERM : st.st_size == 0 ? ERR_SYNTAX : 0;
	void *text = MAP_FAILED;
	if (rc == 0) {
		text = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		rc = text == MAP_FAILED ? ERR_PERM : keyring_decode(span_of(text, (size_t)st.st_size), cache, ring_out);
	}
	if (text != MAP_FAILED)
		munmap(text, (size_t)st.st_size);
	close(fd);
	return rc;
}
