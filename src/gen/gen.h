/* gen.h - the neutral request and the neutral event: what every dialect is translated into, and what
 * the engine understands. Nothing here knows HTTP, JSON field names or a vendor.
 *
 * A gen_request holds everything its answer depends on: the server resolves defaults (model parameters,
 * environment), draws the seed if none is given and fixes the time, so that the same gen_request gives
 * the same bytes on any engine at any time. It is plain data; all its pointers live in one arena, that
 * of whoever made it (api/ in the server, wire/ in the engine). */
#ifndef MINKA_GEN_H
#define MINKA_GEN_H

#include "base/str.h"

enum gen_role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL };

struct gen_tool_call {
    struct str id;        /* may be empty */
    struct str name;
    struct str arguments; /* JSON object text, key order as given */
};

struct gen_message {
    enum gen_role role;
    struct str content;
    struct str thinking;
    struct str tool_name;    /* role tool: whose result this is */
    struct str tool_call_id; /* the same, by id */
    const struct gen_tool_call *tool_calls; /* [n_tool_calls] */
    u32 n_tool_calls;
};

/* How the prompt is made. */
enum gen_form {
    GEN_FORM_RAW,  /* `prompt` verbatim (special tokens in it are parsed) */
    GEN_FORM_CHAT, /* messages through the chat template */
    GEN_FORM_FILL, /* prompt and suffix through a template with an insert form */
    GEN_FORM_EMBED, /* no answer: a vector for each of inputs */
};

enum gen_think { GEN_THINK_DEFAULT, GEN_THINK_OFF, GEN_THINK_ON, GEN_THINK_LOW, GEN_THINK_MEDIUM, GEN_THINK_HIGH };
enum gen_format { GEN_FORMAT_NONE, GEN_FORMAT_JSON, GEN_FORMAT_SCHEMA };
/* OpenAI's tool_choice; GEN_TOOLS_ONE names the function in tool_choice_name. */
enum gen_tools { GEN_TOOLS_AUTO, GEN_TOOLS_NONE, GEN_TOOLS_REQUIRED, GEN_TOOLS_ONE };

/* Sampling, in the order the sampler applies it. Values are already merged: built-in < model < request. */
struct gen_sampling {
    u64 seed;          /* always set; the random number is a function of (seed, position) */
    f32 temperature;   /* <= 0: greedy */
    i32 top_k;         /* <= 0: off */
    f32 top_p;         /* >= 1: off */
    f32 min_p;         /* <= 0: off */
    f32 typical_p;     /* >= 1: off */
    i32 repeat_last_n; /* tokens the penalties look back on; 0 off, already resolved if it was -1 */
    f32 repeat_penalty;
    f32 presence_penalty;
    f32 frequency_penalty;
};

/* What is embedded: text, or its token ids, special ones included. */
struct gen_input {
    struct str text;
    const u32 *ids; /* [n_ids]; 0: the text */
    u32 n_ids;
};

struct gen_request {
    u64 id;       /* unique within the server's life */
    u32 model_id; /* as announced by MODEL on the wire */
    enum gen_form form;
    struct str prompt; /* RAW and FILL */
    struct str suffix; /* FILL */
    const struct gen_message *messages; /* [n_messages], system text already in front */
    u32 n_messages;
    struct str tools;         /* JSON array text, or empty */
    enum gen_tools tool_choice;
    struct str tool_choice_name;
    bool single_call;         /* the answer ends with its first tool call */
    struct str chat_template; /* Go, overrides that of the model's file; empty = the file's own */
    struct str template_kwargs; /* JSON object of extra template variables, or empty */
    const u32 *context;       /* [n_context] token ids put in front of the prompt (old `context`) */
    u32 n_context;

    enum gen_think think;
    enum gen_format format;
    struct str schema; /* JSON text, with GEN_FORMAT_SCHEMA */

    struct gen_sampling sampling;
    const struct str *stop; /* [n_stop] stop strings */
    u32 n_stop;
    u32 num_ctx;      /* tokens of prompt + answer; resolved, >= 4 */
    u32 num_predict;  /* most new tokens; resolved */
    u32 draft_max;    /* most tokens guessed ahead in a step; the answer does not depend on it */
    u32 draft_id;     /* the model that may guess, as announced by MODEL; 0 = none. Nor does it on this */
    u32 num_keep;     /* prompt tokens kept by a context shift (BOS comes on top) */
    bool truncate;    /* drop old messages and cut a long prompt instead of failing */
    bool shift;       /* at num_ctx continue on the newest half instead of ending */
    bool add_special; /* put BOS/EOS as the model says (all forms but a rendered BOS) */

