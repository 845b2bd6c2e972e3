/* Goal: each keyword of a schema allows what it should and nothing else; what is not supported is refused by
 * its path; parts combine; runs can be copied, and nothing that a cache forgets changes what is allowed.
 * Method: tables of schemas with texts, over a vocabulary of all bytes and a few control tokens. */
#include "../tokenize/sample.h"

#include <pthread.h>
#include <time.h>

#include "base/limit.h"
#include "chat/grammar.h"

static struct sample sample;
static struct tokenizer *tokenizer;
static struct grammar_vocab *vocab;
static u32 end_token, call_token;

static int vocab_make(void **state) {
    (void)state;
    sample_init_bytes(&sample);
    sample_add(&sample, STR("true"), NORMAL, 0);
    end_token = sample_add(&sample, STR("<|im_end|>"), CONTROL, 0);
    call_token = sample_add(&sample, STR("[CALL]"), CONTROL, 0);
    tokenizer = sample_open_ok(&sample);
    vocab = grammar_vocab_new(tokenizer);
    return 0;
}

static int vocab_drop(void **state) {
    (void)state;
    grammar_vocab_free(vocab);
    tokenizer_close(tokenizer);
    return 0;
}

static enum status compile_schema(const char *schema, struct grammar **g, struct err *err) {
    struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = str_of(schema)};
    return grammar_compile(vocab, &part, g, err);
}

static bool takes(struct grammar *g, const char *text) {
    struct grammar_run r;
    grammar_run_start(g, &r);
    bool taken = grammar_run_feed(&r, str_of(text)) && grammar_run_complete(&r);
    grammar_run_release(&r);
    return taken;
}

struct schema_case {
    const char *schema;
    const char *good[10], *bad[14];
};

static void check_cases(const struct schema_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct grammar *g;
        struct err err;
        if (compile_schema(cases[i].schema, &g, &err) != OK)
            fail_msg("%s: %s", cases[i].schema, err.text);
        for (size_t k = 0; k < ARRAY_LEN(cases[i].good) && cases[i].good[k]; k++)
            if (!takes(g, cases[i].good[k]))
                fail_msg("%s refuses %s", cases[i].schema, cases[i].good[k]);
        for (size_t k = 0; k < ARRAY_LEN(cases[i].bad) && cases[i].bad[k]; k++)
            if (takes(g, cases[i].bad[k]))
                fail_msg("%s takes %s", cases[i].schema, cases[i].bad[k]);
        grammar_free(g);
    }
}

static void test_strings(void **state) {
    static const struct schema_case cases[] = {
        {"{\"type\":\"string\"}",
         {"\"\"", "\"\\ud83d\\ude00\"", "\"\\u00e9\\n\\/\"", "\"\xf0\x9f\x98\x80\"", "\"\x7f\""},
         {"\"\\ud83d\"", "\"\\ud83dx\"", "\"\\ude00\"", "\"\\ud83d\\u0041\"", "\"\\u0000\"", "\"\xc3\"",
          "\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc0\xaf\"", "\"\n\"", "\"\\x\"", "\"", "'a'"}},
        {"{\"minLength\":2}", {"\"ab\"", "\"abcdefghijk\"", "\"\\n\\n\""}, {"\"a\"", "\"\"", "\"\\n\""}},
        {"{\"maxLength\":2}",
         {"\"\"", "\"ab\"", "\"\xc3\xa9\xf0\x9f\x98\x80\"", "\"\\ud83d\\ude00a\""},
         {"\"abc\""}},
        {"{\"maxLength\":0}", {"\"\""}, {"\"a\""}},
        {"{\"pattern\":\"^a+$\",\"minLength\":2,\"maxLength\":3}",
         {"\"aa\"", "\"aaa\""},
         {"\"a\"", "\"aaaa\"", "\"ab\""}},
        {"{\"pattern\":\"b\"}", {"\"b\"", "\"abc\""}, {"\"\"", "\"ac\""}},
        {"{\"pattern\":\"^$\"}", {"\"\""}, {"\"a\""}},
        {"{\"pattern\":\"^(a|^b$)c?$\"}", {"\"a\"", "\"ac\"", "\"b\""}, {"\"bc\"", "\"c\""}},
        {"{\"pattern\":\"^[^a-y\\\\s]{2}$\"}", {"\"zz\"", "\"ZZ\""}, {"\"za\"", "\"z \"", "\"z\xc3\xa9\""}},
        {"{\"pattern\":\"^[^a]$\"}",
         {"\"b\"", "\"\xc3\xa9\"", "\"\\n\"", "\"\\\"\"", "\"\\\\\""},
         {"\"a\"", "\"bb\""}},
        {"{\"pattern\":\"^\\\\w\\\\W\\\\d\\\\D\\\\s\\\\S$\"}",
         {"\"a.1x y\""},
         {"\"a.1x\\u0020y\"", "\"a.xx y\""}},
        {"{\"pattern\":\"^\\\\x41\\\\u0042\\\\u{43}\\\\t\\\\.[\\\\b\\\\]-]$\"}",
         {"\"ABC\\t.-\"", "\"ABC\\t.]\"", "\"ABC\\t.\\b\""},
         {"\"ABC\\tx-\""}},
        {"{\"pattern\":\"^(?:ab?){2,3}?(?<name>c|)$\"}",
         {"\"aba\"", "\"aaac\"", "\"ababab\""},
         {"\"ab\"", "\"abababab\""}},
        {"{\"pattern\":\"^\\\\ud83d\\\\ude00.$\"}", {"\"\xf0\x9f\x98\x80x\""}, {"\"\xf0\x9f\x98\x80\\n\""}},
        {"{\"allOf\":[{\"pattern\":\"^a\"},{\"pattern\":\"b$\"}]}",
         {"\"ab\"", "\"aXb\""},
         {"\"a\"", "\"b\"", "\"ba\""}},
        {"{\"type\":\"string\",\"format\":\"date\"}",
         {"\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\"", "\"2023-04-30\""},
         {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"", "\"0000-01-01\"",
          "\"2023-1-1\""}},
        {"{\"format\":\"time\"}",
         {"\"23:59:59Z\"", "\"00:00:00.25+01:30\""},
         {"\"24:00:00Z\"", "\"12:00:00\""}},
        {"{\"format\":\"date-time\"}",
         {"\"2024-02-29T10:00:00Z\""},
         {"\"2024-02-30T10:00:00Z\"", "\"2024-02-29\""}},
        {"{\"format\":\"duration\"}",
         {"\"P1Y2M3DT4H5M6S\"", "\"PT5M\"", "\"P2W\"", "\"P1D\""},
         {"\"P\"", "\"PT\"", "\"P1Y3D\""}},
        {"{\"format\":\"uuid\"}", {"\"01234567-89ab-cdef-0123-456789abcdef\""}, {"\"0123\""}},
        {"{\"format\":\"ipv4\"}", {"\"255.0.10.199\""}, {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""}},
        {"{\"format\":\"ipv6\"}", {"\"2001:db8:0:0:0:0:0:1\""}, {"\"2001:db8\"", "\"g:0:0:0:0:0:0:1\""}},
        {"{\"format\":\"email\"}", {"\"a.b+c@x-y.org\""}, {"\"a@b\"", "\"@b.c\"", "\"a b@c.d\""}},
        {"{\"format\":\"hostname\"}", {"\"a.example\"", "\"x\""}, {"\"-a\"", "\"a..b\"", "\"a-\""}},
        {"{\"format\":\"uri\"}", {"\"https://x.org:80/a/b?c=d#e\""}, {"\"x.org\"", "\"http://\""}},
        {"{\"format\":\"json-pointer\"}", {"\"\"", "\"/a/~0~1\""}, {"\"a\"", "\"/~2\""}},
        {"{\"type\":\"string\",\"format\":\"my-own\"}", {"\"anything\""}, {"1"}},
    };
    (void)state;
    check_cases(cases, ARRAY_LEN(cases));
}

