/* Goal: a mapped file that is cut off reads as zeros and says so, on any thread, and takes nobody with it.
 * Method: temporary files that are truncated under their mappings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/limit.h"
#include "base/mapping.h"

#define PAGE 4096u

/* An unlinked file of n bytes 'x'. */
static int file_of(u64 n) {
    char name[] = "/tmp/minka-mapping-XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    for (u64 i = 0; i < n; i += PAGE) {
        char page[PAGE];
        memset(page, 'x', sizeof page);
        u64 bytes = MIN(n - i, sizeof page);
        assert_int_equal(write(fd, page, bytes), bytes);
    }
    return fd;
}

static struct mapping open_mapping(int fd, u64 bytes) {
    struct mapping m;
    struct err err;
    assert_int_equal(mapping_open(fd, bytes, &m, &err), OK);
    return m;
}

static u8 byte_at(const struct mapping *m, u64 at) { return ((const volatile u8 *)m->data)[at]; }

static void test_whole(void **state) {
    (void)state;
    int fd = file_of(3 * PAGE + 5);
    struct mapping m = open_mapping(fd, 3 * PAGE + 5);
    close(fd);
    assert_int_equal(byte_at(&m, 0), 'x');
    assert_int_equal(byte_at(&m, 3 * PAGE + 4), 'x');
    assert_false(mapping_lost(&m));
    mapping_close(&m);
    assert_null(m.data);
    mapping_close(&m);
}

static void test_cut(void **state) {
    (void)state;
    int fd = file_of(8 * PAGE), other_fd = file_of(PAGE);
    struct mapping m = open_mapping(fd, 8 * PAGE), other = open_mapping(other_fd, PAGE);
    assert_int_equal(byte_at(&m, 7 * PAGE), 'x');
    assert_int_equal(ftruncate(fd, PAGE), 0);
    assert_false(mapping_lost(&m));
    assert_int_equal(byte_at(&m, 7 * PAGE), 0);
    assert_true(mapping_lost(&m));
    for (u64 at = 0; at < 8 * PAGE; at += 64)
        assert_int_equal(byte_at(&m, at), 0);
    assert_int_equal(byte_at(&other, 0), 'x');
    assert_false(mapping_lost(&other));
    mapping_close(&m);
    /* The entry is as new for the next one. */
    assert_int_equal(ftruncate(fd, 0), 0);
    struct mapping again = open_mapping(other_fd, PAGE);
    assert_false(mapping_lost(&again));
    mapping_close(&again);
    mapping_close(&other);
    close(fd);
    close(other_fd);
}

static void *read_all(void *arg) {
    const struct mapping *m = arg;
    for (u32 round = 0; round < 200 && !mapping_lost(m); round++)
        for (u64 at = 0; at < m->bytes; at += PAGE)
            if (byte_at(m, at) != 'x' && !mapping_lost(m))
                return arg;
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    for (u32 round = 0; round < 20; round++) {
        int fd = file_of(64 * PAGE);
        struct mapping m = open_mapping(fd, 64 * PAGE);
        pthread_t threads[4];
        for (u32 i = 0; i < ARRAY_LEN(threads); i++)
            assert_int_equal(pthread_create(&threads[i], NULL, read_all, &m), 0);
        assert_int_equal(ftruncate(fd, 0), 0);
        for (u32 i = 0; i < ARRAY_LEN(threads); i++) {
            void *bad;
            pthread_join(threads[i], &bad);
            assert_null(bad); /* no zero was read before the mapping was said to be lost */
        }
        (void)byte_at(&m, 0);
        assert_true(mapping_lost(&m));
        mapping_close(&m);
        close(fd);
    }
}

static void test_too_many(void **state) {
    (void)state;
    static struct mapping all[LIMIT_MAPPINGS];
    struct mapping more;
    struct err err;
    int fd = file_of(PAGE);
    for (u32 i = 0; i < LIMIT_MAPPINGS; i++)
        all[i] = open_mapping(fd, PAGE);
    assert_int_equal(mapping_open(fd, PAGE, &more, &err), ERR_NO_MEMORY);
    for (u32 i = 0; i < LIMIT_MAPPINGS; i++)
        mapping_close(&all[i]);
    more = open_mapping(fd, PAGE);
    mapping_close(&more);
    assert_int_equal(mapping_open(-1, PAGE, &more, &err), ERR_NO_MEMORY);
    close(fd);
}

/* A bus error elsewhere is our own bug and ends the process. */
static void test_foreign(void **state) {
    (void)state;
    int status, fd = file_of(PAGE);
    struct mapping m = open_mapping(fd, PAGE);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        volatile u8 *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
        if (ftruncate(fd, 0))
            _exit(2);
        _exit(p[0] == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    mapping_close(&m);
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_cut),
                                       cmocka_unit_test(test_threads), cmocka_unit_test(test_too_many),
                                       cmocka_unit_test(test_foreign)};
    return cmocka_run_group_tests_name("base_mapping", tests, NULL, NULL);
}
