/*
 * The length of a half is written after its bytes, so a process that ends
 * anywhere leaves whole entries.  The number is written while the length is 0.
 *
 * All blocks of the file are there from the start: a store into a hole of a
 * file system that is full would end the process.
 */
#include "store_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "PSTRMAP1"
#define HEAD_BYTES 4096

struct head {
	char magic[8];
	struct store_map_owner owner;
	struct {
		_Atomic uint64_t number, len;
	} halves[STORE_MAP_HALVES];
};

_Static_assert(sizeof(struct head) <= HEAD_BYTES, "the head fits its page");

struct store_map {
	int fd; /* locked; -1: memory of the process alone */
	struct head *head;
	size_t half_bytes;
};

static size_t file_bytes(const struct store_map *m)
{
	return HEAD_BYTES + STORE_MAP_HALVES * m->half_bytes;
}

static char *half_ptr(const struct store_map *m, unsigned half)
{
	return (char *)m->head + HEAD_BYTES + half * m->half_bytes;
}

/* Whether what lies in the file may be believed. */
static bool is_ours(const struct store_map *m, const struct store_map_owner *owner)
{
	const struct store_map_owner *had = &m->head->owner;
	if (memcmp(m->head->magic, MAGIC, sizeof(m->head->magic)) != 0 || owner->boot_id == 0 ||
	    had->boot_id != owner->boot_id || had->device != owner->device || had->inode != owner->inode)
		return false;
	for (unsigned i = 0; i < STORE_MAP_HALVES; i++)
		if (m->head->halves[i].len >= m->half_bytes)
			return false;
	return true;
}

/* Opens and locks the file and gives it its size; its descriptor, or below 0 with the PROBLEM. */
static int file_open(const struct store_map *m, const char *path, struct sbuf *problem)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), rc = -1;
	bool told = fd >= 0 && fstat(fd, &st) == 0;
	if (told && st.st_uid != geteuid())
		errno = EPERM; /* whose it is could cut it off under us, or write counts into it */
	else if (told && flock(fd, LOCK_EX | LOCK_NB) == 0)
		/* Another size is that of another release. */
		rc = (uint64_t)st.st_size == file_bytes(m) ? 0 : ftruncate(fd, 0);
	if (rc == 0)
		errno = posix_fallocate(fd, 0, (off_t)file_bytes(m));
	if (rc == 0 && errno == 0)
		return fd;
	sbuf_addf(problem, "%s: %s", path, errno == EWOULDBLOCK ? "in use by another process" : strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

struct store_map *store_map_open(const char *path, const struct store_map_owner *owner, size_t half_bytes,
				 struct sbuf *problem)
{
	struct store_map *m = mem_zalloc(sizeof(*m));
	m->half_bytes = half_bytes;
	m->fd = file_open(m, path, problem);
	void *mem = mmap(NULL, file_bytes(m), PROT_READ | PROT_WRITE,
			 m->fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, m->fd, 0);
	if (mem == MAP_FAILED)
		PANIC("no memory for the journal");
	m->head = mem;
	if (!is_ours(m, owner)) {
		for (unsigned i = 0; i < STORE_MAP_HALVES; i++)
			m->head->halves[i].len = 0;
		m->head->owner = *owner;
		memcpy(m->head->magic, MAGIC, sizeof(m->head->magic));
	}
	return m;
}

void store_map_close(struct store_map **map)
{
	struct store_map *m = *map;
	if (m == NULL)
		return;
	munmap(m->head, file_bytes(m));
	if (m->fd >= 0)
		close(m->fd);
	free(m);
	*map = NULL;
}

int store_map_left(const struct store_map *map, unsigned half, uint64_t *number_out, struct span *batch_out)
{
	size_t len = map->head->halves[half].len;
	if (len == 0)
		return ERR_NOT_FOUND;
	*number_out = map->head->halves[half].number;
	*batch_out = span_of(half_ptr(map, half), len);
	return 0;
}

void store_map_begin(struct store_map *map, unsigned half, uint64_t number, struct sbuf *batch_out)
{
	map->head->halves[half].len = 0;
	map->head->halves[half].number = number;
	sbuf_init(batch_out, half_ptr(map, half), map->half_bytes);
}

void store_map_mark(struct store_map *map, unsigned half, size_t len)
{
	map->head->halves[half].len = len;
}