static void test_numbers(void **state) {
    static const struct schema_case cases[] = {
        {"{\"type\":\"integer\"}",
         {"0", "-7", "123456789012345678"},
         {"1.0", "01", "1e3", "-", "1234567890123456789"}},
        {"{\"minimum\":3,\"maximum\":117,\"type\":\"integer\"}",
         {"3", "9", "10", "99", "117"},
         {"2", "118", "1000", "-5"}},
        {"{\"minimum\":-20,\"maximum\":-7,\"type\":\"integer\"}",
         {"-7", "-20", "-13"},
         {"-6", "-21", "0", "-0", "7"}},
        {"{\"minimum\":-5,\"maximum\":5,\"type\":\"integer\"}", {"-5", "0", "5"}, {"-6", "6", "-0"}},
        {"{\"exclusiveMinimum\":0,\"type\":\"integer\"}", {"1", "10"}, {"0", "-1"}},
        {"{\"minimum\":0.5,\"maximum\":2.25}",
         {"0.5", "1", "2.25", "0.500", "0.75", "2.249"},
         {"0.49", "2.26", "3", "-1", "2.2500001"}},
        {"{\"exclusiveMinimum\":0.5,\"exclusiveMaximum\":2}",
         {"0.51", "0.5000001", "1.999"},
         {"0.5", "0.50", "2", "2.0"}},
        {"{\"exclusiveMaximum\":0}", {"-0.5", "-1"}, {"0", "-0", "-0.0", "1"}},
        {"{\"minimum\":5,\"exclusiveMinimum\":true}", {"5.1", "6"}, {"5"}},
        {"{\"minimum\":100000000000000000000000000}", {NULL}, {"1"}},
        {"{\"multipleOf\":5,\"type\":\"integer\"}", {"0", "5", "-10", "125"}, {"1", "12", "-4"}},
        {"{\"multipleOf\":0.25}", {"0.25", "1.5", "-2", "3.00"}, {"0.1", "1.26", "0.255"}},
        {"{\"multipleOf\":7,\"minimum\":10,\"maximum\":30}", {"14", "21", "28"}, {"7", "15", "35"}},
        {"{\"type\":\"number\"}", {"1e5", "-1.5E-3", "0", "-0", "1E+9"}, {"1.", ".5", "+1", "1e100", "00"}},
        {"{\"allOf\":[{\"minimum\":1},{\"minimum\":4},{\"exclusiveMaximum\":6},{\"maximum\":6}],\"type\":"
         "\"integer\"}",
         {"4", "5"},
         {"3", "6"}},
        {"{\"enum\":[1,2.5,10,-3],\"minimum\":2}", {"2.5", "10"}, {"1", "-3"}},
        {"{\"enum\":[3,4,6],\"multipleOf\":2}", {"4", "6"}, {"3"}},
    };
    (void)state;
    check_cases(cases + 0, 9);
    check_cases(cases + 10, ARRAY_LEN(cases) - 10);
    struct grammar *g;
    struct err err;
    assert_int_equal(compile_schema(cases[9].schema, &g, &err), ERR_INVALID);
}

/* Every integer near the bounds, for many bounds. */
static void test_all_integers(void **state) {
    (void)state;
    for (i32 lo = -130; lo <= 130; lo += 13)
        for (i32 hi = lo; hi <= 140; hi += 29) {
            char schema[128];
            struct grammar *g;
            struct err err;
            snprintf(schema, sizeof schema, "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}", lo, hi);
            assert_int_equal(compile_schema(schema, &g, &err), OK);
            for (i32 v = -160; v <= 160; v++) {
                char text[16];
                snprintf(text, sizeof text, "%d", v);
                if (takes(g, text) != (v >= lo && v <= hi))
                    fail_msg("%s is wrong about %d", schema, v);
            }
            grammar_free(g);
        }
}

