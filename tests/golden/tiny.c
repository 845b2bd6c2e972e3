#include "tiny.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "gguf/gguf.h"

/* --- NumPy's random numbers --- */
typedef unsigned __int128 u128;

struct rng {
    u128 state, inc;
};

static u64 rng_next(struct rng *r) {
    const u128 multiplier = (u128)0x2360ED051FC65DA4u << 64 | 0x4385DF649FCCF645u;
    r->state = r->state * multiplier + r->inc;
    u64 x = (u64)(r->state >> 64) ^ (u64)r->state;
    unsigned rot = (unsigned)(r->state >> 122);
    return x >> rot | x << (-rot & 63);
}

static f64 rng_unit(struct rng *r) { return (f64)(rng_next(r) >> 11) * 0x1p-53; }

static u32 seed_hash(u32 v, u32 *k, u32 multiplier) {
    v ^= *k;
    *k *= multiplier;
    v *= *k;
    return v ^ v >> 16;
}

static u32 seed_mix(u32 x, u32 y) {
    u32 v = 0xCA01F9DDu * x - 0x4973F715u * y;
    return v ^ v >> 16;
}

static void rng_seed(struct rng *r, const u32 *entropy, u32 n) {
    u32 pool[4], k = 0x43B0D7E5u;
    for (u32 i = 0; i < 4; i++)
        pool[i] = seed_hash(i < n ? entropy[i] : 0, &k, 0x931E8875u);
    for (u32 s = 0; s < 4; s++)
        for (u32 d = 0; d < 4; d++)
            if (s != d)
                pool[d] = seed_mix(pool[d], seed_hash(pool[s], &k, 0x931E8875u));
    u64 words[4] = {0};
    k = 0x8B51F9DDu;
    for (u32 i = 0; i < 8; i++)
        words[i / 2] |= (u64)seed_hash(pool[i % 4], &k, 0x58F38DEDu) << (i % 2 * 32);
    r->state = 0;
    r->inc = ((u128)words[2] << 64 | words[3]) << 1 | 1;
    rng_next(r);
    r->state += (u128)words[0] << 64 | words[1];
    rng_next(r);
}

/* Layers of equal area under exp(-x^2/2): right edges w (scaled to 52 bits), heights f, limits k. */
static struct {
    u64 k[256];
    f64 w[256], f[256];
} zig;
#define ZIG_R 3.6541528853610088
#define ZIG_AREA 0.0049286732339746519

static void zig_init(void) {
    const f64 scale = 0x1p52;
    f64 x1 = ZIG_R;
    zig.w[255] = x1 / scale;
    zig.f[255] = exp(-0.5 * x1 * x1);
    zig.k[0] = (u64)(x1 * zig.f[255] / ZIG_AREA * scale);
    zig.w[0] = ZIG_AREA / zig.f[255] / scale;
    zig.f[0] = 1;
    for (u32 i = 254; i > 0; i--) {
        f64 x = sqrt(-2 * log(ZIG_AREA / x1 + zig.f[i + 1]));
        zig.k[i + 1] = (u64)(x / x1 * scale);
        zig.w[i] = x / scale;
        zig.f[i] = exp(-0.5 * x * x);
        x1 = x;
    }
    zig.k[1] = 0;
}

static f64 rng_normal(struct rng *r) {
    for (;;) {
        u64 bits = rng_next(r), a = bits >> 9 & 0xFFFFFFFFFFFFFu;
        u32 i = bits & 255;
        f64 x = (bits >> 8 & 1 ? -1.0 : 1.0) * ((f64)a * zig.w[i]);
        if (a < zig.k[i])
            return x;
        if (i != 0) {
            if ((zig.f[i - 1] - zig.f[i]) * rng_unit(r) + zig.f[i] < exp(-0.5 * x * x))
                return x;
            continue;
        }
        for (;;) { /* the tail */
            f64 xx = -1 / ZIG_R * log1p(-rng_unit(r)), yy = -log1p(-rng_unit(r));
            if (yy + yy > xx * xx)
                return a >> 8 & 1 ? -(ZIG_R + xx) : ZIG_R + xx;
        }
    }
}

