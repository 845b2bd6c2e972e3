/* options.c - model parameters: names, types, limits. */
#include "api/options.h"

#include <float.h>
#include <sys/random.h>

#include "base/limit.h"
#include "base/log.h"

enum option_kind { OPTION_INT, OPTION_FLOAT, OPTION_BOOL, OPTION_TEXT, OPTION_STOP };

struct option {
    const char *name;
    enum option_kind kind;
    size_t offset;
    u32 load_time; /* bit of a load-time option: validated, then only named in the log */
};

#define AT(member) offsetof(struct options, member)
static const struct option options[] = {
    {"num_ctx", OPTION_INT, AT(num_ctx), 0},
    {"num_keep", OPTION_INT, AT(num_keep), 0},
    {"num_predict", OPTION_INT, AT(num_predict), 0},
    {"seed", OPTION_INT, AT(seed), 0},
    {"top_k", OPTION_INT, AT(top_k), 0},
    {"repeat_last_n", OPTION_INT, AT(repeat_last_n), 0},
    {"temperature", OPTION_FLOAT, AT(temperature), 0},
    {"top_p", OPTION_FLOAT, AT(top_p), 0},
    {"min_p", OPTION_FLOAT, AT(min_p), 0},
    {"typical_p", OPTION_FLOAT, AT(typical_p), 0},
    {"repeat_penalty", OPTION_FLOAT, AT(repeat_penalty), 0},
    {"presence_penalty", OPTION_FLOAT, AT(presence_penalty), 0},
    {"frequency_penalty", OPTION_FLOAT, AT(frequency_penalty), 0},
    {"stop", OPTION_STOP, 0, 0},
    {"num_batch", OPTION_INT, 0, 1},
    {"num_gpu", OPTION_INT, 0, 2},
    {"main_gpu", OPTION_INT, 0, 4},
    {"use_mmap", OPTION_BOOL, 0, 8},
    {"num_thread", OPTION_INT, 0, 16},
    {"draft_num_predict", OPTION_INT, AT(draft_num_predict), 0},
    {"draft_model", OPTION_TEXT, AT(draft_model), 0},
};

const char *options_load_time_name(u32 i) {
    for (size_t k = 0; k < ARRAY_LEN(options); k++)
        if (options[k].load_time == 1u << i)
            return options[k].name;
    return NULL;
}

void options_init(struct options *o) {
    *o = (struct options){
        .num_keep = 4,
        .num_predict = -1,
        .draft_num_predict = LIMIT_DRAFT,
        .seed = -1,
        .top_k = 40,
        .repeat_last_n = 64,
        .temperature = 0.8f,
        .top_p = 0.9f,
        .typical_p = 1.0f,
        .repeat_penalty = 1.0f,
    };
}

/* Truncates as the reference does; values that no integer holds end at the range's border. */
static i64 int_of(const json_t *v) {
    if (json_is_integer(v))
        return json_integer_value(v);
    f64 d = json_real_value(v);
    return d >= 0x1p63 ? INT64_MAX : d < -0x1p63 ? INT64_MIN : (i64)d;
}

enum status options_stop(struct options *o, const json_t *list, struct arena *a, struct err *err) {
    if (!json_is_array(list))
        return err_set(err, ERR_INVALID, "option \"stop\" must be of type array");
    size_t n = json_array_size(list), i;
    if (n > LIMIT_STOPS)
        return err_set(err, ERR_INVALID, "option \"stop\" has %zu strings, at most %u are allowed", n,
                       LIMIT_STOPS);
    struct str *stop = ARENA_ARRAY(a, struct str, n);
    json_t *item;
    o->n_stop = 0;
    json_array_foreach(list, i, item) {
        struct str s = json_text(item);
        if (!json_is_string(item))
            return err_set(err, ERR_INVALID, "option \"stop\" must be of an array of strings");
        if (s.n > LIMIT_STOP_BYTES)
            return err_set(err, ERR_INVALID, "a stop string has %zu bytes, at most %u are allowed", s.n,
                           LIMIT_STOP_BYTES);
        if (s.n)
            stop[o->n_stop++] = arena_str(a, s);
    }
    o->stop = stop;
    return OK;
}

