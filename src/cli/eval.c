/* eval.c - the subcommands of `minka eval`: logits, perplexity, tokenize, detokenize, template. */
#include "cli/eval.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/limit.h"
#include "chat/template.h"
#include "cli/eval_model.h"
#include "tokenize/tokenize.h"

/* A text file or standard input for eval; far above any context. */
#define INPUT_BYTES_MAX (256u << 20)

static const char usage[] =
    "Looks inside a model file, without a server.\n\n"
    "Usage:\n"
    "  minka eval logits FILE.gguf --tokens 1,2,3 [--last]     a line of JSON per position\n"
    "  minka eval perplexity FILE.gguf TEXT                    {\"tokens\":n,\"nll\":sum in "
    "nats,\"perplexity\":x}\n"
    "  minka eval tokenize FILE.gguf [--special] [--add-special]   standard input -> {\"ids\":[...]}\n"
    "  minka eval detokenize FILE.gguf                         {\"ids\":[...]} on standard input -> bytes\n"
    "  minka eval template FILE.gguf|TEMPLATE CONTEXT.json     the rendered text\n\n"
    "Options:\n"
    "  --num-ctx N               context in tokens (4096)\n"
    "  --threads N               compute threads (all usable processors)\n"
    "  --kernels ref|avx2|avx512 kernel tier (the fastest)\n"
    "  --activations f32|q8      q8 as served; f32 quantizes no activation\n"
    "  --cache-type f16|bf16|q8_0|f32   keys and values (f16)\n";

struct eval_args {
    struct eval_options model;
    struct str tokens;
    bool last, special, add_special;
    const char *words[3]; /* subcommand and its operands */
    u32 n_words;
};

/* --- arguments --- */

static enum status parse_count(const char *option, const char *text, u32 max, u32 *out, struct err *err) {
    u64 v;
    if (!text || !str_to_u64(str_of(text), &v) || v < 1 || v > max)
        return err_set(err, ERR_INVALID, "%s takes a number from 1 to %u", option, max);
    *out = (u32)v;
    return OK;
}

/* An option with a value; *used tells whether text was one of ours. */
static enum status parse_valued(struct eval_args *a, const char *option, const char *value, bool *used,
                                struct err *err) {
    struct str o = str_of(option);
    *used = true;
    if (str_is(o, "--num-ctx"))
        return parse_count(option, value, LIMIT_NUM_CTX, &a->model.num_ctx, err);
    if (str_is(o, "--threads"))
        return parse_count(option, value, TEAM_THREADS_MAX, &a->model.n_threads, err);
    *used = str_is(o, "--kernels") || str_is(o, "--activations") || str_is(o, "--cache-type") ||
            str_is(o, "--tokens");
    if (!*used)
        return OK;
    if (!value)
        return err_set(err, ERR_INVALID, "%s needs a value", option);
    if (str_is(o, "--kernels"))
        return kern_open(value, &a->model.kern, err);
    if (str_is(o, "--tokens")) {
        a->tokens = str_of(value);
        return OK;
    }
    if (str_is(o, "--cache-type"))
        return kern_cache_by_name(value, &a->model.cache, err);
    a->model.f32_activations = str_is(str_of(value), "f32");
    if (!a->model.f32_activations && !str_is(str_of(value), "q8"))
        return err_set(err, ERR_INVALID, "%s takes f32 or q8", option);
    return OK;
}

static enum status parse_args(struct eval_args *a, int argc, char **argv, struct err *err) {
    *a = (struct eval_args){.model = {.cache = KERN_CACHE_F16}};
    for (int i = 1; i < argc; i++) {
        struct str word = str_of(argv[i]);
        bool used;
        if (str_is(word, "--last") || str_is(word, "--special") || str_is(word, "--add-special")) {
            a->last |= str_is(word, "--last");
            a->special |= str_is(word, "--special");
            a->add_special |= str_is(word, "--add-special");
            continue;
        }
        TRY(parse_valued(a, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used, err));
        if (used) {
            i++;
            continue;
        }
        if (str_starts(word, STR("--")))
            return err_set(err, ERR_INVALID, "unknown option %s; see minka eval --help", argv[i]);
        if (a->n_words == ARRAY_LEN(a->words))
            return err_set(err, ERR_INVALID, "too many arguments; see minka eval --help");
        a->words[a->n_words++] = argv[i];
    }
    return OK;
}