/* --- the models --- */
#define VOCAB 512u

enum qkv { SPLIT, FUSED };
enum ffn { GATED, GATED_FUSED, MLP };
enum norm_of_qk { QK_NONE, QK_HEAD, QK_FULL };
enum extra { EXTRA_NONE, EXTRA_ROPE_FREQS, EXTRA_LONGROPE };

struct extra_key {
    const char *key; /* behind "<arch>." */
    f32 v;
    bool integer;
};

struct spec {
    const char *name, *arch;
    const char *seed_name; /* NULL: name */
    u32 layers, d, heads, kv_heads, head_dim, ff, seed, rope_dim, ctx, window;
    bool layer_norm, no_norm_bias;
    f64 eps, base;
    enum qkv qkv;
    bool qkv_bias, o_bias, ffn_bias, output_bias;
    enum ffn ffn;
    enum norm_of_qk qk_norm;
    bool post, no_attn_norm, no_ffn_norm, tied, key_length;
    f64 embd_std;
    f32 output_norm_scale;
    enum extra extra;
    u32 type; /* of the matrices */
    struct extra_key keys[8];
};

#define LLAMA_Q(suffix, t)                                                                                   \
    {                                                                                                        \
        .name = "llama-q-" suffix, .arch = "llama", .seed_name = "llama-q", .layers = 2, .d = 256,           \
        .heads = 4, .kv_heads = 1, .head_dim = 64, .ff = 256, .tied = true, .seed = 11, .embd_std = 0.25,    \
        .type = t                                                                                            \
    }
#define GEMMA .tied = true, .embd_std = 0.06, .eps = 1e-6, .output_norm_scale = 6
#define GEMMA3                                                                                               \
    .arch = "gemma3", .layers = 7, .kv_heads = 1, .head_dim = 32, .ff = 96, .qk_norm = QK_HEAD,              \
    .post = true, .window = 20, .base = 1e6, .keys = {{"rope.freq_base_swa", 10000}}, GEMMA

