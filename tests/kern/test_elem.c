/* Norms, activations, rotary positions. Truth: the formula in double precision, and ref bit by bit for the
 * other tiers, over all tail lengths, magnitudes and special values, with guards around every output. */
#include "kern/kern_test.h"

#include <math.h>

#define N_MAX 2600u

static const u32 lengths[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,  12,  13,  14,  15,  16,  17,   18,  19,
                              23, 24, 25, 31, 32, 33, 40, 47, 48, 49, 63,  64,  65,  100, 127, 128, 250,  576, 577,
                              640, 896, 1000, 1536, 2047, 2048, 2560, N_MAX};

/* Values of one kind: usual, tiny, huge, zeros of both signs, or with NaN and infinities among them. */
enum kind { USUAL, TINY, HUGE_VALUES, ZEROS, SPECIAL, KINDS };

static void fill(u64 *rng, enum kind kind, f32 *x, u32 n) {
    const f32 specials[] = {NAN, nan_with(1), -nan_with(0x2aaaaa), INFINITY, -INFINITY, 0.0f, -0.0f, 1e-45f, 88.7f, -87.3f, 0.625f, 3.4e38f};
    for (u32 i = 0; i < n; i++) {
        x[i] = rng_f32(rng, -6, 6);
        switch (kind) {
        case USUAL: break;
        case TINY: x[i] *= 1e-24f; break;
        case HUGE_VALUES: x[i] *= 1e22f; break;
        case ZEROS: x[i] *= 0; break;
        case SPECIAL: x[i] = rng_below(rng, 4) ? x[i] * 20 : specials[rng_below(rng, ARRAY_LEN(specials))]; break;
        case KINDS: break;
        }
    }
}

/* One call of a kernel that writes y, n values long; a and b are inputs of the same length. */
typedef void op_fn(const struct kern *kern, const f32 *a, const f32 *b, f32 *y, u32 n);

static void op_rmsnorm(const struct kern *k, const f32 *a, const f32 *b, f32 *y, u32 n) { k->rmsnorm(a, b, 1e-5f, n, y); }
static void op_rmsnorm_plain(const struct kern *k, const f32 *a, const f32 *b, f32 *y, u32 n) {
    (void)b;
    memcpy(y, a, sizeof(f32) * n);
    k->rmsnorm(y, NULL, 1e-6f, n, y);
}
static void op_layernorm(const struct kern *k, const f32 *a, const f32 *b, f32 *y, u32 n) {
    k->layernorm(a, b, a, 1e-5f, n, y);
}
static void op_layernorm_plain(const struct kern *k, const f32 *a, const f32 *b, f32 *y, u32 n) {
    (void)b;
    memcpy(y, a, sizeof(f32) * n);
    k->layernorm(y, NULL, NULL, 1e-5f, n, y);
}
static void op_add_scaled(const struct kern *k, const f32 *a, const f32 *b, f32 *y, u32 n) {
    memcpy(y, a, sizeof(f32) * n);
    k->add_scaled(y, b, 0.37f, n);
}
static void op_silu_mul(const struct kern *k, const f32 *a, const f32 *b, f32 *y, u32 n) {
    memcpy(y, a, sizeof(f32) * n);
    k->silu_mul(y, b, n);
}
static void op_gelu_mul(const struct kern *k, const f32 *a, const f32 *b, f32 *y, u32 n) {
    memcpy(y, a, sizeof(f32) * n);
    k->gelu_mul(y, b, n);
}
static void op_gelu(const struct kern *k, const f32 *a, const f32 *b, f32 *y, u32 n) {
    (void)b;
    memcpy(y, a, sizeof(f32) * n);
    k->gelu(y, n);
}
static void op_softcap(const struct kern *k, const f32 *a, const f32 *b, f32 *y, u32 n) {
    (void)b;
    memcpy(y, a, sizeof(f32) * n);
    k->softcap(y, n, 30);
}

static const struct { const char *name; op_fn *run; bool whole_row; } ops[] = {
    {"rmsnorm", op_rmsnorm, true},         {"rmsnorm in place", op_rmsnorm_plain, true},
    {"layernorm", op_layernorm, true},     {"layernorm in place", op_layernorm_plain, true},
    {"add_scaled", op_add_scaled, false},  {"silu_mul", op_silu_mul, false},
    {"gelu_mul", op_gelu_mul, false},      {"gelu", op_gelu, false},
    {"softcap", op_softcap, false},
};

