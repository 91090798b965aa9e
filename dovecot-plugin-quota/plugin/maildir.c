/*
 * Dovecot puts the virtual size into the name of a file (,W=).  A name that lacks it,
 * of a file that somebody else has put there, makes the file to be read.
 */
#include "dovecot-plugin-quota/plugin/plugin.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/base/num.h"

/* The number behind ,W= in the part of NAME that does not change. */
static bool size_in_name(const char *name, uint64_t *size_r)
{
	const char *at = strstr(name, ",W=");
	const char *flags = strchr(name, ':');
	if (at == NULL || (flags != NULL && at > flags))
		return FALSE;
	const size_t len = strspn(at + 3, "0123456789");
	return num_parse_u64(span_of(at + 3, len), INT64_MAX, size_r) == 0;
}

/* Bytes of the file with each lone LF counted as CR LF. */
static int size_of_file(int dir_fd, const char *name, uint64_t *size_r)
{
	char block[16384], last = '\0';
	uint64_t size = 0;
	ssize_t n;
	const int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -1;
	while ((n = read(fd, block, sizeof(block))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			size += block[i] == '\n' && last != '\r' ? 2 : 1;
			last = block[i];
		}
	}
	close(fd);
	*size_r = size;
	return n < 0 ? -1 : 0;
}

static int add_folder(const char *path, uint64_t *bytes, uint64_t *messages)
{
	struct dirent *entry;
	uint64_t size;
	DIR *dir = opendir(path);

	if (dir == NULL)
		return errno == ENOENT ? 0 : -1;
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.' ||
		    (!size_in_name(entry->d_name, &size) &&
		     size_of_file(dirfd(dir), entry->d_name, &size) < 0))
			continue; /* gone meanwhile, or no mail */
		*bytes += size;
		(*messages)++;
	}
	closedir(dir);
	return 0;
}

int usage_maildir_sizes(const char *path, uint64_t *bytes_out, uint64_t *messages_out)
{
	uint64_t bytes = 0, messages = 0;

	if (add_folder(t_strconcat(path, "/cur", NULL), &bytes, &messages) < 0 ||
	    add_folder(t_strconcat(path, "/new", NULL), &bytes, &messages) < 0)
		return -1;
	*bytes_out = bytes;
	*messages_out = messages;
	return 0;
}
