/* The sampler against exact probabilities. A slow oracle applies the same filters by sorting everything in
 * long double; the sampler must never choose what the oracle excludes, and over many positions choose the
 * rest as often as it says (chi-square with a limit that a right sampler passes but for one seed in 10^6). */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "model/sampler.h"

#define VOCAB 1200u
#define DRAWS 4000u

static const struct gen_sampling plain = {
    .seed = 1, .temperature = 1, .top_p = 1, .typical_p = 1, .repeat_penalty = 1};

struct fixture {
    f32 logits[VOCAB];
    void *scratch;
};

static u64 next_random(u64 *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void fill(struct fixture *f, u64 seed, f32 spread) {
    for (u32 i = 0; i < VOCAB; i++)
        f->logits[i] = spread * ((f32)next_random(&seed) / 2147483648.0f);
}

static int setup(void **state) {
    struct fixture *f = xcalloc(1, sizeof *f);
    f->scratch = xmalloc(sampler_scratch_bytes(VOCAB));
    fill(f, 7, 12);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    free(f->scratch);
    free(f);
    return 0;
}

static u32 pick(struct fixture *f, struct sampler *s, u32 position, const u32 *mask) {
    struct sampler_pick out;
    sampler_pick(s, &kern_ref, f->logits, position, mask, 0, false, f->scratch, &out);
    return out.token;
}

/* --- the oracle --- */
struct entry {
    u32 id;
    long double x, p, key;
    bool in;
};

static int by_x(const void *pa, const void *pb) {
    const struct entry *a = pa, *b = pb;
    return a->x > b->x ? -1 : a->x < b->x ? 1 : a->id < b->id ? -1 : 1;
}

static int by_key(const void *pa, const void *pb) {
    const struct entry *a = pa, *b = pb;
    return a->key < b->key ? -1 : a->key > b->key ? 1 : by_x(pa, pb);
}

/* Best first; what is no number last. */
static const f32 *wide_logits;
static int by_wide(const void *pa, const void *pb) {
    u32 a = *(const u32 *)pa, b = *(const u32 *)pb;
    f32 x = isnan(wide_logits[a]) ? -INFINITY : wide_logits[a],
        y = isnan(wide_logits[b]) ? -INFINITY : wide_logits[b];
    return x > y ? -1 : x < y ? 1 : a < b ? -1 : 1;
}

static u32 normalize(struct entry *e, u32 n, long double temperature) {
    long double sum = 0;
    for (u32 i = 0; i < n; i++)
        sum += e[i].p = expl((e[i].x - e[0].x) / temperature);
    for (u32 i = 0; i < n; i++)
        e[i].p /= sum;
    return n;
}

/* p [VOCAB] = exact probability of each token. */
static void oracle(const f32 *logits, const struct gen_sampling *s, long double *p) {
    struct entry *e = xcalloc(VOCAB, sizeof *e);
    u32 n = VOCAB;
    for (u32 i = 0; i < VOCAB; i++)
        e[i] = (struct entry){.id = i, .x = (long double)logits[i]};
    qsort(e, n, sizeof *e, by_x);
    if (s->top_k > 0)
        n = MIN(n, (u32)s->top_k);
    if (s->typical_p < 1) {
        long double entropy = 0, mass = 0;
        normalize(e, n, 1);
        for (u32 i = 0; i < n; i++)
            entropy -= e[i].p * logl(e[i].p);
        for (u32 i = 0; i < n; i++)
            e[i].key = fabsl(-logl(e[i].p) - entropy);
        qsort(e, n, sizeof *e, by_key);
        u32 kept = 0;
        while (kept < n && mass <= (long double)s->typical_p)
            mass += e[kept++].p;
        n = kept;
        qsort(e, n, sizeof *e, by_x);
    }
    if (s->top_p < 1) {
        long double mass = 0;
        u32 kept = 0;
        normalize(e, n, 1);
        while (kept < n && mass < (long double)s->top_p)
            mass += e[kept++].p;
        n = kept;
    }
    if (s->min_p > 0)
        while (n > 1 && expl(e[n - 1].x - e[0].x) < (long double)s->min_p)
            n--;
    normalize(e, n, (long double)s->temperature);
    memset(p, 0, VOCAB * sizeof *p);
    for (u32 i = 0; i < n; i++)
        p[e[i].id] = e[i].p;
    free(e);
}

/* Tokens of expected count below 8 are one class. Wilson-Hilferty: the cube root of chi2/df is normal. */
static void assert_distribution(struct fixture *f, const struct gen_sampling *p) {
    static long double want[VOCAB];
    static u32 got[VOCAB];
    memset(got, 0, sizeof got);
    oracle(f->logits, p, want);
    struct sampler *s = sampler_new(p, VOCAB);
    for (u32 i = 0; i < DRAWS; i++) {
        u32 token = pick(f, s, i, NULL);
        assert_true(want[token] > 0);
        got[token]++;
    }
    sampler_free(s);
    long double chi2 = 0, rest_want = 0;
    u32 df = 0, rest_got = 0;
    for (u32 i = 0; i < VOCAB; i++) {
        long double w = want[i] * DRAWS;
        if (w < 8) {
            rest_want += w;
            rest_got += got[i];
            continue;
        }
        chi2 += ((long double)got[i] - w) * ((long double)got[i] - w) / w;
        df++;
    }
    if (rest_want >= 8) {
        chi2 += ((long double)rest_got - rest_want) * ((long double)rest_got - rest_want) / rest_want;
        df++;
    }
    if (df < 2)
        return; /* one class: that only allowed tokens were drawn says all */
    long double d = (long double)(df - 1);
    long double z = (cbrtl(chi2 / d) - (1 - 2 / (9 * d))) / sqrtl(2 / (9 * d));
    assert_true(z < 4.8L);
    assert_true(z > -4.8L);
}

static void distributions(void **state) {
    struct fixture *f = *state;
    struct {
        i32 top_k;
        f32 top_p, min_p, typical_p, temperature;
    } rows[] = {
        {0, 1, 0, 1, 1},
        {0, 1, 0, 1, 0.5f},
        {0, 1, 0, 1, 2},
        {40, 1, 0, 1, 1},
        {1, 1, 0, 1, 1},
        {2, 1, 0, 1, 3},
        {500, 1, 0, 1, 1.5f},
        {0, 0.9f, 0, 1, 1},
        {0, 0.3f, 0, 1, 0.8f},
        {0, 0.999f, 0, 1, 1},
        {40, 0.9f, 0, 1, 0.8f},
        {0, 1, 0.05f, 1, 1},
        {0, 1, 0.5f, 1, 2},
        {0, 1, 0, 0.5f, 1},
        {0, 1, 0, 0.95f, 1},
        {0, 1, 0, 0.2f, 1},
        {100, 1, 0, 0.7f, 1},
        {40, 0.9f, 0.05f, 0.9f, 0.7f},
        {0, 0.8f, 0.1f, 0.9f, 1.2f},
        {5000, 0.95f, 0.01f, 1, 1},
        {0, 0, 0, 1, 1},
        {0, 1, 1, 1, 1},
    };
    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        struct gen_sampling p = plain;
        p.seed = 1000 + i;
        p.top_k = rows[i].top_k;
        p.top_p = rows[i].top_p;
        p.min_p = rows[i].min_p;
        p.typical_p = rows[i].typical_p;
        p.temperature = rows[i].temperature;
        fill(f, i, i % 3 == 0 ? 4 : i % 3 == 1 ? 12 : 30);
        if (rows[i].top_p == 0) { /* the oracle keeps nothing of no mass; the sampler keeps the best */
            struct sampler *s = sampler_new(&p, VOCAB);
            struct gen_sampling greedy = p;
            greedy.temperature = 0;
            struct sampler *g = sampler_new(&greedy, VOCAB);
            for (u32 pos = 0; pos < 100; pos++)
                assert_int_equal(pick(f, s, pos, NULL), pick(f, g, pos, NULL));
            sampler_free(s);
            sampler_free(g);
            continue;
        }
        assert_distribution(f, &p);
    }
}

