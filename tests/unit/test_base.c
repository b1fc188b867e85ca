/* test_base.c - buffer, cursor, bytes, checksum, error text, allocation hook, threads. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "alloc.h"
#include "buffer.h"
#include "bytes.h"
#include "check_main.h"
#include "checksum.h"
#include "error.h"
#include "thread.h"

static int fail_from(void *context, size_t size)
{
    (void)size;
    int *left = context;
    return (*left)-- <= 0;
}

START_TEST(a_buffer_gives_back_what_was_put)
{
    npk_buffer buffer;
    npk_buffer_init(&buffer);
    npk_buffer_put_u8(&buffer, 0x12);
    npk_buffer_put_u16(&buffer, 0x3456);
    npk_buffer_put_u32(&buffer, 0x789ABCDE);
    npk_buffer_put_u64(&buffer, UINT64_C(0x0123456789ABCDEF));
    npk_buffer_put_string(&buffer, "row", 3);
    npk_buffer_put_zeros(&buffer, 300); /* beyond the first capacity */
    npk_buffer_put(&buffer, NULL, 0);
    ck_assert(!buffer.failed);
    ck_assert_uint_eq(buffer.size, 1 + 2 + 4 + 8 + 5 + 300);
    ck_assert_uint_eq(buffer.data[1], 0x56); /* little-endian */

    npk_cursor cursor = npk_cursor_over(buffer.data, buffer.size);
    ck_assert_uint_eq(npk_cursor_u8(&cursor), 0x12);
    ck_assert_uint_eq(npk_cursor_u16(&cursor), 0x3456);
    ck_assert_uint_eq(npk_cursor_u32(&cursor), 0x789ABCDE);
    ck_assert_uint_eq(npk_cursor_u64(&cursor), UINT64_C(0x0123456789ABCDEF));
    size_t size;
    const char *text = npk_cursor_string(&cursor, &size);
    ck_assert_uint_eq(size, 3);
    ck_assert_mem_eq(text, "row", 3);
    ck_assert(!npk_cursor_is_done(&cursor));
    ck_assert_uint_eq(npk_cursor_left(&cursor), 300);
    ck_assert(npk_is_zero(npk_cursor_take(&cursor, 300), 300));
    ck_assert(npk_cursor_is_done(&cursor));
    npk_buffer_clear(&buffer);
    ck_assert_uint_eq(buffer.size, 0);
    npk_buffer_release(&buffer);
    npk_buffer_release(&buffer);
}
END_TEST

START_TEST(a_cursor_never_reads_past_the_end)
{
    const uint8_t bytes[7] = {5, 0, 'a', 'b', 'c', 'd', 'e'};
    for (size_t length = 0; length < 7; length++) {
        npk_cursor cursor = npk_cursor_over(bytes, length);
        size_t size = 99;
        ck_assert_ptr_null(npk_cursor_string(&cursor, &size));
        ck_assert_uint_eq(size, 0);
        ck_assert(cursor.failed);
        ck_assert(!npk_cursor_is_done(&cursor));
    }
    npk_cursor cursor = npk_cursor_over(bytes, 7);
    ck_assert_ptr_null(npk_cursor_take(&cursor, SIZE_MAX));
    ck_assert_uint_eq(npk_cursor_u8(&cursor), 0); /* the first failure sticks */
    ck_assert_uint_eq(npk_cursor_u64(&cursor), 0);
    ck_assert(cursor.failed);
}
END_TEST

START_TEST(a_buffer_remembers_its_first_failed_allocation)
{
    npk_buffer buffer;
    npk_buffer_init(&buffer);
    int left = 1;
    npk_alloc_set_hook(fail_from, &left);
    npk_buffer_put_u64(&buffer, 1);
    npk_buffer_put_zeros(&buffer, 1000);
    ck_assert(buffer.failed);
    ck_assert_uint_eq(buffer.size, 8);
    npk_alloc_set_hook(NULL, NULL);
    npk_buffer_put_u8(&buffer, 1);
    ck_assert_uint_eq(buffer.size, 8);
    npk_buffer_clear(&buffer);
    npk_buffer_put_u8(&buffer, 1);
    ck_assert(!buffer.failed);
    ck_assert_ptr_null(npk_buffer_reserve(&buffer, SIZE_MAX - 4));
    ck_assert(buffer.failed);
    npk_buffer_release(&buffer);
}
END_TEST

