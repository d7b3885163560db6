/* Preloaded into a process under test: makes its disk fail or stand still, and its clock step.
 *
 * The file that FAULTS names is a table of 64-bit integers that the test and this library share; the order is that of
 * `enum field`, and of the names in afflicted.py. Linux only: paths are read from /proc.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name); real; })

enum field {
    DATABASE_WRITES, /* how many writes to the database's files are to fail */
    DATABASE_SYNCS,  /* how many syncs of them are to fail */
    JOURNAL_WRITES,  /* how many writes to a journal are to be cut short */
    ERROR,           /* the errno of those that fail */
    SYNC_US,         /* how much longer each sync takes */
    SYNC_GATE,       /* syncs stand still while this is not 0 */
    CLOCK_NS,        /* what is added to the time of day */
    SYNCS,           /* how many syncs of the database's files there were ... */
    MAIN_SYNCS,      /* ... and in the process's main thread */
    STANDING,        /* how many syncs stand still now */
    FIELDS
};

static _Atomic int64_t none[FIELDS];
static _Atomic int64_t *table = none;

__attribute__((constructor)) static void share(void) {
    const char *path = getenv("FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *shared = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared != MAP_FAILED) table = shared;
    close(fd);
}

static int ends_with(int fd, const char *end) {
    char link[64], path[4096];
    strcpy(link, "/proc/self/fd/");
    char digits[12];
    int count = 0;
    for (int rest = fd; rest || !count; rest /= 10) digits[count++] = '0' + rest % 10;
    char *at = link + strlen(link);
    while (count) *at++ = digits[--count];
    *at = 0;
    ssize_t length = readlink(link, path, sizeof path);
    size_t wanted = strlen(end);
    return length > (ssize_t)wanted && !memcmp(path + length - wanted, end, wanted);
}

static int is_database(int fd) { return ends_with(fd, ".db") || ends_with(fd, ".db-wal") || ends_with(fd, ".db-shm"); }

/* Whether this one is to fail: takes one from what is left. */
static int fails(enum field field) {
    int64_t left = table[field];
    while (left > 0)
        if (atomic_compare_exchange_weak(&table[field], &left, left - 1)) return 1;
    return 0;
}

static int failed(void) {
    errno = (int)table[ERROR];
    return -1;
}

static int slow(int fd, int (*real)(int)) {
    if (!is_database(fd)) return real(fd);
    table[SYNCS]++;
    if (syscall(SYS_gettid) == getpid()) table[MAIN_SYNCS]++;
    if (table[SYNC_GATE]) {
        table[STANDING]++;
        while (table[SYNC_GATE]) usleep(1000);
        table[STANDING]--;
    }
    if (table[SYNC_US]) usleep((useconds_t)table[SYNC_US]);
    return fails(DATABASE_SYNCS) ? failed() : real(fd);
}

int fsync(int fd) { return slow(fd, REAL(fsync)); }

int fdatasync(int fd) { return slow(fd, REAL(fdatasync)); }

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
    if (table[DATABASE_WRITES] && is_database(fd) && fails(DATABASE_WRITES)) return failed();
    return REAL(pwrite)(fd, bytes, length, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    if (table[DATABASE_WRITES] && is_database(fd) && fails(DATABASE_WRITES)) return failed();
    return REAL(pwrite64)(fd, bytes, length, at);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (table[DATABASE_WRITES] && is_database(fd) && fails(DATABASE_WRITES)) return failed();
    if (table[JOURNAL_WRITES] && ends_with(fd, ".journal") && fails(JOURNAL_WRITES)) length /= 2;
    return REAL(write)(fd, bytes, length);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (!result && clock == CLOCK_REALTIME && table[CLOCK_NS]) {
        int64_t nanos = now->tv_sec * 1000000000LL + now->tv_nsec + table[CLOCK_NS];
        now->tv_sec = nanos / 1000000000LL;
        now->tv_nsec = nanos % 1000000000LL;
    }
    return result;
}
