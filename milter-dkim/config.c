/*
 * The table of options and what is made of them.  Invariant: settings own copies
 * of all texts, so the configuration may be freed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

#include "lib/base/num.h"
#include "lib/mail/dnsname.h"
#include "lib/mail/idn.h"
#include "milter-dkim/authres.h"
#include "milter-dkim/daemon.h"
#include "milter-dkim/keytable_spec.h"
#include "milter-dkim/psl.h"
#include "milter-dkim/sigwrite.h"

#define HOSTS_FILE_MAX (4u << 20)

#define EVENT EVENT_DEFINE
#include "milter-dkim/events.def"
#undef EVENT

#define CONF_STRUCT struct milter_config
static const struct conf_option options[] = {
#define OPTION CONF_ROW
#include "milter-dkim/options.def"
#undef OPTION
};

int read_file(void *unused, const char *path, struct sbuf *out)
{
	(void)unused;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? ERR_NOT_FOUND : ERR_PERM;
	char piece[16384];
	ssize_t n = 1;
	/* Devices may have no end. */
	while (sbuf_ok(out) && (n = read(fd, piece, sizeof(piece))) > 0)
		sbuf_add(out, span_of(piece, (size_t)n));
	explicit_bzero(piece, sizeof(piece));
	close(fd);
	return n < 0 ? ERR_TEMP : sbuf_ok(out) ? 0 : ERR_LIMIT;
}

/* Where VALUE is the path of a file, *PATH_OUT is set. */
static bool is_file(const char *value, const char **path_out)
{
	struct span v = span_trim(span_str(value));
	size_t skip = span_starts(v, SPAN_LIT("file:")) ? 5 : span_starts(v, SPAN_LIT("refile:")) ? 7 : 0;
	*path_out = v.ptr + skip;
	return v.len > skip && v.ptr[skip] == '/';
}

/*
 * The hosts in the TEXT of a file.  OpenDKIM never looks at what it cannot match, so
 * an existing file may hold such entries: they are left out, but not those that
 * were to exclude somebody.  TELL: each is logged.
 */
static int add_file_hosts(const char *path, struct span text, bool tell, struct hostset *hosts, struct span *bad)
{
	int rc;
	while ((rc = hostset_add(hosts, text, bad)) == ERR_SYNTAX && bad->ptr[0] != '!') {
		if (tell)
			LOG_EVENT(LOG_WARNING, &ev_host_entry_ignored, "an entry of the trusted hosts was left out",
				  LOG_FIELD_STR("FILE", path), LOG_FIELD("ENTRY", *bad));
		text = span_skip(text, (size_t)(bad->ptr + bad->len - text.ptr));
	}
	return rc;
}

/* Adds the hosts of an option's VALUE, or of the file that it names; WHY gets a
 * sentence where that fails. */
static int add_hosts(const char *value, bool tell, struct hostset *hosts, struct sbuf *why)
{
	const char *path = NULL;
	struct span bad = SPAN_EMPTY;
	struct sbuf text;
	sbuf_init_heap(&text, HOSTS_FILE_MAX);
	bool file = is_file(value, &path);
	int unread = file ? read_file(NULL, path, &text) : 0;
	int rc = unread < 0 ? unread
		 : file	    ? add_file_hosts(path, sbuf_span(&text), tell, hosts, &bad)
			    : hostset_add(hosts, span_str(value), &bad);
	if (rc < 0)
		sbuf_addf(why, "%s%s", file ? path : "", file ? ": " : "");
	if (unread < 0)
		sbuf_adds(why, err_text(rc));
	else if (rc == ERR_LIMIT)
		sbuf_adds(why, "too many entries");
	else if (rc < 0)
		sbuf_addf(why, "%.*s is no host", SPAN_ARG(bad));
	sbuf_done(&text);
	return rc;
}

/* Fails with the place of the option NAME, and its name. */
static int fail_option(const struct milter_config *c, const char *name, struct sbuf *error, const char *why)
{
	return conf_fail_option(&milter_conf, c, name, error, "%s: %s", name, why);
}

/* What keeps the file from being read, without reading it all. */
static int file_problem(const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? ERR_NOT_FOUND : ERR_PERM;
	ssize_t n = read(fd, &byte, 1);
	close(fd);
	return n < 0 ? ERR_TEMP : 0;
}

