/* thread.c - threads, mutexes and condition variables of the library. */
#include "thread.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

int npk_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    int rc = pthread_condattr_init(&attributes);
    if (rc)
        return rc;
    rc = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (!rc)
        rc = pthread_cond_init(cond, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    return rc;
}

bool npk_cond_wait_us(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t timeout_us)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + timeout_us % 1000000 * 1000;
    until.tv_sec += (time_t)(timeout_us / 1000000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    return pthread_cond_timedwait(cond, mutex, &until) != ETIMEDOUT;
}

int npk_thread_start(pthread_t *thread, void *(*run)(void *context), void *context)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    int rc = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (rc)
        return rc;
    rc = pthread_create(thread, NULL, run, context);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static _Thread_local struct {
    unsigned depth;
    bool failed;
    sigset_t before;
} held;

void npk_thread_hold_file_size_signal(void)
{
    if (held.depth++ > 0)
        return;
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGXFSZ);
    (void)pthread_sigmask(SIG_BLOCK, &set, &held.before);
}

void npk_thread_release_file_size_signal(bool failed)
{
    held.failed |= failed;
    if (--held.depth > 0)
        return;
    if (held.failed) {
        held.failed = false;
        sigset_t set;
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGXFSZ);
        const struct timespec at_once = {0, 0};
        while (sigtimedwait(&set, NULL, &at_once) < 0 && errno == EINTR)
            ;
    }
    (void)pthread_sigmask(SIG_SETMASK, &held.before, NULL);
}
