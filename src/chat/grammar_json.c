/* grammar_json.c - the texts of JSON itself.
 *
 * White space is bounded, so that a model cannot go on with blanks forever, and so are the digits of a
 * number. \u0000 is left out, as many a reader refuses it; a surrogate is written in pairs only. */
#include "chat/grammar_parts.h"

#define INDENT_MAX 32u

u32 build_blanks(struct build *b, u32 to) {
    u32 space = build_byte(b, ' ', ' ', NODE_THE_END);
    build_edge(b, space, '\t', '\t', NODE_THE_END);
    u32 indent = build_loop(b, space, 0, INDENT_MAX, to);
    u32 line = build_either(b, indent, build_byte(b, '\n', '\n', indent));
    u32 some = build_byte(b, ' ', ' ', to);
    build_edge(b, some, '\n', '\n', line);
    return build_either(b, some, to);
}

u32 build_colon(struct build *b, u32 to) {
    return build_byte(b, ':', ':', build_either(b, to, build_byte(b, ' ', ' ', to)));
}

/* --- strings --- */

static void hex_edges(struct build *b, u32 from, u8 lo, u8 hi, u32 to) {
    for (u8 d = lo; d <= hi; d++) {
        u8 c = (u8) "0123456789abcdef"[d];
        build_edge(b, from, c, c, to);
        if (d > 9)
            build_edge(b, from, (u8)(c - 32), (u8)(c - 32), to);
    }
}

static u32 hex_digits(struct build *b, u32 n, u32 to) {
    for (u32 i = 0; i < n; i++) {
        u32 node = build_node(b, NODE_BYTES);
        hex_edges(b, node, 0, 15, to);
        to = node;
    }
    return to;
}

/* Behind "\u": any code unit but 0 and single surrogates. */
static u32 build_unicode(struct build *b, u32 to) {
    u32 one = hex_digits(b, 1, to), two = hex_digits(b, 1, one), three = hex_digits(b, 1, two);
    u32 last = build_node(b, NODE_BYTES), third = build_node(b, NODE_BYTES);
    hex_edges(b, last, 1, 15, to);
    hex_edges(b, third, 0, 0, last);
    hex_edges(b, third, 1, 15, one);
    u32 second = build_node(b, NODE_BYTES);
    hex_edges(b, second, 0, 0, third);
    hex_edges(b, second, 1, 15, two);

    u32 low = build_node(b, NODE_BYTES), low_d = build_node(b, NODE_BYTES);
    hex_edges(b, low, 12, 15, two);
    hex_edges(b, low_d, 13, 13, low);
    u32 pair = hex_digits(b, 2, build_literal(b, STR("\\u"), low_d));
    u32 after_d = build_node(b, NODE_BYTES);
    hex_edges(b, after_d, 0, 7, two);
    hex_edges(b, after_d, 8, 11, pair);

    u32 first = build_node(b, NODE_BYTES);
    hex_edges(b, first, 0, 0, second);
    hex_edges(b, first, 1, 12, three);
    hex_edges(b, first, 13, 13, after_d);
    hex_edges(b, first, 14, 15, three);
    return first;
}

/* Any one character as a string may hold it. */
static void char_edges(struct build *b, u32 from, u32 to) {
    build_code_points(b, from, 0x20, 0x21, to);
    build_code_points(b, from, 0x23, 0x5b, to);
    build_code_points(b, from, 0x5d, 0x10ffff, to);
    u32 escape = build_node(b, NODE_BYTES);
    for (const char *c = "\"\\/bfnrt"; *c; c++)
        build_edge(b, escape, (u8)*c, (u8)*c, to);
    build_edge(b, escape, 'u', 'u', build_unicode(b, to));
    build_edge(b, from, '\\', '\\', escape);
}

static u32 chars_without_end(struct build *b, u32 to) {
    u32 node = build_node(b, NODE_BYTES);
    char_edges(b, node, node);
    build_edge(b, node, '"', '"', to);
    b->a.nodes[node].plain_star = true;
    return node;
}

static u32 any_string(struct build *b, u32 to) {
    if (b->string == NODE_NONE)
        b->string = build_byte(b, '"', '"', chars_without_end(b, NODE_THE_END));
    return build_call(b, b->string, to);
}

u32 build_string(struct build *b, u64 min, u64 max, u32 to) {
    if (min == 0 && max >= UINT32_MAX)
        return any_string(b, to);
    if (min > max || min >= UINT32_MAX)
        return build_node(b, NODE_BYTES); /* nothing is as long */
    if (b->one_char == NODE_NONE) {
        b->one_char = build_node(b, NODE_BYTES);
        char_edges(b, b->one_char, NODE_THE_END);
        b->a.nodes[b->one_char].plain_one = true;
    }
    bool endless = max >= UINT32_MAX;
    u32 rest = endless ? chars_without_end(b, to) : build_byte(b, '"', '"', to);
    u32 chars = build_loop(b, b->one_char, (u32)min, endless ? (u32)min : (u32)max, rest);
    if (chars != rest)
        b->a.nodes[chars].then_star = endless;
    return build_byte(b, '"', '"', chars);
}

/* --- numbers --- */

