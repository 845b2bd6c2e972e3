/* program.c - one pull or push without a server, with short waits, for test_registry.py:
 *   program pull|push STORE NAME STALL_S RETRY_MS KEY|-
 * Prints each line of progress as "status total completed", at last "ok" or "error: text". */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "registry/registry.h"

static void on_progress(void *ctx, const struct transfer_progress *p) {
    (void)ctx;
    printf("%.*s %llu %llu\n", STR_FMT(p->status), (unsigned long long)p->total,
           (unsigned long long)p->completed);
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct err err = {0};
    atomic_bool canceled = false;
    u64 stall_s, retry_ms;
    if (argc != 7 || !str_to_u64(str_of(argv[4]), &stall_s) || !str_to_u64(str_of(argv[5]), &retry_ms))
        return 2;
    log_init(LOG_ERROR, NULL);
    bool push = !strcmp(argv[1], "push");
    struct registry_job job = {
        .config = {.key_path = strcmp(argv[6], "-") ? argv[6] : NULL,
                   .stall_s = (u32)stall_s,
                   .retry_ms = (u32)retry_ms},
        .request = {.kind = push ? TRANSFER_PUSH : TRANSFER_PULL, .insecure = true},
        .canceled = &canceled,
        .on_progress = on_progress,
    };
    enum status status = store_open(argv[2], &job.store, &err);
    if (status == OK)
        status = model_name_parse(str_of(argv[3]), &job.request.name, &err);
    if (status == OK)
        status = push ? registry_push(&job, &err) : registry_pull(&job, &err);
    if (status == OK)
        puts("ok");
    else
        printf("error: %s\n", err.text);
    store_close(job.store);
    return status != OK;
}
