/* Matrix products. Truth: the decoded weights times the activations in double precision for ref, and ref bit
 * by bit for the other tiers, over types, shapes with every kind of tail, numbers of rows and nasty values.
 * Weights end right before a page that may not be touched, as a mapped file may. */
#include "kern/kern_test.h"

#include <float.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kern/kern_parts.h"

static const enum quant_type types[] = {QUANT_F32,  QUANT_F16,  QUANT_BF16, QUANT_Q4_0, QUANT_Q4_1,   QUANT_Q5_0,  QUANT_Q5_1,
                                        QUANT_Q8_0, QUANT_Q4_K, QUANT_Q5_K, QUANT_Q6_K, QUANT_IQ4_NL, QUANT_IQ4_XS};

/* The tiers here, and the second matmul of AVX2. */
#define TIERS_MAX 3u
static u32 matmul_tiers(const struct kern *out[TIERS_MAX]) {
    u32 n = tiers_here(out);
    if (cpu_features() & CPU_AVXVNNI)
        out[n++] = &kern_avxvnni;
    else
        printf("# SKIPPED: this processor has no AVX-VNNI, that matmul is not tested\n");
    return n;
}

/* --- weights at the end of the readable world --- */

struct weights {
    struct kern_mat mat;
    u8 *map;
    size_t map_bytes;
};

static void weights_init(struct weights *w, enum quant_type type, u32 N, u32 K) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), row = quant_row_bytes(type, K), bytes = row * N;
    w->map_bytes = ALIGN_UP(bytes, page) + page;
    w->map = mmap(NULL, w->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(w->map != MAP_FAILED);
    assert_int_equal(mprotect(w->map + w->map_bytes - page, page, PROT_NONE), 0);
    w->mat = (struct kern_mat){.data = w->map + w->map_bytes - page - bytes, .type = type, .N = N, .K = K, .row_bytes = row};
}

static void weights_free(struct weights *w) { munmap(w->map, w->map_bytes); }

/* Where the f16 scale of a block lies, and whether a second one (minimum) follows it. */
static size_t scale_offset(enum quant_type type) { return type == QUANT_Q6_K ? 208 : 0; }
static bool has_min(enum quant_type type) {
    return type == QUANT_Q4_1 || type == QUANT_Q5_1 || type == QUANT_Q4_K || type == QUANT_Q5_K;
}

enum fill { FILL_RANDOM, FILL_ZERO, FILL_ONES, FILL_TOP_BITS, FILL_TINY_SCALES, FILL_HUGE_SCALES, FILLS };

static f32 scale_value(enum fill fill, u64 *rng) {
    switch (fill) {
    case FILL_TINY_SCALES: return 0x1p-24f * (f32)(1 + rng_below(rng, 5)); /* subnormal halves */
    case FILL_HUGE_SCALES: return 65504.0f;
    default: return rng_f32(rng, -0.05f, 0.05f);
    }
}

static void weights_fill(struct weights *w, enum fill fill, u64 *rng) {
    u8 *data = (u8 *)(uintptr_t)w->mat.data;
    enum quant_type type = w->mat.type;
    u32 bytes = quant_block_bytes(type), values = quant_block_values(type);
    size_t n_blocks = (size_t)w->mat.N * w->mat.K / values;
    for (size_t i = 0; i < n_blocks; i++) {
        u8 *block = data + i * bytes;
        if (values == 1) {
            f32 v = fill == FILL_RANDOM ? rng_f32(rng, -2, 2) : scale_value(fill, rng);
            quant_encode(type, &v, block, 1);
            continue;
        }
        for (u32 j = 0; j < bytes; j++)
            block[j] = fill == FILL_ZERO ? 0 : fill == FILL_ONES ? 0xff : fill == FILL_TOP_BITS ? 0x80 : (u8)rng_next(rng);
        u16 d = f32_to_f16(scale_value(fill, rng)), m = f32_to_f16(scale_value(fill, rng));
        memcpy(block + scale_offset(type), &d, 2);
        if (has_min(type))
            memcpy(block + 2, &m, 2);
    }
}

