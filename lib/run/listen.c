/*
 * Addresses become a sockaddr first (struct address), the same way for
 * listening and connecting.  Hosts are numeric, or `*` for all addresses: a
 * name would make the start of a daemon wait for DNS.
 */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "lib/base/num.h"

#define BACKLOG 1024

struct address {
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	};
	socklen_t len;
	int type; /* SOCK_STREAM or SOCK_SEQPACKET */
};

static int fail(struct sbuf *error, int code, struct span what, const char *why)
{
	sbuf_addf(error, "%.*s: %s", SPAN_ARG(what), why);
	return code;
}

static int fail_errno(struct sbuf *error, int code, struct span what)
{
	return fail(error, code, what, strerror(errno));
}

static int parse_unix(struct span path, struct address *address)
{
	if (!span_starts(path, SPAN_LIT("/")) ||
	    span_copy_cstr(path, address->un.sun_path, sizeof(address->un.sun_path)) < 0)
		return ERR_SYNTAX;
	address->un.sun_family = AF_UNIX;
	address->len = sizeof(address->un);
	return 0;
}

static int parse_inet(struct span host, uint16_t port, struct address *address)
{
	char text[INET_ADDRSTRLEN];
	address->in.sin_family = AF_INET;
	address->in.sin_port = htons(port);
	address->len = sizeof(address->in);
	if (span_eq(host, SPAN_LIT("*")))
		return 0;
	if (span_ieq(host, SPAN_LIT("localhost")))
		host = SPAN_LIT("127.0.0.1");
	if (span_copy_cstr(host, text, sizeof(text)) < 0 ||
	    inet_pton(AF_INET, text, &address->in.sin_addr) != 1)
		return ERR_SYNTAX;
	return 0;
}

static int parse_inet6(struct span host, uint16_t port, struct address *address)
{
	char text[INET6_ADDRSTRLEN];
	if (!span_starts(host, SPAN_LIT("[")) || !span_ends(host, SPAN_LIT("]")))
		return ERR_SYNTAX;
	host = span_of(host.ptr + 1, host.len - 2);
	address->in6.sin6_family = AF_INET6;
	address->in6.sin6_port = htons(port);
	address->len = sizeof(address->in6);
	if (span_copy_cstr(host, text, sizeof(text)) < 0 ||
	    inet_pton(AF_INET6, text, &address->in6.sin6_addr) != 1)
		return ERR_SYNTAX;
	return 0;
}

static int parse_host_port(struct span rest, bool v6, struct address *address)
{
	uint64_t port = 0;
	size_t colon = span_rchr(rest, ':');
	if (colon == SPAN_NPOS || num_parse_u64(span_skip(rest, colon + 1), UINT16_MAX, &port) < 0 ||
	    port == 0)
		return ERR_SYNTAX;
	struct span host = span_take(rest, colon);
	return v6 ? parse_inet6(host, (uint16_t)port, address) : parse_inet(host, (uint16_t)port, address);
}

static int parse_one(struct span text, struct address *address, struct sbuf *error)
{
	struct span rest = text, scheme;
	int rc = ERR_SYNTAX;
	*address = (struct address){.len = 0, .type = SOCK_STREAM};
	span_cut(&rest, ':', &scheme);
	if (span_eq(scheme, SPAN_LIT("unix")) || span_eq(scheme, SPAN_LIT("seqpacket")))
		rc = parse_unix(rest, address);
	else if (span_eq(scheme, SPAN_LIT("inet")) || span_eq(scheme, SPAN_LIT("inet6")))
		rc = parse_host_port(rest, scheme.len == 5, address);
	if (span_eq(scheme, SPAN_LIT("seqpacket")))
		address->type = SOCK_SEQPACKET;
	if (rc < 0)
		return fail(error, rc, text,
			    "expected unix:/PATH, inet:ADDRESS:PORT or inet6:[ADDRESS]:PORT");
	return 0;
}

static bool is_separator(char c)
{
	return c == ',' || ascii_isfws(c);
}

/* Takes the next address of a list; false at its end. */
static bool next_address(struct span *rest, struct span *one_out)
{
	size_t len = 0;
	while (rest->len > 0 && is_separator(rest->ptr[0]))
		*rest = span_skip(*rest, 1);
	while (len < rest->len && !is_separator(rest->ptr[len]))
		len++;
	*one_out = span_take(*rest, len);
	*rest = span_skip(*rest, len);
	return len > 0;
}

static bool is_local(const struct address *address)
{
	switch (address->any.sa_family) {
	case AF_UNIX:
		return true;
	case AF_INET:
		return ntohl(address->in.sin_addr.s_addr) >> 24 == 127;
	default:
		return IN6_IS_ADDR_LOOPBACK(&address->in6.sin6_addr);
	}
}

static int check(const char *spec, bool local, struct sbuf *error)
{
	struct span rest = span_str(spec), one;
	struct address address;
	size_t count = 0;
	for (; next_address(&rest, &one); count++) {
		if (parse_one(one, &address, error) < 0)
			return ERR_SYNTAX;
		if (local && !is_local(&address))
			return fail(error, ERR_SYNTAX, one,
				    "only a unix socket or a loopback address is allowed");
	}
	if (count == 0)
		return fail(error, ERR_SYNTAX, span_str(spec), "no address");
	if (count > LISTEN_MAX)
		return fail(error, ERR_SYNTAX, span_str(spec), "too many addresses");
	return 0;
}

