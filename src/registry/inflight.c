/* inflight.c - a short list under a lock. */
#include "registry/inflight.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct inflight {
    struct inflight *next;
    char *store_path;
    char digest[72];
    _Atomic u64 have;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct inflight *list;

struct inflight *inflight_take(const char *store_path, const char *digest, u64 *have) {
    struct inflight *taken = NULL, *i;
    pthread_mutex_lock(&lock);
    for (i = list; i; i = i->next)
        if (!strcmp(i->digest, digest) && !strcmp(i->store_path, store_path))
            break;
    if (i) {
        *have = atomic_load(&i->have);
    } else {
        taken = xcalloc(1, sizeof *taken);
        taken->store_path = xstrdup(store_path);
        check(strlen(digest) < sizeof taken->digest);
        memcpy(taken->digest, digest, strlen(digest));
        taken->next = list;
        list = taken;
    }
    pthread_mutex_unlock(&lock);
    return taken;
}

void inflight_progress(struct inflight *i, u64 have) { atomic_store(&i->have, have); }

void inflight_drop(struct inflight *i) {
    if (!i)
        return;
    pthread_mutex_lock(&lock);
    struct inflight **at = &list;
    while (*at != i)
        at = &(*at)->next;
    *at = i->next;
    pthread_mutex_unlock(&lock);
    free(i->store_path);
    free(i);
}
