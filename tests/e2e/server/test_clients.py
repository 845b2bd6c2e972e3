#!/usr/bin/env python3
"""The official clients (PyPI `ollama` and `openai`, pinned by hash) against the real server and the real model."""
import json, os, pathlib, subprocess, sys

from harness import ROOT, Server, Skip, TINY, main, real_model

REQUIREMENTS = ROOT / "tests" / "e2e" / "requirements.txt"


def client_python():
    """A Python environment with the clients, kept in the user's cache under a name made of the pinned list."""
    import hashlib
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "minka"
    folder = base / ("clients-" + hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12])
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, capture_output=True)
        got = subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r",
                              str(REQUIREMENTS)], capture_output=True, text=True)
        if got.returncode:
            raise Skip("the clients cannot be installed from PyPI: " + got.stderr.strip().splitlines()[-1])
        (folder / "complete").touch()
    return python


def run_client(script, models=None):
    """Runs a script in the clients' Python against a fresh server; its last line of output is JSON."""
    files = models or {"smollm2:135m": real_model()}
    with Server(files) as s:
        env = dict(s.env, MINKA_URL=s.url, OPENAI_API_KEY="unused", NO_PROXY="127.0.0.1", MODEL_FILE=str(list(files.values())[0]))
        got = subprocess.run([str(client_python()), "-c", script], env=env, capture_output=True, text=True, timeout=120)
        assert got.returncode == 0, got.stderr[-3000:]
        return json.loads(got.stdout.splitlines()[-1])


def test_ollama_client():
    out = run_client(r'''
import json, os, ollama
c = ollama.Client(host=os.environ["MINKA_URL"])
options = {"seed": 3, "num_predict": 24, "temperature": 0.5}
messages = [{"role": "user", "content": "Name one colour."}]
whole = c.chat("smollm2:135m", messages, options=options)
parts = list(c.chat("smollm2:135m", messages, options=options, stream=True))
generated = c.generate("smollm2:135m", "Count: one two three", options=options)
gparts = list(c.generate("smollm2:135m", "Count: one two three", options=options, stream=True))
shown = c.show("smollm2:135m")
try:
    c.chat("nope", messages)
    missing = None
except ollama.ResponseError as e:
    missing = [e.status_code, e.error]
print(json.dumps({
    "whole": whole.message.content, "streamed": "".join(p.message.content or "" for p in parts), "n_parts": len(parts),
    "done": parts[-1].done_reason, "counts": [whole.prompt_eval_count, whole.eval_count], "durations": whole.total_duration > 0,
    "generated": generated.response, "gstreamed": "".join(p.response for p in gparts), "context": len(generated.context),
    "list": [m.model for m in c.list().models], "ps": [m.model for m in c.ps().models],
    "family": shown.details.family, "quant": shown.details.quantization_level, "arch": shown.modelinfo["general.architecture"],
    "capabilities": shown.capabilities, "missing": missing}))
''')
    assert out["whole"] and out["whole"] == out["streamed"] and out["n_parts"] > 3
    assert out["done"] in ("stop", "length") and all(n > 0 for n in out["counts"]) and out["durations"]
    assert out["generated"] == out["gstreamed"] and out["context"] > 5
    assert out["list"] == ["smollm2:135m"] and out["ps"] == ["smollm2:135m"]
    assert (out["family"], out["quant"], out["arch"]) == ("llama", "Q4_1", "llama")
    assert "completion" in out["capabilities"]
    assert out["missing"] == [404, "model 'nope' not found"]


def test_ollama_client_manages_models():
    """create from a blob and from a model, copy, list, show, delete; the errors that the client raises."""
    out = run_client(r'''
import json, os, ollama
c = ollama.Client(host=os.environ["MINKA_URL"])
digest = c.create_blob(os.environ["MODEL_FILE"])
steps = [p.status for p in c.create(model="Mine", files={"m.gguf": digest}, system="Be brief.", license=["MIT", "Two"],
                                    parameters={"temperature": 0, "num_predict": 5, "stop": ["zz"]},
                                    messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}], stream=True)]
whole = c.create(model="derived", from_="mine", system="Be rude.").status
shown, derived = c.show("mine"), c.show("derived")
said = c.chat("mine", [{"role": "user", "content": "Who are you?"}])
copied = c.copy("mine", "me/copy").status
names = sorted(m.model for m in c.list().models)
deleted = [c.delete(n).status for n in ("mine", "derived", "me/copy")]
errors = []
for call in (lambda: c.copy("nobody", "x"), lambda: c.delete("nobody"), lambda: c.create(model="x", from_="a b"),
             lambda: c.create(model="x y", from_="smollm2:135m"), lambda: c.create(model="x", from_="smollm2:135m", quantize="q9")):
    try:
        call()
        errors.append(None)
    except ollama.ResponseError as e:
        errors.append([e.status_code, e.error])
print(json.dumps({"digest": digest, "steps": steps, "whole": whole, "shown": [shown.license, shown.parameters, shown.modelfile],
    "derived": derived.modelfile, "count": said.eval_count, "copied": copied, "names": names, "deleted": deleted, "errors": errors,
    "left": [m.model for m in c.list().models]}))
''')
    assert out["digest"].startswith("sha256:") and out["whole"] == "success" and out["copied"] == "success"
    assert out["steps"][0] == "parsing GGUF" and out["steps"][-2:] == ["writing manifest", "success"]
    assert out["shown"][0] == "MIT\nTwo" and "num_predict                    5" in out["shown"][1]
    assert "SYSTEM Be brief." in out["shown"][2] and "MESSAGE assistant yes" in out["shown"][2]
    assert "SYSTEM Be rude." in out["derived"] and "PARAMETER temperature 0" in out["derived"]
    assert 1 <= out["count"] <= 5
    assert out["names"] == ["Mine:latest", "derived:latest", "me/copy:latest", "smollm2:135m"]
    assert out["deleted"] == ["success"] * 3 and out["left"] == ["smollm2:135m"]
    assert out["errors"] == [
        [404, 'model "nobody" not found'],
        [404, "model 'nobody' not found"],
        [400, "invalid model name"],
        [400, "invalid model name"],
        [400, "unsupported quantization type q9 - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"],
    ]