static void test_objects(void **state) {
    static const struct schema_case cases[] = {
        {"{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
         {"{\"a\":null,\"b\":null}", "{\"b\":null}", "{ \"b\": null }",
          "{\n  \"a\": null,\n  \"b\": null\n}"},
         {"{}", "{\"a\":null}", "{\"b\":null,\"a\":null}", "{\"b\":null,\"c\":null}", "{\"b\":null,}",
          "{\"b\" :null}", "{  \"b\":null}"}},
        {"{\"properties\":{\"a\":{}},\"additionalProperties\":{\"type\":\"integer\"}}",
         {"{}", "{\"b\":1}", "{\"a\":\"x\",\"ab\":1,\"\":2}"},
         {"{\"b\":\"x\"}", "{\"b\":1,\"a\":1}", "{\"a\":1,\"a\":2}"}},
        {"{\"properties\":{\"a\":{}},\"additionalProperties\":true}",
         {"{\"a\":1,\"b\":[]}"},
         {"{\"b\":1,\"a\":2}"}},
        {"{\"required\":[\"x\"]}", {"{\"x\":1}"}, {"{}", "{\"y\":1}"}},
        {"{\"patternProperties\":{\"^x\":{\"type\":\"integer\"}},\"additionalProperties\":false}",
         {"{}", "{\"x\":1,\"xy\":2}"},
         {"{\"y\":1}", "{\"x\":\"s\"}"}},
        {"{\"properties\":{\"xa\":{\"maximum\":9}},\"patternProperties\":{\"^x\":{\"type\":\"integer\"}}}",
         {"{\"xa\":5}", "{\"xa\":5,\"xb\":50}"},
         {"{\"xa\":5.5}", "{\"xa\":50}", "{\"xb\":1,\"xa\":1}"}},
        {"{\"patternProperties\":{\"^a\":{\"type\":\"integer\"},\"z$\":{\"type\":\"string\"}},"
         "\"additionalProperties\":"
         "{\"type\":\"null\"}}",
         {"{\"ab\":1,\"yz\":\"s\",\"q\":null}"},
         {"{\"ab\":\"s\"}", "{\"yz\":1}", "{\"q\":1}", "{\"az\":1}"}},
        {"{\"type\":\"object\",\"maxProperties\":1}", {"{}", "{\"a\":1}"}, {"{\"a\":1,\"b\":2}"}},
        {"{\"type\":\"object\",\"minProperties\":1}", {"{\"a\":1}", "{\"a\":1,\"b\":2}"}, {"{}"}},
        {"{\"properties\":{\"a\":{},\"b\":{}},\"minProperties\":1,\"maxProperties\":1}",
         {"{\"a\":1}"},
         {"{}", "{\"a\":1,\"b\":1}"}},
        {"{\"properties\":{\"a\":{}},\"required\":[\"a\"],\"minProperties\":2,\"additionalProperties\":true}",
         {"{\"a\":1,\"b\":1}"},
         {"{\"a\":1}"}},
        {"{\"properties\":{\"a\":false,\"b\":true}}", {"{}", "{\"b\":[1]}"}, {"{\"a\":1}"}},
        {"{\"properties\":{\"a\\\"b\\n\":{}}}", {"{\"a\\\"b\\n\":1}"}, {"{\"ab\":1}"}},
        {"{\"unevaluatedProperties\":false,\"allOf\":[{\"properties\":{\"a\":{}}}],\"type\":\"object\"}",
         {"{\"a\":1}"},
         {"{\"b\":1}"}},
        {"{\"type\":\"object\",\"unevaluatedProperties\":false}", {"{}"}, {"{\"b\":1}"}},
        {"{\"properties\":{\"a\":{}},\"required\":true}", {"{}"}, {"1"}},
    };
    (void)state;
    check_cases(cases, ARRAY_LEN(cases));
}

static void test_arrays(void **state) {
    static const struct schema_case cases[] = {
        {"{\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}",
         {"[]", "[1]", "[1,\"a\"]"},
         {"[\"a\"]", "[1,\"a\",2]"}},
        {"{\"prefixItems\":[{\"type\":\"integer\"}],\"items\":{\"type\":\"null\"},\"minItems\":2,"
         "\"maxItems\":3}",
         {"[1,null]", "[1,null,null]"},
         {"[1]", "[1,2]", "[1,null,null,null]"}},
        {"{\"items\":[{\"type\":\"integer\"}],\"additionalItems\":{\"type\":\"null\"}}",
         {"[]", "[1,null]"},
         {"[null]", "[1,1]"}},
        {"{\"prefixItems\":[{},{}],\"minItems\":3}", {"[1,2,3]", "[1,2,3,4]"}, {"[1,2]"}},
        {"{\"prefixItems\":[{}],\"items\":false}", {"[]", "[1]"}, {"[1,2]"}},
        {"{\"prefixItems\":[{}],\"unevaluatedItems\":false,\"minItems\":1}", {"[1]"}, {"[]", "[1,2]"}},
        {"{\"items\":{\"type\":\"integer\"},\"minItems\":3}", {"[1,2,3]", "[1, 2,\n 3, 4]"}, {"[1,2]", "[]"}},
        {"{\"type\":\"array\",\"maxItems\":0}", {"[]", "[ ]"}, {"[1]"}},
        {"{\"type\":\"array\",\"items\":{},\"uniqueItems\":false}", {"[1,1]"}, {"{}"}},
    };
    (void)state;
    check_cases(cases, ARRAY_LEN(cases));
}