static enum status option_set(struct options *o, const struct option *opt, const json_t *v, struct arena *a,
                              struct err *err) {
    o->load_time |= opt->load_time;
    void *to = (char *)o + opt->offset;
    switch (opt->kind) {
    case OPTION_INT:
        if (!json_is_number(v))
            return err_set(err, ERR_INVALID, "option \"%s\" must be of type integer", opt->name);
        if (!opt->load_time)
            *(i64 *)to = int_of(v);
        return OK;
    case OPTION_FLOAT:
        if (!json_is_number(v))
            return err_set(err, ERR_INVALID, "option \"%s\" must be of type float32", opt->name);
        *(f32 *)to = (f32)json_number_value(v);
        return OK;
    case OPTION_BOOL:
        return json_is_boolean(v)
                   ? OK
                   : err_set(err, ERR_INVALID, "option \"%s\" must be of type boolean", opt->name);
    case OPTION_TEXT:
        if (!json_is_string(v))
            return err_set(err, ERR_INVALID, "option \"%s\" must be of type string", opt->name);
        *(struct str *)to = arena_str(a, json_text(v));
        return OK;
    case OPTION_STOP: return options_stop(o, v, a, err);
    }
    return OK;
}

static const struct option *option_find(const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        if (strcmp(options[i].name, name) == 0)
            return &options[i];
    return NULL;
}

enum status options_apply(struct options *o, const json_t *object, struct arena *a, struct err *err) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)object, key, v) {
        const struct option *opt = option_find(key);
        if (!opt) {
            struct buf quoted = {0};
            json_str(&quoted, str_slice(str_of(key), 0, 64));
            log_debug("unknown option, it is ignored", "option=%s", buf_cstr(&quoted));
            buf_release(&quoted);
        } else if (!json_is_null(v)) {
            TRY(option_set(o, opt, v, a, err));
        }
    }
    return OK;
}

static i64 clamp(i64 v, i64 low, i64 high) { return v < low ? low : v > high ? high : v; }

static u64 seed_random(void) {
    u64 seed;
    check(getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed);
    return seed;
}

/* A value that f32 cannot hold became infinite; the neutral request holds finite numbers only. */
static f32 in_range(f32 v) { return v > FLT_MAX ? FLT_MAX : v < -FLT_MAX ? -FLT_MAX : v; }

void options_resolve(const struct options *o, u32 num_ctx_default, u32 trained_ctx, struct gen_request *r) {
    i64 ctx = o->num_ctx ? o->num_ctx : num_ctx_default;
    if (trained_ctx)
        ctx = MIN(ctx, (i64)trained_ctx);
    r->num_ctx = (u32)clamp(ctx, 4, LIMIT_NUM_CTX);
    i64 most = (i64)LIMIT_PREDICT_CONTEXTS * r->num_ctx;
    r->num_predict = (u32)(o->num_predict < 0 || o->num_predict > most ? most : o->num_predict);
    r->draft_max = (u32)clamp(o->draft_num_predict, 0, LIMIT_DRAFT);
    r->num_keep = o->num_keep < 0 ? r->num_ctx : (u32)MIN(o->num_keep, (i64)r->num_ctx);
    r->stop = o->stop;
    r->n_stop = o->n_stop;
    r->sampling = (struct gen_sampling){
        .seed = o->seed == -1 ? seed_random() : (u64)o->seed,
        .temperature = in_range(o->temperature),
        .top_k = (i32)clamp(o->top_k, 0, INT32_MAX),
        .top_p = in_range(o->top_p),
        .min_p = in_range(o->min_p),
        .typical_p = in_range(o->typical_p),
        .repeat_last_n = o->repeat_last_n < 0 ? (i32)r->num_ctx : (i32)MIN(o->repeat_last_n, (i64)r->num_ctx),
        .repeat_penalty = in_range(o->repeat_penalty),
        .presence_penalty = in_range(o->presence_penalty),
        .frequency_penalty = in_range(o->frequency_penalty),
    };
}
