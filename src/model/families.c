/* families.c - the table. Fields that are zero mean: RMS norm, no biases, no windows, rope on every layer
 * with interleaved pairs, gated SiLU feed-forward, no scales. */
#include "model/families.h"

#define PRE_NORM .attn_norm = MUST, .ffn_norm = MUST
#define POST_NORM .post_norms = MUST

const struct family families[] = {
    {.arch = "llama", PRE_NORM, .qkv_bias = CAN, .o_bias = CAN, .ffn_bias = CAN, .output = CAN},
    {.arch = "mistral3", PRE_NORM, .output = CAN, .position_scale = true},
    {.arch = "internlm2", PRE_NORM, .output = MUST},
    {.arch = "qwen2", PRE_NORM, .qkv_bias = MUST, .output = CAN, .output_bias = true, .rope_neox = true},
    {.arch = "qwen3", PRE_NORM, .output = CAN, .qk_norm = QK_NORM_HEAD, .rope_neox = true},
    {.arch = "gemma", PRE_NORM, .rope_neox = true, .activation = ACT_GELU, .embd_scale_sqrt = true},
    {.arch = "gemma2", PRE_NORM, POST_NORM, .rope_neox = true, .window_period = 2, .window_default = 4096,
     .activation = ACT_GELU, .embd_scale_sqrt = true, .softcaps = true, .wide_query_layers = 46},
    {.arch = "gemma3", PRE_NORM, POST_NORM, .output = CAN, .qk_norm = QK_NORM_HEAD, .rope_neox = true,
     .window_period = 6, .rope_base_windowed = 10000, .activation = ACT_GELU, .embd_scale_sqrt = true,
     .softcaps = true, .wide_query_layers = 62},
    {.arch = "phi3", PRE_NORM, .output = CAN, .rope_neox = true},
    {.arch = "granite", PRE_NORM, .o_bias = CAN, .ffn_bias = CAN, .output = CAN, .rope_switch = true,
     .scales = true, .logit_scale = MUST, .logit_divide = true},
    {.arch = "smollm3", PRE_NORM, .output = CAN, .rope_layers = ROPE_NOT_EVERY_4TH},
    {.arch = "olmo2", POST_NORM, .output = MUST, .qk_norm = QK_NORM_FULL, .rope_neox = true},
    {.arch = "exaone4", POST_NORM, .output = CAN, .qk_norm = QK_NORM_HEAD, .rope_neox = true,
     .rope_layers = ROPE_WINDOWED_ONLY, .window_period = 4, .window_default = 4096, .window_64_only = true},
    {.arch = "glm4", PRE_NORM, POST_NORM, .qkv_bias = CAN, .output = CAN},
    {.arch = "stablelm", .norm = NORM_LAYER, .norm_bias = MUST, .attn_norm = MUST, .ffn_norm = CAN,
     .qkv_bias = CAN, .output = MUST, .qk_norm = QK_NORM_PER_HEAD, .rope_neox = true},
    {.arch = "starcoder2", .norm = NORM_LAYER, .norm_bias = MUST, PRE_NORM, .qkv_bias = CAN, .o_bias = CAN,
     .ffn_bias = CAN, .output = CAN, .rope_neox = true, .ffn = FFN_PLAIN, .activation = ACT_GELU},
    {.arch = "phi2", .norm = NORM_LAYER, .norm_bias = MUST, .attn_norm = MUST, .parallel = true, .qkv_bias = MUST,
     .o_bias = MUST, .ffn_bias = MUST, .output = MUST, .output_bias = true, .rope_neox = true, .ffn = FFN_PLAIN,
     .activation = ACT_GELU},
    {.arch = "falcon", .norm = NORM_LAYER, .norm_bias = MUST, .attn_norm = MUST, .parallel = true, .output = CAN,
     .rope_neox = true, .ffn = FFN_PLAIN, .activation = ACT_GELU},
    {.arch = "command-r", .norm = NORM_LAYER, .attn_norm = MUST, .parallel = true, .logit_scale = MUST},
    {.arch = "cohere2", .norm = NORM_LAYER, .attn_norm = MUST, .parallel = true, .o_bias = CAN,
     .rope_layers = ROPE_WINDOWED_ONLY, .window_period = 4, .logit_scale = MUST},
};
const u32 n_families = ARRAY_LEN(families);

const struct family *family_find(struct str arch) {
    for (u32 i = 0; i < n_families; i++)
        if (str_is(arch, families[i].arch))
            return &families[i];
    return NULL;
}
