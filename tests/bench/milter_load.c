/*
 * Plays what Postfix sends a milter, so that the milter can be measured, and
 * driven through very many messages, without the cost of Postfix: version 6 of
 * the protocol, steps without reply kept in a buffer, macros cut to those that the
 * milter asked for.
 *
 * usage: milter_load [-c CONNECTIONS] [-n MESSAGES] [-k PER_CONNECTION] [-b BODY_BYTES]
 *                    [-f FROM] [-l LOGIN] [-p PID] [-x] SOCKET FILE...
 *
 *   -c  connections at a time (4); -n messages in all (1000)
 *   -k  messages on one connection (1)
 *   -b  that many bytes of body behind the file's own, without a line end among them
 *   -f  MAIL FROM; -l  SASL login, so that the mail is ours
 *   -p  tells what the milter process PID uses: CPU, page faults, switches, memory, files
 *   -x  every tenth message goes wrong: aborted, cut off, or with a huge header
 *
 * The files take turns.  Prints one line of JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libmilter/mfapi.h>
#include <libmilter/mfdef.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/num.h"
#include "lib/base/sbuf.h"
#include "tests/bench/process.h"

#define CONNECTIONS_MAX 200
#define FILES_MAX 16
#define FILE_MAX_BYTES (8u << 20)
#define BUFFER_BYTES 4096 /* Postfix's */
#define REPLY_MAX_BYTES (1u << 20)
#define STAGES 7          /* SMFIM_CONNECT to SMFIM_EOH */
#define HUGE_FIELDS 300
#define HUGE_FIELD_BYTES 500

struct mail {
	struct span header, body; /* lines end in LF */
};

static struct {
	const char *socket_path, *from, *login;
	uint64_t connections, messages, per_connection, body_bytes;
	bool go_wrong;
	struct mail files[FILES_MAX];
	size_t file_count;
	atomic_ullong next, accepted, other, broken;
} load = {.from = "sales@bench.example", .connections = 4, .messages = 1000, .per_connection = 1};

/* One connection to the milter. */
struct link {
	int fd;
	uint32_t steps;
	struct sbuf out, in;
	struct sbuf macros[STAGES]; /* names that the milter asks for, each with a space behind */
	bool chosen[STAGES];
};

enum trouble { NO_TROUBLE, ABORTED_EARLY, ABORTED_LATE, CUT_OFF, HUGE_HEADER };