static int check_table(const struct milter_config *c, const char *name, const char *value, struct sbuf *error)
{
	char mem[512];
	struct sbuf why;
	struct keytable_spec spec;
	sbuf_init(&why, mem, sizeof(mem));
	if (value[0] == '\0')
		return 0;
	int rc = keytable_spec_parse(value, &spec, &why);
	if (rc == 0 && spec.kind != KEYTABLE_LIST && (rc = file_problem(spec.path)) < 0)
		sbuf_addf(&why, "%s: %s", spec.path, err_text(rc));
	return rc < 0 ? fail_option(c, name, error, sbuf_cstr(&why)) : 0;
}

static int check_hosts(const struct milter_config *c, const char *name, const char *value, bool names_only,
		       struct sbuf *error)
{
	char mem[512];
	struct sbuf why;
	struct hostset hosts = {0};
	sbuf_init(&why, mem, sizeof(mem));
	int rc = add_hosts(value, false, &hosts, &why);
	if (rc < 0)
		rc = fail_option(c, name, error, sbuf_cstr(&why));
	else if (names_only && hostset_has_addresses(&hosts))
		rc = fail_option(c, name, error, "domains only");
	hostset_done(&hosts);
	return rc;
}

/* An address or, where NETS, a network; else an address that may have a port. */
static bool is_server(struct span text, bool nets)
{
	struct ip_net net;
	uint64_t port = 1;
	if (nets)
		return ip_net_parse(text, &net) == 0;
	size_t colon = span_rchr(text, ':');
	bool bracket = text.len > 0 && text.ptr[0] == '[';
	if (colon != SPAN_NPOS && (bracket ? text.ptr[colon - 1] == ']' : span_chr(text, ':') == colon)) {
		if (num_parse_u64(span_skip(text, colon + 1), 65535, &port) < 0)
			return false;
		text = span_take(text, colon);
	}
	return port > 0 && span_chr(text, '/') == SPAN_NPOS && ip_net_parse(text, &net) == 0;
}

static int check_servers(const struct milter_config *c, const char *name, const char *value, bool nets,
			 struct sbuf *error)
{
	struct span rest = span_str(value), item;
	bool more = true;
	while (more) {
		more = span_cut(&rest, ',', &item);
		item = span_trim(item);
		if (item.len > 0 && !is_server(item, nets))
			return conf_fail_option(&milter_conf, c, name, error, "%s: %.*s is no address of a DNS server",
						name, SPAN_ARG(item));
	}
	return 0;
}

static int check_arc(const struct milter_config *c, struct sbuf *error)
{
	struct span domain = span_str(c->arc_domain), selector = span_str(c->arc_selector);
	if (domain.len > 0 && !dnsname_mail_valid(domain))
		return fail_option(c, "arc_domain", error, "expected the name of a domain");
	if (selector.len > 0 && (!dnsname_valid(selector) || !sigwrite_value_valid(selector)))
		return fail_option(c, "arc_selector", error, "expected a selector");
	if (c->arc_seal && domain.len == 0)
		return fail_option(c, "arc_seal", error, "needs arc_domain");
	if (c->arc_key_file[0] != '\0' && (domain.len == 0 || selector.len == 0))
		return fail_option(c, "arc_key_file", error, "needs arc_domain and arc_selector");
	return 0;
}

static int check_keys(const struct milter_config *c, struct sbuf *error)
{
	if (c->sign_headers[0] != '\0' && !sigwrite_names_valid(span_str(c->sign_headers)))
		return conf_fail_option(&milter_conf, c, "sign_headers", error,
					"sign_headers: expected at most %d names of fields separated by colons, From among them",
					SIG_NAMES_MAX);
	if (c->key_table[0] == '\0' && c->signing_table[0] != '\0')
		return fail_option(c, "signing_table", error, "needs key_table");
	if (c->key_table[0] != '\0' && c->signing_table[0] == '\0')
		return fail_option(c, "key_table", error, "needs signing_table");
	int rc = check_table(c, "key_table", c->key_table, error);
	return rc < 0 ? rc : check_table(c, "signing_table", c->signing_table, error);
}