    bool logprobs;
    u32 top_logprobs;  /* 0..20 */
    bool want_context; /* DONE carries the token ids of prompt + answer */
    bool want_hash;    /* DONE carries the logits hash (MINKA_DEBUG=1) */
    bool render_only;  /* no generation: DONE's text is the rendered prompt */
    bool load_only;    /* no generation: DONE as soon as the model is loaded */

    i64 time_unix;    /* for templates, fixed at arrival */
    i32 utc_offset_s;
    struct str client; /* fairness key: API key, user or address */

    /* A request that an engine crash interrupted: the ids it had already produced. The new engine
     * prefills them, replays sampler and stop state, and goes on; TEXT for them is not sent again. */
    const u32 *resume; /* [n_resume] */
    u32 n_resume;

    const struct gen_input *inputs; /* [n_inputs] EMBED; only there on the wire */
    u32 n_inputs;
};

/* Events of one request, in this order: [QUEUED] STARTED {TEXT | THINK | TOOL | VECTOR}* then DONE or ERROR,
 * exactly one of them and exactly once. */
enum gen_event_kind {
    GEN_QUEUED,  /* position, eta_ms */
    GEN_STARTED, /* the first slice of the prompt is planned; n_prompt, n_cached are known */
    GEN_TEXT,    /* visible text */
    GEN_THINK,   /* thinking text */
    GEN_TOOL,    /* one complete tool call in `tool` */
    GEN_DONE,
    GEN_ERROR,   /* status, text */
    GEN_VECTOR,  /* EMBED: input, vector; in ascending order. After a crash they begin anew, with the same bits */
};

enum gen_done_reason {
    GEN_STOP,   /* end of sequence or a stop string */
    GEN_LENGTH, /* num_predict or num_ctx reached */
    GEN_LOAD,   /* load_only */
    GEN_UNLOAD, /* load_only with keep-alive 0 */
};

/* One alternative of a position. token holds the token's bytes (maybe no valid UTF-8). */
struct gen_logprob {
    u32 token_id;
    f32 logprob;
    struct str token;
};

/* A generated position with its alternatives. */
struct gen_logprobs {
    struct gen_logprob chosen;
    const struct gen_logprob *top; /* [n_top] best first */
    u32 n_top;
};

struct gen_counts {
    u32 n_prompt;  /* tokens of the prompt, cached ones included */
    u32 n_cached;  /* of these, found in the prefix tree */
    u32 n_dropped; /* messages or tokens that truncation removed */
    u32 n_output;  /* generated tokens, an end token included */
    u64 queue_ns;  /* arrival at the engine to first planned slice */
    u64 load_ns;   /* of that, waiting for the model */
    u64 prompt_ns; /* first slice to first sampled token */
    u64 output_ns; /* first sampled token to the end */
};

/* All pointers are valid during the call or until the next event is read; consumers copy. */
struct gen_event {
    u64 request_id;
    enum gen_event_kind kind;
    /* TEXT, THINK: bytes released now (complete UTF-8 characters; never part of a stop string).
     * ERROR: the message. DONE with render_only: the rendered prompt. */
    struct str text;
    const u32 *ids; /* [n_ids] token ids accepted since the last event of this request */
    u32 n_ids;
    const struct gen_logprobs *logprobs; /* [n_logprobs], one per id, if asked for */
    u32 n_logprobs;
    struct gen_tool_call tool;   /* TOOL */
    u32 position;                /* QUEUED: requests before this one */
    u32 eta_ms;                  /* QUEUED: from measured rates; 0 = unknown */
    enum gen_done_reason reason; /* DONE */
    struct gen_counts counts;    /* STARTED (prompt counts), DONE (all) */
    const u32 *context;          /* DONE with want_context: [n_context] */
    u32 n_context;
    u64 logits_hash;     /* DONE with want_hash: over the raw bits of every sampled position's logits */
    enum status status;  /* ERROR */
    u32 input;           /* VECTOR: index in the request's inputs */
    const f32 *vector;   /* VECTOR: [n_vector] as pooled, not normalised; values may be NaN or infinite */
    u32 n_vector;
};

/* Defaults of the reference for everything a dialect leaves open; pointers empty. */
void gen_request_init(struct gen_request *r);
/* Divides v by its length (L2; summed in f64 in ascending order, so that the bits are fixed); zeros stay. False
 * if a value is NaN or infinite: v is unchanged then. */
bool gen_vector_normalize(f32 *v, u32 n);
const char *gen_role_name(enum gen_role role);
/* "stop", "length", "load", "unload". */
const char *gen_done_reason_name(enum gen_done_reason reason);

#endif