/* Known answers of Philox4x32-10 for counter 0 and key 0: 6627e8d5 e169c58d (Random123's kat_vectors). Two
 * tokens of equal probability: the draw tells on which side of one half the number lies; with n tokens, in
 * which n-th. */
static void random_numbers(void **state) {
    struct fixture *f = *state;
    for (u32 i = 0; i < VOCAB; i++)
        f->logits[i] = 0;
    struct gen_sampling p = plain;
    p.seed = 0;
    struct sampler *s = sampler_new(&p, VOCAB);
    f64 unit = (f64)((u64)0x6627e8d5 << 32 | 0xe169c58d) * 0x1p-64;
    assert_int_equal(pick(f, s, 0, NULL), (u32)(unit * VOCAB));
    sampler_free(s);
}

/* Greedy: the largest wins, of equal ones the lowest id, wherever they lie. */
static void greedy(void **state) {
    struct fixture *f = *state;
    struct gen_sampling p = plain;
    p.temperature = 0;
    struct sampler *s = sampler_new(&p, VOCAB);
    for (u32 at = 0; at < VOCAB; at += 37) {
        fill(f, at, 5);
        f->logits[at] = 9;
        f->logits[(at + 600) % VOCAB] = 9;
        assert_int_equal(pick(f, s, at, NULL), MIN(at, (at + 600) % VOCAB));
    }
    sampler_free(s);
}