/* Of two names, or of what another program would expand, no forged field bears the whole. */
static int check_authserv_id(const struct milter_config *c, struct sbuf *error)
{
	struct span id = span_str(c->authserv_id);
	if (id.len > 0 && (!authres_is_token(id) || span_chr(id, '$') != SPAN_NPOS))
		return fail_option(c, "authserv_id", error, "expected one name, without blanks and ()<>@,;:\\\"/[]?=$");
	return 0;
}

static int check_config(const void *arg, struct sbuf *error)
{
	const struct milter_config *c = arg;
	int rc = check_keys(c, error);
	if (rc == 0)
		rc = check_authserv_id(c, error);
	if (rc == 0)
		rc = check_arc(c, error);
	if (rc == 0)
		rc = check_hosts(c, "internal_hosts", c->internal_hosts, false, error);
	if (rc == 0)
		rc = check_hosts(c, "trusted_forwarders", c->trusted_forwarders, false, error);
	if (rc == 0)
		rc = check_hosts(c, "arc_trusted_sealers", c->arc_trusted_sealers, true, error);
	if (rc == 0)
		rc = check_servers(c, "resolver", c->resolver, false, error);
	return rc < 0 ? rc : check_servers(c, "resolver_trusted", c->resolver_trusted, true, error);
}

const struct conf_spec milter_conf = {
	.options = options,
	.count = sizeof(options) / sizeof(options[0]),
	.struct_size = sizeof(struct milter_config),
	.check = check_config,
};

/* A resolver that several generations of settings share. */
struct shared_resolver {
	atomic_uint refs;
	struct resolver *resolver;
	char *servers, *trusted;
};

struct settings {
	atomic_uint refs;
	struct session_settings session;
	struct shared_resolver *resolver;
	int64_t dns_timeout_ms;
	struct dmarc_psl psl;
};

static int read_all_hosts(const struct milter_config *c, struct session_settings *s, struct sbuf *error)
{
	int rc = add_hosts(c->internal_hosts, true, &s->internal_hosts, error);
	if (rc == 0)
		rc = add_hosts(c->trusted_forwarders, true, &s->trusted_forwarders, error);
	if (rc == 0)
		rc = add_hosts(c->arc_trusted_sealers, true, &s->trusted_sealers, error);
	return rc;
}

static void observe_dns(void *arg, enum dns_status status, int64_t elapsed_us)
{
	(void)arg;
	metrics_observe(METRIC_DNS_ANSWER, (double)elapsed_us / 1e6);
	if (status == DNS_FAILED)
		metrics_inc(METRIC_DNS_FAILURES);
}

static void shared_unref(struct shared_resolver *shared)
{
	if (shared == NULL || atomic_fetch_sub(&shared->refs, 1) != 1)
		return;
	resolver_close(&shared->resolver);
	free(shared->servers);
	free(shared->trusted);
	free(shared);
}

static int share_resolver(const struct milter_config *c, const struct settings *old,
			  struct shared_resolver **shared_out, struct sbuf *error)
{
	struct shared_resolver *before = old == NULL ? NULL : old->resolver;
	if (before != NULL && strcmp(before->servers, c->resolver) == 0 &&
	    strcmp(before->trusted, c->resolver_trusted) == 0 && old->dns_timeout_ms == c->dns_timeout) {
		atomic_fetch_add(&before->refs, 1);
		*shared_out = before;
		return 0;
	}
	struct resolver_config config = {
		.servers = c->resolver,
		.trusted = c->resolver_trusted,
		.timeout_ms = c->dns_timeout,
		.observe = observe_dns,
	};
	struct resolver *resolver;
	int rc = resolver_open(&config, &resolver, error);
	if (rc < 0)
		return rc;
	struct shared_resolver *shared = mem_zalloc(sizeof(*shared));
	atomic_init(&shared->refs, 1);
	shared->resolver = resolver;
	shared->servers = mem_strdup(c->resolver);
	shared->trusted = mem_strdup(c->resolver_trusted);
	*shared_out = shared;
	return 0;
}

/* A copy of NAME, in A-labels where it is a name: our fields go into mail whose
 * header is ASCII. */