/* --- files --- */

/* Whole file, or standard input for NULL. */
static enum status read_all(const char *path, struct buf *out, struct err *err) {
    FILE *f = path ? fopen(path, "rb") : stdin;
    if (!f)
        return err_errno(err, ERR_IO, "cannot open %s", path);
    size_t n;
    do {
        buf_reserve(out, 65536);
        n = fread(out->p + out->n, 1, 65536, f);
        out->n += n;
    } while (n && out->n <= INPUT_BYTES_MAX);
    enum status status = OK;
    if (ferror(f))
        status = err_errno(err, ERR_IO, "cannot read %s", path ? path : "standard input");
    else if (out->n > INPUT_BYTES_MAX)
        status = err_set(err, ERR_TOO_LARGE, "%s has more than %u bytes", path ? path : "standard input",
                         INPUT_BYTES_MAX);
    if (path)
        fclose(f);
    return status;
}

static void print_buf(const struct buf *b) { fwrite(b->p, 1, b->n, stdout); }

/* --- logits --- */

struct logits_output {
    u32 n_vocab;
    struct buf line;
};

static void print_logits(void *ctx, u32 position, const f32 *logits) {
    struct logits_output *o = ctx;
    buf_clear(&o->line);
    json_open(&o->line, '{');
    json_key(&o->line, "position");
    json_u64(&o->line, position);
    json_key(&o->line, "logits");
    json_open(&o->line, '[');
    for (u32 i = 0; i < o->n_vocab; i++)
        json_f32(&o->line, logits[i]);
    json_close(&o->line, ']');
    json_key(&o->line, "logits_hash");
    buf_printf(&o->line, "\"%016llx\"", (unsigned long long)model_logits_hash(logits, o->n_vocab, 0));
    json_close(&o->line, '}');
    buf_add_char(&o->line, '\n');
    print_buf(&o->line);
}

static enum status parse_tokens(struct str text, struct token_list *out, struct err *err) {
    for (size_t at = 0; at <= text.n && text.n;) {
        size_t end = MIN(str_find(text, STR(","), at), text.n);
        u64 id;
        if (!str_to_u64(str_trim(str_slice(text, at, end)), &id) || id >= TOKEN_NONE)
            return err_set(err, ERR_INVALID, "--tokens takes numbers with commas between, like 1,2,3");
        token_list_add(out, (u32)id);
        at = end + 1;
    }
    return out->n ? OK : err_set(err, ERR_INVALID, "eval logits needs --tokens 1,2,3");
}

static enum status run_logits(const struct eval_args *a, struct err *err) {
    struct token_list ids = {0};
    struct eval_model e;
    enum status status = parse_tokens(a->tokens, &ids, err);
    if (status == OK)
        status = eval_model_open(a->words[1], &a->model, &e, err);
    if (status == OK) {
        struct logits_output o = {.n_vocab = model_info(e.model)->n_vocab};
        status = eval_model_run(&e, ids.ids, ids.n, a->last, print_logits, &o, err);
        buf_release(&o.line);
        eval_model_close(&e);
    }
    token_list_release(&ids);
    return status;
}

/* --- perplexity --- */

struct score {
    const struct kern *kern;
    const struct token_list *ids;
    u32 n_vocab;
    f64 nll;
};

/* -ln p(next token) under the logits of this position. */
static void add_score(void *ctx, u32 position, const f32 *logits) {
    struct score *s = ctx;
    f32 max;
    f64 lse;
    if (position + 1 >= s->ids->n)
        return;
    s->kern->logsumexp(logits, s->n_vocab, &max, &lse);
    s->nll += (f64)max + lse - (f64)logits[s->ids->ids[position + 1]];
}