/* Zero means the default of spec_defaults. */
static const struct spec specs[] = {
    {.name = "llama-mha", .arch = "llama", .kv_heads = 4},
    {.name = "llama-gqa", .arch = "llama", .layers = 3, .d = 96, .heads = 6, .kv_heads = 2, .ff = 208},
    {.name = "llama-ropefreqs", .arch = "llama", .d = 128, .base = 500000, .extra = EXTRA_ROPE_FREQS},
    {.name = "llama-linear",
     .arch = "llama",
     .keys = {{"rope.scaling.type=linear"}, {"rope.scaling.factor", 4}}},
    {.name = "llama-yarn",
     .arch = "llama",
     .d = 128,
     .keys = {{"rope.scaling.type=yarn"},
              {"rope.scaling.factor", 4},
              {"rope.scaling.original_context_length", 128, true}}},
    {.name = "llama-bias", .arch = "llama", .qkv_bias = true, .o_bias = true, .ffn_bias = true},
    {.name = "mistral-tied",
     .arch = "llama",
     .head_dim = 32,
     .tied = true,
     .embd_std = 0.4,
     .base = 1e6,
     .key_length = true},
    LLAMA_Q("f32", QUANT_F32),
    LLAMA_Q("f16", QUANT_F16),
    LLAMA_Q("bf16", QUANT_BF16),
    LLAMA_Q("q8_0", QUANT_Q8_0),
    LLAMA_Q("q4_0", QUANT_Q4_0),
    LLAMA_Q("q4_1", QUANT_Q4_1),
    {.name = "mistral3",
     .arch = "mistral3",
     .d = 128,
     .base = 1e6,
     .ctx = 1024,
     .keys = {{"rope.scaling.type=yarn"},
              {"rope.scaling.factor", 8},
              {"rope.scaling.original_context_length", 64, true},
              {"rope.scaling.yarn_beta_fast", 32},
              {"rope.scaling.yarn_beta_slow", 1},
              {"rope.scaling.yarn_log_multiplier", 1},
              {"attention.temperature_scale", 0.1f}}},
    {.name = "internlm2", .arch = "internlm2", .base = 1e6},
    {.name = "qwen2", .arch = "qwen2", .qkv_bias = true, .base = 1e6, .eps = 1e-6},
    {.name = "qwen3", .arch = "qwen3", .head_dim = 32, .qk_norm = QK_HEAD, .base = 1e6, .eps = 1e-6},
    {.name = "gemma", .arch = "gemma", .kv_heads = 1, .head_dim = 32, GEMMA},
    {.name = "gemma2",
     .arch = "gemma2",
     .layers = 4,
     .head_dim = 32,
     .post = true,
     .window = 24,
     .keys = {{"attn_logit_softcapping", 5}, {"final_logit_softcapping", 6}},
     GEMMA},
    {.name = "gemma3", GEMMA3},
    {.name = "gemma3-q4_0", GEMMA3, .type = QUANT_Q4_0},
    {.name = "phi3", .arch = "phi3", .kv_heads = 4, .qkv = FUSED, .ffn = GATED_FUSED, .rope_dim = 16},
    {.name = "phi3-longrope",
     .arch = "phi3",
     .d = 128,
     .qkv = FUSED,
     .ffn = GATED_FUSED,
     .rope_dim = 32,
     .ff = 96,
     .ctx = 1024,
     .extra = EXTRA_LONGROPE,
     .keys = {{"rope.scaling.type=longrope"},
              {"rope.scaling.original_context_length", 256, true},
              {"rope.scaling.attn_factor", 1.19f}}},
    {.name = "granite",
     .arch = "granite",
     .tied = true,
     .keys =
         {{"logit_scale", 4}, {"residual_scale", 0.5f}, {"embedding_scale", 6}, {"attention.scale", 0.125f}}},
    {.name = "smollm3", .arch = "smollm3", .layers = 5, .ff = 96, .tied = true, .base = 5e6},
    {.name = "olmo2",
     .arch = "olmo2",
     .qk_norm = QK_FULL,
     .no_attn_norm = true,
     .no_ffn_norm = true,
     .post = true,
     .base = 500000,
     .eps = 1e-6},
    {.name = "exaone4",
     .arch = "exaone4",
     .qk_norm = QK_HEAD,
     .no_attn_norm = true,
     .no_ffn_norm = true,
     .post = true,
     .base = 1e6,
     .extra = EXTRA_ROPE_FREQS},
    {.name = "glm4", .arch = "glm4", .qkv_bias = true, .rope_dim = 8, .ffn = GATED_FUSED, .post = true},
    {.name = "stablelm",
     .arch = "stablelm",
     .kv_heads = 4,
     .layer_norm = true,
     .qkv_bias = true,
     .rope_dim = 4},
    {.name = "starcoder2",
     .arch = "starcoder2",
     .layer_norm = true,
     .qkv_bias = true,
     .o_bias = true,
     .ffn = MLP,
     .ffn_bias = true,
     .tied = true},
    {.name = "phi2",
     .arch = "phi2",
     .kv_heads = 4,
     .layer_norm = true,
     .qkv_bias = true,
     .o_bias = true,
     .ffn = MLP,
     .ffn_bias = true,
     .no_ffn_norm = true,
     .output_bias = true,
     .rope_dim = 8},
    {.name = "falcon",
     .arch = "falcon",
     .kv_heads = 1,
     .layer_norm = true,
     .qkv = FUSED,
     .ffn = MLP,
     .no_ffn_norm = true},
    {.name = "command-r",
     .arch = "command-r",
     .layer_norm = true,
     .no_norm_bias = true,
     .no_ffn_norm = true,
     .tied = true,
     .base = 8e6,
     .keys = {{"logit_scale", 0.25f}}},
    {.name = "cohere2",
     .arch = "cohere2",
     .layers = 5,
     .layer_norm = true,
     .no_norm_bias = true,
     .no_ffn_norm = true,
     .tied = true,
     .window = 20,
     .ff = 96,
     .keys = {{"logit_scale", 0.25f}}},
};

