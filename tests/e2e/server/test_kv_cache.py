#!/usr/bin/env python3
"""OLLAMA_KV_CACHE_TYPE: every type serves, deterministically and from the prefix tree too; a
type that does not exist is refused at once, with the ones that do."""
import os, subprocess, sys, tempfile

from harness import MINKA, Server, TINY, free_port, main

PROMPT = "a long way from here " * 40


def ask(server, prompt=PROMPT):
    body = {"model": "m", "prompt": prompt, "raw": True, "stream": False,
            "options": {"num_predict": 24, "temperature": 0, "num_ctx": 2048}}
    status, answer = server.post("/api/generate", body)
    assert status == 200, answer
    return answer


def measure(kind):
    with Server({"m": TINY}, env={"OLLAMA_KV_CACHE_TYPE": kind}) as s:
        first, again = ask(s), ask(s)
        assert first["response"] == again["response"], (first, again)
        assert first["debug"]["logits_hash"] == again["debug"]["logits_hash"]
        return first["debug"]["logits_hash"]


def test_types_serve():
    hashes = {kind: measure(kind) for kind in ("", "f16", "bf16", "q8_0", "f32")}
    assert hashes[""] == hashes["f16"], hashes
    assert len(set(hashes.values())) == 4, hashes  # each is what it says: they round differently


def test_other_types_are_refused():
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, OLLAMA_HOST=f"127.0.0.1:{free_port()}", OLLAMA_MODELS=folder, HOME=folder, OLLAMA_KV_CACHE_TYPE="q4_0")
        p = subprocess.run([MINKA, "serve"], env=env, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, timeout=20)
    assert p.returncode == 1, p
    assert 'OLLAMA_KV_CACHE_TYPE: the KV cache cannot be "q4_0"; it may be f16, bf16, q8_0 or f32' in p.stderr, p.stderr


if __name__ == "__main__":
    main(sys.modules[__name__])