static void test_combined(void **state) {
    static const struct schema_case cases[] = {
        {"{\"type\":[\"integer\",\"null\"],\"minimum\":3}", {"3", "null"}, {"2", "\"a\""}},
        {"{\"enum\":[\"a\",\"ab\",1,null,{\"x\":[1,2]}]}",
         {"\"a\"", "\"ab\"", "{\"x\":[1,2]}"},
         {"\"b\"", "\"", "{\"x\":[1]}"}},
        {"{\"enum\":[\"a\",\"bcd\",5],\"type\":\"string\",\"maxLength\":1}", {"\"a\""}, {"\"bcd\"", "5"}},
        {"{\"enum\":[\"a\",\"b\"],\"pattern\":\"b\"}", {"\"b\""}, {"\"a\""}},
        {"{\"const\":{\"a\":1},\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]}",
         {"{\"a\":1}"},
         {"{}"}},
        {"{\"enum\":[[1],[1,2],[\"a\"]],\"items\":{\"type\":\"integer\"},\"maxItems\":1}",
         {"[1]"},
         {"[1,2]", "[\"a\"]"}},
        {"{\"enum\":[1,2,3],\"anyOf\":[{\"minimum\":3},{\"maximum\":1}]}", {"1", "3"}, {"2"}},
        {"{\"enum\":[1,2,3],\"oneOf\":[{\"minimum\":2},{\"maximum\":2}]}", {"1", "3"}, {"2"}},
        {"{\"const\":1,\"enum\":[1.0,2]}", {"1"}, {"2"}},
        {"{\"type\":\"integer\",\"anyOf\":[{\"maximum\":2},{\"minimum\":8}],\"minimum\":1,\"maximum\":9}",
         {"1", "2", "8", "9"},
         {"0", "5"}},
        {"{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"a\"]},{\"type\":"
         "\"object\",\"properties\":"
         "{\"ab\":{}},\"required\":[\"ab\"]}]}",
         {"{\"a\":1}", "{\"ab\":1}"},
         {"{}", "{\"a\":1,\"ab\":1}"}},
        {"{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"integer\"},{\"enum\":[null,true]}]}",
         {"\"a\"", "1", "null"},
         {"false"}},
        {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":1}},\"required\":[\"k\"]},{"
         "\"type\":\"object\","
         "\"properties\":{\"k\":{\"const\":2},\"v\":{}},\"required\":[\"k\",\"v\"]}]}",
         {"{\"k\":1}", "{\"k\":2,\"v\":0}"},
         {"{\"k\":2}", "{\"k\":3}"}},
        {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"a\"],"
         "\"additionalProperties\":false},{\"type\":"
         "\"object\",\"properties\":{\"b\":{}},\"required\":[\"b\"]}]}",
         {"{\"a\":1}", "{\"b\":1}"},
         {"{}"}},
        {"{\"oneOf\":[{\"type\":\"number\",\"maximum\":1},{\"type\":\"number\",\"exclusiveMinimum\":1}]}",
         {"1", "2"},
         {"\"a\""}},
        {"{\"oneOf\":[{\"type\":\"string\",\"maxLength\":1},{\"anyOf\":[{\"type\":\"string\",\"minLength\":2}"
         ",{\"type\":\"null\"}]}]}",
         {"\"a\"", "\"ab\"", "null"},
         {"1"}},
        {"{\"$defs\":{\"l\":{\"type\":\"object\",\"properties\":{\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/"
         "l\"},{\"type\":\"null\"}]}},"
         "\"required\":[\"next\"]}},\"$ref\":\"#/$defs/l\"}",
         {"{\"next\":null}", "{\"next\":{\"next\":{\"next\":null}}}"},
         {"{}", "{\"next\":1}", "{\"next\":{}}"}},
        {"{\"items\":{\"$ref\":\"#\"},\"type\":\"array\"}", {"[]", "[[],[[]]]"}, {"[1]"}},
        {"{\"properties\":{\"a/b~c "
         "d\":{\"type\":\"integer\"},\"q\":{\"$ref\":\"#/properties/a~1b~0c%20d\"}},\"required\":[\"q\"]}",
         {"{\"q\":1}"},
         {"{\"q\":\"a\"}"}},
        {"{\"prefixItems\":[{\"type\":\"null\"},{\"$ref\":\"#/prefixItems/0\"}],\"minItems\":2}",
         {"[null,null]"},
         {"[null,1]"}},
        {"{\"$defs\":{\"s\":{\"type\":\"string\"}},\"$ref\":\"#/$defs/s\",\"maxLength\":1}",
         {"\"a\""},
         {"\"ab\"", "1"}},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", {"null"}, {"1"}},
        {"{\"not-a-keyword\":1,\"nullable\":true,\"if\":{\"type\":\"null\"}}", {"1", "{\"a\":[]}"}, {"x"}},
    };
    (void)state;
    check_cases(cases, ARRAY_LEN(cases));
}

