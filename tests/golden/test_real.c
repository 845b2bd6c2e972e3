/* Goal: real models give the reference's tokens and probabilities. Method: numbers of llama.cpp with exact
 * F32 weights and activations (data/real_*.json); the models are named by the environment and checked by
 * SHA-256. Without them the tests are skipped and say so. The expected answer is fed, so that a step is
 * compared whatever the steps before it chose; the chosen token where its margin over the second is not below
 * `tie`. F32 activations and cache: tie 2e-3, every log probability within 5e-3, perplexity within 0.05 %. As
 * served (integer activations, F16 cache): tie 0.6 (llama.cpp's own integer path flips up to 0.43), log
 *   probabilities of the chosen and the ten best within 0.6 but for one in 50, perplexity within 1 %; mean
 * differences below 1.5 times what llama.cpp's own integer path has. */
#include "golden.h"

#include <math.h>
#include <openssl/evp.h>

struct real {
    const char *variable, *numbers;
    json_t *golden;
    char *path; /* NULL: not there */
};

static struct real reals[] = {{.variable = "MINKA_TEST_SMOLLM2", .numbers = "real_smollm2.json"},
                              {.variable = "MINKA_TEST_GEMMA3", .numbers = "real_gemma3.json"}};

static bool digest_is(const char *path, const char *want) {
    struct eval_model e;
    struct err err;
    u8 digest[32];
    char hex[65];
    if (eval_file_open(path, &e, &err) != OK)
        fail_msg("%s", err.text);
    EVP_Digest(e.map, e.map_bytes, digest, NULL, EVP_sha256(), NULL);
    for (u32 i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    eval_model_close(&e);
    return strcmp(hex, want) == 0;
}

static int start(void **state) {
    struct real *r = *state;
    r->golden = golden_load(r->numbers);
    r->path = getenv(r->variable);
    if (!r->path || !r->path[0]) {
        print_message("# skipped: %s does not name the model\n", r->variable);
        r->path = NULL;
    } else if (!digest_is(r->path, json_string_value(json_object_get(r->golden, "sha256")))) {
        fail_msg("%s is not the model that the numbers were computed with", r->path);
    }
    return 0;
}

static int finish(void **state) {
    struct real *r = *state;
    json_decref(r->golden);
    return 0;
}

/* The sequence prompt + expected answer at once: row n_prompt - 1 + i predicts token i of the answer. */
struct case_check {
    const struct kern *kern;
    u32 n_vocab, n_prompt, n_ids;
    const u32 *ids;
    const f64 *margin, *top1;
    const json_t *top10;
    f64 tie, tolerance;
    f64 beyond_max;                   /* share of values that may be beyond the tolerance */
    u32 n_tokens, n_values, n_beyond; /* compared */
    f64 worst, sum;
};

static f64 logprob(const struct case_check *c, const f32 *logits, u32 token) {
    f32 max;
    f64 lse;
    c->kern->logsumexp(logits, c->n_vocab, &max, &lse);
    return (f64)logits[token] - (f64)max - lse;
}

static void compare(struct case_check *c, u32 step, f64 got, f64 want) {
    f64 d = fabs(got - want);
    c->n_values++;
    c->sum += d;
    c->worst = MAX(c->worst, d);
    if (d <= c->tolerance)
        return;
    c->n_beyond++;
    if (c->beyond_max == 0)
        fail_msg("step %u: log probability %.5f, expected %.5f", step, got, want);
}

static void check_step(void *ctx, u32 position, const f32 *logits) {
    struct case_check *c = ctx;
    if (position + 1 < c->n_prompt)
        return;
    u32 step = position + 1 - c->n_prompt, best = 0;
    for (u32 i = 1; i < c->n_vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    if (c->margin[step] >= c->tie) {
        c->n_tokens++;
        if (best != c->ids[step])
            fail_msg("step %u: token %u, expected %u", step, best, c->ids[step]);
    }
    compare(c, step, logprob(c, logits, c->ids[step]), c->top1[step]);
    json_t *pair;
    size_t i;
    json_array_foreach(json_array_get(c->top10, step), i, pair)
        compare(c, step, logprob(c, logits, (u32)json_integer_value(json_array_get(pair, 0))),
                json_number_value(json_array_get(pair, 1)));
}

static void check_case(struct eval_model *e, const json_t *golden_case, struct case_check *c) {
    u32 n_prompt, n_ids, n;
    struct err err;
    u32 *prompt = golden_ids(json_object_get(golden_case, "prompt_ids"), &n_prompt);
    u32 *ids = golden_ids(json_object_get(golden_case, "ids"), &n_ids);
    f64 *margin = golden_numbers(json_object_get(golden_case, "margin"), &n);
    assert_true(n >= n_ids);
    f64 *top1 = golden_numbers(json_object_get(golden_case, "top1_logprob"), &n);
    assert_true(n >= n_ids);
    u32 *all = xmalloc((n_prompt + n_ids) * sizeof *all);
    memcpy(all, prompt, n_prompt * sizeof *all);
    memcpy(all + n_prompt, ids, n_ids * sizeof *all);
    c->n_prompt = n_prompt;
    c->n_ids = n_ids;
    c->ids = ids;
    c->margin = margin;
    c->top1 = top1;
    c->top10 = json_object_get(golden_case, "top10");
    assert_int_equal(eval_model_run(e, all, n_prompt + n_ids - 1, false, check_step, c, &err), OK);
    free(prompt);
    free(ids);
    free(margin);
    free(top1);
    free(all);
}

static void check_greedy(struct real *r, bool served, f64 tie, f64 tolerance, f64 beyond_max) {
    if (!r->path)
        skip();
    struct eval_model e;
    json_t *golden_case;
    size_t i;
    u32 n_all = 0;
    struct eval_options o = {.cache = served ? KERN_CACHE_F16 : KERN_CACHE_F32, .f32_activations = !served};
    golden_open(r->path, &o, &e);
    struct case_check c = {.kern = e.options.kern,
                           .n_vocab = model_info(e.model)->n_vocab,
                           .tie = tie,
                           .tolerance = tolerance,
                           .beyond_max = beyond_max};
    json_array_foreach(json_object_get(r->golden, "cases"), i, golden_case) {
        check_case(&e, golden_case, &c);
        n_all += (u32)json_array_size(json_object_get(golden_case, "ids"));
    }
    print_message("# %s: %u of %u tokens compared; %u log probabilities: mean difference %.5f, worst %.4f, "
                  "%u beyond %g\n",
                  r->numbers, c.n_tokens, n_all, c.n_values, c.sum / c.n_values, c.worst, c.n_beyond,
                  tolerance);
    assert_true(c.n_tokens > n_all / 2);
    assert_true(c.n_beyond <= beyond_max * c.n_values);
    f64 mean_reference = json_number_value(json_object_get(r->golden, "q8_mean_abs_diff"));
    assert_true(c.sum / c.n_values < (served ? 1.5 * mean_reference : 5e-4));
    eval_model_close(&e);
}

static void greedy_f32(void **state) { check_greedy(*state, false, 2e-3, 5e-3, 0); }
static void greedy_served(void **state) { check_greedy(*state, true, 0.6, 0.6, 0.02); }

struct nll_check {
    const struct kern *kern;
    const u32 *ids;
    const f64 *want;
    u32 n, n_vocab;
    f64 sum, diff, worst;
};

static void add_nll(void *ctx, u32 position, const f32 *logits) {
    struct nll_check *c = ctx;
    f32 max;
    f64 lse;
    if (position + 1 >= c->n)
        return;
    c->kern->logsumexp(logits, c->n_vocab, &max, &lse);
    f64 nll = (f64)max + lse - (f64)logits[c->ids[position + 1]], d = fabs(nll - c->want[position]);
    c->sum += nll;
    c->diff += d;
    c->worst = MAX(c->worst, d);
}

static void check_nll(struct real *r, bool served) {
    if (!r->path)
        skip();
    struct eval_model e;
    struct err err;
    const json_t *ppl = json_object_get(r->golden, "ppl");
    u32 n, n_want;
    u32 *ids = golden_ids(json_object_get(ppl, "ids"), &n);
    f64 *want = golden_numbers(json_object_get(ppl, "nll"), &n_want);
    assert_int_equal(n_want, n - 1);
    struct eval_options o = {.cache = served ? KERN_CACHE_F16 : KERN_CACHE_F32, .f32_activations = !served};
    golden_open(r->path, &o, &e);
    struct nll_check c = {
        .kern = e.options.kern, .ids = ids, .want = want, .n = n, .n_vocab = model_info(e.model)->n_vocab};
    assert_int_equal(eval_model_run(&e, ids, n, false, add_nll, &c, &err), OK);
    f64 sum = json_number_value(json_object_get(ppl, "nll_sum")), mean = c.diff / n_want;
    f64 mean_reference = json_number_value(json_object_get(ppl, "q8_mean_abs_diff"));
    print_message("# %s: perplexity %.4f, expected %.4f; per token mean difference %.5f (llama.cpp's integer "
                  "path %.5f), worst %.4f\n",
                  r->numbers, exp(c.sum / n_want), exp(sum / n_want), mean, mean_reference, c.worst);
    assert_true(fabs(exp((c.sum - sum) / n_want) - 1) < (served ? 1e-2 : 5e-4));
    assert_true(mean < (served ? 1.5 * mean_reference : 1e-3));
    eval_model_close(&e);
    free(ids);
    free(want);
}

static void nll_f32(void **state) { check_nll(*state, false); }
static void nll_served(void **state) { check_nll(*state, true); }

#define TESTS(r)                                                                                             \
    {#r " greedy_f32", greedy_f32, start, finish, &reals[r]},                                                \
        {#r " greedy_served", greedy_served, start, finish, &reals[r]},                                      \
        {#r " nll_f32", nll_f32, start, finish, &reals[r]}, {                                                \
#r " nll_served", nll_served, start, finish, &reals[r]                                               \
    }

int main(void) {
    const struct CMUnitTest all[] = {TESTS(0), TESTS(1)};
    struct CMUnitTest tests[ARRAY_LEN(all)];
    u32 n = 0;
    for (u32 i = 0; i < ARRAY_LEN(all); i++) {
        const struct real *r = all[i].initial_state;
        const char *path = getenv(r->variable);
        if (path && path[0])
            tests[n++] = all[i];
        else
            printf("# skipped: %s does not name the model: %s\n", r->variable, all[i].name);
    }
    if (n == 0) {
        printf("1..0 # SKIP no real model\n");
        return 0;
    }
    return _cmocka_run_group_tests("real", tests, n, NULL, NULL);
}