/* --- activations --- */

struct acts {
    struct kern_acts a;
    f32 *x;
    void *mem;
};

static void acts_init(struct acts *s, const struct kern *kern, enum kern_act kind, u32 rows, u32 K, const f32 *x) {
    size_t bytes = kern_acts_bytes(kind, rows, K);
    s->mem = guard_alloc(bytes, 0);
    s->x = guard_alloc((size_t)rows * K * sizeof(f32), 4);
    memcpy(s->x, x, (size_t)rows * K * sizeof(f32));
    kern_acts_at(&s->a, kind, rows, K, s->x, s->mem);
    if (kind != KERN_ACT_F32)
        kern->quantize(&s->a, 0, rows, 0, K);
}

static void acts_free(struct acts *s) {
    guard_free(s->mem);
    guard_free(s->x);
}

/* Rows first..first+n-1 of a. */
static struct kern_acts acts_rows(const struct kern_acts *a, u32 first, u32 n) {
    struct kern_acts part = *a;
    part.rows = n;
    part.x += (size_t)first * a->K;
    if (a->blocks)
        part.blocks += (size_t)first * a->K / 32;
    return part;
}

/* Row m % 8 chooses what the values are like. */
static void x_fill(f32 *x, u32 rows, u32 K, u64 *rng) {
    for (u32 m = 0; m < rows; m++) {
        f32 *row = x + (size_t)m * K;
        rng_fill(rng, row, K, -3, 3);
        for (u32 k = 0; k < K; k++)
            switch (m % 8) {
            case 1: row[k] = 0; break;
            case 2: row[k] = 127; break;
            case 3: row[k] = k % 2 ? -127 : 127; break;
            case 4: row[k] *= k % 61 == 7 ? 1000.0f : 1.0f; break;
            case 5: row[k] *= 0x1p-130f; break; /* subnormal: counts as 0 */
            case 6: row[k] *= 0x1p-118f; break;
            case 7: row[k] = k % 64 < 32 ? 0 : row[k] * 1e6f; break;
            }
    }
}

static void *scratch_new(void) { return guard_alloc(ALIGN_UP(kern_matmul_scratch_bytes(), 64), 0); }

/* --- ref against the definition --- */

static void row_check(const struct kern_mat *mat, const struct kern_acts *a, u32 m, u32 n, f32 got) {
    f32 *w = xmalloc(mat->K * sizeof *w);
    quant_decode(mat->type, mat->data + n * mat->row_bytes, w, mat->K);
    f64 want = 0, size = 0;
    for (u32 k = 0; k < mat->K; k++) {
        const struct kern_act_block *b = a->kind ? a->blocks + ((size_t)m * mat->K + k) / 32 : NULL;
        f64 x = b ? (f64)b->d * b->q[k % 32] : (f64)a->x[(size_t)m * mat->K + k];
        want += (f64)w[k] * x;
        size += fabs((f64)w[k] * x);
    }
    /* The minimum of a block and its weights cancel, so errors are relative to 16 times the sum of sizes. */
    if (fabs((f64)got - want) > 16 * size * (f64)FLT_EPSILON * sqrt(mat->K) + 1e-30)
        fail_msg("%s K %u row %u: %g, should be %g", quant_name(mat->type), mat->K, n, (f64)got, want);
    free(w);
}

static void test_ref_is_the_definition(void **state UNUSED) {
    u64 rng = 1;
    for (u32 t = 0; t < ARRAY_LEN(types); t++)
        for (u32 force = 0; force < 2; force++) {
            struct weights w;
            weights_init(&w, types[t], 5, 768);
            weights_fill(&w, FILL_RANDOM, &rng);
            f32 *x = xmalloc(8 * 768 * sizeof *x), out[8 * 5];
            x_fill(x, 8, 768, &rng);
            struct acts s;
            acts_init(&s, &kern_ref, kern_act_kind(types[t], force), 8, 768, x);
            kern_ref.matmul(&w.mat, 0, 5, &s.a, out, 5, NULL, NULL);
            for (u32 i = 0; i < 40; i++)
                row_check(&w.mat, &s.a, i / 5, i % 5, out[i]);
            acts_free(&s);
            free(x);
            weights_free(&w);
        }
}

