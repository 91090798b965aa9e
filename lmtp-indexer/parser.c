/*
 * The daemon's side.  A parser that has died or was ended is replaced with the
 * next message; an idle one that somebody has killed is not the message's
 * fault and is replaced at once.
 */
#include "parser.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/run/loop.h"
#include "lmtp-indexer/extract_record.h"
#include "lmtp-indexer/parser_internal.h"

#define RECORD_OTHER_MAX EXTRACT_ARENA_MAX
#define NURSERY_S 10 /* for a fork */
#define KEEP_BYTES (1u << 20) /* of shared memory that a parser keeps when it is idle */

struct parser {
	struct parser_pool *pool;
	size_t index;
	int socket, pidfd; /* -1: not running */
};

/* Guards the nursery's socket, one packet each way a call, and the handles of
 * parsers against parser_pool_interrupt(). */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static char *memory_of(const struct parser *p)
{
	return p->pool->memory + p->index * p->pool->memory_each;
}

int parser_pool_open(const struct parser_config *config, struct parser_pool **pool_out, struct sbuf *error)
{
	int pair[2];
	struct parser_pool *pool = mem_zalloc(sizeof(*pool));
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	extract_start();
	pool->config = *config;
	pool->record_max = config->limits.text_max_bytes + extract_terms_max(&config->limits) + RECORD_OTHER_MAX;
	pool->memory_each = (config->content_max + pool->record_max + 1 + page - 1) / page * page;
	void *memory = mmap(NULL, pool->memory_each * config->count, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		sbuf_addf(error, "cannot prepare the parsers: %s", strerror(errno));
		free(pool);
		return ERR_TEMP;
	}
	pool->memory = memory;
	pool->nursery_pid = fork();
	if (pool->nursery_pid == 0)
		parser_nursery_run(pool, pair[1]);
	close(pair[1]);
	pool->nursery = pair[0];
	const struct timeval patience = {.tv_sec = NURSERY_S};
	IGNORE_RESULT(setsockopt(pool->nursery, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0);
	pool->parsers = mem_zalloc(config->count * sizeof(*pool->parsers));
	for (size_t i = 0; i < config->count; i++)
		pool->parsers[i] = (struct parser){.pool = pool, .index = i, .socket = -1, .pidfd = -1};
	*pool_out = pool;
	if (pool->nursery_pid < 0) {
		sbuf_addf(error, "cannot fork the parsers: %s", strerror(errno));
		parser_pool_close(pool_out);
		return ERR_TEMP;
	}
	return 0;
}

static void end_process(const struct parser *p)
{
	if (p->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
}

static void drop(struct parser *p)
{
	pthread_mutex_lock(&lock);
	end_process(p);
	if (p->pidfd >= 0)
		close(p->pidfd);
	if (p->socket >= 0)
		close(p->socket);
	p->socket = p->pidfd = -1;
	pthread_mutex_unlock(&lock);
}

void parser_pool_interrupt(struct parser_pool *pool)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < pool->config.count; i++)
		end_process(&pool->parsers[i]);
	pthread_mutex_unlock(&lock);
}

void parser_pool_close(struct parser_pool **pool_inout)
{
	struct parser_pool *pool = *pool_inout;
	if (pool == NULL)
		return;
	for (size_t i = 0; i < pool->config.count; i++)
		drop(&pool->parsers[i]);
	close(pool->nursery);
	if (pool->nursery_pid > 0)
		while (waitpid(pool->nursery_pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	munmap(pool->memory, pool->memory_each * pool->config.count);
	free(pool->parsers);
	free(pool);
	*pool_inout = NULL;
}

struct parser *parser_of(struct parser_pool *pool, size_t index)
{
	return &pool->parsers[index];
}

static int start(struct parser *p)
{
	int fds[2] = {-1, -1};
	size_t index = 0;
	pthread_mutex_lock(&lock);
	bool ok = parser_send(p->pool->nursery, &p->index, sizeof(p->index), NULL, 0) &&
		  parser_receive(p->pool->nursery, &index, sizeof(index), fds, 2) && fds[0] >= 0;
	p->socket = fds[0];
	p->pidfd = fds[1];
	pthread_mutex_unlock(&lock);
	return ok ? 0 : ERR_TEMP;
}

/* A fresh parser where the last one is gone. */
static int ask(struct parser *p, const struct extract_source *source)
{
	struct parser_request request = {.content_len = source->bytes.len};
	bool file = source->bytes.len == 0 && source->fd >= 0;
	if (source->bytes.len > 0)
		memcpy(memory_of(p), source->bytes.ptr, source->bytes.len);
	for (int attempt = 0; attempt < 2; attempt++) {
		int rc = p->socket < 0 ? start(p) : 0;
		if (rc < 0)
			return rc;
		if (parser_send(p->socket, &request, sizeof(request), &source->fd, file ? 1 : 0))
			return 0;
		drop(p);
	}
	return ERR_CLOSED;
}

static int wait_for_reply(struct parser *p, struct parser_reply *reply)
{
	struct pollfd pfd = {.fd = p->socket, .events = POLLIN};
	int64_t until = clock_boot_ms() + p->pool->config.timeout_ms;
	int n, none;
	do {
		int64_t left = until - clock_boot_ms();
		n = poll(&pfd, 1, left < 0 ? 0 : (int)left);
	} while (n < 0 && errno == EINTR);
	if (n == 0)
		return ERR_LIMIT;
	return parser_receive(p->socket, reply, sizeof(*reply), &none, 1) ? 0 : ERR_CLOSED;
}

/* The record is copied first: a parser could change it while it is checked. */
static int read_record(struct parser *p, uint64_t len, struct extract **extract_out)
{
	const struct parser_pool *pool = p->pool;
	if (len > pool->record_max)
		return ERR_CLOSED;
	char *copy = mem_alloc((size_t)len + 1);
	memcpy(copy, memory_of(p) + pool->config.content_max, (size_t)len);
	int rc = extract_record_read(span_of(copy, (size_t)len), &pool->config.limits, extract_out);
	free(copy);
	if (len > KEEP_BYTES)
		madvise(memory_of(p), pool->memory_each, MADV_REMOVE);
	return rc < 0 ? ERR_CLOSED : 0;
}

int parser_run(struct parser *p, const struct extract_source *source, struct extract **extract_out)
{
	struct parser_reply reply = {0};
	if (source->bytes.len > p->pool->config.content_max)
		return ERR_CLOSED;
	int rc = ask(p, source);
	if (rc == 0)
		rc = wait_for_reply(p, &reply);
	if (rc == 0)
		rc = read_record(p, reply.record_len, extract_out);
	if (rc < 0)
		drop(p);
	return rc;
}