/* Goal: every tier gives ref's bits at every length, also at odd addresses, and writes nothing around. */
static void tiers_equal_ref(void **state) {
    (void)state;
    const struct kern *tiers[2];
    u32 n_tiers = tiers_here(tiers);
    static f32 want[N_MAX];
    for (u32 o = 0; o < ARRAY_LEN(ops); o++) {
        for (u32 i = 0; i < ARRAY_LEN(lengths); i++) {
            for (enum kind kind = 0; kind < KINDS; kind++) {
                u64 rng = 1 + o * 1000 + i * 10 + kind;
                u32 n = lengths[i];
                f32 *a = guard_alloc(n * sizeof(f32), 4 * (i % 16)), *b = guard_alloc(n * sizeof(f32), 4);
                f32 *y = guard_alloc(n * sizeof(f32), 4 * (i % 5));
                fill(&rng, kind, a, n);
                fill(&rng, kind == SPECIAL ? SPECIAL : USUAL, b, n);
                ops[o].run(&kern_ref, a, b, want, n);
                for (u32 t = 0; t < n_tiers; t++) {
                    ops[o].run(tiers[t], a, b, y, n);
                    assert_same(ops[o].name, y, want, n);
                }
                guard_free(a);
                guard_free(b);
                guard_free(y);
            }
        }
    }
}

/* Goal: no NaN from finite input, whatever its size. */
static void finite_stays_finite_or_infinite(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    f32 a[100], b[100], y[100];
    for (u32 o = 0; o < ARRAY_LEN(ops); o++) {
        for (enum kind kind = 0; kind < SPECIAL; kind++) {
            u64 rng = 5 + o + kind;
            fill(&rng, kind, a, 100);
            fill(&rng, USUAL, b, 100);
            for (u32 t = 0; t < n_tiers; t++) {
                ops[o].run(tiers[t], a, b, y, 100);
                for (u32 i = 0; i < 100; i++)
                    assert_false(isnan(y[i]));
            }
        }
    }
}

/* Goal: where elements are independent, a NaN spoils its own element only. */
static void nan_stays_alone(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    f32 a[67], b[67], clean[67], y[67];
    for (u32 o = 0; o < ARRAY_LEN(ops); o++) {
        if (ops[o].whole_row)
            continue;
        for (u32 t = 0; t < n_tiers; t++) {
            u64 rng = 77;
            fill(&rng, USUAL, a, 67);
            fill(&rng, USUAL, b, 67);
            ops[o].run(tiers[t], a, b, clean, 67);
            for (u32 at = 0; at < 67; at++) {
                f32 kept = a[at];
                a[at] = NAN;
                ops[o].run(tiers[t], a, b, y, 67);
                a[at] = kept;
                assert_true(isnan(y[at]));
                y[at] = clean[at];
                assert_same(ops[o].name, y, clean, 67);
            }
        }
    }
}

static f64 rel(f64 got, f64 want) { return fabs(got - want) / fmax(fabs(want), 1e-30); }

/* Goal: the norms are what their formulas say. Sums of 2600 f32 values in 16 lanes err below 1e-6. */
static void norms_follow_their_formulas(void **state) {
    (void)state;
    static f32 x[N_MAX], w[N_MAX], b[N_MAX], y[N_MAX];
    u64 rng = 11;
    fill(&rng, USUAL, x, N_MAX);
    fill(&rng, USUAL, w, N_MAX);
    fill(&rng, USUAL, b, N_MAX);
    for (u32 i = 0; i < ARRAY_LEN(lengths); i++) {
        u32 n = lengths[i];
        f64 mean = 0, square = 0, var = 0;
        for (u32 k = 0; k < n; k++) {
            mean += (f64)x[k] / n;
            square += (f64)x[k] * (f64)x[k] / n;
        }
        for (u32 k = 0; k < n; k++)
            var += ((f64)x[k] - mean) * ((f64)x[k] - mean) / n;
        kern_ref.rmsnorm(x, w, 1e-5f, n, y);
        for (u32 k = 0; k < n; k++)
            assert_true(rel((f64)y[k], (f64)x[k] / sqrt(square + 1e-5) * (f64)w[k]) < 1e-6);
        kern_ref.layernorm(x, w, b, 1e-3f, n, y);
        for (u32 k = 0; k < n; k++) {
            f64 want = ((f64)x[k] - mean) / sqrt(var + (f64)1e-3f) * (f64)w[k] + (f64)b[k];
            assert_true(fabs((f64)y[k] - want) < 2e-5);
        }
    }
}

