#!/usr/bin/env python3
"""Nothing is allocated per token, in neither process: counted by a library that is preloaded (built beside this test)
while several streams run. What grows with a sequence (pages of 64 tokens, lists that double) stays far below."""
import json, os, struct, sys, tempfile

from harness import Server, TINY, main

COUNTER = os.environ["MINKA_COUNT_ALLOCATIONS"]
N_STREAMS, N_FIRST, N_LAST = 4, 150, 1150


def count(models, env, options):
    with tempfile.TemporaryDirectory() as folder:
        files = os.path.join(folder, "count")
        with Server(models, env={"LD_PRELOAD": COUNTER, "COUNT_ALLOCATIONS": files, **env}) as s:
            def counts():
                return [struct.unpack("<Q", open(f"{files}.{p}", "rb").read())[0] for p in (s.process.pid, s.engine_pid())]

            body = {"model": "m", "prompt": "abc", "raw": True,
                    "options": {"num_predict": 4000, "num_ctx": 4096, "temperature": 0.01, "top_k": 0, "top_p": 0.9,
                                "frequency_penalty": -0.1, "stop": ["never said"], **options}}
            streams = []
            for i in range(N_STREAMS):
                body["options"]["seed"] = i
                streams.append(s.open_stream("/api/generate", body))
            n_tokens, seen = 0, []
            for n in (N_FIRST, N_LAST):
                while n_tokens < n * N_STREAMS:
                    for _, r in streams:
                        line = json.loads(r.readline())
                        assert not line["done"], line
                        n_tokens += 1
                seen.append((n_tokens, counts()))
            (n0, (server0, engine0)), (n1, (server1, engine1)) = seen
            for c, r in streams:
                c.sock.close()
                r.close()
            n = n1 - n0
            print(f"# {n} tokens: {server1 - server0} allocations in the server, {engine1 - engine0} in the engine")
            assert server0 > 100 and engine0 > 100, "the counter counts"
            assert server1 - server0 < n / 50, seen
            assert engine1 - engine0 < n / 10, seen


def test_no_allocation_per_token():
    count({"m": TINY}, {}, {})


def test_nor_with_a_draft_model():
    draft = TINY.parent / "llama-q-q6_k.gguf"
    count({"m": TINY, "d": draft}, {"MINKA_SPECULATION": "always"}, {"draft_model": "d", "draft_num_predict": 3})


if __name__ == "__main__":
    main(sys.modules[__name__])
