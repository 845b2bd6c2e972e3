/* job.h - what pull and push share. */
#ifndef MINKA_REGISTRY_JOB_H
#define MINKA_REGISTRY_JOB_H

#include "registry/client.h"
#include "registry/manifest.h"
#include "registry/registry.h"

#define MEDIA_MANIFEST_V2 "application/vnd.docker.distribution.manifest.v2+json"

struct job {
    const struct registry_job *spec;
    struct arena arena;
    struct client *client;
    struct key key;
    struct model_name name; /* as the store spells it */
    struct registry_manifest manifest;
    struct str manifest_json;
};

enum status job_open(struct job *j, const struct registry_job *spec, struct err *err) MUST_USE;
void job_close(struct job *j);
/* "https://host/v2/namespace/model/<kind>/<what>", in the job's arena. */
struct str job_url(struct job *j, const char *kind, const char *what);
void job_say(struct job *j, const char *status);
/* "<verb> <12 digits>" with the blob's numbers. */
void job_say_blob(struct job *j, const char *verb, const struct registry_blob *b, u64 completed);
u64 job_retry_ms(const struct job *j, u32 n_tries); /* pause before try n_tries + 1 */
/* A small request, tried up to three times while the connection breaks or the server has a passing trouble;
 * where nobody answers at all, once.
 * OK: f holds the final answer of any code. */
enum status job_run(struct job *j, struct fetch *f, struct str url, struct err *err) MUST_USE;

#endif
