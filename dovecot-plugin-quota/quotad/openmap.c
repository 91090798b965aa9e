/*
 * A slot is a length and a name; its length is written last and cleared first, so
 * that a process that ends between leaves a whole name or none.  A free slot holds
 * no name, whose user may be removed before it is taken again.  Free slots are in a
 * stack in memory.
 */
#include "dovecot-plugin-quota/quotad/openmap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct slot {
	_Atomic uint32_t len; /* 0: free */
	char name[QUOTA_USER_MAX];
};

struct openmap {
	struct slot *slots;
	uint32_t free[OPENMAP_SLOTS];
	size_t free_count;
};

#define FILE_BYTES (sizeof(struct slot) * OPENMAP_SLOTS)

/* With its space on the disk: a page of a hole that finds none would be SIGBUS. */
static int map_file(int fd, struct slot **slots_out)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -1;
	/* Another size is that of another release. */
	if ((uint64_t)st.st_size != FILE_BYTES &&
	    (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)FILE_BYTES) < 0))
		return -1;
	errno = posix_fallocate(fd, 0, (off_t)FILE_BYTES);
	if (errno != 0)
		return -1;
	void *mem = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		return -1;
	*slots_out = mem;
	return 0;
}

int openmap_open(const char *path, struct openmap **map_out, struct sbuf *error)
{
	struct slot *slots = NULL;
	const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || map_file(fd, &slots) < 0) {
		sbuf_addf(error, "%s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return ERR_TEMP;
	}
	close(fd);
	struct openmap *m = mem_zalloc(sizeof(*m));
	m->slots = slots;
	*map_out = m;
	return 0;
}

void openmap_close(struct openmap **map)
{
	struct openmap *m = *map;
	if (m == NULL)
		return;
	munmap(m->slots, FILE_BYTES);
	free(m);
	*map = NULL;
}

static void clear(struct slot *slot)
{
	atomic_store(&slot->len, 0);
	memset(slot->name, 0, sizeof(slot->name));
}

void openmap_take(struct openmap *m, bool (*fn)(void *arg, struct span user), void *arg)
{
	m->free_count = 0;
	for (uint32_t slot = 1; slot <= OPENMAP_SLOTS; slot++) {
		char name[QUOTA_USER_MAX];
		const uint32_t len = atomic_load(&m->slots[slot - 1].len);
		/* FN adds the name anew, in its old place: it is never away from the file. */
		m->free[m->free_count++] = slot;
		if (len > 0 && len <= QUOTA_USER_MAX) {
			memcpy(name, m->slots[slot - 1].name, len);
			IGNORE_RESULT(fn(arg, span_of(name, len)));
		}
		const bool is_free = m->free_count > 0 && m->free[m->free_count - 1] == slot;
		if (is_free && m->slots[slot - 1].name[0] != '\0')
			clear(&m->slots[slot - 1]);
	}
}

uint32_t openmap_add(struct openmap *m, struct span user)
{
	if (m->free_count == 0 || user.len == 0 || user.len > QUOTA_USER_MAX)
		return 0;
	const uint32_t slot = m->free[--m->free_count];
	memcpy(m->slots[slot - 1].name, user.ptr, user.len);
	atomic_store(&m->slots[slot - 1].len, (uint32_t)user.len);
	return slot;
}

void openmap_del(struct openmap *m, uint32_t slot)
{
	clear(&m->slots[slot - 1]);
	m->free[m->free_count++] = slot;
}
