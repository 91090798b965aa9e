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
#define REQUEST_S 1 /* for a request to be taken: a parser that reads has room for it at once */
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
	/* One that was taken over may answer and never read. */
	const struct timeval patience = {.tv_sec = REQUEST_S};
	if (ok && setsockopt(p->socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
		return ERR_TEMP;
	return ok ? 0 : ERR_TEMP;
}

/* A fresh parser where the last one is gone. */
static int ask(struct parser *p, const struct span *contents, size_t count, int fd)
{
	struct parser_request request = {.count = count};
	char *to = memory_of(p);
	for (size_t i = 0; i < count; i++) {
		if (contents[i].len > 0)
			memcpy(to, contents[i].ptr, contents[i].len);
		to += contents[i].len;
		request.content_len[i] = contents[i].len;
	}
	for (int attempt = 0; attempt < 2; attempt++) {
		int rc = p->socket < 0 ? start(p) : 0;
		if (rc < 0)
			return rc;
		if (parser_send(p->socket, &request, sizeof(request), &fd, fd >= 0 ? 1 : 0))
			return 0;
		drop(p);
	}
	return ERR_CLOSED;
}

static int wait_for_reply(struct parser *p, struct parser_reply *reply)
{
	struct pollfd pfd = {.fd = p->socket, .events = POLLIN};
	int64_t until = clock_boot_ms() + p->pool->config.timeout_ms;
	int n;
	do {
		int64_t left = until - clock_boot_ms();
		n = poll(&pfd, 1, left < 0 ? 0 : (int)left);
	} while (n < 0 && errno == EINTR);
	if (n == 0)
		return ERR_LIMIT;
	return parser_receive(p->socket, reply, sizeof(*reply), NULL, 0) ? 0 : ERR_CLOSED;
}

/* The record is copied first: a parser could change it while it is checked. */
static int read_record(const struct parser *p, size_t at, size_t len, struct extract **extract_out)
{
	const struct parser_pool *pool = p->pool;
	char *copy = mem_alloc(len + 1);
	memcpy(copy, memory_of(p) + pool->config.content_max + at, len);
	int rc = extract_record_read(span_of(copy, len), &pool->config.limits, extract_out);
	free(copy);
	return rc < 0 ? ERR_CLOSED : 0;
}

/* All or none. */
static int read_records(struct parser *p, const struct parser_reply *reply, size_t asked, struct extract **extracts_out)
{
	const struct parser_pool *pool = p->pool;
	size_t at = 0, done = 0;
	int rc = reply->count >= 1 && reply->count <= asked ? 0 : ERR_CLOSED;
	for (; rc == 0 && done < reply->count; done++) {
		if (reply->record_len[done] > pool->record_max - at)
			rc = ERR_CLOSED;
		else
			rc = read_record(p, at, (size_t)reply->record_len[done], &extracts_out[done]);
		if (rc < 0)
			break;
		at += (size_t)reply->record_len[done];
	}
	while (rc < 0 && done > 0)
		extract_free(&extracts_out[--done]);
	if (at > KEEP_BYTES)
		madvise(memory_of(p), pool->memory_each, MADV_REMOVE);
	return rc;
}

static int run(struct parser *p, const struct span *contents, size_t count, int fd, struct extract **extracts_out,
	       size_t *done_out)
{
	struct parser_reply reply = {0};
	size_t bytes = 0;
	for (size_t i = 0; i < count; i++)
		bytes += contents[i].len;
	if (bytes > p->pool->config.content_max || count > PARSER_BATCH_MAX)
		return ERR_CLOSED;
	int rc = ask(p, contents, count, fd);
	if (rc == 0)
		rc = wait_for_reply(p, &reply);
	if (rc == 0)
		rc = read_records(p, &reply, count, extracts_out);
	if (rc < 0)
		drop(p);
	else
		*done_out = (size_t)reply.count;
	return rc;
}

int parser_run(struct parser *p, const struct extract_source *source, struct extract **extract_out)
{
	size_t done;
	return run(p, &source->bytes, 1, source->bytes.len > 0 ? -1 : source->fd, extract_out, &done);
}

int parser_run_many(struct parser *p, const struct span *contents, size_t count, struct extract **extracts_out,
		    size_t *done_out)
{
	return run(p, contents, count, -1, extracts_out, done_out);
}
