/* Preloaded into a process: fsync and fdatasync take SLOW_FSYNC_US microseconds longer than they do.
 *
 * On virtual machines the host often absorbs a flush and answers within microseconds, where a user's disk takes
 * milliseconds. The delay comes after the real call, and is never shorter than asked for.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

static int slowly(const char *name, int descriptor) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *delay = getenv("SLOW_FSYNC_US");
    long us = delay ? atol(delay) : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    int result = real(descriptor), reason = errno;
    while (nanosleep(&left, &left) && errno == EINTR) {
    }
    errno = reason;
    return result;
}

int fsync(int descriptor) { return slowly("fsync", descriptor); }

int fdatasync(int descriptor) { return slowly("fdatasync", descriptor); }
