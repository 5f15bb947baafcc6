/*
 * Lets User-Mode Linux run where the processor's registers need more room than it knows of: loaded into it by LD_PRELOAD.
 *
 * Until 6.12 it keeps 2,696 bytes of them for a process (with AVX-512), sets so many back when the process goes on, and ends where
 * the host refuses that: xstateregs_set() of arch/x86/kernel/fpu/regset.c takes all or nothing, with AMX 11,008 bytes. So what is set
 * is completed by what is there: nothing in a test's machine uses AMX.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define LARGEST (1 << 16)

typedef long (*function)(int, ...);

static long set(function next, pid_t pid, const struct iovec *part)
{
	static unsigned char registers[LARGEST]; /* the kernel there has one thread for one processor */
	struct iovec all = { registers, sizeof registers };

	if (next(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all) < 0)
		return -1;
	memcpy(registers, part->iov_base, part->iov_len < all.iov_len ? part->iov_len : all.iov_len);
	return next(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	function next = (function)dlsym(RTLD_NEXT, "ptrace");
	va_list words;
	pid_t pid;
	void *address, *data;

	va_start(words, request);
	pid = va_arg(words, pid_t);
	address = va_arg(words, void *);
	data = va_arg(words, void *);
	va_end(words);
	if ((int)request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
		return set(next, pid, data);
	return next(request, pid, address, data);
}
