#!/usr/bin/env python3
"""Turns the archive of all-MiniLM-L6-v2 (config.json, tokenizer.json, model.safetensors) into a GGUF file of F32 tensors.

usage: minilm_gguf.py MODEL.zip OUT.gguf

Only this model: a BERT with WordPiece vocabulary whose tensors are F32 already, so that they are copied byte by byte.
"""
import json, struct, sys, zipfile

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
I32 = 5
ALIGN = 32
LAYER = {"attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
         "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
         "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm"}
EMBEDDINGS = {"word_embeddings.weight": "token_embd.weight", "position_embeddings.weight": "position_embd.weight",
              "token_type_embeddings.weight": "token_types.weight", "LayerNorm.weight": "token_embd_norm.weight",
              "LayerNorm.bias": "token_embd_norm.bias"}


def text(s):
    data = s.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    if kind == STRING:
        return text(v)
    if kind == ARRAY:
        of, items = v
        return struct.pack("<IQ", of, len(items)) + b"".join(value(of, x) for x in items)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def vocabulary(tokenizer):
    """GGUF marks the beginning of a word (U+2581), WordPiece its continuation (##)."""
    vocab = tokenizer["model"]["vocab"]
    special = {t["content"] for t in tokenizer["added_tokens"]}
    texts, types = [None] * len(vocab), [1] * len(vocab)
    for token, i in vocab.items():
        types[i] = 3 if token in special else 1
        bracketed = token.startswith("[") and token.endswith("]")
        texts[i] = token if token in special or bracketed else token[2:] if token.startswith("##") else "\u2581" + token
    return vocab, texts, types


def keys(config, tokenizer):
    vocab, texts, types = vocabulary(tokenizer)
    ids = {"padding": "[PAD]", "unknown": "[UNK]", "seperator": "[SEP]", "mask": "[MASK]", "cls": "[CLS]", "bos": "[CLS]",
           "eos": "[SEP]"}
    numbers = {"context_length": "max_position_embeddings", "embedding_length": "hidden_size",
               "feed_forward_length": "intermediate_size", "block_count": "num_hidden_layers",
               "attention.head_count": "num_attention_heads", "vocab_size": "vocab_size"}
    out = [("general.architecture", STRING, "bert"), ("general.name", STRING, "all-MiniLM-L6-v2"),
           ("general.file_type", U32, 0)]
    out += [("bert." + k, U32, config[v]) for k, v in numbers.items()]
    out += [("bert.attention.layer_norm_epsilon", F32, config["layer_norm_eps"]), ("bert.attention.causal", BOOL, False),
            ("bert.pooling_type", U32, 1), ("tokenizer.ggml.model", STRING, "bert"),
            ("tokenizer.ggml.pre", STRING, "default"), ("tokenizer.ggml.tokens", ARRAY, (STRING, texts)),
            ("tokenizer.ggml.token_type", ARRAY, (I32, types)), ("tokenizer.ggml.token_type_count", U32, 2)]
    return out + [(f"tokenizer.ggml.{k}_token_id", U32, vocab[v]) for k, v in ids.items()]


def tensor_name(name):
    if name.startswith("embeddings."):
        return EMBEDDINGS.get(name[len("embeddings."):])
    parts = name.split(".")
    if parts[:2] != ["encoder", "layer"]:
        return None  # the pooler, which sentence embeddings do not use
    return f"blk.{parts[2]}.{LAYER['.'.join(parts[3:-1])]}.{parts[-1]}"


def tensors(data):
    """(GGUF name, shape, bytes) of a safetensors file, ordered by name."""
    size = struct.unpack_from("<Q", data)[0]
    out = []
    for name, t in json.loads(data[8:8 + size]).items():
        new = tensor_name(name) if name != "__metadata__" else None
        if new:
            assert t["dtype"] == "F32", (name, t["dtype"])
            begin, end = t["data_offsets"]
            out.append((new, t["shape"], data[8 + size + begin:8 + size + end]))
    return sorted(out)


def pad(n):
    return -n % ALIGN


def convert(archive, path):
    with zipfile.ZipFile(archive) as z:
        pairs = keys(json.loads(z.read("config.json")), json.loads(z.read("tokenizer.json")))
        parts = tensors(z.read("model.safetensors"))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(parts), len(pairs))
    head += b"".join(text(k) + struct.pack("<I", kind) + value(kind, v) for k, kind, v in pairs)
    at = 0
    for name, shape, data in parts:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), 0, at)
        at += len(data) + pad(len(data))
    with open(path, "wb") as out:
        out.write(head + bytes(pad(len(head))))
        for _, _, data in parts:
            out.write(data + bytes(pad(len(data))))


if __name__ == "__main__":
    convert(*sys.argv[1:])
