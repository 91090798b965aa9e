/*
 * What a parser may still do once a mail has taken it over: compute, answer on its
 * socket, and read what lies below /usr, where iconv finds its tables.  The kernel's
 * filter of system calls denies all else; Landlock, where the kernel has it, says
 * which files.  A call that is denied fails with EPERM.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lmtp-indexer/parser_internal.h"

#define DESCRIPTORS_MAX 32 /* iconv opens its tables */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCH AUDIT_ARCH_RISCV64
#endif

/* ---- Limits ---- */

static void limit(int what, rlim_t most)
{
	const struct rlimit r = {.rlim_cur = most, .rlim_max = most};
	if (setrlimit((__rlimit_resource_t)what, &r) < 0)
		_exit(1);
}

/* Address space in use, in bytes. */
static uint64_t space_in_use(void)
{
	char text[64] = "";
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	return n <= 0 ? 0 : strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The mail that other parsers have in hand. */
static void forget_others(const struct parser_pool *pool, size_t index)
{
	size_t before = index * pool->memory_each, behind = (pool->config.count - index - 1) * pool->memory_each;
	if ((before > 0 && munmap(pool->memory, before) < 0) ||
	    (behind > 0 && munmap(pool->memory + before + pool->memory_each, behind) < 0))
		_exit(1);
}

/* ---- Files ---- */

static void allow_reading(int rules, const char *path)
{
	struct landlock_path_beneath_attr below = {.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE};
	below.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (below.parent_fd < 0)
		return; /* what is not there need not be read */
	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0) < 0)
		_exit(1);
	close(below.parent_fd);
}

static void limit_files(void)
{
	/* What the first version knows; the filter of calls leaves nothing else to do with files. */
	const struct landlock_ruleset_attr all = {.handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};
	int rules = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all.handled_access_fs), 0);
	if (rules < 0)
		return; /* a kernel without it */
	allow_reading(rules, "/usr");
	allow_reading(rules, "/lib");
	allow_reading(rules, "/etc/ld.so.cache");
	if (syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		_exit(1);
	close(rules);
}

/* ---- System calls ---- */

#ifdef ARCH

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the low half of an argument comes first"
#endif
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define ARGUMENT(i) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(offsetof(struct seccomp_data, args) + 8 * (i)))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define DENY RETURN(SECCOMP_RET_ERRNO | EPERM)
#define ALLOW RETURN(SECCOMP_RET_ALLOW)
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))
#define ALLOW_CALL(nr) UNLESS(nr, 1), ALLOW

#define MAKES_OR_WRITES (O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY))

static void limit_calls(void)
{
	static struct sock_filter filter[] = {
		LOAD(arch), UNLESS(ARCH, 1), BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), RETURN(SECCOMP_RET_KILL_PROCESS),
		LOAD(nr),
		ALLOW_CALL(SYS_brk), ALLOW_CALL(SYS_mmap), ALLOW_CALL(SYS_munmap), ALLOW_CALL(SYS_mprotect),
		ALLOW_CALL(SYS_mremap), ALLOW_CALL(SYS_madvise), ALLOW_CALL(SYS_futex), ALLOW_CALL(SYS_sched_yield),
		ALLOW_CALL(SYS_recvmsg), ALLOW_CALL(SYS_sendmsg), ALLOW_CALL(SYS_read), ALLOW_CALL(SYS_pread64),
		ALLOW_CALL(SYS_lseek), ALLOW_CALL(SYS_dup), ALLOW_CALL(SYS_close), ALLOW_CALL(SYS_fstat),
		ALLOW_CALL(SYS_newfstatat),
		ALLOW_CALL(SYS_getdents64), ALLOW_CALL(SYS_getrandom), ALLOW_CALL(SYS_clock_gettime),
		ALLOW_CALL(SYS_getpid), ALLOW_CALL(SYS_gettid), ALLOW_CALL(SYS_sysinfo), ALLOW_CALL(SYS_rt_sigprocmask),
		ALLOW_CALL(SYS_rt_sigaction), ALLOW_CALL(SYS_sigaltstack), ALLOW_CALL(SYS_rt_sigreturn),
		ALLOW_CALL(SYS_restart_syscall),
		ALLOW_CALL(SYS_exit), ALLOW_CALL(SYS_exit_group),
		/* To read. */
		UNLESS(SYS_openat, 5), ARGUMENT(2), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, MAKES_OR_WRITES), ALLOW_CALL(O_RDONLY),
		DENY,
		/* Of itself. */
		UNLESS(SYS_prlimit64, 3), ARGUMENT(0), ALLOW_CALL(0),
		DENY,
	};
	const struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(1);
}

#else

static void limit_calls(void)
{
}

#endif

void parser_confine(const struct parser_pool *pool, size_t index)
{
	forget_others(pool, index);
	uint64_t space = space_in_use();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		_exit(1);
	limit_files();
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_FSIZE, 0);
	limit(RLIMIT_NPROC, 0);
	limit(RLIMIT_NOFILE, DESCRIPTORS_MAX);
	limit(RLIMIT_AS, space + pool->config.memory_bytes);
	limit_calls();
}