static enum status tokenize_text(const struct gguf *g, struct str text, struct tokenize_options o,
                                 struct token_list *ids, struct err *err) {
    struct tokenizer *t;
    TRY(tokenizer_open(g, &t, err));
    struct tokenize_scratch *s = tokenize_scratch_new();
    tokenize(t, s, text, o, ids);
    tokenize_scratch_free(s);
    tokenizer_close(t);
    return OK;
}

static enum status score_text(const struct eval_args *a, struct eval_model *e, struct str text,
                              struct err *err) {
    struct token_list ids = {0};
    enum status status =
        tokenize_text(&e->gguf, text, (struct tokenize_options){.add_special = true}, &ids, err);
    if (status == OK && ids.n < 2)
        status =
            err_set(err, ERR_INVALID, "%s has %u tokens; two are needed to score one", a->words[2], ids.n);
    struct score score = {.kern = e->options.kern, .ids = &ids, .n_vocab = model_info(e->model)->n_vocab};
    if (status == OK)
        status = eval_model_run(e, ids.ids, ids.n, false, add_score, &score, err);
    if (status == OK)
        printf("{\"tokens\":%u,\"nll\":%.9g,\"perplexity\":%.9g}\n", ids.n - 1, score.nll,
               exp(score.nll / (ids.n - 1)));
    token_list_release(&ids);
    return status;
}

static enum status run_perplexity(const struct eval_args *a, struct err *err) {
    struct buf text = {0};
    struct eval_model e;
    enum status status = read_all(a->words[2], &text, err);
    if (status == OK)
        status = eval_model_open(a->words[1], &a->model, &e, err);
    if (status == OK) {
        status = score_text(a, &e, buf_str(&text), err);
        eval_model_close(&e);
    }
    buf_release(&text);
    return status;
}

/* --- tokenize, detokenize --- */

static enum status run_tokenize(const struct eval_args *a, struct err *err) {
    struct buf text = {0}, out = {0};
    struct token_list ids = {0};
    struct eval_model e;
    enum status status = eval_file_open(a->words[1], &e, err);
    if (status == OK) {
        struct tokenize_options o = {.parse_special = a->special, .add_special = a->add_special};
        status = read_all(NULL, &text, err);
        if (status == OK)
            status = tokenize_text(&e.gguf, buf_str(&text), o, &ids, err);
        eval_model_close(&e);
    }
    if (status == OK) {
        buf_printf(&out, "{\"ids\":[");
        for (u32 i = 0; i < ids.n; i++)
            json_u64(&out, ids.ids[i]);
        buf_printf(&out, "]}\n");
        print_buf(&out);
    }
    buf_release(&text);
    buf_release(&out);
    token_list_release(&ids);
    return status;
}

static enum status parse_ids(struct str text, u32 n_vocab, struct token_list *out, struct err *err) {
    struct arena arena;
    struct value root, list;
    arena_init(&arena, 0);
    enum status status = value_parse_json(&arena, text, &root, err);
    if (status == OK) {
        list = value_get(&root, STR("ids"));
        if (list.kind != VALUE_LIST)
            status = err_set(err, ERR_INVALID, "standard input must be {\"ids\":[...]}");
    }
    for (u32 i = 0; status == OK && i < list.list.n; i++) {
        const struct value *v = &list.list.items[i];
        if (v->kind != VALUE_INT || v->i < 0 || v->i >= n_vocab)
            status = err_set(err, ERR_INVALID, "element %u of ids is no token of this vocabulary of %u", i,
                             n_vocab);
        else
            token_list_add(out, (u32)v->i);
    }
    arena_release(&arena);
    return status;
}