/* Half a step is the most that a value may be off, and the sums are those of the values. */
static void test_quantize_is_the_definition(void **state UNUSED) {
    u64 rng = 2;
    enum { ROWS = 16, K = 1024 };
    f32 *x = xmalloc(ROWS * K * sizeof *x);
    x_fill(x, ROWS, K, &rng);
    for (u32 kind = KERN_ACT_Q8; kind <= KERN_ACT_Q8_256; kind++) {
        struct acts s;
        acts_init(&s, &kern_ref, kind, ROWS, K, x);
        for (u32 i = 0; i < ROWS * K / 32; i++) {
            const struct kern_act_block *b = s.a.blocks + i;
            i32 sum[2] = {0, 0};
            for (u32 j = 0; j < 32; j++) {
                sum[j / 16] += b->q[j];
                f32 v = x[i * 32 + j];
                assert_true(b->d > 0 ? fabs((f64)b->d * b->q[j] - (f64)v) <= (f64)b->d * 0.50001 : b->q[j] == 0 && fabsf(v) < 1e-36f);
            }
            assert_int_equal(b->n[0] + b->n[1], -(sum[0] + sum[1]));
            assert_true(b->s == (kind == KERN_ACT_Q8 ? b->d : 1) * (f32)(sum[0] + sum[1]));
            assert_true(kind == KERN_ACT_Q8 || b->n[0] == -sum[0]);
        }
        acts_free(&s);
    }
    free(x);
}

/* --- tiers against ref --- */

static void acts_compare(const struct kern_acts *got, const struct kern_acts *want) {
    for (size_t i = 0; i < (size_t)want->rows * want->K / 32; i++) {
        const struct kern_act_block *g = got->blocks + i, *w = want->blocks + i;
        assert_true(f32_same(g->d, w->d) && f32_same(g->s, w->s));
        assert_memory_equal(g->n, w->n, sizeof g->n);
        assert_memory_equal(g->q, w->q, sizeof g->q);
    }
}

static void test_quantize_all_tiers(void **state UNUSED) {
    const struct kern *tiers[TIERS_MAX];
    u32 n_tiers = matmul_tiers(tiers);
    u64 rng = 3;
    enum { ROWS = 24, K = 1280 };
    f32 *x = xmalloc(ROWS * K * sizeof *x);
    x_fill(x, ROWS, K, &rng);
    x[5 * K + 77] = NAN;
    x[6 * K + 1279] = -INFINITY;
    x[7 * K] = -NAN;
    x[8 * K + 300] = FLT_MAX;
    x[9 * K + 40] = 0x1p-120f;
    for (u32 kind = KERN_ACT_Q8; kind <= KERN_ACT_Q8_256; kind++)
        for (u32 t = 0; t < n_tiers; t++) {
            struct acts want, got;
            acts_init(&want, &kern_ref, kind, ROWS, K, x);
            acts_init(&got, tiers[t], kind, ROWS, K, x);
            acts_compare(&got.a, &want.a);
            assert_true(isnan(got.a.blocks[(5 * K + 77) / 32].d) && !isnan(got.a.blocks[4 * K / 32].d));
            acts_free(&want);
            acts_free(&got);
        }
    free(x);
}

