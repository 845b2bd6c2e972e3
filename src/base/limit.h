/* limit.h - every bound of the system, with its reason. Over a bound is a named status, never a crash. */
#ifndef MINKA_LIMIT_H
#define MINKA_LIMIT_H

/* --- HTTP --- */
/* A chat of 128k tokens with tool results is below 1 MiB; images in base64 are what needs more. */
#define LIMIT_BODY_BYTES (32u << 20)
/* Header block of one request = RAM per connection; browsers send below 8 KiB. */
#define LIMIT_HEADER_BYTES (16u << 10)
/* Until the whole header is there: slow header attacks hold a connection, nothing else. */
#define LIMIT_HEADER_MS 8000u
/* A body that is not complete must grow by this much within this time: a byte now and then holds a connection,
 * and memory, like none at all; the slowest lines are ten times as fast. */
#define LIMIT_BODY_STALL_MS 10000u
#define LIMIT_BODY_STALL_BYTES 4096u
/* All bodies in memory at once: eight of the largest; beyond it a request gets 503. */
#define LIMIT_BODIES_BYTES ((size_t)LIMIT_BODY_BYTES * 8)
/* Kept-alive connections between requests: longer than the 90 s after which Go's client lets go itself, so
 * that a request never meets a closing connection. Short of connections, LIMIT_HEADER_MS applies instead. */
#define LIMIT_IDLE_MS 100000u
/* Connections whose refused body is read off, so that the client sees the answer and no reset. */
#define LIMIT_LINGERING 64u
#define LIMIT_LINGER_MS 3000u
/* What the command line takes from a server at once: a model's full metadata is below 32 MiB. */
#define LIMIT_CLIENT_BYTES (64u << 20)
#define LIMIT_HISTORY_LINES 100u
#define LIMIT_CONNECTIONS 4096u
/* Unsent text per stream: a reader slower than this is cancelled, not waited for. */
#define LIMIT_STREAM_UNSENT_BYTES (1u << 20)
#define LIMIT_STREAM_STALL_MS 60000u

/* Files of one create request: models come whole or with a projector. */
#define LIMIT_CREATE_FILES 64u
/* Blobs that are uploaded at once, and one of an upload's two buffers: 64 MiB in all. */
#define LIMIT_UPLOADS 64u
#define LIMIT_UPLOAD_BYTES (512u << 10)

/* --- requests --- */
/* Our walkers recurse once per level; templates and schemas stay far below. */
#define LIMIT_JSON_DEPTH 200u
/* Values of one body: the parser takes up to 250 bytes for each; the ids of a full context fit. */
#define LIMIT_JSON_VALUES (1u << 20)
#define LIMIT_MESSAGES 16384u
#define LIMIT_STOPS 64u
/* Each call that a model makes is looked up among them; OpenAI takes 128. */
#define LIMIT_TOOLS 1024u
#define LIMIT_STOP_BYTES 1024u
#define LIMIT_TOP_LOGPROBS 20u
#define LIMIT_NUM_CTX (1u << 20)
/* num_predict below 0 or above this many contexts is cut to it, as the reference does. */
#define LIMIT_PREDICT_CONTEXTS 10u

/* --- scheduler --- */
#define LIMIT_QUEUE_DEFAULT 512u
/* Rows of one step: scratch is booked for it; beyond 512 rows a step only gets longer. */
#define LIMIT_STEP_ROWS 512u
/* Requests that decode at once; each takes a row of every step. */
#define LIMIT_RUNNING 256u
/* Inputs of one step of an encoder: each may waste most of a block of 16 keys. */
#define LIMIT_STEP_INPUTS 64u
/* Tokens of one input of an encoder, and the scratch that is booked for it: the context of the longest in use. */
#define LIMIT_ENCODER_TOKENS 8192u
/* Inputs of one request: OpenAI's limit. Their vectors are held until the answer is whole. */
#define LIMIT_EMBED_INPUTS 2048u
#define LIMIT_MODELS 64u
/* Files mapped at once: each model of the engine, another while one is checked; a listing has one. */
#define LIMIT_MAPPINGS (2 * LIMIT_MODELS)
/* Tokens guessed ahead for one request in a step: with the known one a tile of 16 rows. */
#define LIMIT_DRAFT 15u
/* A draft model's own KV cache: as many sequences as a step with guesses has rows, and their tokens in all; what
 * is over it goes on without guesses. */