static enum status run_detokenize(const struct eval_args *a, struct err *err) {
    struct buf text = {0}, out = {0};
    struct token_list ids = {0};
    struct tokenizer *t = NULL;
    struct eval_model e;
    TRY(eval_file_open(a->words[1], &e, err));
    enum status status = tokenizer_open(&e.gguf, &t, err);
    if (status == OK)
        status = read_all(NULL, &text, err);
    if (status == OK)
        status = parse_ids(buf_str(&text), tokenizer_n_vocab(t), &ids, err);
    if (status == OK) {
        detokenize(t, ids.ids, ids.n, true, &out);
        print_buf(&out);
    }
    tokenizer_close(t);
    eval_model_close(&e);
    buf_release(&text);
    buf_release(&out);
    token_list_release(&ids);
    return status;
}

/* --- template --- */

/* The chat template of a GGUF file, or the file itself. */
static enum status template_source(struct str file, struct gguf *g, struct str *source, struct err *err) {
    *source = file;
    if (!str_starts(file, STR("GGUF")))
        return OK;
    TRY(gguf_parse(g, file.p, file.n, err));
    if (!gguf_get_str(g, STR("tokenizer.chat_template"), source))
        return err_set(err, ERR_NOT_FOUND, "the file has no tokenizer.chat_template");
    return OK;
}

static enum status render(struct str source, struct str context, struct buf *out, struct err *err) {
    struct arena arena;
    struct value root;
    struct chat_template *t = NULL;
    struct tm tm;
    time_t now = time(NULL);
    localtime_r(&now, &tm);
    arena_init(&arena, LIMIT_TEMPLATE_MEMORY_BYTES);
    enum status status = value_parse_json(&arena, context, &root, err);
    if (status == OK && root.kind != VALUE_OBJECT)
        status = err_set(err, ERR_INVALID, "the context must be a JSON object");
    if (status == OK)
        status = template_open(source, TEMPLATE_JINJA, &t, err);
    if (status == OK)
        status = template_render(t, &root, now, (i32)tm.tm_gmtoff, out, err);
    template_close(t);
    arena_release(&arena);
    return status;
}

static enum status run_template(const struct eval_args *a, struct err *err) {
    struct buf file = {0}, context = {0}, out = {0};
    struct gguf g = {0};
    struct str source;
    enum status status = read_all(a->words[1], &file, err);
    if (status == OK)
        status = read_all(a->words[2], &context, err);
    if (status == OK)
        status = template_source(buf_str(&file), &g, &source, err);
    if (status == OK)
        status = render(source, buf_str(&context), &out, err);
    if (status == OK)
        print_buf(&out);
    gguf_release(&g);
    buf_release(&file);
    buf_release(&context);
    buf_release(&out);
    return status;
}

static const struct command {
    const char *name;
    u32 n_words;
    enum status (*run)(const struct eval_args *a, struct err *err);
} commands[] = {
    {"logits", 2, run_logits},         {"perplexity", 3, run_perplexity}, {"tokenize", 2, run_tokenize},
    {"detokenize", 2, run_detokenize}, {"template", 3, run_template},
};

static enum status dispatch(const struct eval_args *a, struct err *err) {
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (a->n_words && str_is(str_of(a->words[0]), commands[i].name)) {
            if (a->n_words != commands[i].n_words)
                return err_set(err, ERR_INVALID, "eval %s takes %u arguments; see minka eval --help",
                               commands[i].name, commands[i].n_words - 1);
            return commands[i].run(a, err);
        }
    return err_set(
        err, ERR_INVALID,
        "eval needs one of logits, perplexity, tokenize, detokenize, template; see minka eval --help");
}

int eval_main(int argc, char **argv) {
    struct eval_args a;
    struct err err = {0};
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(usage, stdout);
            return 0;
        }
    enum status status = parse_args(&a, argc, argv, &err);
    if (status == OK)
        status = dispatch(&a, &err);
    if (status == OK && fflush(stdout) == 0)
        return 0;
    fprintf(stderr, "Error: %s\n", status == OK ? strerror(errno) : err.text);
    return 1;
}