/* In pieces of rows and columns, in any order, it is the same, and nothing but the piece is written. */
static void test_quantize_in_pieces(void **state UNUSED) {
    const struct kern *tiers[TIERS_MAX + 1];
    u32 n_tiers = matmul_tiers(tiers);
    tiers[n_tiers++] = &kern_ref;
    u64 rng = 4;
    enum { ROWS = 9, K = 1792, SPLIT = 4 };
    f32 *x = xmalloc(ROWS * K * sizeof *x);
    x_fill(x, ROWS, K, &rng);
    for (u32 kind = KERN_ACT_Q8; kind <= KERN_ACT_Q8_256; kind++)
        for (u32 t = 0; t < n_tiers; t++) {
            u32 unit = kind == KERN_ACT_Q8 ? 32 : 256;
            size_t bytes = kern_acts_bytes(kind, ROWS, K);
            struct acts want, got;
            acts_init(&want, &kern_ref, kind, ROWS, K, x);
            acts_init(&got, tiers[t], kind, ROWS, K, x);
            for (u32 width = unit; width <= 7 * unit; width += unit) {
                memset(got.mem, 0xa5, bytes);
                for (u32 k1 = K, k0; k1 > 0; k1 = k0) {
                    k0 = k1 - MIN(k1, width);
                    tiers[t]->quantize(&got.a, SPLIT, ROWS, k0, k1);
                    tiers[t]->quantize(&got.a, 0, SPLIT, k0, k1);
                }
                acts_compare(&got.a, &want.a);
            }
            memset(got.mem, 0xa5, bytes);
            tiers[t]->quantize(&got.a, SPLIT, SPLIT + 1, unit, 2 * unit);
            size_t from = (SPLIT * K + unit) / 32 * sizeof *got.a.blocks, n = unit / 32 * sizeof *got.a.blocks;
            for (size_t i = 0; i < bytes; i++)
                assert_true((i >= from && i < from + n) || ((const u8 *)got.mem)[i] == 0xa5);
            acts_free(&want);
            acts_free(&got);
        }
    free(x);
}

struct shape {
    u32 N, K, rows;
    enum fill fill;
    bool force_f32;
};

/* The tier's rows first..first+n-1 must be those of want, and only those may be written. */
static void slice_check(const struct kern *kern, const struct weights *w, const struct kern_acts *all, u32 first, u32 n,
                        const f32 *want, void *scratch) {
    u32 N = w->mat.N;
    size_t ldo = N + 3;
    struct kern_acts a = acts_rows(all, first, n);
    f32 *out = guard_alloc(((n - 1) * ldo + N) * sizeof *out, 4);
    /* Two slices, as two threads would. */
    u32 middle = N > 64 ? N / 2 / 32 * 32 : 0;
    const u8 *end = w->mat.data + N * w->mat.row_bytes;
    if (middle)
        kern->matmul(&w->mat, 0, middle, &a, out, ldo, scratch, w->mat.data + middle * w->mat.row_bytes);
    kern->matmul(&w->mat, middle, N, &a, out, ldo, scratch, n % 2 ? NULL : end - w->mat.row_bytes);
    char what[96];
    snprintf(what, sizeof what, "%s %s N %u K %u rows %u+%u", kern->name, quant_name(w->mat.type), N, w->mat.K, first, n);
    for (u32 m = 0; m < n; m++) {
        assert_same(what, out + m * ldo, want + (size_t)(first + m) * N, N);
        for (size_t i = N; m + 1 < n && i < ldo; i++)
            assert_memory_equal(out + m * ldo + i, "\xff\xff\xff\xff", 4);
    }
    guard_free(out);
}

static void shape_check(enum quant_type type, const struct shape *s, u64 *rng) {
    const struct kern *tiers[TIERS_MAX];
    u32 n_tiers = matmul_tiers(tiers);
    struct weights w;
    weights_init(&w, type, s->N, s->K);
    weights_fill(&w, s->fill, rng);
    f32 *x = xmalloc((size_t)s->rows * s->K * sizeof *x), *want = xmalloc((size_t)s->rows * s->N * sizeof *want);
    x_fill(x, s->rows, s->K, rng);
    struct acts acts;
    acts_init(&acts, &kern_ref, kern_act_kind(type, s->force_f32), s->rows, s->K, x);
    void *scratch = scratch_new();
    kern_ref.matmul(&w.mat, 0, s->N, &acts.a, want, s->N, NULL, NULL);
    for (u32 t = 0; t < n_tiers; t++) {
        for (u32 n = 1; n <= s->rows; n += n < 20 ? 1 : 7)
            slice_check(tiers[t], &w, &acts.a, s->rows - n, n, want, scratch);
        slice_check(tiers[t], &w, &acts.a, 0, s->rows, want, scratch);
    }
    guard_free(scratch);
    acts_free(&acts);
    free(x);
    free(want);
    weights_free(&w);
}

