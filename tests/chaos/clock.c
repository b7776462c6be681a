/* A wall clock that can be stepped, and a disk that can be slow: loaded before the C library into one program, it adds
 * what a file says, in nanoseconds, to the time of day, and to how long it takes to sync a file. Clocks that only
 * measure, and all other programs, stay as they are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
/* A deadline beyond this is one of the time of day: clocks that only measure begin when the machine does. */
#define WALL 1000000000LL

struct told {
    int64_t step;
    int64_t sync;
};

static const volatile struct told *told;

__attribute__((constructor)) static void open_told(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int descriptor = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0) {
        void *there = mmap(NULL, sizeof *told, PROT_READ, MAP_SHARED, descriptor, 0);
        told = there == MAP_FAILED ? NULL : there;
        close(descriptor);
    }
}

static void add(struct timespec *time, int64_t nanoseconds) {
    int64_t sum = time->tv_sec * SECOND + time->tv_nsec + nanoseconds;
    time->tv_sec = sum / SECOND;
    time->tv_nsec = sum % SECOND;
}

static int64_t stepped(void) { return told == NULL ? 0 : told->step; }

static void wait_for_disk(void) {
    int64_t nanoseconds = told == NULL ? 0 : told->sync;
    if (nanoseconds > 0) {
        struct timespec pause = {nanoseconds / SECOND, nanoseconds % SECOND};
        nanosleep(&pause, NULL);
    }
}

int fsync(int descriptor) {
    wait_for_disk();
    return (int)syscall(SYS_fsync, descriptor);
}

int fdatasync(int descriptor) {
    wait_for_disk();
    return (int)syscall(SYS_fdatasync, descriptor);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) {
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    int status = real == NULL ? (int)syscall(SYS_clock_gettime, clock, time) : real(clock, time);
    if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        add(time, stepped());
    }
    return status;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int status = clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return status;
}

time_t time(time_t *there) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (there != NULL) {
        *there = now.tv_sec;
    }
    return now.tv_sec;
}

int timespec_get(struct timespec *time, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, time) == 0 ? base : 0;
}

/* The kernel waits by its own time of day, so a deadline of ours has to be told in that. */
static struct timespec unstepped(const struct timespec *deadline) {
    struct timespec theirs = *deadline;
    if (theirs.tv_sec > WALL) {
        add(&theirs, -stepped());
    }
    return theirs;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (real == NULL) {
        void *found = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
        if (found == NULL) {
            found = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
        }
        real = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))found;
    }
    struct timespec theirs = unstepped(deadline);
    return real(condition, mutex, &theirs);
}

int sem_timedwait(sem_t *semaphore, const struct timespec *deadline) {
    static int (*real)(sem_t *, const struct timespec *);
    if (real == NULL) {
        real = (int (*)(sem_t *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
    }
    struct timespec theirs = unstepped(deadline);
    return real(semaphore, &theirs);
}