START_TEST(a_string_of_more_than_65535_bytes_is_refused)
{
    static char text[65536];
    npk_buffer buffer;
    npk_buffer_init(&buffer);
    npk_buffer_put_string(&buffer, text, 65535);
    ck_assert(!buffer.failed);
    npk_buffer_put_string(&buffer, text, 65536);
    ck_assert(buffer.failed);
    npk_buffer_release(&buffer);
}
END_TEST

START_TEST(bytes_keep_their_order)
{
    uint8_t p[8];
    npk_put_u16(p, 0x0102);
    ck_assert_mem_eq(p, "\x02\x01", 2);
    ck_assert_uint_eq(npk_get_u16(p), 0x0102);
    npk_put_u32(p, 0xFFFEFDFC);
    ck_assert_mem_eq(p, "\xFC\xFD\xFE\xFF", 4);
    ck_assert_uint_eq(npk_get_u32(p), 0xFFFEFDFC);
    npk_put_u64(p, UINT64_MAX - 1);
    ck_assert_uint_eq(npk_get_u64(p), UINT64_MAX - 1);
    npk_put_be64(p, UINT64_C(0x0102030405060708));
    ck_assert_mem_eq(p, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    ck_assert_uint_eq(npk_get_be64(p), UINT64_C(0x0102030405060708));
}
END_TEST

START_TEST(arithmetic_says_when_it_overflows)
{
    uint64_t out;
    ck_assert(!npk_add_overflow(UINT64_MAX - 1, 1, &out));
    ck_assert_uint_eq(out, UINT64_MAX);
    ck_assert(npk_add_overflow(UINT64_MAX, 1, &out));
    ck_assert(!npk_mul_overflow(UINT64_C(1) << 32, UINT32_MAX, &out));
    ck_assert(npk_mul_overflow(UINT64_C(1) << 32, UINT64_C(1) << 32, &out));
    ck_assert_uint_eq(npk_align_up(0, 4096), 0);
    ck_assert_uint_eq(npk_align_up(1, 4096), 4096);
    ck_assert_uint_eq(npk_align_up(4096, 4096), 4096);
    ck_assert_uint_eq(npk_min_u64(1, 2), 1);
    ck_assert_uint_eq(npk_max_u64(1, 2), 2);
}
END_TEST

START_TEST(zeros_are_found_at_every_length_and_place)
{
    uint8_t bytes[40] = {0};
    for (size_t size = 0; size <= sizeof bytes; size++) {
        ck_assert(npk_is_zero(bytes, size));
        for (size_t i = 0; i < size; i++) {
            bytes[i] = 1;
            ck_assert(!npk_is_zero(bytes, size));
            bytes[i] = 0;
        }
    }
}
END_TEST

/* Known values of XXH3-64 with seed 0, from the self-test of xxHash 0.8 (cli/xsum_sanity_check.c), over its test buffer; the
 * lengths take every branch of the algorithm. */
START_TEST(the_checksum_is_xxh3)
{
    static const struct { size_t size; uint64_t hash; } known[] = {
        {0, UINT64_C(0x2D06800538D394C2)},    {1, UINT64_C(0xC44BDFF4074EECDB)},    {6, UINT64_C(0x27B56A84CD2D7325)},
        {12, UINT64_C(0xA713DAF0DFBB77E7)},   {24, UINT64_C(0xA3FE70BF9D3510EB)},   {48, UINT64_C(0x397DA259ECBA1F11)},
        {80, UINT64_C(0xBCDEFBBB2C47C90A)},   {195, UINT64_C(0xCD94217EE362EC3A)},  {403, UINT64_C(0xCDEB804D65C6DEA4)},
        {512, UINT64_C(0x617E49599013CB6B)},  {2048, UINT64_C(0xDD59E2C3A5F038E0)}, {2240, UINT64_C(0x6E73A90539CF2948)},
        {2367, UINT64_C(0xCB37AEB9E5D361ED)}};
    uint8_t sample[2367];
    uint64_t generator = UINT32_C(2654435761);
    for (size_t i = 0; i < sizeof sample; i++) {
        sample[i] = (uint8_t)(generator >> 56);
        generator *= UINT64_C(11400714785074694797);
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        ck_assert_uint_eq(npk_checksum(sample, known[i].size), known[i].hash);
    uint8_t bytes[5000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    npk_checksum_stream *stream = npk_checksum_open();
    ck_assert_ptr_nonnull(stream);
    for (size_t size = 0; size <= sizeof bytes; size += 137) {
        npk_checksum_reset(stream);
        for (size_t at = 0; at < size; at += 100)
            npk_checksum_add(stream, bytes + at, size - at < 100 ? size - at : 100);
        ck_assert_uint_eq(npk_checksum_digest(stream), npk_checksum(bytes, size));
    }
    npk_checksum_close(stream);
    npk_checksum_close(NULL);
}
END_TEST

START_TEST(an_error_tells_status_text_and_context)
{
    npk_error err;
    memset(&err, 0xFF, sizeof err);
    ck_assert_int_eq(npk_fail(&err, NPK_RANGE, "row %d of array \"%s\"", 7, "a"), NPK_RANGE);
    ck_assert_int_eq(err.status, NPK_RANGE);
    ck_assert_int_eq(err.sys_errno, 0);
    ck_assert_int_eq(err.row, -1);
    ck_assert_str_eq(err.array, "");
    ck_assert_str_eq(err.message, "row 7 of array \"a\"");
    npk_error_set_array(&err, "first");
    npk_error_set_array(&err, "second");
    ck_assert_str_eq(err.array, "first");
    ck_assert_int_eq(npk_context(&err, NPK_RANGE, "open store \"%s\"", "s"), NPK_RANGE);
    ck_assert_str_eq(err.message, "open store \"s\": row 7 of array \"a\"");

    static const struct { int sys_errno; npk_status status; } cases[] = {
        {ENOSPC, NPK_NO_SPACE}, {EDQUOT, NPK_NO_SPACE}, {EFBIG, NPK_NO_SPACE}, {ENOENT, NPK_NOT_FOUND}, {EROFS, NPK_READ_ONLY},
        {EACCES, NPK_READ_ONLY}, {EPERM, NPK_READ_ONLY}, {ENOMEM, NPK_NO_MEMORY}, {EIO, NPK_IO}, {EBADF, NPK_IO}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(npk_fail_errno(&err, cases[i].sys_errno, "could not sync"), cases[i].status);
        ck_assert_int_eq(err.sys_errno, cases[i].sys_errno);
        ck_assert_mem_eq(err.message, "could not sync: ", 16);
    }
    ck_assert_int_eq(npk_fail(NULL, NPK_IO, "nobody reads this"), NPK_IO);
    ck_assert_int_eq(npk_fail_errno(NULL, EIO, "nor this"), NPK_IO);
    ck_assert_int_eq(npk_context(NULL, NPK_IO, "nor this"), NPK_IO);
    npk_error_set_array(NULL, "a");
}
END_TEST

START_TEST(a_message_that_does_not_fit_is_cut)
{
    npk_error err;
    char text[2 * sizeof err.message];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)npk_fail(&err, NPK_IO, "%s", text);
    ck_assert_uint_eq(strlen(err.message), sizeof err.message - 1);
    (void)npk_context(&err, NPK_IO, "%s", text);
    ck_assert_uint_eq(strlen(err.message), sizeof err.message - 1);
    (void)npk_fail_errno(&err, EIO, "%s", text);
    ck_assert_uint_eq(strlen(err.message), sizeof err.message - 1);
}
END_TEST

START_TEST(every_status_has_a_kind_and_a_meaning)
{
    for (int i = 0; i < NPK_STATUS_COUNT; i++) {
        ck_assert_uint_gt(strlen(npk_status_kind((npk_status)i)), 0);
        ck_assert_uint_gt(strlen(npk_status_meaning((npk_status)i)), 0);
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(npk_status_kind((npk_status)i), npk_status_kind((npk_status)j));
    }
    ck_assert_str_eq(npk_status_kind(NPK_STATUS_COUNT), "unknown");
    ck_assert_str_eq(npk_status_kind((npk_status)-1), "unknown");
}
END_TEST

START_TEST(the_hook_makes_each_kind_of_allocation_fail)
{
    char *block = npk_alloc(0);
    ck_assert_ptr_nonnull(block);
    int left = 0;
    npk_alloc_set_hook(fail_from, &left);
    ck_assert_ptr_null(npk_alloc(1));
    ck_assert_ptr_null(npk_calloc(1, 1));
    ck_assert_ptr_null(npk_strdup("a"));
    ck_assert_ptr_null(npk_realloc(block, 100)); /* block stays */
    npk_alloc_set_hook(NULL, NULL);
    ck_assert_ptr_null(npk_calloc(SIZE_MAX / 2, 3));
    block = npk_realloc(block, 100);
    ck_assert_ptr_nonnull(block);
    npk_free(block);
    npk_free(NULL);
    char *copy = npk_strdup("text");
    ck_assert_str_eq(copy, "text");
    npk_free(copy);
}
END_TEST

static void *blocked_signals(void *context)
{
    (void)pthread_sigmask(SIG_SETMASK, NULL, context);
    return NULL;
}

START_TEST(a_thread_starts_with_all_signals_blocked)
{
    sigset_t mask;
    (void)sigemptyset(&mask);
    pthread_t thread;
    ck_assert_int_eq(npk_thread_start(&thread, blocked_signals, &mask), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(sigismember(&mask, SIGINT), 1);
    ck_assert_int_eq(sigismember(&mask, SIGTERM), 1);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mask);
    ck_assert_int_eq(sigismember(&mask, SIGINT), 0);
}
END_TEST

START_TEST(a_wait_ends_at_its_timeout)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t cond;
    ck_assert_int_eq(npk_cond_init(&cond), 0);
    (void)pthread_mutex_lock(&mutex);
    while (npk_cond_wait_us(&cond, &mutex, 1500))
        ;
    (void)pthread_mutex_unlock(&mutex);
    (void)pthread_cond_destroy(&cond);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base");
    TCase *tests = tcase_create("base");
    tcase_add_test(tests, a_buffer_gives_back_what_was_put);
    tcase_add_test(tests, a_cursor_never_reads_past_the_end);
    tcase_add_test(tests, a_buffer_remembers_its_first_failed_allocation);
    tcase_add_test(tests, a_string_of_more_than_65535_bytes_is_refused);
    tcase_add_test(tests, bytes_keep_their_order);
    tcase_add_test(tests, arithmetic_says_when_it_overflows);
    tcase_add_test(tests, zeros_are_found_at_every_length_and_place);
    tcase_add_test(tests, the_checksum_is_xxh3);
    tcase_add_test(tests, an_error_tells_status_text_and_context);
    tcase_add_test(tests, a_message_that_does_not_fit_is_cut);
    tcase_add_test(tests, every_status_has_a_kind_and_a_meaning);
    tcase_add_test(tests, the_hook_makes_each_kind_of_allocation_fail);
    tcase_add_test(tests, a_thread_starts_with_all_signals_blocked);
    tcase_add_test(tests, a_wait_ends_at_its_timeout);
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