/* Columns in units of the type's granule: 16, 32 or 256. */
static u32 type_granule(enum quant_type type) { return quant_block_values(type) == 1 ? 16 : quant_block_values(type); }

static void test_tiers_equal_ref(void **state UNUSED) {
    static const struct shape shapes[] = {
        {1, 1, 9, FILL_RANDOM, false},   {15, 2, 3, FILL_RANDOM, false},  {16, 3, 9, FILL_RANDOM, false},
        {17, 5, 9, FILL_RANDOM, false},  {31, 7, 19, FILL_RANDOM, false}, {32, 4, 9, FILL_RANDOM, false},
        {33, 2, 70, FILL_RANDOM, false}, {47, 1, 13, FILL_RANDOM, false}, {48, 3, 14, FILL_RANDOM, false},
        {100, 2, 15, FILL_RANDOM, false}, {65, 1, 9, FILL_RANDOM, false},
    };
    u64 rng = 4;
    for (u32 t = 0; t < ARRAY_LEN(types); t++)
        for (u32 i = 0; i < ARRAY_LEN(shapes); i++) {
            struct shape s = shapes[i];
            s.K *= type_granule(types[t]);
            shape_check(types[t], &s, &rng);
        }
}

/* Chunks of columns: every remainder, whole and half pairs of blocks, long rows. */
static void test_tiers_equal_ref_in_long_rows(void **state UNUSED) {
    static const u32 Ks[] = {256, 288, 320, 352, 512, 544, 576, 608, 640, 672, 768, 800, 1056, 1536, 2592, 4096};
    u64 rng = 5;
    for (u32 t = 0; t < ARRAY_LEN(types); t++)
        for (u32 i = 0; i < ARRAY_LEN(Ks); i++) {
            struct shape s = {.N = i % 3 ? 33 : 80, .K = Ks[i], .rows = Ks[i] > 1100 ? 10 : 11};
            if (s.K % type_granule(types[t]) == 0)
                shape_check(types[t], &s, &rng);
        }
}

static void test_tiers_equal_ref_with_extreme_weights(void **state UNUSED) {
    u64 rng = 6;
    for (u32 t = 0; t < ARRAY_LEN(types); t++)
        for (u32 fill = FILL_ZERO; fill < FILLS; fill++) {
            struct shape s = {.N = 34, .K = 768, .rows = 16, .fill = fill};
            shape_check(types[t], &s, &rng);
        }
}

/* The activations that are not quantized: eval and tests. */
static void test_tiers_equal_ref_with_f32_activations(void **state UNUSED) {
    u64 rng = 7;
    for (u32 t = 0; t < ARRAY_LEN(types); t++) {
        struct shape s = {.N = 35, .K = 768, .rows = 9, .force_f32 = true};
        shape_check(types[t], &s, &rng);
        s = (struct shape){.N = 80, .K = type_granule(types[t]) * 3, .rows = 2, .force_f32 = true};
        shape_check(types[t], &s, &rng);
    }
}

/* One row alone and the same row among 63 others: the definition of batch invariance. */
static void test_rows_do_not_depend_on_their_number(void **state UNUSED) {
    const struct kern *tiers[TIERS_MAX];
    u32 n_tiers = matmul_tiers(tiers);
    u64 rng = 8;
    enum { ROWS = 64, N = 96, K = 1024 };
    f32 *x = xmalloc(ROWS * K * sizeof *x), *all = xmalloc(ROWS * N * sizeof *all), one[N];
    rng_fill(&rng, x, ROWS * K, -2, 2);
    void *scratch = scratch_new();
    for (u32 t = 0; t < ARRAY_LEN(types) * n_tiers; t++) {
        const struct kern *kern = tiers[t % n_tiers];
        struct weights w;
        struct acts s;
        weights_init(&w, types[t / n_tiers], N, K);
        weights_fill(&w, FILL_RANDOM, &rng);
        acts_init(&s, kern, kern_act_kind(types[t / n_tiers], false), ROWS, K, x);
        kern->matmul(&w.mat, 0, N, &s.a, all, N, scratch, NULL);
        for (u32 m = 0; m < ROWS; m += 9) {
            struct kern_acts a = acts_rows(&s.a, m, 1);
            kern->matmul(&w.mat, 0, N, &a, one, N, scratch, NULL);
            assert_memory_equal(one, all + m * N, sizeof one);
        }
        acts_free(&s);
        weights_free(&w);
    }
    guard_free(scratch);
    free(x);
    free(all);
}

