/* Refuses system calls, as some file systems and full disks do; to be preloaded (Linux, glibc).
 *
 * REFUSE   what to refuse, by name: fchmod flock fsync rename link read eintr
 * ROOM     bytes that may still be written into regular files; then the disk is full
 * ONLY     reading paths with this in them is refused, or interrupted; writing is interrupted everywhere
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int refused(const char *name) {
    const char *all = getenv("REFUSE");
    return all != NULL && strstr(all, name) != NULL;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE_CALL(name, why) if (refused(#name)) { errno = why; return -1; }

int fchmod(int fd, mode_t mode) { REFUSE_CALL(fchmod, EPERM) return REAL(fchmod)(fd, mode); }
int chmod(const char *path, mode_t mode) { if (refused("fchmod")) { errno = EPERM; return -1; } return REAL(chmod)(path, mode); }
int flock(int fd, int how) { REFUSE_CALL(flock, ENOLCK) return REAL(flock)(fd, how); }
int fsync(int fd) { REFUSE_CALL(fsync, EINVAL) return REAL(fsync)(fd); }
int link(const char *a, const char *b) { REFUSE_CALL(link, EPERM) return REAL(link)(a, b); }
int rename(const char *a, const char *b) { REFUSE_CALL(rename, EXDEV) return REAL(rename)(a, b); }

static int interrupted(void) {
    static __thread unsigned n;
    return refused("eintr") && n++ % 2 == 0;
}

static int is_meant(int fd) {
    char link_path[64], path[4096];
    snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link_path, path, sizeof path - 1);
    const char *only = getenv("ONLY");
    if (n < 0 || only == NULL) return 0;
    path[n] = 0;
    return strstr(path, only) != NULL;
}

ssize_t read(int fd, void *data, size_t n) {
    if ((refused("read") || refused("eintr")) && is_meant(fd)) {
        if (refused("read")) { errno = EIO; return -1; }
        if (interrupted()) { errno = EINTR; return -1; }
    }
    return REAL(read)(fd, data, n);
}

ssize_t write(int fd, const void *data, size_t n) {
    static long room = -2;
    struct stat found;
    if (refused("eintr") && fstat(fd, &found) == 0 && S_ISREG(found.st_mode) && interrupted()) { errno = EINTR; return -1; }
    if (room == -2) room = getenv("ROOM") ? atol(getenv("ROOM")) : -1;
    if (room >= 0 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode)) {
        if (room == 0 && n > 0) { errno = ENOSPC; return -1; }
        if ((long)n > room) n = (size_t)room;
        room -= (long)n;
    }
    return REAL(write)(fd, data, n);
}
