/* Goal: logits of every family and weight type agree with llama.cpp's. Method: tiny random models; numbers
 * computed with F32 activations and an F32 cache (data/forward.json). Tolerances, from the spread that was
 * measured between implementations: F32 activations and cache 1e-3 (a missing feature shows as 0.07 or more),
 * F16 cache 2e-2, sums of log probabilities 1e-4 relative. With integer activations distributions are
 * compared: mean KL below twice, and rms below 1.5 times, what llama.cpp's own integer path has; argmax
 * agreement over 0.9. */
#include "golden.h"

#include <math.h>
#include <openssl/evp.h>

static json_t *forward;

#define TOLERANCE 1e-3
#define TOLERANCE_F16 2e-2

static f64 log_sum_exp(const f32 *x, u32 n) {
    f64 max = -INFINITY, sum = 0;
    for (u32 i = 0; i < n; i++)
        max = MAX(max, (f64)x[i]);
    for (u32 i = 0; i < n; i++)
        sum += exp((f64)x[i] - max);
    return max + log(sum);
}

static u32 argmax(const f32 *x, u32 n) {
    u32 best = 0;
    for (u32 i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static void close_to(const char *what, u32 position, f64 got, f64 want, f64 tolerance) {
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s at position %u: %.7g, expected %.7g", what, position, got, want);
}

static void check_positions(const char *model, const json_t *seq, const f32 *logits, u32 n_vocab,
                            f64 tolerance) {
    const char *at;
    json_t *entry, *value;
    size_t i;
    json_object_foreach(json_object_get(seq, "positions"), at, entry) {
        u32 p = (u32)atoi(at);
        const f32 *row = logits + (size_t)p * n_vocab;
        close_to(model, p, log_sum_exp(row, n_vocab), json_number_value(json_object_get(entry, "lse")),
                 tolerance);
        json_array_foreach(json_object_get(entry, "fixed"), i, value) {
            u32 id = (u32)json_integer_value(json_array_get(json_object_get(forward, "fixed_ids"), i));
            close_to(model, p, (f64)row[id], json_number_value(value), tolerance);
        }
    }
}

static void check_last(const char *model, const json_t *seq, const f32 *row, u32 n_vocab, u32 position,
                       f64 tolerance) {
    const char *text = json_string_value(json_object_get(seq, "last_logits_b64"));
    size_t n = strlen(text);
    f32 *want = xmalloc(n);
    assert_true(EVP_DecodeBlock((u8 *)want, (const u8 *)text, (int)n) >= (int)(n_vocab * sizeof *want));
    for (u32 i = 0; i < n_vocab; i++)
        close_to(model, position, (f64)row[i], (f64)want[i], tolerance);
    free(want);
}

static f64 nll_of(const f32 *logits, const u32 *ids, u32 n, u32 n_vocab) {
    f64 sum = 0;
    for (u32 i = 0; i + 1 < n; i++) {
        const f32 *row = logits + (size_t)i * n_vocab;
        sum += log_sum_exp(row, n_vocab) - (f64)row[ids[i + 1]];
    }
    return sum;
}

static void check_run(const char *model, const char *path, const json_t *run, enum kern_cache cache,
                      f64 tolerance) {
    struct eval_model e;
    const char *name;
    json_t *seq;
    struct eval_options o = {.cache = cache,
                             .f32_activations = true,
                             .num_ctx = (u32)json_integer_value(json_object_get(run, "n_ctx"))};
    golden_open(path, &o, &e);
    u32 n_vocab = model_info(e.model)->n_vocab;
    json_object_foreach(json_object_get(run, "seqs"), name, seq) {
        u32 n, *ids = golden_sequence(forward, name, &n);
        f32 *logits = golden_run(&e, ids, n);
        check_positions(model, seq, logits, n_vocab, tolerance);
        check_last(model, seq, logits + (size_t)(n - 1) * n_vocab, n_vocab, n - 1, tolerance);
        f64 nll = json_number_value(json_object_get(seq, "nll_sum"));
        close_to("sum of -ln p", n, nll_of(logits, ids, n, n_vocab), nll, nll * (tolerance / 10));
        free(logits);
        free(ids);
    }
    eval_model_close(&e);
}

/* For every model of the data, with the context of every run (longrope has two). */
static void each_model(void (*fn)(const char *model, const char *path, const json_t *entry,
                                  const json_t *run)) {
    const char *model;
    json_t *entry, *run;
    size_t i;
    u32 n = 0;
    char path[4096];
    json_object_foreach(json_object_get(forward, "models"), model, entry) {
        golden_model(forward, model, path);
        json_array_foreach(json_object_get(entry, "runs"), i, run) {
            fn(model, path, entry, run);
            n++;
        }
    }
    assert_true(n >= 40);
}

static void one_f32(const char *model, const char *path, const json_t *entry, const json_t *run) {
    (void)entry;
    check_run(model, path, run, KERN_CACHE_F32, TOLERANCE);
}

static void logits_f32_cache(void **state) {
    (void)state;
    each_model(one_f32);
}

static void one_f16(const char *model, const char *path, const json_t *entry, const json_t *run) {
    (void)entry;
    check_run(model, path, run, KERN_CACHE_F16, TOLERANCE_F16);
}

static void logits_f16_cache(void **state) {
    (void)state;
    each_model(one_f16);
}

/* The weights are those that the numbers were computed with. */
static int by_name(const void *a, const void *b) {
    struct str x = (*(const struct gguf_tensor *const *)a)->name,
               y = (*(const struct gguf_tensor *const *)b)->name;
    int c = memcmp(x.p, y.p, MIN(x.n, y.n));
    return c ? c : x.n < y.n ? -1 : x.n > y.n;
}

static void one_digest(const char *model, const char *path, const json_t *entry, const json_t *run) {
    struct eval_model e;
    struct err err;
    const struct gguf_tensor *tensors[256];
    (void)run;
    assert_int_equal(eval_file_open(path, &e, &err), OK);
    assert_true(e.gguf.n_tensors <= ARRAY_LEN(tensors));
    for (u32 i = 0; i < e.gguf.n_tensors; i++)
        tensors[i] = &e.gguf.tensors[i];
    qsort(tensors, e.gguf.n_tensors, sizeof *tensors, by_name);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_DigestInit_ex(md, EVP_sha256(), NULL);
    for (u32 i = 0; i < e.gguf.n_tensors; i++)
        EVP_DigestUpdate(md, tensors[i]->data, tensors[i]->bytes);
    u8 digest[32];
    char hex[65];
    EVP_DigestFinal_ex(md, digest, NULL);
    EVP_MD_CTX_free(md);
    for (u32 i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    if (strcmp(hex, json_string_value(json_object_get(entry, "tensors_sha256"))) != 0)
        fail_msg("%s: the weights are not those of the numbers", model);
    eval_model_close(&e);
}

static void digests(void **state) {
    (void)state;
    each_model(one_digest);
}

/* Greedy continuation, up to the first step whose two best logits are nearer than twice the tolerance. */
static void one_greedy(const char *model, const char *path, const json_t *entry, const json_t *run) {
    (void)entry;
    struct eval_model e;
    struct eval_options o = {.cache = KERN_CACHE_F32,
                             .f32_activations = true,
                             .num_ctx = (u32)json_integer_value(json_object_get(run, "n_ctx"))};
    golden_open(path, &o, &e);
    json_t *greedy = json_object_get(run, "greedy");
    u32 n, n_want, n_margins, n_vocab = model_info(e.model)->n_vocab;
    u32 *prompt = golden_sequence(forward, json_string_value(json_object_get(greedy, "prompt")), &n);
    u32 *want = golden_ids(json_object_get(greedy, "tokens"), &n_want), ids[128];
    f64 *margin = golden_numbers(json_object_get(greedy, "margins"), &n_margins);
    assert_true(n_margins == n_want && n + n_want <= ARRAY_LEN(ids));
    memcpy(ids, prompt, n * sizeof *ids);
    for (u32 i = 0; i < n_want && margin[i] >= 2 * TOLERANCE; i++) {
        f32 *logits = golden_run(&e, ids, n);
        u32 got = argmax(logits + (size_t)(n - 1) * n_vocab, n_vocab);
        if (got != want[i])
            fail_msg("%s: step %u is %u, expected %u", model, i, got, want[i]);
        ids[n++] = got;
        free(logits);
    }
    free(prompt);
    free(want);
    free(margin);
    eval_model_close(&e);
}

static void greedy_tokens(void **state) {
    (void)state;
    each_model(one_greedy);
}

/* Integer activations against our own F32 activations, which the tests above tie to the reference. */
struct distance {
    f64 kl, square;
    u32 n, agree;
};

static void add_distance(struct distance *d, const f32 *ref, const f32 *got, u32 n_vocab) {
    f64 a = log_sum_exp(ref, n_vocab), b = log_sum_exp(got, n_vocab);
    for (u32 i = 0; i < n_vocab; i++) {
        f64 lp = (f64)ref[i] - a, lq = (f64)got[i] - b, diff = (f64)ref[i] - (f64)got[i];
        d->kl += exp(lp) * (lp - lq);
        d->square += diff * diff / n_vocab;
    }
    d->agree += argmax(ref, n_vocab) == argmax(got, n_vocab);
    d->n++;
}

static void one_integer(const char *model, const char *path, const json_t *entry, const json_t *run) {
    (void)entry;
    const json_t *bound = json_object_get(run, "q8act");
    if (!bound)
        return;
    struct eval_model ref, got;
    struct eval_options o = {.cache = KERN_CACHE_F32, .f32_activations = true};
    golden_open(path, &o, &ref);
    o.f32_activations = false;
    golden_open(path, &o, &got);
    u32 n_vocab = model_info(ref.model)->n_vocab;
    struct distance d = {0};
    const char *names[] = {"s1", "s7", "s33", "s200"};
    for (u32 s = 0; s < ARRAY_LEN(names); s++) {
        u32 n, *ids = golden_sequence(forward, names[s], &n);
        f32 *a = golden_run(&ref, ids, n), *b = golden_run(&got, ids, n);
        for (u32 p = 0; p < n; p++)
            add_distance(&d, a + (size_t)p * n_vocab, b + (size_t)p * n_vocab, n_vocab);
        free(ids);
        free(a);
        free(b);
    }
    f64 kl = d.kl / d.n, rms = sqrt(d.square / d.n), agree = (f64)d.agree / d.n;
    f64 kl_ref = json_number_value(json_object_get(bound, "mean_kl")),
        rms_ref = json_number_value(json_object_get(bound, "rms"));
    print_message("# %-16s mean KL %.5f (llama.cpp %.5f), rms %.4f (%.4f), argmax agrees %.3f\n", model, kl,
                  kl_ref, rms, rms_ref, agree);
    if (!(kl < 2 * kl_ref && rms < 1.5 * rms_ref && agree > 0.9))
        fail_msg("%s: integer activations lose too much", model);
    eval_model_close(&ref);
    eval_model_close(&got);
}

static void integer_activations(void **state) {
    (void)state;
    each_model(one_integer);
}

/* What is lost by keeping keys and values in fewer bits, against our own F32 cache. */
static void one_cache(const char *model, const char *path, const json_t *run, enum kern_cache cache, f64 kl_max,
                      f64 rms_max) {
    struct eval_model ref, got;
    struct eval_options o = {.cache = KERN_CACHE_F32,
                             .f32_activations = true,
                             .num_ctx = (u32)json_integer_value(json_object_get(run, "n_ctx"))};
    golden_open(path, &o, &ref);
    o.cache = cache;
    golden_open(path, &o, &got);
    u32 n, *ids = golden_sequence(forward, "s200", &n), n_vocab = model_info(ref.model)->n_vocab;
    f32 *a = golden_run(&ref, ids, n), *b = golden_run(&got, ids, n);
    struct distance d = {0};
    for (u32 p = 0; p < n; p++)
        add_distance(&d, a + (size_t)p * n_vocab, b + (size_t)p * n_vocab, n_vocab);
    f64 kl = d.kl / d.n, rms = sqrt(d.square / d.n), agree = (f64)d.agree / d.n;
    print_message("# %-16s mean KL %.7f, rms %.5f, argmax agrees %.3f\n", model, kl, rms, agree);
    if (!(kl < kl_max && rms < rms_max && agree > 0.9))
        fail_msg("%s: the cache loses too much", model);
    free(ids);
    free(a);
    free(b);
    eval_model_close(&ref);
    eval_model_close(&got);
}

static void one_q8(const char *model, const char *path, const json_t *entry, const json_t *run) {
    (void)entry;
    one_cache(model, path, run, KERN_CACHE_Q8, 4e-3, 0.15);
}

static void one_bf16(const char *model, const char *path, const json_t *entry, const json_t *run) {
    (void)entry;
    one_cache(model, path, run, KERN_CACHE_BF16, 1e-3, 0.05);
}

static void cache_q8(void **state) {
    (void)state;
    each_model(one_q8);
}

static void cache_bf16(void **state) {
    (void)state;
    each_model(one_bf16);
}

static int start(void **state) {
    (void)state;
    forward = golden_load("forward.json");
    return 0;
}

static int finish(void **state) {
    (void)state;
    json_decref(forward);
    golden_cleanup();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests),
        cmocka_unit_test(logits_f32_cache),
        cmocka_unit_test(logits_f16_cache),
        cmocka_unit_test(greedy_tokens),
        cmocka_unit_test(integer_activations),
        cmocka_unit_test(cache_q8),
        cmocka_unit_test(cache_bf16),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
