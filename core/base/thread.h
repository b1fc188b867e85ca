/* thread.h - threads, mutexes and condition variables of the library, over POSIX threads. */
#ifndef NPK_BASE_THREAD_H
#define NPK_BASE_THREAD_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* A condition variable on the monotonic clock. */
int npk_cond_init(pthread_cond_t *cond);
/* Wait at most timeout_us; true when signalled (or spuriously woken), false at the timeout. The mutex is held. */
bool npk_cond_wait_us(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t timeout_us);

/* Start a thread with all signals blocked, so that the user's handlers never run on it. 0 or errno. */
int npk_thread_start(pthread_t *thread, void *(*run)(void *context), void *context);

/* Keep SIGXFSZ from this thread while another library writes files: a write beyond RLIMIT_FSIZE raises it, and it kills. Release takes a
 * pending one out of the queue when the writing failed. */
void npk_thread_hold_file_size_signal(sigset_t *before);
void npk_thread_release_file_size_signal(const sigset_t *before, bool failed);

#endif
