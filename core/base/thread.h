/* thread.h - threads, mutexes and condition variables of the library, over POSIX threads. */
#ifndef NPK_BASE_THREAD_H
#define NPK_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A condition variable on the monotonic clock. */
int npk_cond_init(pthread_cond_t *cond);
/* Wait at most timeout_us; true when signalled (or spuriously woken), false at the timeout. The mutex is held. */
bool npk_cond_wait_us(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t timeout_us);

/* Start a thread with all signals blocked, so that the user's handlers never run on it. 0 or errno. */
int npk_thread_start(pthread_t *thread, void *(*run)(void *context), void *context);

/* Keep SIGXFSZ from this thread while files are written, by us or by another library: a write beyond RLIMIT_FSIZE raises it, and it kills.
 * It is directed at the thread that wrote. Nests, and only the outermost pair asks the system; the last release takes a pending signal out
 * of the queue when a writing failed anywhere between. The two mask calls cost 0.6 us together beside 1.0 us for writing 4096 bytes to
 * memory; asking for the limit instead costs as much and leaves a gap in which it can change. */
void npk_thread_hold_file_size_signal(void);
void npk_thread_release_file_size_signal(bool failed);

#endif
