/* job.c - the frame of a pull or push. */
#include "registry/job.h"

#include <stdio.h>

#include "base/limit.h"
#include "base/log.h"

#define SMALL_TRIES 3u

enum status job_open(struct job *j, const struct registry_job *spec, struct err *err) {
    const struct transfer_request *r = &spec->request;
    *j = (struct job){.spec = spec};
    arena_init(&j->arena, 0);
    store_spell(spec->store, &r->name, &j->name);
    if (r->http && !r->insecure)
        return err_set(err, ERR_INVALID, "insecure protocol http");
    struct client_options o = {.host = j->name.host,
                               .http = r->http || r->insecure,
                               .insecure = r->insecure,
                               .canceled = spec->canceled,
                               .stall_s =
                                   spec->config.stall_s ? spec->config.stall_s : LIMIT_REGISTRY_STALL_S};
    struct err why;
    if (spec->config.key_path && key_load(spec->config.key_path, &j->key, &why) == OK)
        o.key = &j->key;
    else if (spec->config.key_path)
        log_warn("no key for registries, tokens are asked for anonymously", "error=\"%s\"", why.text);
    return client_open(&o, &j->client, err);
}

void job_close(struct job *j) {
    client_close(j->client);
    explicit_bzero(&j->key, sizeof j->key);
    arena_release(&j->arena);
}

struct str job_url(struct job *j, const char *kind, const char *what) {
    return arena_printf(&j->arena, "%s/v2/%s/%s/%s/%s", client_base(j->client), j->name.namespace_,
                        j->name.model, kind, what);
}

void job_say(struct job *j, const char *status) {
    struct transfer_progress p = {.status = str_of(status)};
    j->spec->on_progress(j->spec->ctx, &p);
}

void job_say_blob(struct job *j, const char *verb, const struct registry_blob *b, u64 completed) {
    char text[64];
    snprintf(text, sizeof text, "%s %.12s", verb, b->digest + 7);
    struct transfer_progress p = {str_of(text), str_of(b->digest), b->bytes, completed};
    j->spec->on_progress(j->spec->ctx, &p);
}

u64 job_retry_ms(const struct job *j, u32 n_tries) {
    u64 first = j->spec->config.retry_ms ? j->spec->config.retry_ms : 1000;
    return first << MIN(n_tries, 10u);
}

enum status job_run(struct job *j, struct fetch *f, struct str url, struct err *err) {
    for (u32 n = 0;; n++) {
        enum status status = client_run(j->client, f, url, err);
        bool again = status != OK ? f->broken && !f->unreachable : fetch_code_transient(f->code);
        if (!again || n + 1 == SMALL_TRIES)
            return status;
        TRY(client_wait(j->client, job_retry_ms(j, n), err));
    }
}