#define LIMIT_DRAFT_RUNS 16u
#define LIMIT_DRAFT_TOKENS 16384u
/* ... and of the memory limit at most one part in so many. */
#define LIMIT_DRAFT_MEMORY_PARTS 8u
/* Tokens that a draft model reads at once of prompts that it has not seen: those who decode wait for it. */
#define LIMIT_DRAFT_READ 128u
/* Booked for the engine itself: code, threads, requests, wire buffers; measured idle below 10 MiB, and
 * 256 requests with full logprobs stay below the rest. */
#define LIMIT_ENGINE_FIXED_BYTES (32ull << 20)

/* --- model files --- */
#define LIMIT_GGUF_KEYS 65536u
#define LIMIT_GGUF_TENSORS 65536u
#define LIMIT_GGUF_ARRAY (1u << 24)
#define LIMIT_GGUF_STRING_BYTES (1u << 24)
/* 262k is the largest vocabulary in use. */
#define LIMIT_VOCAB (1u << 20)
/* The longest known is below 1 KiB; the walks over special tokens cost this much per byte of text at worst. */
#define LIMIT_TOKEN_BYTES 4096u
/* 515k is the largest list in use (Gemma 4). */
#define LIMIT_MERGES (1u << 21)
/* A longer word is cut: merging takes about 60 bytes of scratch per byte of the word. */
#define LIMIT_TOKENIZE_WORD_BYTES (1u << 20)
/* 126 layers and rows of 53248 are the most of any dense model so far. */
#define LIMIT_LAYERS 1024u
#define LIMIT_WIDTH (1u << 18)

/* --- store --- */
/* Manifests and text layers are read whole; models of tensor layers have manifests of a few hundred kB. Also
 * the sum over one model's text layers. */
#define LIMIT_STORE_TEXT_BYTES (16u << 20)
/* Texts of all models of one listing; what is above it is left out. */
#define LIMIT_STORE_LIST_BYTES (256u << 20)
#define LIMIT_STORE_LAYERS 65536u
/* Models of one listing. */
#define LIMIT_STORE_MODELS 65536u

/* Blobs that all manifests name; beyond it none is removed. A digest takes 64 bytes. */
#define LIMIT_STORE_REFS (1u << 20)
/* Age at which a file that belongs to no model goes: the reference's, so that a blob that was uploaded lives
 * until its model is created. The beginning of a large download may wait for the next week's try. */
#define LIMIT_STORE_UNUSED_S 3600ll
#define LIMIT_STORE_PART_S (7 * 24 * 3600ll)

/* --- registry --- */
/* A manifest of 4096 layers is below 1 MiB; Debian's registry refuses what is over 4 MiB. */
#define LIMIT_REGISTRY_MANIFEST_BYTES (4u << 20)
#define LIMIT_REGISTRY_LAYERS 4096u
/* The largest open models are below 2 TB. Keeps the sum over all layers inside 64 bits. */
#define LIMIT_REGISTRY_BLOB_BYTES (16ull << 40)
/* Header lines of one answer, all redirects apart; tokens of real services are below 4 KiB. */
#define LIMIT_REGISTRY_HEADER_BYTES (64u << 10)
#define LIMIT_REGISTRY_TOKEN_BYTES (16u << 10)
#define LIMIT_REGISTRY_URL_BYTES (16u << 10)
#define LIMIT_REGISTRY_REDIRECTS 10u
/* What is kept of an error's text. */
#define LIMIT_REGISTRY_ERROR_BYTES 512u
/* Blobs of one model that move at once: small ones follow each other without waiting for the large one. */
#define LIMIT_REGISTRY_STREAMS 4u
/* As the reference: a stream without a byte for this long is opened again; six retries, 2^n s apart. */
#define LIMIT_REGISTRY_STALL_S 30u
#define LIMIT_REGISTRY_RETRIES 6u
/* One thread each. */
#define LIMIT_TRANSFERS 8u

