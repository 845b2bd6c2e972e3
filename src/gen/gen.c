/* gen.c - defaults and names of the neutral request. */
#include "gen/gen.h"

#include <math.h>

#include "base/limit.h"

void gen_request_init(struct gen_request *r) {
    *r = (struct gen_request){
        .form = GEN_FORM_CHAT,
        .sampling = {
            .temperature = 0.8f,
            .top_k = 40,
            .top_p = 0.9f,
            .min_p = 0.0f,
            .typical_p = 1.0f,
            .repeat_last_n = 64,
            .repeat_penalty = 1.0f,
        },
        .num_ctx = 4096,
        .num_predict = 40960,
        .draft_max = LIMIT_DRAFT,
        .num_keep = 4,
        .truncate = true,
        .shift = true,
        .add_special = true,
    };
}

bool gen_vector_normalize(f32 *v, u32 n) {
    f64 sum = 0;
    for (u32 i = 0; i < n; i++) {
        if (!isfinite(v[i]))
            return false;
        sum += (f64)v[i] * (f64)v[i];
    }
    f64 length = sqrt(sum);
    for (u32 i = 0; i < n && length > 0; i++)
        v[i] = (f32)((f64)v[i] / length);
    return true;
}

const char *gen_role_name(enum gen_role role) {
    static const char *const names[] = {"system", "user", "assistant", "tool"};
    return names[role];
}

const char *gen_done_reason_name(enum gen_done_reason reason) {
    static const char *const names[] = {"stop", "length", "load", "unload"};
    return names[reason];
}
