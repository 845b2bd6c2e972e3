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
        size_t bytes = PAGE / 16 * kern_cache_block_bytes(type, head_dim);
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

/* Element i of the block that holds pos; scale: which of the scales behind the elements is its own. */
static f64 cache_element(const struct cache *c, const void *slice, u32 pos, u32 i, u32 scale) {
    const u8 *p = (const u8 *)slice + pos % PAGE / 16 * kern_cache_block_bytes(c->type, c->head_dim);
    const u16 *scales = (const u16 *)(const void *)(p + 16 * c->head_dim);
    switch (c->type) {
    case KERN_CACHE_F16: return (f64)f16_to_f32(load_u16(p + 2 * i));
    case KERN_CACHE_BF16: return (f64)bf16_to_f32(load_u16(p + 2 * i));
    case KERN_CACHE_Q8: return (f64)(i8)p[i] * (f64)bf16_to_f32(scales[scale]);
    case KERN_CACHE_F32: break;
    }
    return (f64)((const f32 *)(const void *)p)[i];
}

static f64 cache_k(const struct cache *c, u32 pos, u32 d) {
    return cache_element(c, c->k[pos / PAGE], pos, d * 16 + pos % 16, d / 32 * 16 + pos % 16);
}

static f64 cache_v(const struct cache *c, u32 pos, u32 d) {
    return cache_element(c, c->v[pos / PAGE], pos, pos % 16 * c->head_dim + d, pos % 16 * DIV_CEIL(c->head_dim, 32) + d / 32);
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
    struct kern_attend next = a;
    next.chunk++;
    next.k += 4;
    next.v += 4;
    if (next.chunk < DIV_CEIL(c->n, KERN_CHUNK))
        a.next = &next;
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
        {64, 700, 0, 0, KERN_CACHE_Q8, 1e-6},    {80, 300, 40, 0, KERN_CACHE_Q8, 1e-6},
        {16, 70, 0, 0, KERN_CACHE_Q8, 1e-6},     {256, 400, 0, 5, KERN_CACHE_Q8, 2e-6},
        {64, 300, 0, 0, KERN_CACHE_BF16, 1e-6},  {48, 520, 0, 0, KERN_CACHE_BF16, 1e-6},
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
    for (u32 round = 0; round < 640; round++) {
        u64 rng = 1000 + round;
        struct cache c;
        struct job ref, j;
        u32 head_dim = 16 * (1 + round % 16);
        cache_init(&c, (enum kern_cache)(round / 16 % KERN_CACHE_TYPES), head_dim, 1 + rng_below(&rng, 600));
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
        cache_init(&c, (enum kern_cache)(round / 6 % KERN_CACHE_TYPES), head_dim, 256);
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
        for (u32 round = 0; round < 48; round++) {
            u64 rng = 900 + round;
            struct cache c;
            struct job j;
            cache_init(&c, (enum kern_cache)(round % KERN_CACHE_TYPES), 64, 256);
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

/* Goal: the BF16 cache rounds to nearest even and holds no infinity. */
static void kv_store_bf16(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    for (u32 t = 0; t < n_tiers; t++) {
        for (u32 round = 0; round < 64; round++) {
            u64 rng = round + 1;
            struct cache c;
            f32 k[32], v[32];
            cache_init(&c, KERN_CACHE_BF16, 32, PAGE);
            rng_fill(&rng, k, 32, -1, 1);
            rng_fill(&rng, v, 32, -1e30f, 1e30f);
            k[0] = 3.4e38f, k[1] = -INFINITY, k[2] = NAN, k[3] = 1.00390625f, k[4] = 1.01171875f, k[5] = -0.0f, k[6] = 1e-40f;
            cache_put(&c, tiers[t], round, k, v);
            for (u32 d = 0; d < 32; d++) {
                f32 wk = d == 0 ? 0x1.fep127f : d == 1 ? -0x1.fep127f : bf16_to_f32(f32_to_bf16(k[d]));
                assert_true(f32_same((f32)cache_k(&c, round, d), wk));
                assert_true(f32_same((f32)cache_v(&c, round, d), bf16_to_f32(f32_to_bf16(v[d]))));
            }
            assert_true(cache_k(&c, round, 3) == 1 && cache_k(&c, round, 4) == 1.015625); /* halfway: to even */
            cache_free(&c);
        }
    }
}

/* Goal: in the Q8 cache every value is at most half a step from what was stored, a step is the group's largest / 127
 * (rounded up by less than 1/128), zeros and tiny values are 0, a NaN or infinity spoils its own group only; all tiers
 * write the same bytes, and nothing but the position's (and the block that it opens). */
static void kv_store_q8(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    for (u32 round = 0; round < 64; round++) {
        u64 rng = round + 1;
        u32 head_dim = 16 * (1 + round % 16), at = round;
        struct cache c[3];
        f32 k[256], v[256];
        rng_fill(&rng, k, head_dim, -1, 1);
        rng_fill(&rng, v, head_dim, -3e4f, 3e4f);
        for (u32 d = 0; d < head_dim; d++)
            k[d] *= d / 32 == 1 ? 1e-30f : d / 32 == 2 ? 0x1p-121f : d / 32 == 3 ? 1e30f : 1; /* groups of all sizes */
        if (round % 3 == 0)
            v[head_dim - 1] = round % 2 ? NAN : -INFINITY;
        for (u32 t = 0; t < n_tiers; t++) {
            cache_init(&c[t], KERN_CACHE_Q8, head_dim, PAGE);
            cache_put(&c[t], tiers[t], at, k, v);
            size_t bytes = PAGE / 16 * kern_cache_block_bytes(KERN_CACHE_Q8, head_dim);
            assert_memory_equal(c[t].k[0], c[0].k[0], bytes);
            assert_memory_equal(c[t].v[0], c[0].v[0], bytes);
        }
        for (u32 d = 0; d < head_dim; d++) {
            f64 k_max = 0, v_max = 0, gk = cache_k(&c[0], at, d), gv = cache_v(&c[0], at, d);
            for (u32 i = d / 32 * 32; i < MIN(d / 32 * 32 + 32, head_dim); i++) {
                k_max = fmax(k_max, fabs((f64)k[i]));
                v_max = isfinite(v[i]) ? fmax(v_max, fabs((f64)v[i])) : NAN;
                if (isnan(v_max))
                    break;
            }
            assert_true(fabs(gk - (f64)k[d]) <= k_max / 127 / 2 * (129.0 / 128) || (gk == 0 && k_max < 0x1p-120));
            if (isnan(v_max))
                assert_true(isnan(gv));
            else
                assert_true(fabs(gv - (f64)v[d]) <= v_max / 127 / 2 * (129.0 / 128));
        }
        for (u32 pos = 0; at % 16 == 0 && pos < PAGE; pos++)
            for (u32 d = 0; d < head_dim; d++)
                if (pos != at && pos / 16 == at / 16)
                    assert_true(cache_k(&c[0], pos, d) == 0 && cache_v(&c[0], pos, d) == 0);
        for (u32 t = 0; t < n_tiers; t++)
            cache_free(&c[t]);
    }
}

/* Goal: names of cache types, and a clear no to others. */
static void cache_names(void **state) {
    (void)state;
    static const char *const names[] = {"f16", "f32", "bf16", "q8_0"};
    enum kern_cache type = KERN_CACHE_Q8;
    struct err err;
    assert_int_equal(kern_cache_by_name(NULL, &type, &err), OK);
    assert_int_equal(type, KERN_CACHE_F16);
    for (u32 i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(kern_cache_by_name(names[i], &type, &err), OK);
        assert_int_equal(type, i);
    }
    assert_int_equal(kern_cache_by_name("q4_0", &type, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "\"q4_0\""));
    assert_non_null(strstr(err.text, "q8_0"));
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
        cmocka_unit_test(kv_store_bf16),            cmocka_unit_test(kv_store_q8),
        cmocka_unit_test(cache_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