/* A row with a NaN or an infinity is lost; its neighbours do not notice. */
static void test_nan_spoils_only_its_row(void **state UNUSED) {
    const struct kern *tiers[TIERS_MAX];
    u32 n_tiers = matmul_tiers(tiers);
    u64 rng = 9;
    enum { ROWS = 12, N = 33, K = 512 };
    f32 *x = xmalloc(ROWS * K * sizeof *x), *clean = xmalloc(ROWS * N * sizeof *clean), *got = xmalloc(ROWS * N * sizeof *got);
    void *scratch = scratch_new();
    for (u32 t = 0; t < ARRAY_LEN(types) * n_tiers; t++) {
        const struct kern *kern = tiers[t % n_tiers];
        enum quant_type type = types[t / n_tiers];
        struct weights w;
        struct acts s;
        weights_init(&w, type, N, K);
        weights_fill(&w, FILL_RANDOM, &rng);
        rng_fill(&rng, x, ROWS * K, -2, 2);
        for (u32 pass = 0; pass < 2; pass++) {
            acts_init(&s, kern, kern_act_kind(type, false), ROWS, K, x);
            kern->matmul(&w.mat, 0, N, &s.a, pass ? got : clean, N, scratch, NULL);
            acts_free(&s);
            x[3 * K + 100] = NAN;
            x[7 * K + 5] = INFINITY;
        }
        for (u32 i = 0; i < ROWS * N; i++)
            if (i / N == 3 || i / N == 7)
                assert_false(isfinite(got[i]) && w.mat.type != QUANT_F32);
            else
                assert_true(f32_same(got[i], clean[i]));
        weights_free(&w);
    }
    guard_free(scratch);
    free(x);
    free(clean);
    free(got);
}

static void test_embed_is_the_decoded_row(void **state UNUSED) {
    const struct kern *tiers[3] = {NULL, NULL, &kern_ref};
    u32 n_tiers = tiers_here(tiers);
    u64 rng = 10;
    f32 want[768];
    for (u32 t = 0; t < ARRAY_LEN(types); t++) {
        struct weights w;
        weights_init(&w, types[t], 3, 768);
        weights_fill(&w, FILL_RANDOM, &rng);
        quant_decode(types[t], w.mat.data + 2 * w.mat.row_bytes, want, 768);
        for (u32 i = 0; i < 3; i++) {
            if (i < 2 && i >= n_tiers)
                continue;
            f32 *got = guard_alloc(sizeof want, 4);
            tiers[i]->embed(&w.mat, 2, got);
            assert_memory_equal(got, want, sizeof want);
            guard_free(got);
        }
        weights_free(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ref_is_the_definition),
        cmocka_unit_test(test_quantize_is_the_definition),
        cmocka_unit_test(test_quantize_all_tiers),
        cmocka_unit_test(test_quantize_in_pieces),
        cmocka_unit_test(test_tiers_equal_ref),
        cmocka_unit_test(test_tiers_equal_ref_in_long_rows),
        cmocka_unit_test(test_tiers_equal_ref_with_extreme_weights),
        cmocka_unit_test(test_tiers_equal_ref_with_f32_activations),
        cmocka_unit_test(test_rows_do_not_depend_on_their_number),
        cmocka_unit_test(test_nan_spoils_only_its_row),
        cmocka_unit_test(test_embed_is_the_decoded_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
