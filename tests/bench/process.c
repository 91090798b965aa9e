/* Reads /proc; what cannot be read counts as zero. */
#include "tests/bench/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

static void read_text(const char *path, char *mem, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, mem, size - 1);
	if (fd >= 0)
		close(fd);
	mem[n < 0 ? 0 : n] = '\0';
}

static unsigned long long number_behind(const char *text, const char *label)
{
	const char *at = strstr(text, label);
	return at == NULL ? 0 : strtoull(at + strlen(label), NULL, 10);
}

static unsigned long long switches_of(pid_t pid)
{
	char path[300], text[4096];
	unsigned long long sum = 0;
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	DIR *tasks = opendir(path);
	if (tasks == NULL)
		return 0;
	for (const struct dirent *task; (task = readdir(tasks)) != NULL;) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, task->d_name);
		read_text(path, text, sizeof(text));
		sum += number_behind(text, "\nvoluntary_ctxt_switches:") +
		       number_behind(text, "\nnonvoluntary_ctxt_switches:");
	}
	closedir(tasks);
	return sum;
}

static unsigned files_of(pid_t pid)
{
	char path[64];
	unsigned count = 0;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *files = opendir(path);
	if (files == NULL)
		return 0;
	for (const struct dirent *file; (file = readdir(files)) != NULL;)
		count += file->d_name[0] != '.';
	closedir(files);
	return count;
}

int process_usage(pid_t pid, struct process_usage *usage_out)
{
	clockid_t clock;
	struct timespec cpu;
	char path[64], text[4096];
	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &cpu) < 0)
		return ERR_NOT_FOUND;
	struct process_usage u = {.cpu_s = (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9};
	u.switches = switches_of(pid);
	u.files = files_of(pid);
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	read_text(path, text, sizeof(text));
	u.memory_bytes = number_behind(text, "\nVmRSS:") * 1024;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	read_text(path, text, sizeof(text));
	/* Behind the name: the state and six numbers, then the small page faults. */
	const char *at = strrchr(text, ')');
	for (int i = 0; at != NULL && i < 8; i++)
		at = strchr(at + 1, ' ');
	u.faults = at == NULL ? 0 : strtoull(at, NULL, 10);
	*usage_out = u;
	return 0;
}
