/* Attention. Truth: softmax attention in double precision, straight from the definition; and the reference
 * kernels bit by bit for the other tiers. Caches are filled through kv_store, as the engine does. */
#include "kern/kern_test.h"

#include <math.h>

#define PAGE 64u
#define PAGES_MAX 32u

/* One KV head's cache of n positions, each page a slice of its own. */
struct cache {
    enum kern_cache type;
    u32 head_dim, n;
    void *k[PAGES_MAX], *v[PAGES_MAX];
};

static void cache_init(struct cache *c, enum kern_cache type, u32 head_dim, u32 n) {
    *c = (struct cache){.type = type, .head_dim = head_dim, .n = n};
    for (u32 i = 0; i < DIV_CEIL(n, PAGE); i++) {
        size_t bytes = PAGE * kern_cache_bytes(type) * head_dim;
        c->k[i] = guard_alloc(bytes, 0);
        c->v[i] = guard_alloc(bytes, 0);
    }
}

static void cache_free(struct cache *c) {
    for (u32 i = 0; i < DIV_CEIL(c->n, PAGE); i++) {
        guard_free(c->k[i]);
        guard_free(c->v[i]);
    }
}

static void cache_put(struct cache *c, const struct kern *kern, u32 pos, const f32 *k, const f32 *v) {
    kern->kv_store(c->type, c->head_dim, pos % PAGE, k, v, c->k[pos / PAGE], c->v[pos / PAGE]);
}

static void cache_fill(struct cache *c, const struct kern *kern, u64 *rng) {
    f32 k[256], v[256];
    for (u32 pos = 0; pos < c->n; pos++) {
        rng_fill(rng, k, c->head_dim, -1, 1);
        rng_fill(rng, v, c->head_dim, -1, 1);
        cache_put(c, kern, pos, k, v);
    }
}

static f64 cache_k(const struct cache *c, u32 pos, u32 d) {
    size_t i = ((size_t)(pos % PAGE / 16) * c->head_dim + d) * 16 + pos % 16;
    const void *p = c->k[pos / PAGE];
    return (f64)(c->type == KERN_CACHE_F16 ? f16_to_f32(((const u16 *)p)[i]) : ((const f32 *)p)[i]);
}

static f64 cache_v(const struct cache *c, u32 pos, u32 d) {
    size_t i = (size_t)(pos % PAGE) * c->head_dim + d;
    const void *p = c->v[pos / PAGE];
    return (f64)(c->type == KERN_CACHE_F16 ? f16_to_f32(((const u16 *)p)[i]) : ((const f32 *)p)[i]);
}

/* Queries of a step, and what one chunk or the whole attention gives. */
struct job {
    u32 n, window;
    f32 scale, softcap;
    u32 *pos;
    f32 *slope; /* NULL: no ALiBi */
    u32 *at;
    f32 *q;   /* [n][head_dim] */
    f32 *m, *l, *o;
};

static void job_init(struct job *j, u32 n, u32 head_dim, u64 *rng) {
    *j = (struct job){.n = n, .scale = 1.0f / sqrtf((f32)head_dim)};
    j->pos = xcalloc(n, sizeof *j->pos);
    j->q = xcalloc((size_t)n * head_dim, sizeof(f32));
    rng_fill(rng, j->q, (size_t)n * head_dim, -3, 3);
    j->m = guard_alloc(n * sizeof(f32), 4);
    j->l = guard_alloc(n * sizeof(f32), 4);
    j->o = guard_alloc((size_t)n * head_dim * sizeof(f32), 4);
}

/* Slopes, and distances from positions of their own: an encoder's queries see keys on both sides. Gentle ones:
 * steeper scores lose digits that the tolerances count on. */
static void job_slopes(struct job *j, u32 n_keys) {
    j->slope = xcalloc(j->n, sizeof *j->slope);
    j->at = xcalloc(j->n, sizeof *j->at);
    for (u32 q = 0; q < j->n; q++) {
        j->slope[q] = 0.01f / (f32)(1 + q % 8);
        j->at[q] = q * 37 % n_keys;
    }
}

static void job_free(struct job *j) {
    free(j->pos);
    free(j->slope);
    free(j->at);
    free(j->q);
    guard_free(j->m);
    guard_free(j->l);
    guard_free(j->o);
}