/* Goal: activations follow their textbook formulas over the whole range that matters. */
static void activations_follow_their_formulas(void **state) {
    (void)state;
    for (i32 i = -4000; i <= 4000; i++) {
        f32 x = (f32)i * 0x1p-8f, y = x, one = 1;
        f64 v = (f64)x;
        kern_ref.silu_mul(&y, &one, 1);
        assert_true(fabs((f64)y - v / (1 + exp(-v))) < 3e-7 * fabs(v) + 1e-9);
        y = x;
        kern_ref.gelu(&y, 1);
        f64 z = sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
        assert_true(fabs((f64)y - v / 2 * (1 + tanh(z))) < 1e-6 * fabs(v) + 1e-9);
        f32 y2 = x;
        kern_ref.gelu_mul(&y2, &one, 1);
        assert_true(f32_same(y, y2));
        y = x * 10;
        kern_ref.softcap(&y, 1, 30);
        assert_true(fabs((f64)y - 30 * tanh(v / 3)) < 1e-5);
        y = x;
        kern_ref.add_scaled(&y, &x, 0.5f, 1);
        assert_true(y == 1.5f * x);
    }
}

/* Goal: rope turns the right pairs by the right angles, keeps the rest, and is the same in all tiers. */
static void rope_turns_pairs(void **state) {
    (void)state;
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    for (u32 round = 0; round < 300; round++) {
        u64 rng = round + 1;
        u32 head_dim = 16 * (1 + rng_below(&rng, 16)), n_rot = 2 * rng_below(&rng, head_dim / 2 + 1);
        u32 n_heads = 1 + rng_below(&rng, 4), n = n_heads * head_dim;
        bool neox = round % 2;
        f32 x[1024], want[1024], cos_sin[256];
        n_rot = round < 8 ? head_dim : n_rot;
        for (u32 i = 0; i < n_rot / 2; i++) {
            f64 angle = (f64)rng_f32(&rng, -400, 400);
            cos_sin[2 * i] = (f32)cos(angle);
            cos_sin[2 * i + 1] = (f32)sin(angle);
        }
        fill(&rng, round % 10 == 9 ? SPECIAL : USUAL, x, n);
        memcpy(want, x, sizeof(f32) * n);
        kern_ref.rope(want, n_heads, head_dim, n_rot, neox, cos_sin);
        for (u32 h = 0; h < n_heads && round % 10 != 9; h++) {
            for (u32 i = 0; i < head_dim; i++) {
                u32 pair = neox ? i % (n_rot / 2 + !n_rot) : i / 2, at = h * head_dim + i;
                bool second = neox ? i >= n_rot / 2 : i % 2;
                u32 other = neox ? (second ? at - n_rot / 2 : at + n_rot / 2) : (second ? at - 1 : at + 1);
                if (i >= n_rot) {
                    assert_true(want[at] == x[at]);
                    continue;
                }
                f64 c = (f64)cos_sin[2 * pair], s = (f64)cos_sin[2 * pair + 1];
                f64 y = (f64)x[at] * c + (second ? 1 : -1) * (f64)x[other] * s;
                assert_true(fabs((f64)want[at] - y) < 2e-6);
            }
        }
        for (u32 t = 0; t < n_tiers; t++) {
            f32 *y = guard_alloc(sizeof(f32) * n, 4), *table = guard_alloc(sizeof(f32) * n_rot, 4);
            memcpy(y, x, sizeof(f32) * n);
            memcpy(table, cos_sin, sizeof(f32) * n_rot);
            tiers[t]->rope(y, n_heads, head_dim, n_rot, neox, table);
            assert_same("rope", y, want, n);
            guard_free(y);
            guard_free(table);
        }
    }
}

/* Goal: kern_open finds what is asked for and says what is wrong. */
static void open_by_name(void **state) {
    (void)state;
    const struct kern *k = NULL;
    struct err err;
    assert_int_equal(kern_open("ref", &k, &err), OK);
    assert_ptr_equal(k, &kern_ref);
    assert_int_equal(kern_open("neon", &k, &err), ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "neon"));
    u32 has = cpu_features();
    assert_int_equal(kern_open("avx512", &k, &err), has & CPU_AVX512 ? OK : ERR_UNSUPPORTED);
    assert_int_equal(kern_open("avx2", &k, &err), has & CPU_AVX2 ? OK : ERR_UNSUPPORTED);
    assert_int_equal(kern_open(NULL, &k, &err), OK);
    assert_string_equal(k->name, has & CPU_AVX512 ? "avx512" : has & CPU_AVX2 ? "avx2" : "ref");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiers_equal_ref),
        cmocka_unit_test(finite_stays_finite_or_infinite),
        cmocka_unit_test(nan_stays_alone),
        cmocka_unit_test(norms_follow_their_formulas),
        cmocka_unit_test(activations_follow_their_formulas),
        cmocka_unit_test(rope_turns_pairs),
        cmocka_unit_test(open_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