static struct spec spec_defaults(const struct spec *in) {
    struct spec s = *in;
    s.layers = s.layers ? s.layers : 2;
    s.d = s.d ? s.d : 64;
    s.heads = s.heads ? s.heads : 4;
    s.kv_heads = s.kv_heads ? s.kv_heads : 2;
    s.ff = s.ff ? s.ff : 176;
    s.seed = s.seed ? s.seed : 1;
    s.eps = s.eps != 0 ? s.eps : 1e-5;
    s.base = s.base != 0 ? s.base : 10000;
    s.ctx = s.ctx ? s.ctx : 512;
    s.embd_std = s.embd_std != 0 ? s.embd_std : 0.5;
    s.output_norm_scale = s.output_norm_scale != 0 ? s.output_norm_scale : 1;
    s.key_length |= s.head_dim && s.head_dim != s.d / s.heads;
    s.head_dim = s.head_dim ? s.head_dim : s.d / s.heads;
    s.rope_dim = s.rope_dim ? s.rope_dim : s.head_dim;
    s.seed_name = s.seed_name ? s.seed_name : s.name;
    return s;
}

struct maker {
    struct spec s;
    struct rng rng;
    struct arena arena;
    struct gguf_writer *w;
};

static f32 *tensor(struct maker *m, const char *name, u32 cols, u32 rows, u32 type) {
    f32 *v = ARENA_ARRAY(&m->arena, f32, (size_t)cols * rows);
    void *data = v;
    if (type != QUANT_F32)
        data = arena_alloc(&m->arena, quant_row_bytes(type, cols) * rows);
    u64 dims[2] = {cols, rows};
    gguf_put_tensor(m->w, arena_str(&m->arena, str_of(name)), type, rows > 1 ? 2 : 1, dims, data);
    return data == v ? v : data;
}

