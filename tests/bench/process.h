/* What another process has used so far. */
#ifndef BENCH_PROCESS_H
#define BENCH_PROCESS_H

#include <sys/types.h>

#include "lib/base/err.h"

struct process_usage {
	double cpu_s;                     /* all threads, those that ended included */
	unsigned long long faults;        /* likewise; without I/O */
	unsigned long long switches;      /* of the threads that there are now */
	unsigned long long memory_bytes;  /* resident */
	unsigned files;                   /* open descriptors */
};

/* ERR_NOT_FOUND where there is no such process. */
int process_usage(pid_t pid, struct process_usage *usage_out) MUST_CHECK;

#endif