static void test_refused(void **state) {
    static const struct {
        const char *schema;
        enum status status;
        const char *text;
    } cases[] = {
        {"{\"properties\":{\"a\":{\"not\":{}}}}", ERR_INVALID,
         "schema keyword at /properties/a/not is not supported"},
        {"{\"anyOf\":[{},{\"items\":{\"uniqueItems\":true}}]}", ERR_INVALID,
         "/anyOf/1/items/uniqueItems is not"},
        {"{\"$defs\":{\"x/y\":{\"contains\":1}},\"$ref\":\"#/$defs/x~1y\"}", ERR_INVALID,
         "/$defs/x~1y/contains is not"},
        {"{\"if\":{},\"then\":{}}", ERR_INVALID, "/if is not"},
        {"{\"propertyNames\":{}}", ERR_INVALID, "/propertyNames is not"},
        {"{\"dependentRequired\":{}}", ERR_INVALID, "/dependentRequired is not"},
        {"{\"pattern\":\"(?=a)\"}", ERR_INVALID, "/pattern is not supported: a group that looks"},
        {"{\"pattern\":\"(a)\\\\1\"}", ERR_INVALID, "/pattern is not supported: an escape"},
        {"{\"pattern\":\"\\\\bword\"}", ERR_INVALID, "/pattern is not"},
        {"{\"pattern\":\"a{2000}\"}", ERR_INVALID, "a count"},
        {"{\"pattern\":\"(\"}", ERR_INVALID, "a ( without"},
        {"{\"pattern\":\")\"}", ERR_INVALID, "a ) without"},
        {"{\"pattern\":\"[a\"}", ERR_INVALID, "a [ without"},
        {"{\"pattern\":\"*\"}", ERR_INVALID, "a repetition of nothing"},
        {"{\"pattern\":\"[z-a]\"}", ERR_INVALID, "a range"},
        {"{\"pattern\":\"(a{1000}){1000}\"}", ERR_INVALID, "its size"},
        {"{\"pattern\":\".*a.{20}\"}", ERR_INVALID, "states"},
        {"{\"pattern\":\"^a+$\",\"maxLength\":100000}", ERR_INVALID,
         "/pattern is not supported: with the lengths"},
        {"{\"format\":\"regex\"}", ERR_INVALID, "/format is not supported: \"regex\""},
        {"{\"$ref\":\"http://x/y\"}", ERR_INVALID, "/$ref is not supported"},
        {"{\"$ref\":\"#/nowhere\"}", ERR_INVALID, "/$ref points to nothing"},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", ERR_INVALID,
         "/oneOf is not supported where"},
        {"{\"oneOf\":[{\"properties\":{\"a\":{}}},{\"type\":\"string\"}]}", ERR_INVALID,
         "/oneOf is not supported where"},
        {"{\"multipleOf\":123.456789}", ERR_INVALID, "/multipleOf is not supported"},
        {"{\"type\":\"object\",\"minProperties\":3}", ERR_INVALID, "/minProperties is not"},
        {"{\"allOf\":[{\"patternProperties\":{\"a\":{}}},{\"patternProperties\":{\"b\":{}}}]}", ERR_INVALID,
         "/allOf/1/patternProperties is not"},
        {"{\"allOf\":[{\"multipleOf\":2},{\"multipleOf\":3}]}", ERR_INVALID, "/multipleOf is not"},
        {"{\"type\":\"strin\"}", ERR_INVALID, "schema keyword at /type must be"},
        {"{\"minLength\":-1}", ERR_INVALID, "/minLength must be"},
        {"{\"minimum\":\"1\"}", ERR_INVALID, "/minimum must be"},
        {"{\"multipleOf\":0}", ERR_INVALID, "/multipleOf must be"},
        {"{\"enum\":[]}", ERR_INVALID, "/enum must be"},
        {"{\"anyOf\":[]}", ERR_INVALID, "/anyOf must be"},
        {"{\"required\":[1]}", ERR_INVALID, "/required must be"},
        {"{\"properties\":[]}", ERR_INVALID, "/properties must be"},
        {"{\"properties\":{\"a\":1}}", ERR_INVALID, "schema at \"/properties/a\" must be"},
        {"{\"pattern\":1}", ERR_INVALID, "/pattern must be"},
        {"{\"$ref\":1}", ERR_INVALID, "/$ref must be"},
        {"{\"uniqueItems\":1}", ERR_INVALID, "/uniqueItems must be"},
        {"{\"items\":1}", ERR_INVALID, "/items must be"},
        {"{\"additionalProperties\":1}", ERR_INVALID, "/additionalProperties must be"},
        {"{\"unevaluatedItems\":1}", ERR_INVALID, "/unevaluatedItems must be"},
        {"{\"type\":\"string\",\"enum\":[1,2]}", ERR_INVALID, "nothing can satisfy"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", ERR_INVALID, "nothing can satisfy"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", ERR_INVALID, "nothing can satisfy"},
        {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", ERR_INVALID,
         "nothing can satisfy"},
        {"{\"properties\":{\"a\":{},\"b\":{}},\"required\":[\"a\",\"b\"],\"maxProperties\":1}", ERR_INVALID,
         "nothing can"},
        {"false", ERR_INVALID, "nothing can satisfy"},
        {"17", ERR_INVALID, "must be an object"},
        {"{\"type\":", ERR_INVALID, "the schema is no JSON"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct grammar *g;
        struct err err = {0};
        enum status status = compile_schema(cases[i].schema, &g, &err);
        if (status == OK)
            fail_msg("%s compiles", cases[i].schema);
        if (status != cases[i].status || !strstr(err.text, cases[i].text))
            fail_msg("%s: %s", cases[i].schema, err.text);
    }
}

/* The path of the request goes in front. */
static void test_path(void **state) {
    struct grammar_part part = {
        .kind = GRAMMAR_SCHEMA,
        .text = STR("{\"$defs\":{\"x\":{\"not\":{}}},\"items\":{\"$ref\":\"#/$defs/x\"}}"),
        .path = STR("/tools/0/parameters")};
    struct grammar *g;
    struct err err;
    (void)state;
    assert_int_equal(grammar_compile(vocab, &part, &g, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "at /tools/0/parameters/$defs/x/not is"));
}

/* --- hostile schemas end with a status, soon --- */

static void repeat(struct buf *b, const char *text, u32 n) {
    for (u32 i = 0; i < n; i++)
        buf_printf(b, text, i, i, i);
}

/* Every schema is judged in less than a second; 5 s of processor time are for sanitizers. */
static void assert_hostile(struct buf *b, bool may_compile) {
    struct grammar *g;
    struct err err = {0};
    clock_t start = clock();
    if (compile_schema(buf_cstr(b), &g, &err) == OK) {
        assert_true(may_compile);
        grammar_free(g);
    }
    assert_true(clock() - start < 5 * CLOCKS_PER_SEC);
    buf_release(b);
}