static const char *ascii_name(const char *name)
{
	char mem[1024];
	struct sbuf ascii;
	sbuf_init(&ascii, mem, sizeof(mem));
	bool converts = !idn_is_ascii(span_str(name)) && idn_to_ascii(span_str(name), &ascii) == 0 && sbuf_ok(&ascii);
	return mem_strdup(converts ? sbuf_cstr(&ascii) : name);
}

static void use_arc(const struct milter_config *c, struct sealing_settings *seal)
{
	*seal = (struct sealing_settings){
		.on = c->arc_seal,
		.domain = ascii_name(c->arc_domain),
		.selector = ascii_name(c->arc_selector),
	};
	if (c->arc_key_file[0] == '\0')
		return;
	struct signkey_cache *cache = signkey_cache_new(1);
	seal->key = signkey_new_file(cache, span_str(seal->domain), span_str(seal->selector), c->arc_key_file,
				     read_file, NULL);
	signkey_cache_unref(&cache);
}

static int use_psl(struct settings *s, struct sbuf *error)
{
	int rc = psl_open(&s->psl);
	if (rc < 0)
		sbuf_adds(error, "dmarc_discovery: the system has no public suffix list");
	else
		s->session.psl = &s->psl;
	return rc;
}

int settings_new(const struct milter_config *config, const struct settings *old,
		 struct settings **settings_out, struct sbuf *error)
{
	struct settings *s = mem_zalloc(sizeof(*s));
	atomic_init(&s->refs, 1);
	s->dns_timeout_ms = config->dns_timeout;
	s->session = (struct session_settings){
		.role = (enum session_role)config->role,
		.daemon_names = mem_strdup(config->sign_daemon_names),
		.authserv_id = ascii_name(config->authserv_id),
		.sign_headers = mem_strdup(config->sign_headers),
		.header_canon = (enum canon)config->header_canonicalization,
		.body_canon = (enum canon)config->body_canonicalization,
		.expire_s = (config->signature_lifetime + 999) / 1000,
		.limits = {
			.header_bytes = (size_t)config->header_size_limit,
			.field_bytes = (size_t)config->header_size_limit,
			.fields = (size_t)config->header_count_limit,
		},
		.ignores_testing_keys = config->dkim_testing_keys != 0,
		.dmarc_enforce = (enum session_enforce)config->dmarc_enforce,
		.quarantine_holds = config->dmarc_quarantine != 0,
		.received_spf = config->received_spf,
		.reject_bad_from = config->reject_bad_from,
	};
	use_arc(config, &s->session.seal);
	int rc = read_all_hosts(config, &s->session, error);
	if (rc == 0 && config->dmarc_discovery != 0)
		rc = use_psl(s, error);
	if (rc == 0)
		rc = share_resolver(config, old, &s->resolver, error);
	if (rc < 0)
		settings_unref(&s);
	else
		*settings_out = s;
	return rc;
}

struct settings *settings_ref(struct settings *settings)
{
	atomic_fetch_add(&settings->refs, 1);
	return settings;
}

void settings_unref(struct settings **settings)
{
	struct settings *s = *settings;
	*settings = NULL;
	if (s == NULL || atomic_fetch_sub(&s->refs, 1) != 1)
		return;
	shared_unref(s->resolver);
	if (s->session.psl != NULL)
		psl_close(&s->psl);
	hostset_done(&s->session.internal_hosts);
	hostset_done(&s->session.trusted_forwarders);
	hostset_done(&s->session.trusted_sealers);
	signkey_unref(&s->session.seal.key);
	free((char *)(uintptr_t)s->session.seal.domain);
	free((char *)(uintptr_t)s->session.seal.selector);
	free((char *)(uintptr_t)s->session.daemon_names);
	free((char *)(uintptr_t)s->session.authserv_id);
	free((char *)(uintptr_t)s->session.sign_headers);
	free(s);
}

const struct session_settings *settings_session(const struct settings *settings)
{
	return &settings->session;
}

struct resolver_set *settings_questions(const struct settings *settings)
{
	return resolver_set_new(settings->resolver->resolver, settings->dns_timeout_ms);
}

struct resolver *settings_resolver(const struct settings *settings)
{
	return settings->resolver->resolver;
}