/* Queries first..first+n-1 of the job against one chunk, as one call. */
static void attend_chunk(const struct kern *kern, const struct cache *c, const struct job *j, u32 first, u32 n, u32 chunk) {
    const f32 *rows[1024];
    assert_true(n <= ARRAY_LEN(rows));
    for (u32 i = 0; i < n; i++)
        rows[i] = j->q + (size_t)(first + i) * c->head_dim;
    struct kern_attend a = {.cache = c->type, .head_dim = c->head_dim, .n_queries = n, .q = rows, .pos = j->pos + first,
                            .slope = j->slope ? j->slope + first : NULL, .at = j->slope ? j->at + first : NULL,
                            .window = j->window, .chunk = chunk, .k = (const void *const *)c->k + chunk * 4,
                            .v = (const void *const *)c->v + chunk * 4, .scale = j->scale, .softcap = j->softcap,
                            .m = j->m + first, .l = j->l + first, .o = j->o + (size_t)first * c->head_dim};
    void *scratch = guard_alloc(kern_attend_scratch_bytes(), 0);
    kern->attend(&a, scratch);
    guard_free(scratch);
}

static void attend_all(const struct kern *kern, const struct cache *c, struct job *j, f32 *out) {
    f32 *m = xcalloc(j->n, sizeof(f32)), *l = xcalloc(j->n, sizeof(f32));
    f32 *o = xcalloc((size_t)j->n * c->head_dim, sizeof(f32));
    for (u32 i = 0; i < j->n; i++)
        m[i] = -INFINITY;
    for (u32 chunk = 0; chunk < DIV_CEIL(c->n, KERN_CHUNK); chunk++) {
        attend_chunk(kern, c, j, 0, j->n, chunk);
        for (u32 i = 0; i < j->n; i++)
            kern->attend_fold(&m[i], &l[i], o + (size_t)i * c->head_dim, j->m[i], j->l[i],
                              j->o + (size_t)i * c->head_dim, c->head_dim);
    }
    for (u32 i = 0; i < j->n; i++)
        kern->attend_finish(o + (size_t)i * c->head_dim, l[i], c->head_dim, out + (size_t)i * c->head_dim);
    free(m);
    free(l);
    free(o);
}

/* softmax(scale * q k) v over the visible positions, in f64. */
static void attend_f64(const struct cache *c, const struct job *j, u32 query, f64 *out) {
    f64 *p = xcalloc(c->n, sizeof *p), max = -INFINITY, sum = 0;
    u32 to = j->pos[query] + 1, from = j->window && to > j->window ? to - j->window : 0;
    for (u32 i = from; i < to; i++) {
        f64 s = 0;
        for (u32 d = 0; d < c->head_dim; d++)
            s += (f64)j->q[(size_t)query * c->head_dim + d] * cache_k(c, i, d);
        s *= (f64)j->scale;
        p[i] = j->softcap > 0 ? (f64)j->softcap * tanh(s / (f64)j->softcap) : s;
        if (j->slope)
            p[i] -= (f64)j->slope[query] * fabs((f64)i - (f64)j->at[query]);
        max = fmax(max, p[i]);
    }
    for (u32 i = from; i < to; i++)
        sum += p[i] = exp(p[i] - max);
    for (u32 d = 0; d < c->head_dim; d++) {
        out[d] = 0;
        for (u32 i = from; i < to; i++)
            out[d] += p[i] / sum * cache_v(c, i, d);
    }
    free(p);
}

/* Goal: the whole chain (store, attend, fold, finish) is softmax attention. All tiers, since a wrong
 * definition in ref would be repeated by them. */
static void attention_is_softmax(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    static const struct { u32 head_dim, n_keys, window; f32 softcap; enum kern_cache type; f64 tolerance; } cases[] = {
        {16, 40, 0, 0, KERN_CACHE_F32, 1e-6},    {64, 700, 0, 0, KERN_CACHE_F16, 1e-6},
        {80, 300, 0, 0, KERN_CACHE_F16, 1e-6},   {96, 513, 100, 0, KERN_CACHE_F32, 1e-6},
        {128, 1000, 0, 0, KERN_CACHE_F16, 1e-6}, {256, 600, 300, 5, KERN_CACHE_F16, 2e-6},
        {32, 257, 1, 0, KERN_CACHE_F16, 1e-6},   {112, 256, 0, 30, KERN_CACHE_F32, 2e-6},
    };
    for (u32 t = 0; t < n_tiers; t++) {
        for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
            u64 rng = 7 + i;
            struct cache c;
            struct job j;
            cache_init(&c, cases[i].type, cases[i].head_dim, cases[i].n_keys);
            cache_fill(&c, tiers[t], &rng);
            job_init(&j, 7, c.head_dim, &rng);
            j.window = cases[i].window;
            j.softcap = cases[i].softcap;
            for (u32 q = 0; q < j.n; q++)
                j.pos[q] = q < 4 ? c.n - 1 - q : rng_below(&rng, c.n);
            if (i % 2)
                job_slopes(&j, c.n);
            f32 *out = xcalloc((size_t)j.n * c.head_dim, sizeof *out);
            attend_all(tiers[t], &c, &j, out);
            for (u32 q = 0; q < j.n; q++) {
                f64 want[256], error = 0;
                attend_f64(&c, &j, q, want);
                for (u32 d = 0; d < c.head_dim; d++)
                    error = fmax(error, fabs(want[d] - (f64)out[(size_t)q * c.head_dim + d]));
                if (!(error <= cases[i].tolerance))
                    fail_msg("%s case %u query %u: error %g", tiers[t]->name, i, q, error);
            }
            free(out);
            job_free(&j);
            cache_free(&c);
        }
    }
}