static void test_hostile(void **state) {
    struct buf b = {0};
    (void)state;
    repeat(&b, "{\"items\":", 150); /* depth */
    buf_add_str(&b, STR("{}"));
    repeat(&b, "}", 150);
    assert_hostile(&b, true);
    buf_add_str(&b, STR("{\"enum\":[")); /* prefixes of each other */
    for (u32 i = 1; i < 1200; i++) {
        buf_add_str(&b, STR("\""));
        repeat(&b, "a", i);
        buf_add_str(&b, STR("\","));
    }
    buf_add_str(&b, STR("1]}"));
    assert_hostile(&b, true);
    buf_add_str(&b, STR("{\"allOf\":[")); /* 2^20 combinations */
    for (u32 i = 0; i < 20; i++)
        buf_printf(&b, "{\"anyOf\":[{\"minimum\":%u},{\"maximum\":%u}]},", i, i);
    buf_add_str(&b, STR("{}]}"));
    assert_hostile(&b, false);
    buf_add_str(&b, STR("{\"allOf\":[")); /* too many at once */
    repeat(&b, "{\"minimum\":%u},", 100);
    buf_add_str(&b, STR("{}]}"));
    assert_hostile(&b, false);
    buf_add_str(&b, STR("{\"properties\":{")); /* wide */
    repeat(&b, "\"p%u\":{\"type\":\"string\",\"pattern\":\"^a{%u}$\"},", 900);
    buf_add_str(&b, STR("\"z\":{}},\"additionalProperties\":true}"));
    assert_hostile(&b, false);
    buf_add_str(&b, STR("{\"pattern\":\"")); /* nothing, 1000^20 times */
    repeat(&b, "(", 20);
    repeat(&b, "){1000}", 20);
    buf_add_str(&b, STR("\"}"));
    assert_hostile(&b, true);
    buf_add_str(&b, STR("{\"enum\":[0],"));
    repeat(&b, "\"anyOf\":[{", 40); /* choices inside of choices around a given value */
    repeat(&b, "}]", 40);
    buf_add_str(&b, STR("}"));
    assert_hostile(&b, false);
    repeat(&b,
           "{\"properties\":{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":",
           90);
    buf_add_str(&b, STR("{\"not\":1}"));
    repeat(&b, "}}", 90);
    assert_hostile(&b, false);
    buf_add_str(&b, STR("{\"enum\":[")); /* each is valid: it is in the list */
    repeat(&b, "%u,", 30000);
    buf_add_str(&b, STR("0]}"));
    assert_hostile(&b, true);
    buf_add_str(&b, STR("{\"allOf\":[{\"enum\":[")); /* each is looked for in the other list */
    repeat(&b, "%u,", 30000);
    buf_add_str(&b, STR("0]},{\"enum\":["));
    for (u32 i = 30000; i > 0; i--)
        buf_printf(&b, "%u,", i);
    buf_add_str(&b, STR("0]}]}"));
    assert_hostile(&b, false);
    buf_add_str(&b, STR("{\"pattern\":\"(a|b){0,900}c\",\"const\":\"")); /* 900 places for each character */
    repeat(&b, "a", 900000);
    buf_add_str(&b, STR("\"}"));
    assert_hostile(&b, false);
}

/* Many schemas in one grammar, as a request with many tools makes it: their work counts together. */
static void test_hostile_together(void **state) {
    static struct grammar_part schemas[200];
    struct buf b = {0};
    struct grammar *g;
    struct err err = {0};
    (void)state;
    buf_add_str(&b, STR("{\"allOf\":[{\"enum\":["));
    for (u32 i = 0; i < 1500; i++)
        buf_printf(&b, "%u,", i);
    buf_add_str(&b, STR("-1]},{\"enum\":["));
    for (u32 i = 0; i < 1500; i++)
        buf_printf(&b, "%u,", 5000 + i);
    buf_add_str(&b, STR("-1]}]}"));
    for (u32 i = 0; i < ARRAY_LEN(schemas); i++)
        schemas[i] = (struct grammar_part){.kind = GRAMMAR_SCHEMA, .text = buf_str(&b)};
    struct grammar_part all = {.kind = GRAMMAR_ANY_OF, .parts = schemas, .n_parts = 1};
    assert_int_equal(grammar_compile(vocab, &all, &g, &err), OK);
    grammar_free(g);
    all.n_parts = ARRAY_LEN(schemas);
    assert_int_equal(grammar_compile(vocab, &all, &g, &err), ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "given values"));
    buf_release(&b);
}

/* --- parts --- */

static struct grammar *parts_compile(const struct grammar_part *part) {
    struct grammar *g;
    struct err err;
    if (grammar_compile(vocab, part, &g, &err) != OK)
        fail_msg("%s", err.text);
    return g;
}

static void test_parts(void **state) {
    const struct grammar_part call[] = {{.kind = GRAMMAR_LITERAL, .text = STR("<call>")},
                                        {.kind = GRAMMAR_BLANKS},
                                        {.kind = GRAMMAR_SCHEMA, .text = STR("{\"enum\":[1,2]}")},
                                        {.kind = GRAMMAR_LITERAL, .text = STR("</call>")}};
    const struct grammar_part one = {.kind = GRAMMAR_SEQUENCE, .parts = call, .n_parts = ARRAY_LEN(call)};
    const struct grammar_part some[] = {
        {.kind = GRAMMAR_REPEAT, .parts = &one, .n_parts = 1, .min = 1, .max = 2},
        {.kind = GRAMMAR_JSON},
        {.kind = GRAMMAR_REPEAT, .parts = &one, .n_parts = 1, .min = 3}};
    const struct grammar_part any = {.kind = GRAMMAR_ANY_OF, .parts = some, .n_parts = ARRAY_LEN(some)};
    (void)state;
    struct grammar *g = parts_compile(&any);
    assert_true(takes(g, "<call>1</call>"));
    assert_true(takes(g, "<call>\n2</call><call>1</call>"));
    assert_true(takes(g, "<call>1</call><call>1</call><call>1</call><call>1</call>"));
    assert_true(takes(g, "{\"a\":1}"));
    assert_false(takes(g, ""));
    assert_false(takes(g, "[1]"));
    assert_false(takes(g, "<call>3</call>"));
    assert_false(takes(g, "<call>1</call>x"));
    grammar_free(g);

    const struct grammar_part thinking[] = {{.kind = GRAMMAR_UNTIL, .text = STR("ababc")},
                                            {.kind = GRAMMAR_SCHEMA, .text = STR("{\"type\":\"null\"}")}};
    g = parts_compile(&(struct grammar_part){.kind = GRAMMAR_SEQUENCE, .parts = thinking, .n_parts = 2});
    assert_true(takes(g, "ababcnull"));
    assert_true(takes(g, "any\xff abababcnull"));
    assert_false(takes(g, "ababnull"));
    assert_false(takes(g, "ababcx ababcnull"));
    grammar_free(g);

    g = parts_compile(&(struct grammar_part){.kind = GRAMMAR_TEXT, .text = STR("<x>")});
    assert_true(takes(g, ""));
    assert_true(takes(g, "a < b <x <"));
    assert_false(takes(g, "a <<x>"));
    grammar_free(g);
}

