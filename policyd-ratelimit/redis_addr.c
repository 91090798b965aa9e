/* A specification is built in a local struct and copied out when all of it is right. */
#include "redis_addr.h"

#include "lib/base/num.h"

int redis_server_set(struct span host, int64_t port, struct redis_server *server_out)
{
	struct redis_server server = {.port = (uint16_t)port};
	if (host.len == 0 || host.len > REDIS_HOST_MAX || port < 1 || port > UINT16_MAX)
		return ERR_SYNTAX;
	for (size_t i = 0; i < host.len; i++)
		if (!ascii_isalnum(host.ptr[i]) && span_chr(SPAN_LIT(".-_:"), host.ptr[i]) == SPAN_NPOS)
			return ERR_SYNTAX;
	int rc = span_copy_cstr(host, server.host, sizeof(server.host));
	if (rc == 0)
		*server_out = server;
	return rc;
}

bool redis_server_eq(const struct redis_server *a, const struct redis_server *b)
{
	return a->port == b->port && span_ieq(span_str(a->host), span_str(b->host));
}

void redis_server_format(const struct redis_server *server, struct sbuf *out)
{
	bool v6 = server->port != 0 && span_chr(span_str(server->host), ':') != SPAN_NPOS;
	sbuf_adds(out, v6 ? "[" : "");
	sbuf_adds(out, server->host);
	sbuf_adds(out, v6 ? "]" : "");
	if (server->port != 0)
		sbuf_addf(out, ":%u", (unsigned)server->port);
}