/* --- templates --- */
#define LIMIT_TEMPLATE_BYTES (1u << 20)
#define LIMIT_TEMPLATE_STEPS 20000000u
#define LIMIT_TEMPLATE_OUTPUT_BYTES (64u << 20)
#define LIMIT_TEMPLATE_MEMORY_BYTES (256u << 20)
#define LIMIT_TEMPLATE_DEPTH 100u
/* Levels of the evaluators' recursion: a macro that calls itself takes about ten per call; 1000 levels stay
 * below 1 MiB of stack, below 4 MiB in a sanitizer build: threads that render need the default 8 MiB. */
#define LIMIT_TEMPLATE_EVAL_DEPTH 1000u
/* A tool call is held until it is complete: files are written by tools, and are rarely larger. */
#define LIMIT_CALL_BYTES (1u << 20)
/* Its parsed form: a value takes at most 64 bytes, and two bytes of text. */
#define LIMIT_CALL_MEMORY_BYTES (64u << 20)
/* An answer that must call tools ends with this many calls: a model that has lost its way goes on for ever. */
#define LIMIT_CALLS_DEMANDED 16u
/* What Jinja's sandbox allows range() to give. */
#define LIMIT_TEMPLATE_RANGE 100000u

/* --- grammars of constrained answers --- */
/* Tool collections of agents stay below 200 kB. */
#define LIMIT_SCHEMA_BYTES (1u << 20)
/* 24 bytes each; a schema of 100 typical properties takes 5000, an enum one per byte. */
#define LIMIT_GRAMMAR_NODES (1u << 16)
#define LIMIT_GRAMMAR_EDGES (1u << 17) /* 12 bytes each */
/* Subschemas in all their combinations; each is merged once. */
#define LIMIT_GRAMMAR_RULES 4096u
/* Members looked at while merging: the time that a hostile schema takes the preparing thread. */
#define LIMIT_GRAMMAR_MERGES (1u << 20)
/* Comparing given values with each other and with patterns, in steps of 20 to 100 ns: the same. */
#define LIMIT_GRAMMAR_COMPARED (1u << 22)
/* Schemas that hold for one value at the same time, and nested choices on the way to it: recursion of ours. */
#define LIMIT_GRAMMAR_CONJUNCTS 64u
#define LIMIT_GRAMMAR_CHOICES 24u
/* Open calls of an answer; a level of JSON takes one or two. At most 254: it is kept in a byte. */
#define LIMIT_GRAMMAR_DEPTH 200u
/* States of a pattern's deterministic automaton; most patterns in use take below 100. */
#define LIMIT_PATTERN_STATES 2048u
#define LIMIT_PATTERN_BYTES 4096u
#define LIMIT_PATTERN_REPEAT 1000u
/* Numbers of an answer have at most this many digits in front of the point, and behind it. */
#define LIMIT_NUMBER_DIGITS 24u
/* An integer of an answer fits 64 bits. */
#define LIMIT_INTEGER_DIGITS 18u
/* Places in the grammar that one text can be at; a schema where few alternatives are open has below 10. */
#define LIMIT_GRAMMAR_PLACES 1024u
/* Places times bytes of the vocabulary that one mask may cost: some 50 ms at worst, once per state. */
#define LIMIT_GRAMMAR_MASK_WORK (1u << 22)
/* What a compiled grammar remembers of states and masks. */
#define LIMIT_GRAMMAR_CACHE_BYTES (512u << 10)
/* Compiled grammars of one model, those in use and those kept for the next request: some 35 typical ones; they are
 * in LIMIT_ENGINE_FIXED_BYTES. Beyond it a request with yet another schema gets 503. */
#define LIMIT_GRAMMARS_BYTES (20u << 20)

/* --- wire --- */
/* One message; a request body plus its resolved history. */
#define LIMIT_WIRE_MESSAGE_BYTES (96u << 20)
/* Requests that an engine has not read yet (it is stopped, or starts): beyond it a request gets 503. */
#define LIMIT_WIRE_QUEUED_BYTES (64u << 20)

/* Bounds that must fit each other. */
_Static_assert(LIMIT_RUNNING <= LIMIT_STEP_ROWS, "every decoding request has a row in every step");
_Static_assert(LIMIT_WIRE_MESSAGE_BYTES > 2 * LIMIT_BODY_BYTES, "a body and its context fit one message");

#endif
