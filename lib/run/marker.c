/* A name is decoded as leniently as whoever can write to the directory may name its files. */
#include "lib/run/marker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void marker_name(struct sbuf *out, struct span user)
{
	for (size_t i = 0; i < user.len; i++) {
		unsigned char c = (unsigned char)user.ptr[i];
		if (c < 0x20 || c == 0x7f || c == '/' || c == '%' || (c == '.' && i == 0))
			sbuf_addf(out, "%%%02x", c);
		else
			sbuf_addc(out, (char)c);
	}
}

int marker_leave(const char *dir, struct span user)
{
	char path[MARKER_PATH_MAX];
	struct sbuf b;
	sbuf_init(&b, path, sizeof(path));
	sbuf_addf(&b, "%s/", dir);
	marker_name(&b, user);
	if (!sbuf_ok(&b)) {
		errno = ENAMETOOLONG;
		return ERR_PERM;
	}
	/* One that is there may be somebody else's, whom the kernel lets nobody open. */
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	return fd >= 0 || errno == EEXIST ? 0 : ERR_PERM;
}

static void decode(const char *name, struct sbuf *out)
{
	for (const char *s = name; *s != '\0'; s++) {
		int high = s[0] == '%' ? ascii_hex_value(s[1]) : -1, low = high < 0 ? -1 : ascii_hex_value(s[2]);
		sbuf_addc(out, low < 0 ? *s : (char)(high * 16 + low));
		s += low < 0 ? 0 : 2;
	}
}

/* As both sides' protocols have it: no NUL that hides a rest, no LF that begins a line. */
static bool is_user(struct span name)
{
	for (size_t i = 0; i < name.len; i++)
		if ((unsigned char)name.ptr[i] < 0x20 || name.ptr[i] == 0x7f)
			return false;
	return name.len > 0;
}

bool marker_may_take(const char *dir)
{
	return access(dir, R_OK | W_OK | X_OK) == 0;
}

size_t marker_take(const char *dir, size_t max, bool (*fn)(void *arg, struct span user), void *arg)
{
	size_t taken = 0, seen = 0;
	DIR *d = opendir(dir);
	if (d == NULL)
		return 0;
	for (struct dirent *e = readdir(d); e != NULL && seen < max; e = readdir(d)) {
		char mem[MARKER_USER_MAX + 1];
		struct sbuf user;
		if (e->d_name[0] == '.' || e->d_type == DT_DIR)
			continue;
		seen++; /* also where it cannot be removed: no call goes on for ever */
		sbuf_init(&user, mem, sizeof(mem));
		decode(e->d_name, &user);
		if (sbuf_ok(&user) && is_user(sbuf_span(&user)) && !fn(arg, sbuf_span(&user)))
			break;
		taken += unlinkat(dirfd(d), e->d_name, 0) == 0;
	}
	closedir(d);
	return taken;
}
