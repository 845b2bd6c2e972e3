/* kern.c - the three tables and the choice between them. */
#include "kern/kern_parts.h"

#include "base/cpu.h"

const struct kern kern_ref = {
    .name = "ref",
    .quantize = ref_quantize,
    .matmul = ref_matmul,
    .embed = ref_embed,
    .rmsnorm = ref_rmsnorm,
    .layernorm = ref_layernorm,
    .add_scaled = ref_add_scaled,
    .silu_mul = ref_silu_mul,
    .gelu_mul = ref_gelu_mul,
    .gelu = ref_gelu,
    .rope = ref_rope,
    .kv_store = ref_kv_store,
    .attend = ref_attend,
    .attend_fold = ref_attend_fold,
    .attend_finish = ref_attend_finish,
    .softcap = ref_softcap,
    .logsumexp = ref_logsumexp,
    .above = ref_above,
    .maxima = ref_maxima,
};

const struct kern kern_avx2 = {
    .name = "avx2",
    .quantize = avx2_quantize,
    .matmul = avx2_matmul,
    .embed = ref_embed,
    .rmsnorm = avx2_rmsnorm,
    .layernorm = avx2_layernorm,
    .add_scaled = avx2_add_scaled,
    .silu_mul = avx2_silu_mul,
    .gelu_mul = avx2_gelu_mul,
    .gelu = avx2_gelu,
    .rope = avx2_rope,
    .kv_store = avx2_kv_store,
    .attend = avx2_attend,
    .attend_fold = avx2_attend_fold,
    .attend_finish = avx2_attend_finish,
    .softcap = avx2_softcap,
    .logsumexp = avx2_logsumexp,
    .above = avx2_above,
    .maxima = avx2_maxima,
};

const struct kern kern_avxvnni = {
    .name = "avxvnni",
    .quantize = avx2_quantize,
    .matmul = avxvnni_matmul,
    .embed = ref_embed,
    .rmsnorm = avx2_rmsnorm,
    .layernorm = avx2_layernorm,
    .add_scaled = avx2_add_scaled,
    .silu_mul = avx2_silu_mul,
    .gelu_mul = avx2_gelu_mul,
    .gelu = avx2_gelu,
    .rope = avx2_rope,
    .kv_store = avx2_kv_store,
    .attend = avx2_attend,
    .attend_fold = avx2_attend_fold,
    .attend_finish = avx2_attend_finish,
    .softcap = avx2_softcap,
    .logsumexp = avx2_logsumexp,
    .above = avx2_above,
    .maxima = avx2_maxima,
};

const struct kern kern_avx512 = {
    .name = "avx512",
    .quantize = avx512_quantize,
    .matmul = avx512_matmul,
    .embed = ref_embed,
    .rmsnorm = avx512_rmsnorm,
    .layernorm = avx512_layernorm,
    .add_scaled = avx512_add_scaled,
    .silu_mul = avx512_silu_mul,
    .gelu_mul = avx512_gelu_mul,
    .gelu = avx512_gelu,
    .rope = avx512_rope,
    .kv_store = avx512_kv_store,
    .attend = avx512_attend,
    .attend_fold = avx512_attend_fold,
    .attend_finish = avx512_attend_finish,
    .softcap = avx512_softcap,
    .logsumexp = avx512_logsumexp,
    .above = avx512_above,
    .maxima = avx512_maxima,
};

enum status kern_open(const char *name, const struct kern **out, struct err *err) {
    static const struct {
        const struct kern *kern;
        u32 needs; /* bits of enum cpu_feature */
    } tiers[] = {{&kern_avx512, CPU_AVX512}, {&kern_avxvnni, CPU_AVXVNNI}, {&kern_avx2, CPU_AVX2}, {&kern_ref, 0}}; /* fastest first */
    u32 has = cpu_features();
    bool any = !name || !name[0], known = false;
    for (u32 i = 0; i < ARRAY_LEN(tiers); i++) {
        if (!any && strcmp(name, tiers[i].kern->name) != 0)
            continue;
        known = true;
        if ((has & tiers[i].needs) == tiers[i].needs) {
            *out = tiers[i].kern;
            return OK;
        }
    }
    if (known)
        return err_set(err, ERR_UNSUPPORTED, "this processor cannot run the %s kernels; unset MINKA_KERNELS", name);
    return err_set(err, ERR_UNSUPPORTED, "unknown kernels \"%s\": MINKA_KERNELS may be ref, avx2, avxvnni or avx512", name);
}

enum status kern_cache_by_name(const char *name, enum kern_cache *out, struct err *err) {
    static const char *const names[KERN_CACHE_TYPES] = {"f16", "f32", "bf16", "q8_0"};
    *out = KERN_CACHE_F16;
    if (!name || !name[0])
        return OK;
    for (u32 i = 0; i < KERN_CACHE_TYPES; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum kern_cache)i;
            return OK;
        }
    return err_set(err, ERR_UNSUPPORTED, "the KV cache cannot be \"%.64s\"; it may be f16, bf16, q8_0 or f32", name);
}

size_t kern_attend_scratch_bytes(void) { return sizeof(f32) * 2 * KERN_ATTEND_TILE * KERN_CHUNK; }