int listen_check(const char *spec, struct sbuf *error)
{
	return check(spec, false, error);
}

int listen_check_local(const char *spec, struct sbuf *error)
{
	return check(spec, true, error);
}

/* True where something accepts connections at the unix socket. */
static bool answers(const struct address *address)
{
	int fd = socket(AF_UNIX, address->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return true;
	int rc = connect(fd, &address->any, address->len);
	bool refused = rc < 0 && (errno == ECONNREFUSED || errno == ENOENT);
	close(fd);
	return !refused;
}

static int bind_unix(int fd, const struct address *address, mode_t mode, struct span one,
		     struct sbuf *error)
{
	const char *path = address->un.sun_path;
	struct stat st;
	int rc = bind(fd, &address->any, address->len);
	if (rc < 0 && errno == EADDRINUSE) {
		if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
			return fail(error, ERR_PERM, one, "there is a file that is not a socket");
		if (answers(address))
			return fail(error, ERR_EXISTS, one, "another process listens there");
		if (unlink(path) < 0 && errno != ENOENT)
			return fail_errno(error, ERR_PERM, one);
		rc = bind(fd, &address->any, address->len);
	}
	/* Until listen(2) nobody can connect, so there is no moment with another mode. */
	if (rc < 0 || chmod(path, mode) < 0)
		return fail_errno(error, ERR_PERM, one);
	return 0;
}

static int bind_inet(int fd, const struct address *address, struct span one, struct sbuf *error)
{
	const int on = 1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return fail_errno(error, ERR_PERM, one);
	if (address->any.sa_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0)
		return fail_errno(error, ERR_PERM, one);
	if (bind(fd, &address->any, address->len) < 0)
		return fail_errno(error, errno == EADDRINUSE ? ERR_EXISTS : ERR_PERM, one);
	return 0;
}

static int open_one(struct span one, mode_t mode, struct listen_set *set, struct sbuf *error)
{
	struct address address;
	int rc = parse_one(one, &address, error);
	if (rc < 0)
		return rc;
	bool is_unix = address.any.sa_family == AF_UNIX;
	int fd = socket(address.any.sa_family, address.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail_errno(error, ERR_PERM, one);
	rc = is_unix ? bind_unix(fd, &address, mode, one, error) : bind_inet(fd, &address, one, error);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	/* From here on listen_close() of the set undoes it. */
	set->paths[set->count] = is_unix ? mem_strdup(address.un.sun_path) : NULL;
	set->fds[set->count++] = fd;
	if (listen(fd, BACKLOG) < 0)
		return fail_errno(error, ERR_PERM, one);
	return 0;
}

static int adopt(int fd, struct listen_set *set, const char *name, struct sbuf *error)
{
	int flags = fcntl(fd, F_GETFL);
	bool is_ours = sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) > 0 || sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 1) > 0;
	if (!is_ours || flags < 0 ||
	    fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return fail(error, ERR_PERM, span_str(name),
			    "systemd handed over something that is not a listening socket");
	set->fds[set->count++] = fd;
	return 0;
}

/* Adopts the sockets of systemd under NAME; none is no error. */
static int adopt_all(const char *name, struct listen_set *set, struct sbuf *error)
{
	char **names = NULL;
	int count = sd_listen_fds_with_names(0, &names);
	int rc = 0;
	for (int i = 0; i < count; i++) {
		if (rc == 0 && strcmp(names[i], name) == 0)
			rc = set->count == LISTEN_MAX
				     ? fail(error, ERR_LIMIT, span_str(name), "too many sockets")
				     : adopt(SD_LISTEN_FDS_START + i, set, name, error);
		free(names[i]);
	}
	free(names);
	return rc;
}

int listen_open(const char *spec, const char *name, mode_t mode, struct listen_set *set_out,
		struct sbuf *error)
{
	struct listen_set set = {.count = 0};
	struct span rest = span_str(spec), one;
	int rc = adopt_all(name, &set, error);
	if (rc == 0 && set.count == 0) {
		rc = listen_check(spec, error);
		while (rc == 0 && next_address(&rest, &one))
			rc = open_one(one, mode, &set, error);
	}
	if (rc < 0) {
		listen_close(&set);
		return rc;
	}
	*set_out = set;
	return 0;
}

void listen_close(struct listen_set *set)
{
	for (size_t i = 0; i < set->count; i++) {
		close(set->fds[i]);
		if (set->paths[i] != NULL)
			unlink(set->paths[i]);
		free(set->paths[i]);
	}
	*set = (struct listen_set){.count = 0};
}

static int connect_failed(struct span what, struct sbuf *error)
{
	bool nobody = errno == ENOENT || errno == ECONNREFUSED;
	return fail_errno(error, nobody ? ERR_NOT_FOUND : ERR_TEMP, what);
}

int listen_connect(const char *spec, int *fd_out, struct sbuf *error)
{
	struct span what = span_str(spec);
	struct address address;
	int rc = parse_one(what, &address, error);
	if (rc < 0)
		return rc;
	int fd = socket(address.any.sa_family, address.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail_errno(error, ERR_TEMP, what);
	const int on = 1;
	if (address.any.sa_family != AF_UNIX &&
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0) {
		rc = fail_errno(error, ERR_TEMP, what);
	} else if (connect(fd, &address.any, address.len) < 0 && errno != EINPROGRESS) {
		rc = connect_failed(what, error);
	}
	if (rc < 0) {
		close(fd);
		return rc;
	}
	*fd_out = fd;
	return 0;
}