def test_openai_client():
    out = run_client(r'''
import json, os, openai
c = openai.OpenAI(base_url=os.environ["MINKA_URL"] + "/v1")
ask = dict(model="smollm2:135m", messages=[{"role": "user", "content": "Name one colour."}], seed=3, max_tokens=24, temperature=0.5)
whole = c.chat.completions.create(**ask)
parts = list(c.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ask))
text = c.completions.create(model="smollm2:135m", prompt="Count: one two three", max_tokens=8, seed=1)
tparts = list(c.completions.create(model="smollm2:135m", prompt="Count: one two three", max_tokens=8, seed=1, stream=True))
logprobs = c.chat.completions.create(logprobs=True, top_logprobs=2, **ask).choices[0].logprobs
try:
    c.chat.completions.create(model="nope", messages=ask["messages"])
    missing = None
except openai.NotFoundError as e:
    missing = [e.status_code, e.body["message"]]
print(json.dumps({
    "whole": whole.choices[0].message.content, "finish": whole.choices[0].finish_reason, "usage": whole.usage.total_tokens,
    "streamed": "".join(p.choices[0].delta.content or "" for p in parts if p.choices), "last_usage": parts[-1].usage.total_tokens,
    "text": text.choices[0].text, "tstreamed": "".join(p.choices[0].text for p in tparts if p.choices),
    "models": [m.id for m in c.models.list()], "model": c.models.retrieve("smollm2:135m").id,
    "n_logprobs": len(logprobs.content), "n_top": len(logprobs.content[0].top_logprobs), "missing": missing}))
''')
    assert out["whole"] and out["whole"] == out["streamed"]
    assert out["finish"] in ("stop", "length") and out["usage"] == out["last_usage"] > 10
    assert out["text"] == out["tstreamed"]
    assert out["models"] == ["smollm2:135m"] and out["model"] == "smollm2:135m"
    assert out["n_logprobs"] > 0 and out["n_top"] == 2
    assert out["missing"][0] == 404 and "nope" in out["missing"][1]


def test_embeddings():
    out = run_client(r'''
import json, os, ollama, openai, struct
c = ollama.Client(host=os.environ["MINKA_URL"])
o = openai.OpenAI(base_url=os.environ["MINKA_URL"] + "/v1")
texts = ["the river", "the water"]
bits = lambda v: struct.pack(f"<{len(v)}f", *v).hex()
many = c.embed("tiny", texts)
default = o.embeddings.create(model="tiny", input=texts)  # the client asks for base64 by itself
floats = o.embeddings.create(model="tiny", input=texts, encoding_format="float")
ids = o.embeddings.create(model="tiny", input=[[5, 100, 6], [5, 101, 102, 6]], dimensions=32)
print(json.dumps({
    "many": [bits(v) for v in many.embeddings], "one": bits(c.embed("tiny", texts[0]).embeddings[0]),
    "cut": len(c.embed("tiny", texts[0], dimensions=16).embeddings[0]), "old": len(c.embeddings("tiny", texts[0]).embedding),
    "default": [bits(d.embedding) for d in default.data], "floats": [bits(d.embedding) for d in floats.data],
    "usage": default.usage.prompt_tokens, "count": many.prompt_eval_count, "ids": [len(d.embedding) for d in ids.data]}))
''', {"tiny": TINY.parent / "bert-q8_0.gguf"})
    assert out["many"] == out["default"] == out["floats"] and out["one"] == out["many"][0] != out["many"][1]
    assert (out["cut"], out["old"], out["ids"]) == (16, 64, [32, 32]) and out["usage"] == out["count"] > 4


if __name__ == "__main__":
    main(sys.modules[__name__])