/* HOST:PORT or [ADDRESS]:PORT; a bare address of IPv6 where BARE. */
static int host_port_parse(struct span text, bool bare, struct redis_server *server_out)
{
	size_t at = span_rchr(text, ':');
	uint64_t port;
	if (at == SPAN_NPOS || num_parse_u64(span_skip(text, at + 1), UINT16_MAX, &port) < 0)
		return ERR_SYNTAX;
	struct span host = span_take(text, at);
	if (host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
		host = span_take(span_skip(host, 1), host.len - 2);
	else if (!bare && span_chr(host, ':') != SPAN_NPOS)
		return ERR_SYNTAX;
	return redis_server_set(host, (int64_t)port, server_out);
}

static int servers_parse(struct span text, struct redis_spec *spec, struct sbuf *reason)
{
	struct span item;
	bool more;
	do {
		more = span_cut(&text, ',', &item);
		item = span_trim(item);
		if (spec->count == REDIS_SERVERS_MAX) {
			sbuf_addf(reason, "more than %d servers", REDIS_SERVERS_MAX);
			return ERR_LIMIT;
		}
		if (host_port_parse(item, false, &spec->servers[spec->count]) < 0) {
			sbuf_addf(reason, "\"%.*s\" is not HOST:PORT", SPAN_ARG(item));
			return ERR_SYNTAX;
		}
		spec->count++;
	} while (more);
	return 0;
}

static int unix_parse(struct span path, struct redis_spec *spec, struct sbuf *reason)
{
	/* The size of sun_path, with its NUL. */
	if (path.len == 0 || path.ptr[0] != '/' || path.len > 107 ||
	    span_copy_cstr(path, spec->servers[0].host, sizeof(spec->servers[0].host)) < 0) {
		sbuf_adds(reason, "unix: wants an absolute path of at most 107 bytes");
		return ERR_SYNTAX;
	}
	spec->count = 1;
	return 0;
}

static int master_parse(struct span *rest, struct redis_spec *spec, struct sbuf *reason)
{
	struct span name;
	bool at = span_cut(rest, '@', &name), ok = at && name.len > 0 && name.len <= REDIS_NAME_MAX;
	for (size_t i = 0; ok && i < name.len; i++)
		ok = ascii_isalnum(name.ptr[i]) || span_chr(SPAN_LIT(".-_"), name.ptr[i]) != SPAN_NPOS;
	if (!ok) {
		sbuf_addf(reason, "sentinel: wants NAME@HOST:PORT, a name of at most %d letters, digits, dots and dashes",
			  REDIS_NAME_MAX);
		return ERR_SYNTAX;
	}
	return span_copy_cstr(name, spec->master, sizeof(spec->master));
}

int redis_spec_parse(struct span text, struct redis_spec *spec_out, struct sbuf *reason)
{
	struct redis_spec spec = {.kind = REDIS_PLAIN};
	struct span rest = span_trim(text), kind;
	int rc;
	if (!span_cut(&rest, ':', &kind))
		kind = SPAN_EMPTY;
	if (span_eq(kind, SPAN_LIT("unix"))) {
		rc = unix_parse(rest, &spec, reason);
	} else if (span_eq(kind, SPAN_LIT("inet")) || span_eq(kind, SPAN_LIT("inet6"))) {
		rc = servers_parse(rest, &spec, reason);
		if (rc == 0 && spec.count != 1) {
			sbuf_adds(reason, "one server is wanted; several are sentinel: or cluster:");
			rc = ERR_SYNTAX;
		}
	} else if (span_eq(kind, SPAN_LIT("cluster"))) {
		spec.kind = REDIS_CLUSTER;
		rc = servers_parse(rest, &spec, reason);
	} else if (span_eq(kind, SPAN_LIT("sentinel"))) {
		spec.kind = REDIS_SENTINEL;
		rc = master_parse(&rest, &spec, reason);
		if (rc == 0)
			rc = servers_parse(rest, &spec, reason);
	} else {
		sbuf_addf(reason, "\"%.*s\" begins with none of inet:, inet6:, unix:, sentinel: and cluster:", SPAN_ARG(text));
		rc = ERR_SYNTAX;
	}
	if (rc == 0)
		*spec_out = spec;
	return rc;
}

int redis_redirect_parse(struct span error, const struct redis_server *from, struct redis_redirect *redirect_out)
{
	struct redis_redirect r = {0};
	struct span word, rest = error;
	uint64_t slot, port;
	if (!span_cut(&rest, ' ', &word))
		return ERR_SYNTAX;
	r.ask = span_eq(word, SPAN_LIT("ASK"));
	if (!r.ask && !span_eq(word, SPAN_LIT("MOVED")))
		return ERR_SYNTAX;
	if (!span_cut(&rest, ' ', &word) || num_parse_u64(word, REDIS_SLOTS - 1, &slot) < 0)
		return ERR_SYNTAX;
	r.slot = (unsigned)slot;
	bool nameless = rest.len > 1 && rest.ptr[0] == ':' && span_rchr(rest, ':') == 0;
	if (!nameless) {
		if (host_port_parse(rest, true, &r.to) < 0)
			return ERR_SYNTAX;
	} else {
		if (num_parse_u64(span_skip(rest, 1), UINT16_MAX, &port) < 0 ||
		    redis_server_set(span_str(from->host), (int64_t)port, &r.to) < 0)
			return ERR_SYNTAX;
	}
	*redirect_out = r;
	return 0;
}

/* CRC-16/XMODEM: polynomial 0x1021, nothing reflected. */
static uint16_t crc16(struct span s)
{
	uint16_t crc = 0;
	for (size_t i = 0; i < s.len; i++) {
		crc = (uint16_t)(crc ^ (unsigned)(uint8_t)s.ptr[i] << 8);
		for (int bit = 0; bit < 8; bit++)
			crc = (uint16_t)(crc & 0x8000 ? (unsigned)crc << 1 ^ 0x1021 : (unsigned)crc << 1);
	}
	return crc;
}

unsigned redis_slot(struct span key)
{
	size_t open = span_chr(key, '{');
	if (open != SPAN_NPOS) {
		struct span behind = span_skip(key, open + 1);
		size_t close = span_chr(behind, '}');
		if (close != SPAN_NPOS && close > 0)
			key = span_take(behind, close);
	}
	return crc16(key) % REDIS_SLOTS;
}