/* Goal: same bits as ref for every tile size, head size, mask and cache type. */
static void attend_equals_ref(void **state) {
    (void)state;
    const struct kern *tiers[2];
    u32 n_tiers = tiers_here(tiers);
    for (u32 round = 0; round < 400; round++) {
        u64 rng = 1000 + round;
        struct cache c;
        struct job ref, j;
        u32 head_dim = 16 * (1 + round % 16);
        cache_init(&c, round / 16 % 2 ? KERN_CACHE_F32 : KERN_CACHE_F16, head_dim, 1 + rng_below(&rng, 600));
        cache_fill(&c, &kern_ref, &rng);
        job_init(&ref, 1 + rng_below(&rng, round % 5 ? 14 : 40), head_dim, &rng);
        ref.window = round % 3 ? 0 : 1 + rng_below(&rng, 300);
        ref.softcap = round % 7 ? 0 : 20;
        u32 near = rng_below(&rng, c.n);
        if (round % 3 == 1)
            job_slopes(&ref, c.n);
        for (u32 q = 0; q < ref.n; q++)
            ref.pos[q] = round % 4 == 0 ? rng_below(&rng, c.n) : MIN(near + q / (1 + round % 3), c.n - 1);
        for (u32 t = 0; t < n_tiers; t++) {
            rng = 1000 + round;
            job_init(&j, ref.n, head_dim, &rng);
            memcpy(j.q, ref.q, sizeof(f32) * ref.n * head_dim);
            memcpy(j.pos, ref.pos, sizeof(u32) * ref.n);
            j.window = ref.window;
            j.softcap = ref.softcap;
            if (ref.slope)
                job_slopes(&j, c.n);
            for (u32 chunk = 0; chunk < DIV_CEIL(c.n, KERN_CHUNK); chunk++) {
                attend_chunk(&kern_ref, &c, &ref, 0, ref.n, chunk);
                attend_chunk(tiers[t], &c, &j, 0, j.n, chunk);
                assert_same("m", j.m, ref.m, j.n);
                assert_same("l", j.l, ref.l, j.n);
                assert_same("o", j.o, ref.o, (size_t)j.n * head_dim);
            }
            job_free(&j);
        }
        job_free(&ref);
        cache_free(&c);
    }
}

/* Goal: a query's result does not depend on the queries in the same call nor on its place among them. Method:
 * all at once, then cut into calls of random sizes. */
static void attend_is_batch_invariant(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    for (u32 round = 0; round < 60; round++) {
        u64 rng = 50 + round;
        struct cache c;
        struct job j;
        u32 head_dim = (const u32[]){64, 128, 16, 80, 256, 96}[round % 6];
        cache_init(&c, KERN_CACHE_F16, head_dim, 256);
        cache_fill(&c, &kern_ref, &rng);
        job_init(&j, 48, head_dim, &rng);
        j.window = round % 2 ? 0 : 70;
        for (u32 q = 0; q < j.n; q++)
            j.pos[q] = 100 + q;
        for (u32 t = 0; t < n_tiers; t++) {
            f32 *o = xcalloc((size_t)j.n * head_dim, sizeof *o);
            f32 m[48], l[48];
            attend_chunk(tiers[t], &c, &j, 0, j.n, 0);
            memcpy(o, j.o, sizeof(f32) * j.n * head_dim);
            memcpy(m, j.m, sizeof m);
            memcpy(l, j.l, sizeof l);
            for (u32 first = 0, n; first < j.n; first += n) {
                n = 1 + rng_below(&rng, 9);
                n = MIN(n, j.n - first);
                attend_chunk(tiers[t], &c, &j, first, n, 0);
            }
            assert_same("o", j.o, o, (size_t)j.n * head_dim);
            assert_same("m", j.m, m, j.n);
            assert_same("l", j.l, l, j.n);
            free(o);
        }
        job_free(&j);
        cache_free(&c);
    }
}

