/* Preloaded into a process under test: notes when a ledger's WAL was written and synced, and when a request began.
 *
 * One line for each, in the file that WIRE_AND_DISK names: what, thread, begin and end in nanoseconds (monotonic), and
 * the marks (`mark-0001`) that stand in the bytes. Linux only: paths are read from /proc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define MARK "mark-"
#define MARK_LENGTH 9
#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void note(const char *what, long long begin, const char *bytes, size_t length) {
    static int log_file = -1;
    char line[8192];
    int used;
    const char *path = getenv("WIRE_AND_DISK");
    if (!path) return;
    if (log_file < 0) log_file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    used = snprintf(line, sizeof line, "%s %ld %lld %lld", what, syscall(SYS_gettid), begin, now());
    while (bytes && length >= MARK_LENGTH && used < (int)sizeof line - 2 * MARK_LENGTH) {
        const char *found = memmem(bytes, length, MARK, sizeof MARK - 1);
        if (!found || found + MARK_LENGTH > bytes + length) break;
        used += snprintf(line + used, sizeof line - used, " %.*s", MARK_LENGTH, found);
        length -= found + MARK_LENGTH - bytes;
        bytes = found + MARK_LENGTH;
    }
    line[used++] = '\n';
    syscall(SYS_write, log_file, line, used);
}

static int is_wal(int fd) {
    char link[64], path[4096];
    ssize_t length;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path);
    return length > 4 && !memcmp(path + length - 4, "-wal", 4);
}

static int is_request(int fd, const void *bytes, size_t length) {
    int kind;
    socklen_t size = sizeof kind;
    return length > 5 && !memcmp(bytes, "POST ", 5) && !getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size);
}

int fsync(int fd) {
    long long begin = now();
    int result = REAL(fsync)(fd);
    if (is_wal(fd)) note("sync", begin, NULL, 0);
    return result;
}

int fdatasync(int fd) {
    long long begin = now();
    int result = REAL(fdatasync)(fd);
    if (is_wal(fd)) note("sync", begin, NULL, 0);
    return result;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    long long begin = now();
    ssize_t result = REAL(pwrite)(fd, bytes, length, at);
    if (is_wal(fd)) note("wal", begin, bytes, length);
    return result;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    long long begin = now();
    ssize_t result = REAL(pwrite64)(fd, bytes, length, at);
    if (is_wal(fd)) note("wal", begin, bytes, length);
    return result;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    long long begin = now();
    if (is_request(fd, bytes, length)) note("post", begin, bytes, length);
    ssize_t result = REAL(write)(fd, bytes, length);
    if (is_wal(fd)) note("wal", begin, bytes, length);
    return result;
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    if (is_request(fd, bytes, length)) note("post", now(), bytes, length);
    return REAL(send)(fd, bytes, length, flags);
}

ssize_t sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
    if (is_request(fd, bytes, length)) note("post", now(), bytes, length);
    return REAL(sendto)(fd, bytes, length, flags, to, size);
}
