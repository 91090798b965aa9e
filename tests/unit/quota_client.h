/* A mail process's side against a quotad that the test plays. */
#ifndef TESTS_UNIT_QUOTA_CLIENT_H
#define TESTS_UNIT_QUOTA_CLIENT_H

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dovecot-plugin-quota/usage.h"
#include "tests/unit/runner.h"

#define USER "office@example.net"

static char path[64];
static int listener = -1;
#define PATIENCE_MS 20000 /* with a thread of the test's own, which may come late */

static struct quota_client client;

static const struct usage_allowance none;

static inline void listen_anew(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	memcpy(addr.sun_path, path, strlen(path));
	unlink(path);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(listener, (const struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(listen(listener, 8), 0);
}

static inline void begin(void)
{
	(void)snprintf(path, sizeof(path), "%s/quota-client-%d.sock", tmpdir(), (int)getpid());
	listen_anew();
	ck_assert_int_eq(quota_client_init(&client, path, ""), 0);
}

static inline void end(void)
{
	quota_client_done(&client);
	close(listener);
	unlink(path);
}

/* ---- the other side ---- */

/* Answers one connection with the lines of SCRIPT, one a request with a reply;
 * closes it when the script ends. */
struct script {
	pthread_t thread;
	const char *const *lines;
	char seen[16384];
};

static inline bool has_reply(const char *line)
{
	static const char *const verbs[] = {"LOOKUP", "RESERVE", "LAST", "LIMIT", "COUNT", "SYNC"};
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strncmp(line, verbs[i], strlen(verbs[i])) == 0)
			return true;
	return false;
}

static inline void *play(void *arg)
{
	struct script *s = arg;
	const int fd = accept(listener, NULL, NULL);
	FILE *in = fdopen(fd, "r");
	char line[2048];
	size_t len = 0;

	for (const char *const *reply = s->lines; *reply != NULL;) {
		if (fgets(line, sizeof(line), in) == NULL)
			break;
		len += (size_t)snprintf(s->seen + len, sizeof(s->seen) - len, "%s", line);
		if (!has_reply(line))
			continue;
		if (send(fd, *reply, strlen(*reply), MSG_NOSIGNAL) < 0)
			break;
		reply++;
	}
	fclose(in);
	return NULL;
}

static inline void script_start(struct script *s, const char *const *lines)
{
	*s = (struct script){.lines = lines};
	ck_assert_int_eq(pthread_create(&s->thread, NULL, play, s), 0);
}

static inline void script_end(struct script *s)
{
	pthread_join(s->thread, NULL);
}

/* ---- a root ---- */

static uint64_t mailbox_bytes, mailbox_messages;
static int counts;

static inline int count_mailbox(void *arg, uint64_t *bytes_out, uint64_t *messages_out)
{
	(void)arg;
	counts++;
	*bytes_out = mailbox_bytes;
	*messages_out = mailbox_messages;
	return 0;
}

static inline struct usage root(uint64_t limit)
{
	return (struct usage){
		.client = &client, .user = USER, .count = count_mailbox, .state = {.limit = limit}};
}

static const struct usage_mail mail100 = {.bytes = 100, .key = ""};

#define OK_REPLY "OK\t7\t1000\t0\t300\t3\t600\t4611686018427387904\t5\t0\t0\n"

#endif