/* NaN and infinities never crash, and a number wins over none. */
static void no_numbers(void **state) {
    struct fixture *f = *state;
    u32 mask[DIV_CEIL(VOCAB, 32)] = {0};
    mask[1100 / 32] = 1u << 1100 % 32;
    for (u32 mode = 0; mode < 2; mode++) {
        struct gen_sampling p = plain;
        p.temperature = (f32)mode;
        p.top_k = 40;
        p.top_p = 0.9f;
        struct sampler *s = sampler_new(&p, VOCAB);
        for (u32 i = 0; i < VOCAB; i++)
            f->logits[i] = NAN;
        assert_true(pick(f, s, 0, NULL) < VOCAB);
        assert_int_equal(pick(f, s, 0, mask), 1100);
        f->logits[1134] = -5;
        assert_int_equal(pick(f, s, 0, NULL), 1134);
        f->logits[77] = INFINITY;
        assert_int_equal(pick(f, s, 0, NULL), 77);
        for (u32 i = 0; i < VOCAB; i++)
            f->logits[i] = -INFINITY;
        assert_int_equal(pick(f, s, 0, mask), 1100);
        sampler_free(s);
    }
}

/* Only allowed tokens come, in the proportions of the allowed ones. */
static void masks(void **state) {
    struct fixture *f = *state;
    u32 mask[DIV_CEIL(VOCAB, 32)] = {0};
    u32 allowed[] = {3, 31, 32, 1000, 1199};
    for (u32 i = 0; i < ARRAY_LEN(allowed); i++) {
        mask[allowed[i] / 32] |= 1u << allowed[i] % 32;
        f->logits[allowed[i]] = (f32)i * 0.5f - 40; /* far below all others */
    }
    i32 top_ks[] = {0, 2, 5, 40};
    for (u32 k = 0; k < ARRAY_LEN(top_ks); k++) {
        struct gen_sampling p = plain;
        p.top_k = top_ks[k];
        p.top_p = k & 1 ? 0.99f : 1;
        struct sampler *s = sampler_new(&p, VOCAB);
        u32 got[5] = {0};
        for (u32 i = 0; i < 4000; i++) {
            u32 token = pick(f, s, i, mask), j = 0;
            while (j < 5 && allowed[j] != token)
                j++;
            assert_true(j < 5);
            got[j]++;
        }
        assert_true(got[4] > got[3] && got[3] > 0);
        assert_true(top_ks[k] != 2 || got[2] == 0);
        sampler_free(s);
    }
}