static void test_control_tokens(void **state) {
    const struct grammar_part parts[] = {{.kind = GRAMMAR_UNTIL, .text = STR("[CALL]")},
                                         {.kind = GRAMMAR_JSON}};
    struct grammar *g =
        parts_compile(&(struct grammar_part){.kind = GRAMMAR_SEQUENCE, .parts = parts, .n_parts = 2});
    struct grammar_run r;
    struct err err;
    u32 mask[16];
    (void)state;
    grammar_run_start(g, &r);
    assert_true(grammar_run_feed(&r, STR("text [CALL] {")));
    assert_int_equal(grammar_run_mask(&r, mask, &err), OK);
    assert_true(mask[call_token / 32] >> (call_token % 32) & 1);
    assert_false(mask[end_token / 32] >> (end_token % 32) & 1);
    assert_false(grammar_run_accept(&r, end_token));
    assert_true(grammar_run_accept(&r, call_token));
    assert_false(grammar_run_accept(&r, call_token));
    assert_false(grammar_run_feed(&r, STR("x")));
    assert_true(grammar_run_feed(&r, STR("{\"a\":1}")));
    assert_true(grammar_run_over(&r));
    assert_true(grammar_run_accept(&r, end_token));
    grammar_run_release(&r);
    grammar_free(g);
}

/* --- runs --- */

static void test_copies(void **state) {
    struct grammar *g;
    struct grammar_run r, mark;
    struct err err;
    u32 before[16] = {0}, after[16] = {0};
    (void)state;
    assert_int_equal(compile_schema("{\"items\":{\"maxLength\":3}}", &g, &err), OK);
    grammar_run_start(g, &r);
    assert_true(grammar_run_feed(&r, STR("[\"ab")));
    grammar_run_copy(&r, &mark);
    assert_int_equal(grammar_run_mask(&r, before, &err), OK);
    assert_true(grammar_run_feed(&r, STR("c\",\"")));
    grammar_run_release(&r);
    r = mark;
    assert_int_equal(grammar_run_mask(&r, after, &err), OK);
    assert_memory_equal(before, after, sizeof before);
    assert_false(grammar_run_accept(&r, '\n'));
    assert_true(grammar_run_accept(&r, 'c'));
    assert_false(grammar_run_accept(&r, 'd'));
    assert_true(grammar_run_feed(&r, STR("\"]")));
    assert_true(grammar_run_over(&r));
    assert_int_equal(grammar_run_mask(&r, after, &err), OK);
    for (u32 id = 0; id < tokenizer_n_vocab(tokenizer); id++)
        assert_int_equal(after[id / 32] >> (id % 32) & 1, id == end_token);
    grammar_run_release(&r);
    grammar_run_release(&r);
    grammar_free(g);
}

/* Numbers may go on: complete, but not over. */
static void test_complete_is_not_over(void **state) {
    struct grammar *g;
    struct grammar_run r;
    struct err err;
    (void)state;
    assert_int_equal(compile_schema("{\"type\":\"integer\",\"maximum\":99,\"minimum\":0}", &g, &err), OK);
    grammar_run_start(g, &r);
    assert_false(grammar_run_complete(&r));
    assert_true(grammar_run_accept(&r, '1'));
    assert_true(grammar_run_complete(&r));
    assert_false(grammar_run_over(&r));
    assert_true(grammar_run_accept(&r, '1'));
    assert_true(grammar_run_over(&r));
    grammar_run_release(&r);
    grammar_free(g);
}

/* Many more states than the cache holds: old runs stay right, and masks are the same as in a grammar that has
 * seen nothing else. Depth ends where JSON readers do, without a dead end. */
static void test_forgetting(void **state) {
    struct grammar *g, *fresh;
    struct grammar_run r, old, other;
    struct err err;
    u32 mask[16] = {0}, want[16] = {0}, depth = 0;
    (void)state;
    assert_int_equal(compile_schema("true", &g, &err), OK);
    assert_int_equal(compile_schema("true", &fresh, &err), OK);
    grammar_run_start(g, &old);
    assert_true(grammar_run_feed(&old, STR("{\"a\":[{\"b\":[")));
    for (u32 round = 0; round < 60; round++) {
        u32 bits = round * 2654435761u;
        grammar_run_start(g, &r);
        grammar_run_start(fresh, &other);
        for (depth = 0;; depth++) {
            struct str open = bits >> (depth % 32) & 1 ? STR("[") : STR("{\"k\":");
            if (!grammar_run_feed(&r, open))
                break;
            assert_true(round > 0 || grammar_run_feed(&other, open));
        }
        if (round == 0) {
            assert_int_equal(grammar_run_mask(&r, mask, &err), OK);
            assert_int_equal(grammar_run_mask(&other, want, &err), OK);
            assert_memory_equal(mask, want, sizeof mask);
        }
        grammar_run_release(&r);
        grammar_run_release(&other);
    }
    assert_true(depth > 50 && depth <= LIMIT_GRAMMAR_DEPTH + 1);
    assert_true(grammar_run_feed(&old, STR("1.5, \"x\"]}]}")));
    assert_true(grammar_run_over(&old));
    grammar_run_release(&old);
    grammar_free(g);
    grammar_free(fresh);
}