/* Goal: what a query must not see takes part in nothing: NaN and infinities behind its position, in front of
 * its window and in pages that are not held leave its bits alone. */
static void masked_keys_take_no_part(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    for (u32 t = 0; t < n_tiers; t++) {
        for (u32 round = 0; round < 24; round++) {
            u64 rng = 900 + round;
            struct cache c;
            struct job j;
            cache_init(&c, round % 2 ? KERN_CACHE_F32 : KERN_CACHE_F16, 64, 256);
            cache_fill(&c, tiers[t], &rng);
            job_init(&j, 1 + round % 9, 64, &rng);
            j.window = 30;
            for (u32 q = 0; q < j.n; q++)
                j.pos[q] = 120 + q;
            attend_chunk(tiers[t], &c, &j, 0, j.n, 0);
            f32 o[9 * 64], m[9], l[9];
            memcpy(o, j.o, sizeof(f32) * 64 * j.n);
            memcpy(m, j.m, sizeof(f32) * j.n);
            memcpy(l, j.l, sizeof(f32) * j.n);
            /* Visible to some query: 91 .. 119 + n. Spoil the rest of the pages that are held. */
            f32 bad[64];
            for (u32 d = 0; d < 64; d++)
                bad[d] = d % 3 ? NAN : INFINITY;
            struct cache spoilt = c;
            for (u32 pos = 64; pos < 256; pos++) {
                if (pos % 16 == 0 && pos >= 80 && pos < 144)
                    continue; /* kv_store would clear the block */
                if (pos < 91 || pos > 119 + j.n)
                    cache_put(&spoilt, tiers[t], pos, bad, bad);
            }
            spoilt.k[0] = spoilt.v[0] = spoilt.k[3] = spoilt.v[3] = NULL;
            attend_chunk(tiers[t], &spoilt, &j, 0, j.n, 0);
            assert_same("o", j.o, o, 64 * j.n);
            assert_same("m", j.m, m, j.n);
            assert_same("l", j.l, l, j.n);
            /* A key that only the last query sees spoils only the last query. */
            cache_put(&c, tiers[t], 119 + j.n, bad, bad);
            if ((119 + j.n) % 16 != 0) {
                attend_chunk(tiers[t], &c, &j, 0, j.n, 0);
                assert_same("o", j.o, o, 64 * (j.n - 1));
                assert_true(isnan(j.l[j.n - 1]) && isnan(j.o[64 * j.n - 1]));
            }
            job_free(&j);
            cache_free(&c);
        }
    }
}

/* Goal: a chunk without a visible key says so, and folding it in changes no bit. */
static void nothing_visible(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    for (u32 t = 0; t < n_tiers; t++) {
        u64 rng = 3;
        struct cache c = {.type = KERN_CACHE_F16, .head_dim = 64, .n = 768}; /* no page held */
        struct job j;
        job_init(&j, 3, 64, &rng);
        j.window = 10;
        j.pos[0] = 255, j.pos[1] = 600, j.pos[2] = 521;
        attend_chunk(tiers[t], &c, &j, 0, 3, 1);
        for (u32 q = 0; q < 3; q++) {
            f32 m = 0.5f, l = 1, o[64];
            assert_true(j.m[q] == -INFINITY && j.l[q] == 0);
            for (u32 d = 0; d < 64; d++) {
                assert_true(j.o[q * 64 + d] == 0);
                o[d] = d % 2 ? -0.0f : NAN;
            }
            tiers[t]->attend_fold(&m, &l, o, j.m[q], j.l[q], j.o + q * 64, 64);
            assert_true(m == 0.5f && l == 1 && isnan(o[0]) && f32_same(o[1], -0.0f));
        }
        job_free(&j);
    }
}