/* rows x cols of standard normals * gain / sqrt(cols), in the matrices' type. */
static void matrix(struct maker *m, const char *name, u32 rows, u32 cols, f64 factor) {
    size_t n = (size_t)rows * cols;
    f32 *v = xmalloc(n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = (f32)(rng_normal(&m->rng) * factor);
    void *out = tensor(m, name, cols, rows, m->s.type);
    quant_encode(m->s.type, v, out, n);
    free(v);
}

static void weight(struct maker *m, const char *name, u32 rows, u32 cols, f64 gain) {
    matrix(m, name, rows, cols, gain / sqrt((f64)cols));
}

static f32 *vector(struct maker *m, const char *name, u32 n, f64 mean, f64 std) {
    f32 *v = tensor(m, name, n, 1, QUANT_F32);
    for (u32 i = 0; i < n; i++)
        v[i] = (f32)(mean + std * rng_normal(&m->rng));
    return v;
}

static const char *named(struct maker *m, const char *prefix, const char *name) {
    return arena_printf(&m->arena, "%s%s", prefix, name).p;
}

static f32 *norm(struct maker *m, const char *prefix, const char *name, u32 n) {
    f32 *w = vector(m, arena_printf(&m->arena, "%s%s.weight", prefix, name).p, n, 1, 0.15);
    if (m->s.layer_norm && !m->s.no_norm_bias)
        vector(m, arena_printf(&m->arena, "%s%s.bias", prefix, name).p, n, 0, 0.1);
    return w;
}

static void attention(struct maker *m, const char *p) {
    const struct spec *s = &m->s;
    u32 nq = s->heads * s->head_dim, nk = s->kv_heads * s->head_dim;
    if (s->qkv == FUSED) {
        weight(m, named(m, p, "attn_qkv.weight"), nq + 2 * nk, s->d, 1.4);
    } else {
        weight(m, named(m, p, "attn_q.weight"), nq, s->d, 1.4);
        weight(m, named(m, p, "attn_k.weight"), nk, s->d, 1.4);
        weight(m, named(m, p, "attn_v.weight"), nk, s->d, 1.2);
        if (s->qkv_bias) {
            vector(m, named(m, p, "attn_q.bias"), nq, 0, 0.2);
            vector(m, named(m, p, "attn_k.bias"), nk, 0, 0.2);
            vector(m, named(m, p, "attn_v.bias"), nk, 0, 0.2);
        }
    }
    weight(m, named(m, p, "attn_output.weight"), s->d, nq, 1);
    if (s->o_bias)
        vector(m, named(m, p, "attn_output.bias"), s->d, 0, 0.2);
    if (s->qk_norm != QK_NONE) {
        vector(m, named(m, p, "attn_q_norm.weight"), s->qk_norm == QK_HEAD ? s->head_dim : nq, 1.3, 0.15);
        vector(m, named(m, p, "attn_k_norm.weight"), s->qk_norm == QK_HEAD ? s->head_dim : nk, 1.3, 0.15);
    }
}

static int by_value(const void *a, const void *b) {
    f64 x = *(const f64 *)a, y = *(const f64 *)b;
    return x < y ? -1 : x > y;
}

static void rope_factors(struct maker *m) {
    u32 n = m->s.rope_dim / 2;
    if (m->s.extra == EXTRA_ROPE_FREQS) {
        f32 *r = tensor(m, "rope_freqs.weight", n, 1, QUANT_F32);
        u32 from = n / 3, to = 2 * n / 3;
        f64 step = 7.0 / (to - from - 1);
        for (u32 i = 0; i < n; i++)
            r[i] = (f32)(i < from ? 1 : i >= to - 1 ? 8 : 1 + (i - from) * step);
    } else if (m->s.extra == EXTRA_LONGROPE) {
        struct rng rng;
        rng_seed(&rng, (const u32[]){7}, 1);
        f64 factors[2][128];
        for (u32 k = 0; k < 2; k++) {
            for (u32 i = 0; i < n; i++)
                factors[k][i] = 1 + (k ? 0.5 : 7) * rng_unit(&rng);
            qsort(factors[k], n, sizeof(f64), by_value);
            f32 *r = tensor(m, k ? "rope_factors_short.weight" : "rope_factors_long.weight", n, 1, QUANT_F32);
            for (u32 i = 0; i < n; i++)
                r[i] = (f32)factors[k][i];
        }
    }
}

static void feed_forward(struct maker *m, const char *p) {
    const struct spec *s = &m->s;
    if (s->ffn == GATED)
        weight(m, named(m, p, "ffn_gate.weight"), s->ff, s->d, 1.2);
    weight(m, named(m, p, "ffn_up.weight"), s->ffn == GATED_FUSED ? 2 * s->ff : s->ff, s->d, 1.2);
    if (s->ffn_bias) {
        if (s->ffn == GATED)
            vector(m, named(m, p, "ffn_gate.bias"), s->ff, 0, 0.2);
        vector(m, named(m, p, "ffn_up.bias"), s->ff, 0, 0.2);
    }
    weight(m, named(m, p, "ffn_down.weight"), s->d, s->ff, 1.2);
    if (s->ffn_bias)
        vector(m, named(m, p, "ffn_down.bias"), s->d, 0, 0.2);
}

static void layer(struct maker *m, u32 i) {
    const struct spec *s = &m->s;
    const char *p = arena_printf(&m->arena, "blk.%u.", i).p;
    if (!s->no_attn_norm)
        norm(m, p, "attn_norm", s->d);
    attention(m, p);
    if (s->post) {
        vector(m, named(m, p, "post_attention_norm.weight"), s->d, 0.8, 0.15);
        vector(m, named(m, p, "post_ffw_norm.weight"), s->d, 0.8, 0.15);
    }
    if (!s->no_ffn_norm)
        norm(m, p, "ffn_norm", s->d);
    if (i == 0)
        rope_factors(m);
    feed_forward(m, p);
}

static void key_u32(struct maker *m, const char *key, u32 v) {
    gguf_put_u32(m->w, arena_printf(&m->arena, "%s.%s", m->s.arch, key).p, v);
}

static void key_f32(struct maker *m, const char *key, f64 v) {
    gguf_put_f32(m->w, arena_printf(&m->arena, "%s.%s", m->s.arch, key).p, (f32)v);
}

static void keys(struct maker *m) {
    const struct spec *s = &m->s;
    gguf_put_str(m->w, "general.architecture", str_of(s->arch));
    key_u32(m, "context_length", s->ctx);
    key_u32(m, "embedding_length", s->d);
    key_u32(m, "block_count", s->layers);
    key_u32(m, "feed_forward_length", s->ff);
    key_u32(m, "attention.head_count", s->heads);
    key_u32(m, "attention.head_count_kv", s->kv_heads);
    key_f32(m, s->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", s->eps);
    key_f32(m, "rope.freq_base", s->base);
    key_u32(m, "rope.dimension_count", s->rope_dim);
    if (s->key_length) {
        key_u32(m, "attention.key_length", s->head_dim);
        key_u32(m, "attention.value_length", s->head_dim);
    }
    if (s->window)
        key_u32(m, "attention.sliding_window", s->window);
    for (u32 i = 0; i < ARRAY_LEN(s->keys) && s->keys[i].key; i++) {
        struct str key = str_of(s->keys[i].key);
        size_t eq = str_find(key, STR("="), 0);
        if (eq != SIZE_MAX)
            gguf_put_str(m->w, arena_printf(&m->arena, "%s.%.*s", s->arch, (int)eq, key.p).p,
                         str_slice(key, eq + 1, key.n));
        else if (s->keys[i].integer)
            key_u32(m, key.p, (u32)s->keys[i].v);
        else
            key_f32(m, key.p, (f64)s->keys[i].v);
    }
}

static u32 crc32_of(const char *s) {
    u32 crc = UINT32_MAX;
    for (; *s; s++) {
        crc ^= (u8)*s;
        for (u32 k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

/* --- encoders --- */
struct encoder_spec {
    const char *name, *arch;
    u32 layers; /* 0: 2 */
    u32 types;  /* rows of token_types */
    u32 pooling;
    f64 eps;  /* 0: 1e-12 */
    f64 base; /* of the rope; 0 = none */
    bool no_positions, no_bias, fused_qkv, gated, gated_fused, classifier;
};

static const struct encoder_spec encoders[] = {
    {.name = "bert", .arch = "bert", .types = 2, .pooling = 1},
    {.name = "bert-cls", .arch = "bert", .layers = 3, .types = 2, .pooling = 2},
    {.name = "bert-rerank", .arch = "bert", .types = 2, .pooling = 4, .classifier = true},
    {.name = "xlm-roberta", .arch = "bert", .types = 1, .pooling = 2, .eps = 1e-5},
    {.name = "nomic-bert",
     .arch = "nomic-bert",
     .types = 2,
     .pooling = 1,
     .base = 1000,
     .no_positions = true,
     .no_bias = true,
     .fused_qkv = true,
     .gated = true},
    {.name = "jina-bert-v2", .arch = "jina-bert-v2", .types = 2, .pooling = 1, .no_positions = true, .gated_fused = true},
};

static void weight_and_bias(struct maker *m, const struct encoder_spec *e, const char *prefix, const char *name,
                            u32 rows, u32 cols, f64 gain, bool bias) {
    weight(m, arena_printf(&m->arena, "%s%s.weight", prefix, name).p, rows, cols, gain);
    if (bias && !e->no_bias)
        vector(m, arena_printf(&m->arena, "%s%s.bias", prefix, name).p, rows, 0, 0.2);
}

static void encoder_layer(struct maker *m, const struct encoder_spec *e, u32 i) {
    const char *p = arena_printf(&m->arena, "blk.%u.", i).p;
    u32 d = m->s.d, ff = m->s.ff;
    static const char *const heads[] = {"attn_q", "attn_k", "attn_v"};
    for (u32 k = 0; k < 3 && !e->fused_qkv; k++)
        weight_and_bias(m, e, p, heads[k], d, d, 1.4, true);
    if (e->fused_qkv)
        weight_and_bias(m, e, p, "attn_qkv", 3 * d, d, 1.4, true);
    weight_and_bias(m, e, p, "attn_output", d, d, 1, true);
    norm(m, p, "attn_output_norm", d);
    weight_and_bias(m, e, p, "ffn_up", e->gated_fused ? 2 * ff : ff, d, 1.2, !e->gated_fused);
    if (e->gated)
        weight_and_bias(m, e, p, "ffn_gate", ff, d, 1.2, false);
    weight_and_bias(m, e, p, "ffn_down", d, ff, 1.2, true);
    norm(m, p, "layer_output_norm", d);
}

static void encoder_tensors(struct maker *m, const struct encoder_spec *e) {
    u32 d = m->s.d;
    matrix(m, "token_embd.weight", VOCAB, d, 0.7);
    if (!e->no_positions)
        matrix(m, "position_embd.weight", m->s.ctx, d, 0.3);
    f32 *types = tensor(m, "token_types.weight", d, e->types, QUANT_F32);
    for (u32 i = 0; i < d * e->types; i++)
        types[i] = (f32)(rng_normal(&m->rng) * 0.3);
    norm(m, "", "token_embd_norm", d);
    for (u32 i = 0; i < m->s.layers; i++)
        encoder_layer(m, e, i);
    if (e->classifier) {
        weight(m, "cls.weight", d, d, 1);
        vector(m, "cls.bias", d, 0, 0.2);
        f32 *w = tensor(m, "cls.output.weight", d, 1, QUANT_F32);
        for (u32 i = 0; i < d; i++)
            w[i] = (f32)(rng_normal(&m->rng) * (2 / sqrt((f64)d)));
        vector(m, "cls.output.bias", 1, 0, 0.2);
    }
}

static void encoder_write(const struct encoder_spec *e, const char *path) {
    struct spec s = {.name = e->name,
                     .arch = e->arch,
                     .layers = e->layers ? e->layers : 2,
                     .kv_heads = 4,
                     .ff = 128,
                     .eps = e->eps != 0 ? e->eps : 1e-12,
                     .layer_norm = true};
    struct maker maker = {.s = spec_defaults(&s), .w = gguf_writer_new()}, *m = &maker;
    struct err err;
    arena_init(&m->arena, 0);
    zig_init();
    rng_seed(&m->rng, (const u32[]){crc32_of(e->name), 1}, 2);
    gguf_put_str(m->w, "general.architecture", str_of(e->arch));
    key_u32(m, "context_length", m->s.ctx);
    key_u32(m, "embedding_length", m->s.d);
    key_u32(m, "block_count", m->s.layers);
    key_u32(m, "feed_forward_length", m->s.ff);
    key_u32(m, "attention.head_count", m->s.heads);
    key_f32(m, "attention.layer_norm_epsilon", m->s.eps);
    key_u32(m, "pooling_type", e->pooling);
    if (e->base != 0)
        key_f32(m, "rope.freq_base", e->base);
    encoder_tensors(m, e);
    check(gguf_write(m->w, path, &err) == OK);
    gguf_writer_free(m->w);
    arena_release(&m->arena);
}

const char *tiny_name(u32 i) {
    u32 n = ARRAY_LEN(specs);
    return i < n ? specs[i].name : i - n < ARRAY_LEN(encoders) ? encoders[i - n].name : NULL;
}

bool tiny_write(const char *name, const char *path) {
    for (u32 i = 0; i < ARRAY_LEN(encoders); i++)
        if (strcmp(encoders[i].name, name) == 0) {
            encoder_write(&encoders[i], path);
            return true;
        }
    u32 at = 0;
    while (at < ARRAY_LEN(specs) && strcmp(specs[at].name, name) != 0)
        at++;
    if (at == ARRAY_LEN(specs))
        return false;
    struct maker maker = {.s = spec_defaults(&specs[at]), .w = gguf_writer_new()}, *m = &maker;
    arena_init(&m->arena, 0);
    zig_init();
    rng_seed(&m->rng, (const u32[]){crc32_of(m->s.seed_name), m->s.seed}, 2);
    keys(m);
    matrix(m, "token_embd.weight", VOCAB, m->s.d, m->s.embd_std);
    f32 *output_norm = norm(m, "", "output_norm", m->s.d);
    for (u32 i = 0; i < m->s.d; i++)
        output_norm[i] *= m->s.output_norm_scale;
    if (!m->s.tied)
        weight(m, "output.weight", VOCAB, m->s.d, 3);
    if (m->s.output_bias)
        vector(m, "output.bias", VOCAB, 0, 0.2);
    for (u32 i = 0; i < m->s.layers; i++)
        layer(m, i);
    struct err err;
    check(gguf_write(m->w, path, &err) == OK);
    gguf_writer_free(m->w);
    arena_release(&m->arena);
    return true;
}
