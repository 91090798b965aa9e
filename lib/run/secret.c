/* The text is terminated and otherwise as it stands in the file. */
#include "lib/run/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int secret_read(const char *path, char text_out[SECRET_MAX], struct sbuf *error)
{
	text_out[0] = '\0';
	if (path[0] == '\0')
		return 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text_out, SECRET_MAX - 1);
	if (fd >= 0)
		close(fd);
	if (n < 0) {
		sbuf_addf(error, "%s: %s", path, strerror(errno));
		return ERR_PERM;
	}
	text_out[n] = '\0';
	return 0;
}