/* Goal: an output is never -0, also where all products underflow, so that folding it into nothing keeps its bits. */
static void no_negative_zero(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    for (u32 t = 0; t < n_tiers; t++) {
        u64 rng = 5;
        struct cache c;
        struct job j;
        f32 k[16], v[16];
        cache_init(&c, KERN_CACHE_F32, 16, 40);
        job_init(&j, 9, 16, &rng);
        for (u32 pos = 0; pos < c.n; pos++) {
            for (u32 d = 0; d < 16; d++) {
                k[d] = pos == 0 ? 0 : -3;
                v[d] = pos == 0 ? -0.0f : -1e-45f;
            }
            cache_put(&c, tiers[t], pos, k, v);
        }
        for (u32 q = 0; q < j.n; q++) {
            j.pos[q] = c.n - 1;
            for (u32 d = 0; d < 16; d++)
                j.q[q * 16 + d] = 1;
        }
        attend_chunk(tiers[t], &c, &j, 0, j.n, 0);
        for (u32 i = 0; i < j.n * 16; i++)
            assert_true(j.o[i] == 0 && !signbit(j.o[i]));
        job_free(&j);
        cache_free(&c);
    }
}

/* Goal: kv_store writes the right place, rounds as f32_to_f16 does, cuts at the largest half, keeps NaN,
 * clears the rest of a block that it opens and nothing else. */
static void kv_store_is_exact(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    for (u32 t = 0; t < n_tiers; t++) {
        for (u32 round = 0; round < 64; round++) {
            u64 rng = round + 1;
            u32 head_dim = 16 * (1 + round % 16), at = round;
            struct cache c;
            f32 k[256], v[256];
            cache_init(&c, KERN_CACHE_F16, head_dim, PAGE);
            rng_fill(&rng, k, head_dim, -1, 1);
            rng_fill(&rng, v, head_dim, -70000, 70000);
            k[0] = 65519.9f, k[1] = 65520, k[2] = -3e38f, k[3] = NAN, k[4] = 1e-7f, k[5] = -0.0f, k[6] = 2.9802322e-8f;
            cache_put(&c, tiers[t], at, k, v);
            for (u32 pos = 0; pos < PAGE; pos++) {
                for (u32 d = 0; d < head_dim; d++) {
                    f64 gk = cache_k(&c, pos, d), gv = cache_v(&c, pos, d);
                    if (pos == at) {
                        f32 wk = fminf(fmaxf(k[d], -65504), 65504), wv = fminf(fmaxf(v[d], -65504), 65504);
                        wk = k[d] != k[d] ? k[d] : wk;
                        assert_true(f32_same((f32)gk, f16_to_f32(f32_to_f16(wk))));
                        assert_true(f32_same((f32)gv, f16_to_f32(f32_to_f16(wv))));
                    } else if (at % 16 == 0 && pos / 16 == at / 16) {
                        assert_true(gk == 0 && gv == 0);
                    } else {
                        assert_true(isnan(gk) && isnan(gv)); /* the pattern */
                    }
                }
            }
            cache_free(&c);
        }
    }
}

/* Goal: folding and finishing give ref's bits, over all magnitudes. */
static void fold_equals_ref(void **state) {
    (void)state;
    const struct kern *tiers[2];
    u32 n_tiers = tiers_here(tiers);
    for (u32 t = 0; t < n_tiers; t++) {
        for (u32 round = 0; round < 500; round++) {
            u64 rng = round + 1;
            u32 head_dim = 16 * (1 + round % 16);
            f32 o[256], o2[256], ref_out[256], ref_o[256], *out = guard_alloc(sizeof(f32) * head_dim, 4);
            rng_fill(&rng, o, head_dim, -9, 9);
            rng_fill(&rng, o2, head_dim, -9, 9);
            memcpy(ref_o, o, sizeof o);
            f32 m = round % 5 ? rng_f32(&rng, -90, 90) : -INFINITY, l = 3, m2 = rng_f32(&rng, -90, 90), ref_m = m, ref_l = l;
            kern_ref.attend_fold(&ref_m, &ref_l, ref_o, m2, 2.5f, o2, head_dim);
            tiers[t]->attend_fold(&m, &l, o, m2, 2.5f, o2, head_dim);
            assert_same("fold m", &m, &ref_m, 1);
            assert_same("fold l", &l, &ref_l, 1);
            assert_same("fold o", o, ref_o, head_dim);
            kern_ref.attend_finish(ref_o, ref_l, head_dim, ref_out);
            tiers[t]->attend_finish(o, l, head_dim, out);
            assert_same("finish", out, ref_out, head_dim);
            guard_free(out);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_softmax),     cmocka_unit_test(attend_equals_ref),
        cmocka_unit_test(attend_is_batch_invariant), cmocka_unit_test(masked_keys_take_no_part),
        cmocka_unit_test(nothing_visible),          cmocka_unit_test(kv_store_is_exact),
        cmocka_unit_test(fold_equals_ref),          cmocka_unit_test(no_negative_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