/* Penalties by the formulas of the reference, over a window that slides, and undone by rollback. */
static void penalties(void **state) {
    struct fixture *f = *state;
    struct gen_sampling p = plain;
    p.temperature = 0;
    p.repeat_last_n = 4;
    p.repeat_penalty = 2;
    p.presence_penalty = 0.25f;
    p.frequency_penalty = 0.5f;
    for (u32 i = 0; i < VOCAB; i++)
        f->logits[i] = -100;
    f->logits[10] = 8; /* once: 8 / 2 - 0.75 = 3.25; twice: 2.75 */
    f->logits[20] = 3;
    f->logits[30] = 2.76f;
    struct sampler *s = sampler_new(&p, VOCAB);
    assert_int_equal(pick(f, s, 0, NULL), 10);
    sampler_accept(s, 10);
    assert_int_equal(pick(f, s, 0, NULL), 10);
    u32 mark = sampler_snapshot(s);
    sampler_accept(s, 10);
    assert_int_equal(pick(f, s, 0, NULL), 20);
    sampler_accept(s, 20); /* 3 / 2 - 0.75 */
    assert_int_equal(pick(f, s, 0, NULL), 30);
    sampler_rollback(s, mark);
    assert_int_equal(sampler_snapshot(s), mark);
    assert_int_equal(pick(f, s, 0, NULL), 10);
    for (u32 i = 0; i < 4; i++) /* 10 leaves the window */
        sampler_accept(s, 500 + i);
    f->logits[30] = 7.9f;
    assert_int_equal(pick(f, s, 0, NULL), 10);
    f->logits[10] = -1; /* once: -2 - 0.75 = -2.75 */
    f->logits[20] = -2.74f;
    f->logits[30] = -90;
    sampler_accept(s, 10);
    assert_int_equal(pick(f, s, 0, NULL), 20);
    sampler_rollback(s, 0);
    assert_int_equal(pick(f, s, 0, NULL), 10);
    sampler_free(s);
}

/* Goal: of a large vocabulary with many equal values and some that are no numbers, top_k keeps the best,
 * lower ids first; the alternatives are the best 20 in order. */
#define WIDE 50000u
static void wide_rows(void **state) {
    (void)state;
    static const i32 ks[] = {1, 7, 40, 195, 196, 2000};
    static f32 x[WIDE];
    static u32 rank[WIDE], sorted[WIDE];
    u64 random = 99;
    const struct kern *best;
    struct err err;
    assert_int_equal(kern_open(NULL, &best, &err), OK);
    void *scratch = xmalloc(sampler_scratch_bytes(WIDE));
    for (u32 i = 0; i < WIDE; i++)
        x[i] = i % 97 == 5 ? NAN : roundf((f32)(next_random(&random) % 4000) * 0.25f) * 0.01f;
    wide_logits = x;
    for (u32 i = 0; i < WIDE; i++)
        sorted[i] = i;
    qsort(sorted, WIDE, sizeof *sorted, by_wide);
    for (u32 i = 0; i < WIDE; i++)
        rank[sorted[i]] = i;
    for (u32 i = 0; i < ARRAY_LEN(ks); i++) {
        struct gen_sampling p = plain;
        u32 n_seen = 0, top_k = (u32)ks[i];
        static bool seen[WIDE];
        memset(seen, 0, sizeof seen);
        p.top_k = ks[i];
        p.temperature = 100;
        struct sampler *s = sampler_new(&p, WIDE);
        for (u32 pos = 0; pos < 1000; pos++) {
            struct sampler_pick out;
            bool alternatives = pos == 0;
            sampler_pick(s, best, x, pos, NULL, alternatives ? 20 : 0, alternatives, scratch, &out);
            assert_true(rank[out.token] < top_k);
            n_seen += !seen[out.token];
            seen[out.token] = true;
            for (u32 j = 0; alternatives && j < 20; j++)
                assert_int_equal(out.top[j].token, sorted[j]);
        }
        assert_true(n_seen >= MIN(top_k, 60u));
        sampler_free(s);
    }
    free(scratch);
}

