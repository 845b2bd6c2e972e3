/* options.h - `options` of a request and the model's params layer: one set of names, types and defaults. */
#ifndef MINKA_API_OPTIONS_H
#define MINKA_API_OPTIONS_H

#include "api/body.h"
#include "gen/gen.h"

struct options {
    i64 num_ctx; /* 0 = not given */
    i64 num_keep, num_predict, draft_num_predict, seed, top_k, repeat_last_n;
    f32 temperature, top_p, min_p, typical_p, repeat_penalty, presence_penalty, frequency_penalty;
    struct str draft_model; /* empty = none */
    const struct str *stop; /* [n_stop] in the arena given to options_apply */
    u32 n_stop;
    u32 load_time; /* bits of the load-time options that were given, for the log */
};

/* The reference's defaults. */
void options_init(struct options *o);
/* Puts the members of a JSON object over what is there; null members are skipped, unknown ones logged. A
 * wrong type is ERR_INVALID `option "x" must be of type integer`. */
enum status options_apply(struct options *o, const json_t *object, struct arena *a, struct err *err) MUST_USE;
/* Sets stop from JSON: an array of strings. */
enum status options_stop(struct options *o, const json_t *list, struct arena *a, struct err *err) MUST_USE;
/* The resolved values: num_ctx between 4 and the trained length (0 = unknown), num_predict at most
 * LIMIT_PREDICT_CONTEXTS contexts, a random seed for -1. */
void options_resolve(const struct options *o, u32 num_ctx_default, u32 trained_ctx, struct gen_request *r);
/* Name of the i-th load-time option; NULL behind the last. */
const char *options_load_time_name(u32 i);

#endif
