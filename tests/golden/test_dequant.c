/* Goal: decoding gives ggml's floats to the bit, encoding its blocks. Method: data/dequant.json holds raw
 * blocks (quantized from data of different character, and random bytes) with the floats that ggml decodes
 * them to, for each format we decode, the block sizes of the others, and blocks made by ggml's own plain
 * quantizers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "gguf/quant.h"

static json_t *golden_load(const char *name) {
    char path[4096];
    json_error_t e;
    const char *folder = getenv("MINKA_GOLDEN");
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "tests/golden/data", name);
    json_t *j = json_load_file(path, 0, &e);
    if (!j)
        fail_msg("%s: %s", path, e.text);
    return j;
}

static size_t hex_read(const char *hex, u8 *out, size_t cap) {
    size_t n = strlen(hex) / 2;
    assert_true(n <= cap);
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (u8)byte;
    }
    return n;
}

static void case_check(const char *name, u32 type, json_t *c) {
    u8 raw[1024], want[2048];
    f32 got[512];
    size_t n_raw = hex_read(json_string_value(json_object_get(c, "raw_hex")), raw, sizeof raw);
    size_t n = hex_read(json_string_value(json_object_get(c, "f32_le_hex")), want, sizeof want) / sizeof(f32);
    assert_int_equal(n / quant_block_values(type) * quant_block_bytes(type), n_raw);
    quant_decode(type, raw, got, n);
    if (memcmp(got, want, n * sizeof *got) != 0)
        fail_msg("%s, %s: other bits", name, json_string_value(json_object_get(c, "kind")));
}

static void test_decode(void **state) {
    (void)state;
    json_t *golden = golden_load("dequant.json"), *entry, *c;
    const char *name;
    u32 n_types = 0, n_cases = 0;
    json_object_foreach(golden, name, entry) {
        if (strcmp(name, "sizes") == 0 || strcmp(name, "encode") == 0)
            continue;
        u32 type = (u32)json_integer_value(json_object_get(entry, "ggml_type"));
        size_t i;
        assert_string_equal(quant_name(type), name);
        assert_int_equal(quant_block_values(type), json_integer_value(json_object_get(entry, "block_size")));
        assert_int_equal(quant_block_bytes(type),
                         json_integer_value(json_object_get(entry, "bytes_per_block")));
        assert_true(quant_supported(type));
        json_array_foreach(json_object_get(entry, "cases"), i, c) {
            case_check(name, type, c);
            n_cases++;
        }
        n_types++;
    }
    json_decref(golden);
    assert_int_equal(n_types, 12);
    assert_true(n_cases >= 60);
}

static void test_sizes(void **state) {
    (void)state;
    json_t *golden = golden_load("dequant.json"), *entry;
    const char *name;
    json_object_foreach(json_object_get(golden, "sizes"), name, entry) {
        u32 type = (u32)json_integer_value(json_array_get(entry, 0));
        assert_string_equal(quant_name(type), name);
        assert_int_equal(quant_block_values(type), json_integer_value(json_array_get(entry, 1)));
        assert_int_equal(quant_block_bytes(type), json_integer_value(json_array_get(entry, 2)));
        assert_false(quant_supported(type));
    }
    json_decref(golden);
}

/* "encode": values and what ggml's plain quantizers make of them. */
static void test_encode(void **state) {
    (void)state;
    static const u32 types[] = {QUANT_F16, QUANT_BF16, QUANT_Q8_0, QUANT_Q4_0, QUANT_Q4_1};
    json_t *golden = golden_load("dequant.json"), *c;
    size_t i;
    json_array_foreach(json_object_get(golden, "encode"), i, c) {
        f32 values[64];
        u8 want[128], got[128];
        assert_int_equal(
            hex_read(json_string_value(json_object_get(c, "f32_le_hex")), (u8 *)values, sizeof values), 256);
        for (u32 t = 0; t < ARRAY_LEN(types); t++) {
            size_t n =
                hex_read(json_string_value(json_object_get(c, quant_name(types[t]))), want, sizeof want);
            quant_encode(types[t], values, got, 64);
            assert_int_equal(n, quant_row_bytes(types[t], 64));
            assert_memory_equal(got, want, n);
        }
    }
    assert_int_equal(i, 6);
    json_decref(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_decode), cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_encode)};
    return cmocka_run_group_tests_name("dequant", tests, NULL, NULL);
}
