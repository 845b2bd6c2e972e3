/* create_text.c - the parts of a create request that become text: messages, licenses, config. */
#include "api/create.h"

/* --- messages --- */

static enum status message_json(const json_t *m, struct buf *out, struct err *err) {
    static const char *const others[] = {"thinking", "images", "tool_calls", "tool_name", "tool_call_id"};
    struct str role = json_text(json_object_get(m, "role"));
    char lower[16];
    if (!json_is_object(m) || role.n == 0 || role.n >= sizeof lower)
        return err_set(err, ERR_INVALID, "a message needs a role: system, user, assistant or tool");
    for (size_t i = 0; i < role.n; i++)
        lower[i] = (char)(role.p[i] >= 'A' && role.p[i] <= 'Z' ? role.p[i] + 32 : role.p[i]);
    role.p = lower;
    if (!str_is(role, "system") && !str_is(role, "user") && !str_is(role, "assistant") &&
        !str_is(role, "tool"))
        return err_set(err, ERR_INVALID, "a message needs a role: system, user, assistant or tool");
    json_open(out, '{');
    json_key(out, "role"), json_str(out, role);
    json_key(out, "content"), json_str(out, json_text(json_object_get(m, "content")));
    for (u32 i = 0; i < ARRAY_LEN(others); i++) {
        const json_t *v = json_object_get(m, others[i]);
        struct buf text = {0};
        if (!v || json_is_null(v))
            continue;
        json_write(&text, v);
        json_key(out, others[i]), json_raw(out, buf_str(&text));
        buf_release(&text);
    }
    json_close(out, '}');
    return OK;
}

enum status create_messages_json(const json_t *messages, struct buf *out, struct err *err) {
    size_t i;
    json_t *m;
    json_open(out, '[');
    json_array_foreach(messages, i, m) TRY(message_json(m, out, err));
    json_close(out, ']');
    buf_add_char(out, '\n');
    return OK;
}

/* --- licenses --- */

enum status create_licenses(const json_t *license, struct arena *a, struct str **out, u32 *n,
                            struct err *err) {
    json_t *item;
    size_t i;
    *n = 0;
    *out = ARENA_ARRAY(a, struct str, MAX(json_array_size(license), (size_t)1));
    if (json_is_string(license)) {
        if (json_string_length(license))
            (*out)[(*n)++] = json_text(license);
        return OK;
    }
    if (license && !json_is_array(license))
        return err_set(err, ERR_INVALID, "json: cannot unmarshal %s into Go value of type []string",
                       json_kind(license));
    json_array_foreach(license, i, item) {
        if (!json_is_string(item))
            return err_set(err, ERR_INVALID, "json: cannot unmarshal %s into Go value of type string",
                           json_kind(item));
        (*out)[(*n)++] = json_text(item);
    }
    return OK;
}

/* --- info --- */

static enum status info_text(const json_t *info, const char *key, struct str *to, struct err *err) {
    const json_t *v = json_object_get(info, key);
    if (v && !json_is_string(v))
        return err_set(err, ERR_INVALID, "info field \"%s\" must be a string", key);
    if (json_string_length(v))
        *to = json_text(v);
    return OK;
}

static enum status info_number(const json_t *info, const char *key, u64 *to, struct err *err) {
    const json_t *v = json_object_get(info, key);
    if (!v)
        return OK;
    if (!json_is_number(v))
        return err_set(err, ERR_INVALID, "info field \"%s\" must be a number", key);
    f64 real = json_number_value(v);
    if (!(real >= 0 && real <= 0x1p53) || real != (f64)(u64)real)
        return err_set(err, ERR_INVALID, "info field \"%s\" must be a non-negative integer", key);
    *to = (u64)real;
    return OK;
}

enum status create_info(const json_t *info, struct arena *a, struct store_config *config, struct err *err) {
    const json_t *list = json_object_get(info, "capabilities");
    json_t *item;
    size_t i;
    if (!info)
        return OK;
    struct str *all = ARENA_ARRAY(a, struct str, config->n_capabilities + json_array_size(list));
    for (u32 k = 0; k < config->n_capabilities; k++)
        all[k] = config->capabilities[k];
    config->capabilities = all;
    json_array_foreach(list, i, item) if (json_is_string(item)) all[config->n_capabilities++] =
        json_text(item);
    struct str family = STR_NONE;
    TRY(info_text(info, "model_family", &family, err));
    if (family.n) {
        struct str *families = ARENA_ARRAY(a, struct str, config->n_families + 1);
        families[0] = config->family = family;
        for (u32 k = 0; k < config->n_families; k++)
            families[k + 1] = config->families[k];
        config->families = families;
        config->n_families++;
    }
    TRY(info_text(info, "base_name", &config->base_name, err));
    TRY(info_text(info, "quantization_level", &config->file_type, err));
    TRY(info_text(info, "parameter_size", &config->type, err));
    TRY(info_number(info, "context_length", &config->context_length, err));
    return info_number(info, "embedding_length", &config->embedding_length, err);
}

/* --- quantization --- */

const char *create_quantization(struct str text) {
    static const char *const types[] = {"F32", "F16", "BF16", "Q4_K_S", "Q4_K_M", "Q8_0"};
    if (str_eq_nocase(text, STR("Q4_K")))
        return "Q4_K_M";
    for (u32 i = 0; i < ARRAY_LEN(types); i++)
        if (str_eq_nocase(text, str_of(types[i])))
            return types[i];
    return NULL;
}