static NORETURN void die(const char *what)
{
	fprintf(stderr, "milter_load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec t = {0};
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- packets ---- */

static void flush(struct link *l)
{
	struct span rest = sbuf_span(&l->out);
	while (rest.len > 0) {
		ssize_t n = send(l->fd, rest.ptr, rest.len, MSG_NOSIGNAL);
		if (n < 0)
			die("write");
		rest = span_skip(rest, (size_t)n);
	}
	sbuf_reset(&l->out);
}

static void add_u32(struct sbuf *out, uint32_t value)
{
	uint32_t wire = htonl(value);
	sbuf_add(out, span_of(&wire, sizeof(wire)));
}

static void add_text(struct sbuf *out, struct span text)
{
	sbuf_add(out, text);
	sbuf_addc(out, '\0');
}

static void put(struct link *l, char command, struct span data)
{
	add_u32(&l->out, (uint32_t)data.len + 1);
	sbuf_addc(&l->out, command);
	sbuf_add(&l->out, data);
	if (l->out.len >= BUFFER_BYTES)
		flush(l);
}

static void read_all(struct link *l, size_t len)
{
	char piece[4096];
	sbuf_reset(&l->in);
	while (l->in.len < len) {
		size_t want = len - l->in.len < sizeof(piece) ? len - l->in.len : sizeof(piece);
		ssize_t n = read(l->fd, piece, want);
		if (n <= 0)
			die("the milter has closed the connection");
		sbuf_add(&l->in, span_of(piece, (size_t)n));
	}
}

static uint32_t get_u32(struct span bytes)
{
	uint32_t wire;
	memcpy(&wire, bytes.ptr, sizeof(wire));
	return ntohl(wire);
}

/* One packet of the milter; its data stays in l->in. */
static char get(struct link *l)
{
	flush(l);
	read_all(l, 4);
	uint32_t len = get_u32(sbuf_span(&l->in));
	if (len == 0 || len > REPLY_MAX_BYTES) {
		errno = EBADMSG;
		die("reply");
	}
	read_all(l, len);
	return l->in.ptr[0];
}

/* Whether the milter lets the transaction go on. */
static bool goes_on(struct link *l, uint32_t no_reply)
{
	if ((l->steps & no_reply) != 0)
		return true;
	char reply = get(l);
	return reply == SMFIR_CONTINUE || reply == SMFIR_SKIP;
}

/* ---- macros ---- */

static void add_macro(const struct link *l, struct sbuf *out, unsigned stage, const char *name,
		      const char *value)
{
	char mem[64];
	struct sbuf word;
	sbuf_init(&word, mem, sizeof(mem));
	sbuf_addf(&word, "%s ", name);
	if (value[0] == '\0' ||
	    (l->chosen[stage] && span_find(sbuf_span(&l->macros[stage]), sbuf_span(&word)) == SPAN_NPOS))
		return;
	add_text(out, span_str(name));
	add_text(out, span_str(value));
}

static void put_macros(struct link *l, unsigned stage, char command, const char *queue_id)
{
	char mem[1024];
	struct sbuf out;
	sbuf_init(&out, mem, sizeof(mem));
	sbuf_addc(&out, command);
	if (stage == SMFIM_CONNECT) {
		add_macro(l, &out, stage, "j", "mx.example.org");
		add_macro(l, &out, stage, "{daemon_name}", "mx.example.org");
		add_macro(l, &out, stage, "{daemon_addr}", "127.0.0.1");
		add_macro(l, &out, stage, "v", "Postfix 3.7.11");
	} else if (queue_id[0] != '\0') {
		add_macro(l, &out, stage, "i", queue_id);
	}
	if (stage == SMFIM_ENVFROM) {
		add_macro(l, &out, stage, "{auth_authen}", load.login == NULL ? "" : load.login);
		add_macro(l, &out, stage, "{mail_addr}", load.from);
		add_macro(l, &out, stage, "{mail_host}", "bench.example");
		add_macro(l, &out, stage, "{mail_mailer}", "smtp");
	}
	if (stage == SMFIM_ENVRCPT)
		add_macro(l, &out, stage, "{rcpt_addr}", "to@sink.example");
	/* Postfix also sends a packet without any macro. */
	put(l, SMFIC_MACRO, sbuf_span(&out));
}

/* ---- a connection ---- */

static void negotiate(struct link *l)
{
	char mem[16];
	struct sbuf offer;
	sbuf_init(&offer, mem, sizeof(mem));
	add_u32(&offer, 6);
	add_u32(&offer, SMFI_CURR_ACTS);
	add_u32(&offer, SMFI_CURR_PROT);
	put(l, SMFIC_OPTNEG, sbuf_span(&offer));
	if (get(l) != SMFIC_OPTNEG || l->in.len < 13) {
		errno = EPROTO;
		die("negotiation");
	}
	struct span rest = span_skip(sbuf_span(&l->in), 9);
	l->steps = get_u32(rest);
	rest = span_skip(rest, 4);
	while (rest.len > 4) {
		uint32_t stage = get_u32(rest);
		struct span names;
		rest = span_skip(rest, 4);
		span_cut(&rest, '\0', &names);
		if (stage >= STAGES)
			continue;
		l->chosen[stage] = true;
		sbuf_add(&l->macros[stage], names);
		sbuf_addc(&l->macros[stage], ' ');
	}
}

static void open_link(struct link *l)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	if (span_copy_cstr(span_str(load.socket_path), addr.sun_path, sizeof(addr.sun_path)) < 0)
		die(load.socket_path);
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l->fd < 0 || connect(l->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die(load.socket_path);
	for (unsigned i = 0; i < STAGES; i++) {
		sbuf_reset(&l->macros[i]);
		l->chosen[i] = false;
	}
	negotiate(l);
	char mem[128];
	struct sbuf client;
	uint16_t port = htons(40000);
	sbuf_init(&client, mem, sizeof(mem));
	add_text(&client, SPAN_LIT("mail.bench.example"));
	sbuf_addc(&client, SMFIA_INET);
	sbuf_add(&client, span_of(&port, sizeof(port)));
	add_text(&client, SPAN_LIT("192.0.2.10"));
	put_macros(l, SMFIM_CONNECT, SMFIC_CONNECT, "");
	if ((l->steps & SMFIP_NOCONNECT) == 0) {
		put(l, SMFIC_CONNECT, sbuf_span(&client));
		(void)goes_on(l, SMFIP_NR_CONN);
	}
	put_macros(l, SMFIM_HELO, SMFIC_HELO, "");
	if ((l->steps & SMFIP_NOHELO) == 0) {
		put(l, SMFIC_HELO, span_of("mail.bench.example", sizeof("mail.bench.example")));
		(void)goes_on(l, SMFIP_NR_HELO);
	}
}

static void close_link(struct link *l, bool politely)
{
	if (politely) {
		put(l, SMFIC_QUIT, SPAN_EMPTY);
		flush(l);
	}
	sbuf_reset(&l->out);
	close(l->fd);
	l->fd = -1;
}

/* ---- a message ---- */

static bool put_envelope(struct link *l, const char *queue_id)
{
	char mem[512];
	struct sbuf address;
	sbuf_init(&address, mem, sizeof(mem));
	sbuf_addf(&address, "<%s>", load.from);
	sbuf_addc(&address, '\0');
	put_macros(l, SMFIM_ENVFROM, SMFIC_MAIL, "");
	put(l, SMFIC_MAIL, sbuf_span(&address));
	if (!goes_on(l, SMFIP_NR_MAIL))
		return false;
	put_macros(l, SMFIM_ENVRCPT, SMFIC_RCPT, queue_id);
	if ((l->steps & SMFIP_NORCPT) == 0) {
		put(l, SMFIC_RCPT, span_of("<to@sink.example>", sizeof("<to@sink.example>")));
		if (!goes_on(l, SMFIP_NR_RCPT))
			return false;
	}
	put_macros(l, SMFIM_DATA, SMFIC_DATA, queue_id);
	if ((l->steps & SMFIP_NODATA) == 0) {
		put(l, SMFIC_DATA, SPAN_EMPTY);
		return goes_on(l, SMFIP_NR_DATA);
	}
	return true;
}

static bool put_field(struct link *l, struct span name, struct span value)
{
	char mem[65536];
	struct sbuf field;
	sbuf_init(&field, mem, sizeof(mem));
	add_text(&field, name);
	add_text(&field, value);
	put(l, SMFIC_HEADER, sbuf_span(&field));
	return goes_on(l, SMFIP_NR_HDR);
}

static bool put_header(struct link *l, struct span header)
{
	while (header.len > 0) {
		size_t end = 0;
		do {
			size_t line = span_chr(span_skip(header, end), '\n');
			end = line == SPAN_NPOS ? header.len : end + line + 1;
		} while (end < header.len && (header.ptr[end] == ' ' || header.ptr[end] == '\t'));
		struct span field = span_take(header, end), name;
		header = span_skip(header, end);
		if (span_ends(field, SPAN_LIT("\n")))
			field.len--;
		span_cut(&field, ':', &name);
		if (!put_field(l, name, field))
			return false;
	}
	return true;
}

static bool put_huge_header(struct link *l)
{
	char value[HUGE_FIELD_BYTES];
	memset(value, 'x', sizeof(value));
	value[0] = ' ';
	for (int i = 0; i < HUGE_FIELDS; i++)
		if (!put_field(l, SPAN_LIT("X-Huge"), span_of(value, sizeof(value))))
			return false;
	return true;
}

static bool put_piece(struct link *l, struct span piece)
{
	put(l, SMFIC_BODY, piece);
	return goes_on(l, SMFIP_NR_BODY);
}

static bool put_body(struct link *l, struct span body)
{
	static char filler[MILTER_CHUNK_SIZE];
	char mem[MILTER_CHUNK_SIZE];
	struct sbuf piece;
	struct span line;
	bool on = true;
	sbuf_init(&piece, mem, sizeof(mem));
	while (on && body.len > 0) {
		span_cut(&body, '\n', &line);
		if (piece.len + line.len + 2 >= sizeof(mem)) {
			on = put_piece(l, sbuf_span(&piece));
			sbuf_reset(&piece);
		}
		sbuf_add(&piece, line);
		sbuf_adds(&piece, "\r\n");
	}
	if (on && piece.len > 0)
		on = put_piece(l, sbuf_span(&piece));
	for (uint64_t left = load.body_bytes; on && left > 0;) {
		size_t n = left < sizeof(filler) ? (size_t)left : sizeof(filler);
		on = put_piece(l, span_of(filler, n));
		left -= n;
	}
	return on;
}

/* The verdict, after the changes that the milter makes. */
static void finish_message(struct link *l, const char *queue_id)
{
	put_macros(l, SMFIM_EOM, SMFIC_BODYEOB, queue_id);
	put(l, SMFIC_BODYEOB, SPAN_EMPTY);
	for (;;) {
		switch (get(l)) {
		case SMFIR_CONTINUE:
		case SMFIR_ACCEPT:
			atomic_fetch_add(&load.accepted, 1);
			return;
		case SMFIR_TEMPFAIL:
		case SMFIR_REJECT:
		case SMFIR_DISCARD:
		case SMFIR_REPLYCODE:
			atomic_fetch_add(&load.other, 1);
			return;
		default:
			break;
		}
	}
}

/* False where the message ended early and the connection is at MAIL again. */
static bool put_message(struct link *l, uint64_t number, enum trouble trouble, const char *queue_id)
{
	const struct mail *mail = &load.files[number % load.file_count];
	if (!put_envelope(l, queue_id) || trouble == ABORTED_EARLY)
		return false;
	if (trouble == HUGE_HEADER && !put_huge_header(l))
		return false;
	if (!put_header(l, mail->header) || trouble == ABORTED_LATE)
		return false;
	put_macros(l, SMFIM_EOH, SMFIC_EOH, queue_id);
	if ((l->steps & SMFIP_NOEOH) == 0) {
		put(l, SMFIC_EOH, SPAN_EMPTY);
		if (!goes_on(l, SMFIP_NR_EOH))
			return false;
	}
	return put_body(l, mail->body);
}

static enum trouble trouble_of(uint64_t number)
{
	if (!load.go_wrong || number % 10 != 9)
		return NO_TROUBLE;
	return (enum trouble)(ABORTED_EARLY + number / 10 % 4);
}

static void play(struct link *l, uint64_t number, enum trouble trouble)
{
	char queue_id[32];
	snprintf(queue_id, sizeof(queue_id), "4F%014llX", (unsigned long long)number);
	if (l->fd < 0)
		open_link(l);
	bool whole = put_message(l, number, trouble, queue_id);
	if (trouble == CUT_OFF) {
		flush(l);
		close_link(l, false);
	} else if (whole) {
		finish_message(l, queue_id);
	} else {
		put(l, SMFIC_ABORT, SPAN_EMPTY);
	}
	atomic_fetch_add(&load.broken, trouble == CUT_OFF || !whole);
}

static void *run(void *arg)
{
	struct link l = {.fd = -1};
	uint64_t on_link = 0, number;
	(void)arg;
	sbuf_init_heap(&l.out, FILE_MAX_BYTES);
	sbuf_init_heap(&l.in, REPLY_MAX_BYTES);
	for (unsigned i = 0; i < STAGES; i++)
		sbuf_init_heap(&l.macros[i], 4096);
	while ((number = atomic_fetch_add(&load.next, 1)) < load.messages) {
		play(&l, number, trouble_of(number));
		on_link = l.fd < 0 ? 0 : on_link + 1;
		if (on_link >= load.per_connection) {
			close_link(&l, true);
			on_link = 0;
		}
	}
	if (l.fd >= 0)
		close_link(&l, true);
	for (unsigned i = 0; i < STAGES; i++)
		sbuf_done(&l.macros[i]);
	sbuf_done(&l.out);
	sbuf_done(&l.in);
	return NULL;
}

/* ---- the command ---- */

static void read_mail(const char *path)
{
	char piece[65536];
	struct sbuf text;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || load.file_count == FILES_MAX)
		die(path);
	sbuf_init_heap(&text, FILE_MAX_BYTES);
	while ((n = read(fd, piece, sizeof(piece))) > 0)
		sbuf_add(&text, span_of(piece, (size_t)n));
	close(fd);
	size_t end = span_find(sbuf_span(&text), SPAN_LIT("\n\n"));
	if (end == SPAN_NPOS || !sbuf_ok(&text)) {
		errno = EBADMSG;
		die(path);
	}
	/* Kept until the end of the process. */
	load.files[load.file_count++] = (struct mail){
		.header = span_take(sbuf_span(&text), end + 1),
		.body = span_skip(sbuf_span(&text), end + 2),
	};
}

static uint64_t number_argument(const char *text, uint64_t max)
{
	uint64_t value;
	if (num_parse_u64(span_str(text), max, &value) < 0) {
		fprintf(stderr, "milter_load: not a number up to %llu: %s\n", (unsigned long long)max, text);
		exit(64);
	}
	return value;
}

static pid_t read_arguments(int argc, char **argv)
{
	pid_t pid = 0;
	int option;
	while ((option = getopt(argc, argv, "c:n:k:b:f:l:p:x")) != -1) {
		switch (option) {
		case 'c':
			load.connections = number_argument(optarg, CONNECTIONS_MAX);
			break;
		case 'n':
			load.messages = number_argument(optarg, UINT32_MAX);
			break;
		case 'k':
			load.per_connection = number_argument(optarg, UINT32_MAX);
			break;
		case 'b':
			load.body_bytes = number_argument(optarg, UINT32_MAX);
			break;
		case 'f':
			load.from = optarg;
			break;
		case 'l':
			load.login = optarg;
			break;
		case 'p':
			pid = (pid_t)number_argument(optarg, INT32_MAX);
			break;
		case 'x':
			load.go_wrong = true;
			break;
		default:
			exit(64);
		}
	}
	if (argc - optind < 2) {
		fprintf(stderr, "usage: milter_load [OPTION...] SOCKET FILE...\n");
		exit(64);
	}
	load.socket_path = argv[optind];
	for (int i = optind + 1; i < argc; i++)
		read_mail(argv[i]);
	return pid;
}

/* CPU, faults and switches of one message; memory and descriptors after all. */
static void print_usage(const struct process_usage *before, const struct process_usage *after)
{
	double count = (double)load.messages;
	printf(",\"cpu_us\":%.1f,\"faults\":%.2f,\"switches\":%.2f,\"memory_kb\":%llu,\"files\":%u",
	       1e6 * (after->cpu_s - before->cpu_s) / count, (double)(after->faults - before->faults) / count,
	       (double)(after->switches - before->switches) / count, after->memory_bytes / 1024, after->files);
}

int main(int argc, char **argv)
{
	pthread_t threads[CONNECTIONS_MAX];
	pid_t pid = read_arguments(argc, argv);
	struct process_usage before = {0}, after = {0};
	if (pid != 0 && process_usage(pid, &before) < 0)
		die("no such process");
	double from = now_s();
	for (uint64_t i = 0; i < load.connections; i++)
		if (pthread_create(&threads[i], NULL, run, NULL) != 0)
			die("thread");
	for (uint64_t i = 0; i < load.connections; i++)
		pthread_join(threads[i], NULL);
	double seconds = now_s() - from;
	if (pid != 0 && process_usage(pid, &after) < 0)
		die("the process has ended");
	printf("{\"accepted\":%llu,\"other\":%llu,\"broken\":%llu,\"seconds\":%.3f", load.accepted, load.other,
	       load.broken, seconds);
	if (pid != 0)
		print_usage(&before, &after);
	printf("}\n");
	return 0;
}