/* A draw depends on seed, position and accepted tokens alone: not on earlier draws, rollbacks, the kernels'
 * tier, or what the scratch held. */
static void invariance(void **state) {
    struct fixture *f = *state;
    struct gen_sampling p = plain;
    p.top_k = 40;
    p.top_p = 0.95f;
    p.repeat_last_n = 64;
    p.repeat_penalty = 1.1f;
    const struct kern *best;
    struct err err;
    assert_int_equal(kern_open(NULL, &best, &err), OK);
    struct sampler *a = sampler_new(&p, VOCAB);
    u32 tokens[200];
    for (u32 i = 0; i < 200; i++) {
        tokens[i] = pick(f, a, i, NULL);
        sampler_accept(a, tokens[i]);
    }
    struct sampler *b = sampler_new(&p, VOCAB);
    for (u32 i = 0; i < 200; i++) {
        struct sampler_pick out;
        memset(f->scratch, (int)i, sampler_scratch_bytes(VOCAB));
        u32 mark = sampler_snapshot(b);
        for (u32 j = 0; j < i % 5; j++) /* speculation that fails */
            sampler_accept(b, (i * 31 + j) % VOCAB);
        pick(f, b, 1000 + i, NULL);
        sampler_rollback(b, mark);
        sampler_pick(b, best, f->logits, i, NULL, 5, true, f->scratch, &out);
        assert_int_equal(out.token, tokens[i]);
        sampler_accept(b, out.token);
    }
    sampler_free(a);
    sampler_free(b);
}

/* Log probabilities are those of the untouched logits, also where a penalty changed the choice. */
static void logprobs(void **state) {
    struct fixture *f = *state;
    struct gen_sampling p = plain;
    p.temperature = 0.7f;
    p.repeat_last_n = 8;
    p.repeat_penalty = 5;
    struct sampler *s = sampler_new(&p, VOCAB);
    struct gen_sampling all = plain;
    static long double want[VOCAB];
    oracle(f->logits, &all, want);
    for (u32 n_top = 0; n_top <= 20; n_top += 4) {
        struct sampler_pick out;
        sampler_pick(s, &kern_ref, f->logits, n_top, NULL, n_top, true, f->scratch, &out);
        assert_true(fabsl((long double)out.logprob - logl(want[out.token])) < 1e-5L);
        assert_int_equal(out.n_top, n_top);
        for (u32 i = 0; i < n_top; i++) {
            assert_true(fabsl((long double)out.top[i].logprob - logl(want[out.top[i].token])) < 1e-5L);
            u32 above = 0;
            for (u32 t = 0; t < VOCAB; t++)
                above += f->logits[t] > f->logits[out.top[i].token] ||
                         (f->logits[t] == f->logits[out.top[i].token] && t < out.top[i].token);
            assert_int_equal(above, i);
        }
        sampler_accept(s, out.token);
    }
    sampler_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(distributions, setup, teardown),
        cmocka_unit_test_setup_teardown(random_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(greedy, setup, teardown),
        cmocka_unit_test_setup_teardown(no_numbers, setup, teardown),
        cmocka_unit_test(wide_rows),
        cmocka_unit_test_setup_teardown(masks, setup, teardown),
        cmocka_unit_test_setup_teardown(penalties, setup, teardown),
        cmocka_unit_test_setup_teardown(invariance, setup, teardown),
        cmocka_unit_test_setup_teardown(logprobs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