/* From at least one to `most` digits. */
static u32 some_digits(struct build *b, u32 most, u32 to) {
    u32 node = build_byte(b, '0', '9', to);
    for (u32 i = 1; i < most; i++)
        node = build_byte(b, '0', '9', build_either(b, node, to));
    return node;
}

u32 build_any_number(struct build *b, u32 to) {
    if (b->number == NODE_NONE) {
        u32 power = some_digits(b, 2, NODE_THE_END); /* 10^99 fits every reader */
        u32 sign = build_byte(b, '+', '+', power);
        build_edge(b, sign, '-', '-', power);
        u32 signed_power = build_either(b, sign, power);
        u32 exponent = build_byte(b, 'e', 'e', signed_power);
        build_edge(b, exponent, 'E', 'E', signed_power);
        u32 scaled = build_either(b, exponent, NODE_THE_END);
        u32 point = build_byte(b, '.', '.', some_digits(b, LIMIT_NUMBER_DIGITS, scaled));
        u32 after = build_either(b, point, scaled);
        u32 more = build_either(b, some_digits(b, LIMIT_NUMBER_DIGITS - 1, after), after);
        u32 digits = build_byte(b, '1', '9', more);
        build_edge(b, digits, '0', '0', after);
        b->number = build_either(b, digits, build_byte(b, '-', '-', digits));
    }
    return build_call(b, b->number, to);
}

/* --- values --- */

/* open, nothing or items with commas between, close. */
static u32 build_list(struct build *b, char open, u32 item_rule, char close) {
    u32 end = build_blanks(b, build_byte(b, (u8)close, (u8)close, NODE_THE_END));
    u32 more = build_node(b, NODE_SPLIT);
    u32 item = build_call(b, item_rule, more);
    build_empty(b, more, end);
    build_empty(b, more, build_byte(b, ',', ',', build_blanks(b, item)));
    u32 nothing = build_byte(b, (u8)close, (u8)close, NODE_THE_END);
    return build_byte(b, (u8)open, (u8)open, build_blanks(b, build_either(b, nothing, item)));
}

/* The rules for any value refer to each other: the entry of `value` exists before what it leads to. */
static void value_rules(struct build *b) {
    if (b->value != NODE_NONE)
        return;
    b->value = build_node(b, NODE_SPLIT);
    u32 member = any_string(b, build_colon(b, build_call(b, b->value, NODE_THE_END)));
    b->object = build_list(b, '{', member, '}');
    build_empty(b, b->value, b->object);
    build_empty(b, b->value, build_list(b, '[', b->value, ']'));
    build_empty(b, b->value, any_string(b, NODE_THE_END));
    build_empty(b, b->value, build_any_number(b, NODE_THE_END));
    build_empty(b, b->value, build_literal(b, STR("true"), NODE_THE_END));
    build_empty(b, b->value, build_literal(b, STR("false"), NODE_THE_END));
    build_empty(b, b->value, build_literal(b, STR("null"), NODE_THE_END));
}

u32 build_any_value(struct build *b, u32 to) {
    value_rules(b);
    return build_call(b, b->value, to);
}

u32 build_any_object(struct build *b, u32 to) {
    value_rules(b);
    return build_call(b, b->object, to);
}

/* --- free text --- */

/* Knuth, Morris, Pratt: how much of the literal the text ends with. */
u32 build_until(struct build *b, struct str text, bool open_end, u32 to) {
    u32 n = (u32)MIN(text.n, LIMIT_PATTERN_BYTES);
    u32 *node = ARENA_ARRAY(b->arena, u32, n + 1), *fall = ARENA_ARRAY(b->arena, u32, n + 1);
    u32 n_states = MAX(n, 1u);
    for (u32 i = 0; i < n_states; i++)
        node[i] = build_node(b, NODE_BYTES);
    for (u32 i = 1, k = 0; i < n; i++) {
        while (k && text.p[k] != text.p[i])
            k = fall[k - 1];
        k += text.p[k] == text.p[i];
        fall[i] = k;
    }
    for (u32 i = 0; i < n_states && !b->full; i++)
        for (u32 c = 0, from = 0, last = NODE_NONE; c <= 256; c++) {
            u32 k = i, target = NODE_NONE - 1;
            if (c < 256) {
                while (n && k && (u8)text.p[k] != c)
                    k = fall[k - 1];
                k += n && (u8)text.p[k] == c;
                target = n && k == n ? (open_end ? NODE_NONE : to) : node[k];
            }
            if (target == last && c)
                continue;
            if (c && last != NODE_NONE)
                build_edge(b, node[i], (u8)from, (u8)(c - 1), last);
            from = c;
            last = target;
        }
    if (open_end)
        for (u32 i = 0; i < n_states; i++) {
            /* The text may end in every state: the bytes move to a node of their own. */
            u32 bytes = build_node(b, NODE_BYTES);
            b->a.nodes[bytes].edge = b->a.nodes[node[i]].edge;
            b->a.nodes[node[i]].kind = NODE_SPLIT;
            b->a.nodes[node[i]].edge = NODE_NONE;
            build_empty(b, node[i], bytes);
            build_empty(b, node[i], to);
        }
    return node[0];
}
