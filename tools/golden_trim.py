#!/usr/bin/env python3
"""golden_trim.py GOLDEN_DIR OUT_DIR - cuts the numbers that tests/golden needs out of the full golden data.

GOLDEN_DIR holds golden_tiny.json, tiny/*.gguf and real/*.json as made with llama.cpp (CPU, F32 cache, F32
activations). Writes OUT_DIR/forward.json and OUT_DIR/real_*.json, and copies the models that the tests cannot
make themselves (weights quantized by ggml's own search).
"""
import hashlib
import json
import os
import shutil
import struct
import sys

MODELS = """llama-mha llama-gqa llama-ropefreqs llama-linear llama-yarn llama-bias mistral-tied llama-q-f32 llama-q-f16
llama-q-bf16 llama-q-q8_0 llama-q-q4_0 llama-q-q4_1 llama-q-q5_0 llama-q-q5_1 llama-q-q4_k llama-q-q5_k llama-q-q6_k
llama-q-iq4_nl llama-q-iq4_xs mistral3 internlm2 qwen2 qwen3 gemma gemma2 gemma3 gemma3-q4_0 phi3 phi3-longrope granite
smollm3 olmo2 exaone4 glm4 stablelm starcoder2 phi2 falcon command-r cohere2""".split()
COPIED = ["llama-q-" + t for t in "q5_0 q5_1 q4_k q5_k q6_k iq4_nl iq4_xs".split()]
# ggml type number: values and bytes per block
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 12: (256, 144),
          13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2)}
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Reader:
    def __init__(self, path):
        self.data = open(path, "rb").read()
        self.at = 0

    def number(self, fmt):
        v = struct.unpack_from("<" + fmt, self.data, self.at)[0]
        self.at += struct.calcsize("<" + fmt)
        return v

    def string(self):
        n = self.number("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def skip_value(self, kind):
        if kind == 8:
            self.string()
        elif kind == 9:
            elem, n = self.number("I"), self.number("Q")
            for _ in range(n):
                self.skip_value(elem)
        else:
            self.at += SCALAR_BYTES[kind]


def tensor_digest(path):
    """SHA-256 over the data of all tensors, in order of their names."""
    r = Reader(path)
    r.at = 8
    n_tensors, n_keys = r.number("Q"), r.number("Q")
    for _ in range(n_keys):
        r.string()
        r.skip_value(r.number("I"))
    tensors = []
    for _ in range(n_tensors):
        name = r.string()
        n = 1
        for _ in range(r.number("I")):
            n *= r.number("Q")
        values, size = BLOCKS[r.number("I")]
        tensors.append((name, r.number("Q"), n // values * size))
    start = (r.at + 31) // 32 * 32
    h = hashlib.sha256()
    for _, offset, size in sorted(tensors):
        h.update(r.data[start + offset:start + offset + size])
    return h.hexdigest()


def trim_run(run):
    seqs = {name: {"nll_sum": s["nll_sum"], "last_logits_b64": s["last_logits_b64"],
                   "positions": {p: {"lse": e["lse"], "fixed": e["fixed"]} for p, e in s["positions"].items()}}
            for name, s in run["seqs"].items() if name != "s1"}
    greedy = {"prompt": run["greedy"]["prompt"], "tokens": run["greedy"]["tokens"], "margins": run["greedy"]["margin_top1_top2"]}
    out = {"n_ctx": run["n_ctx"], "seqs": seqs, "greedy": greedy}
    if "q8act" in run:
        out["q8act"] = {k: run["q8act"]["vs_f32"][k] for k in ("rms", "mean_kl", "argmax_agree")}
    return out


def integer_path_difference(cases):
    """Mean |difference| of log probabilities between exact F32 and the file as stored, while the prefixes agree."""
    diffs = []
    for c in cases:
        a, b = c["f32_weights"], c["quant_as_stored"]
        for i in range(min(len(a["ids"]), len(b["ids"]))):
            if a["ids"][:i] != b["ids"][:i]:
                break
            if a["ids"][i] == b["ids"][i]:
                diffs.append(abs(a["top1_logprob"][i] - b["top1_logprob"][i]))
            if "top10" in a:
                stored = dict(map(tuple, b["top10"][i]))
                diffs += [abs(lp - stored[t]) for t, lp in a["top10"][i] if t in stored]
    return sum(diffs) / len(diffs)


def trim_greedy(path):
    full = json.load(open(path))
    cases = []
    for c in full["cases"]:
        f = c["f32_weights"]
        case = {"prompt_ids": c["prompt_ids"], "ids": f["ids"], "margin": f["margin"], "top1_logprob": f["top1_logprob"]}
        if "top10" in f:
            case["top10"] = f["top10"]
        cases.append(case)
    return {"sha256": full["sha256"], "cases": cases, "q8_mean_abs_diff": integer_path_difference(full["cases"])}


def main():
    golden, out = sys.argv[1:]
    full = json.load(open(os.path.join(golden, "golden_tiny.json")))
    models = {}
    for name in MODELS:
        entry = full["models"][name]
        path = os.path.join(golden, "tiny", entry["file"].split("/")[-1])
        models[name] = {"tensors_sha256": tensor_digest(path), "runs": [trim_run(r) for r in entry["runs"]]}
        if name in COPIED:
            target = os.path.join(out, name + ".gguf")
            shutil.copyfile(path, target)
            os.chmod(target, 0o644)
            models[name]["file"] = name + ".gguf"
    forward = {"fixed_ids": full["fixed_ids"], "sequences": full["sequences"], "models": models}
    json.dump(forward, open(os.path.join(out, "forward.json"), "w"), separators=(",", ":"))
    for model in ("smollm2", "gemma3"):
        real = trim_greedy(os.path.join(golden, "real", "greedy_%s.json" % model))
        ppl = json.load(open(os.path.join(golden, "real", "ppl_%s.json" % model)))
        real["ppl"] = {"ids": ppl["ids"], "nll": ppl["f32_weights"]["nll"], "nll_sum": ppl["f32_weights"]["nll_sum"],
                       "q8_mean_abs_diff": ppl["per_token_abs_nll_diff"]["mean"]}
        json.dump(real, open(os.path.join(out, "real_%s.json" % model), "w"), separators=(",", ":"))


if __name__ == "__main__":
    main()