/* More runs at once than the cache has room for states: each goes on where it stood. */
static void test_many_runs(void **state) {
    static struct grammar_run runs[3000];
    struct grammar *g;
    struct err err;
    (void)state;
    assert_int_equal(compile_schema("{\"type\":\"object\"}", &g, &err), OK);
    for (u32 i = 0; i < ARRAY_LEN(runs); i++) {
        grammar_run_start(g, &runs[i]);
        assert_true(grammar_run_feed(&runs[i], STR("{\"a\":")));
        for (u32 bit = 0; bit < 12; bit++) /* a stack of its own */
            assert_true(grammar_run_feed(&runs[i], i >> bit & 1 ? STR("[") : STR("{\"k\":")));
    }
    for (u32 i = 0; i < ARRAY_LEN(runs); i++) {
        assert_true(grammar_run_feed(&runs[i], STR("-0.5")));
        for (u32 bit = 12; bit-- > 0;) {
            assert_false(grammar_run_feed(&runs[i], i >> bit & 1 ? STR("}") : STR("]")));
            assert_true(grammar_run_feed(&runs[i], i >> bit & 1 ? STR("]") : STR("}")));
        }
        assert_true(grammar_run_feed(&runs[i], STR("}")));
        assert_true(grammar_run_over(&runs[i]));
        grammar_run_release(&runs[i]);
    }
    grammar_free(g);
}

/* --- threads --- */

static const char thread_text[] = "{\"a\": [1, {\"b\": \"text \\u00e9\"}], \"c\": -1.5e3, \"d\": [[[null]]]}";

/* All masks along a text, summed up. */
static void *walk_text(void *arg) {
    static const u64 failed = 1;
    u64 sum = 0;
    for (u32 round = 0; round < 50; round++) {
        struct grammar_run r;
        struct err err;
        u32 mask[16] = {0};
        grammar_run_start(arg, &r);
        sum = 0;
        for (const char *c = thread_text; *c; c++) {
            if (grammar_run_mask(&r, mask, &err) != OK || !grammar_run_accept(&r, (u8)*c))
                return (void *)(uintptr_t)failed;
            sum = hash_bytes(mask, sizeof mask, sum);
        }
        sum += grammar_run_over(&r);
        grammar_run_release(&r);
    }
    return (void *)(uintptr_t)sum;
}

/* Goal: threads that use one grammar at once see the masks that one alone sees. */
static void test_threads(void **state) {
    struct grammar *shared, *own;
    struct err err;
    pthread_t threads[4];
    (void)state;
    assert_int_equal(compile_schema("{\"type\":\"object\"}", &shared, &err), OK);
    assert_int_equal(compile_schema("{\"type\":\"object\"}", &own, &err), OK);
    for (u32 i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, walk_text, shared), 0);
    void *want = walk_text(own), *got;
    for (u32 i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], &got);
        assert_ptr_equal(got, want);
    }
    grammar_free(shared);
    grammar_free(own);
}

/* A vocabulary without some bytes: what cannot be written is never begun. */
static void test_gaps(void **state) {
    static const char letters[] = "{}[]\",:ab01 \xc3\xa9";
    static struct sample s;
    struct grammar *g;
    struct err err;
    (void)state;
    sample_init(&s, "llama");
    sample_add(&s, STR("<unk>"), UNKNOWN, 0);
    for (const char *c = letters; *c; c++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (u8)*c);
        sample_add(&s, str_of(text), BYTE, 0);
    }
    u32 pair = sample_add(&s, STR("\xc3\xa8"), NORMAL, -1); /* the second byte alone is no token */
    struct tokenizer *t = sample_open_ok(&s);
    struct grammar_vocab *v = grammar_vocab_new(t);
    struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = STR("{\"enum\":[\"a\",\"x\",\"b\"]}")};
    assert_int_equal(grammar_compile(v, &part, &g, &err), OK);
    struct grammar_run r;
    u32 mask[1];
    grammar_run_start(g, &r);
    assert_true(grammar_run_feed(&r, STR("\"")));
    assert_int_equal(grammar_run_mask(&r, mask, &err), OK);
    u32 n = 0;
    for (u32 id = 0; id < tokenizer_n_vocab(t); id++)
        n += mask[0] >> id & 1;
    assert_int_equal(n, 2); /* a and b */
    grammar_run_release(&r);
    grammar_free(g);
    part.text = STR("{\"const\":\"x\"}");
    assert_int_equal(grammar_compile(v, &part, &g, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "cannot write"));
    part.text = STR("{\"type\":\"string\"}");
    assert_int_equal(grammar_compile(v, &part, &g, &err), OK);
    grammar_run_start(g, &r);
    assert_true(grammar_run_feed(&r, STR("\"")));
    assert_int_equal(grammar_run_mask(&r, mask, &err), OK);
    assert_true(mask[0] >> pair & 1);
    assert_true(grammar_run_accept(&r, pair));
    grammar_run_release(&r);
    grammar_free(g);
    grammar_vocab_free(v);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings),      cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_all_integers), cmocka_unit_test(test_objects),
        cmocka_unit_test(test_arrays),       cmocka_unit_test(test_combined),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_path),
        cmocka_unit_test(test_hostile),      cmocka_unit_test(test_hostile_together),
        cmocka_unit_test(test_parts),        cmocka_unit_test(test_control_tokens),
        cmocka_unit_test(test_copies),       cmocka_unit_test(test_complete_is_not_over),
        cmocka_unit_test(test_forgetting),   cmocka_unit_test(test_many_runs),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_gaps),
    };
    return cmocka_run_group_tests(tests, vocab_make, vocab_drop);
}
