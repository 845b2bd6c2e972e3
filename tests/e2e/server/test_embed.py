"""Embeddings over HTTP: the three routes and their errors; many inputs in one call equal single calls bit by bit, also
beside chats. The models are tiny and random."""
import base64, json, math, os, pathlib, struct, subprocess, sys, tempfile, threading

from harness import Server, Skip, TINY, main, together

ENCODER = TINY.parent / "bert-q8_0.gguf"
WORDS = "the river was long and the morning light came over the water while they walked home and nobody said a word".split()


def text(i):
    return " ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 2 + i % 23))


def norm(v):
    return math.sqrt(sum(x * x for x in v))


def embed(s, **fields):
    status, answer = s.post("/api/embed", {"model": "tiny", **fields})
    assert status == 200, (status, answer)
    return answer


def bits(v):
    return struct.pack(f"<{len(v)}f", *v)


def expect_error(s, path, body, status, text):
    got, answer = s.post(path, body)
    message = answer["error"] if isinstance(answer["error"], str) else answer["error"]["message"]
    assert (got, message) == (status, text), (got, message)


def test_embed():
    with Server({"tiny": ENCODER}) as s:
        a = embed(s, input="the river")
        assert list(a) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"], list(a)
        assert len(a["embeddings"]) == 1 and len(a["embeddings"][0]) == 64 and abs(norm(a["embeddings"][0]) - 1) < 1e-6
        assert a["prompt_eval_count"] >= 3
        two = embed(s, input=["the river", "the water"])
        assert two["embeddings"][0] == a["embeddings"][0] != two["embeddings"][1]
        assert embed(s, input=[]) == {"model": "tiny", "embeddings": []} == embed(s, input="") == embed(s)
        cut = embed(s, input="the river", dimensions=16)["embeddings"][0]
        whole = a["embeddings"][0]
        assert len(cut) == 16 and abs(norm(cut) - 1) < 1e-6
        assert all(abs(c - w / norm(whole[:16])) < 1e-6 for c, w in zip(cut, whole))
        assert embed(s, input="the river", dimensions=1000)["embeddings"][0] == whole
        # A word of an own token more than the context: the rest is cut, or refused.
        long = "river " * 600
        assert embed(s, input=long)["prompt_eval_count"] == 512
        assert embed(s, input=long, options={"num_ctx": 20})["prompt_eval_count"] == 20
        expect_error(s, "/api/embed", {"model": "tiny", "input": long, "truncate": False}, 400,
                     "the input length exceeds the context length")
        assert embed(s, input=long)["embeddings"] == embed(s, input="river " * 510)["embeddings"]


def test_old_route():
    with Server({"tiny": ENCODER}) as s:
        status, a = s.post("/api/embeddings", {"model": "tiny", "prompt": "the river"})
        assert status == 200 and list(a) == ["embedding"] and len(a["embedding"]) == 64
        assert abs(norm(a["embedding"]) - 1) > 1e-3  # as the model gives it
        unit = embed(s, input="the river")["embeddings"][0]
        assert all(abs(x / norm(a["embedding"]) - u) < 1e-6 for x, u in zip(a["embedding"], unit))
        assert s.post("/api/embeddings", {"model": "tiny"}) == (200, {"embedding": []})


def test_openai_route():
    with Server({"tiny": ENCODER}) as s:
        unit = embed(s, input=["the river", "the water"])
        status, a = s.post("/v1/embeddings", {"model": "tiny", "input": ["the river", "the water"]})
        assert status == 200 and list(a) == ["object", "data", "model", "usage"], a
        assert [d["embedding"] for d in a["data"]] == unit["embeddings"] and [d["index"] for d in a["data"]] == [0, 1]
        assert a["usage"] == {"prompt_tokens": unit["prompt_eval_count"], "total_tokens": unit["prompt_eval_count"]}
        status, b = s.post("/v1/embeddings", {"model": "tiny", "input": "the river", "encoding_format": "base64"})
        assert base64.b64decode(b["data"][0]["embedding"]) == bits(unit["embeddings"][0])
        # Token ids as they are: 5 and 6 stand around a text.
        status, c = s.post("/v1/embeddings", {"model": "tiny", "input": [5, 100, 101, 6], "dimensions": 8})
        assert status == 200 and len(c["data"][0]["embedding"]) == 8 and c["usage"]["prompt_tokens"] == 4
        status, d = s.post("/v1/embeddings", {"model": "tiny", "input": [[5, 100, 101, 6], [5, 6]], "dimensions": 8})
        assert d["data"][0] == c["data"][0] and len(d["data"]) == 2


def test_errors():
    with Server({"tiny": ENCODER, "causal": TINY}) as s:
        expect_error(s, "/api/embed", {"model": "none", "input": "x"}, 404, 'model "none" not found, try pulling it first')
        expect_error(s, "/api/embed", {"input": "x"}, 404, "model '' not found")
        expect_error(s, "/api/embeddings", {"prompt": "x"}, 400, "model is required")
        for bad in (7, True, {"a": 1}, ["x", 7], [[1, 2]]):
            expect_error(s, "/api/embed", {"model": "tiny", "input": bad}, 400, "invalid input type")
        expect_error(s, "/v1/embeddings", {"model": "tiny"}, 400, "invalid input")
        expect_error(s, "/v1/embeddings", {"model": "tiny", "input": "x", "encoding_format": "hex"}, 400,
                     "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64'].")
        expect_error(s, "/v1/embeddings", {"model": "tiny", "input": [5, 99999]}, 400,
                     "token 99999 is outside the vocabulary of 512")
        expect_error(s, "/api/embed", {"model": "tiny", "input": ["x"] * 2049}, 400,
                     "2049 inputs, at most 2048 are allowed")
        expect_error(s, "/api/embed", {"model": "tiny", "input": "river", "options": {"num_ctx": "many"}}, 500,
                     'option "num_ctx" must be of type integer')
        expect_error(s, "/api/generate", {"model": "tiny", "prompt": "x"}, 400, '"tiny" does not support generate')
        expect_error(s, "/api/chat", {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}, 400,
                     '"tiny" does not support chat')
        assert s.post("/api/show", {"model": "tiny"})[1]["capabilities"] == ["embedding"]


def test_many_equal_single():
    """200 inputs in one call, 200 calls, and both again while chats and other calls run: the same bits."""
    with Server({"tiny": ENCODER, "causal": TINY}) as s:
        texts = [text(i) for i in range(200)]
        single = [embed(s, input=t)["embeddings"][0] for t in texts]
        assert embed(s, input=texts)["embeddings"] == single
        assert embed(s, input=texts[::-1])["embeddings"] == single[::-1]
        stop = threading.Event()

        def chat(i):
            n = 0
            while not stop.is_set():
                status, _, _ = s.call("POST", "/api/generate", {"model": "causal", "prompt": text(i), "raw": True,
                                                                "options": {"num_predict": 40, "seed": i}})
                assert status == 200
                n += 1
            return n

        def calls(i):
            got = [embed(s, input=texts[i * 20:i * 20 + 20])["embeddings"], embed(s, input=texts[i])["embeddings"]]
            return got == [single[i * 20:i * 20 + 20], single[i:i + 1]]

        def embeds():
            try:
                assert embed(s, input=texts)["embeddings"] == single
                assert all(together([lambda i=i: calls(i) for i in range(10)]))
            finally:
                stop.set()

        assert all(together([lambda: chat(1), lambda: chat(2), lambda: embeds() or 1]))


def test_generating_model():
    """The last hidden row of a model that generates; cached prefixes change nothing."""
    with Server({"tiny": TINY}) as s:
        texts = [text(i) for i in range(20)]
        cold = embed(s, input=texts)
        assert all(abs(norm(v) - 1) < 1e-6 for v in cold["embeddings"])
        assert embed(s, input=texts)["embeddings"] == cold["embeddings"]
        assert [embed(s, input=t)["embeddings"][0] for t in texts] == cold["embeddings"]
        assert len({bits(v) for v in cold["embeddings"]}) == len(set(texts))


def with_pooling(path, kind):
    """A copy of the tiny model that names its pooling; a filler keeps the tensors aligned."""
    data = TINY.read_bytes()
    key = b"llama.pooling_type"
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, kind)
    fill = -(len(pair) + 21) % 32
    pair += struct.pack("<QcIQ", 1, b"x", 8, fill) + b"." * fill
    n_keys = struct.unpack_from("<Q", data, 16)[0]
    path.write_bytes(data[:16] + struct.pack("<Q", n_keys + 2) + pair + data[24:])
    return path


def test_pooling_of_a_generating_model():
    """The last row and the mean; neither depends on how the rows are cut, cached or batched."""
    with tempfile.TemporaryDirectory() as folder:
        models = {name: with_pooling(pathlib.Path(folder) / name, kind) for name, kind in (("mean", 1), ("last", 3))}
        with Server({"tiny": TINY, **models}) as s:
            texts = ["the river " * n for n in (1, 5, 40, 150)]
            default = embed(s, input=texts)["embeddings"]
            got = {m: [embed(s, model=m, input=texts)["embeddings"], embed(s, model=m, input=texts)["embeddings"],
                       [embed(s, model=m, input=t)["embeddings"][0] for t in texts]] for m in models}
            assert got["last"] == [default] * 3
            assert got["mean"] == [got["mean"][0]] * 3 and got["mean"][0] != default


def test_command_line():
    with Server({"tiny": ENCODER}) as s:
        got = subprocess.run([sys.argv[1], "run", "tiny", "the river"], env=s.env, capture_output=True, text=True, timeout=60)
        assert got.returncode == 0 and json.loads(got.stdout) == embed(s, input="the river")["embeddings"][0], got


def test_cancel_and_crash():
    """A client that leaves frees its place; an engine that dies is replaced and the next call is answered."""
    with Server({"tiny": ENCODER}) as s:
        c = s.connect()
        c.request("POST", "/api/embed", '{"model": "tiny", "input": ["' + '", "'.join(["river " * 500] * 500) + '"]}')
        s.wait_for(lambda: any(m["name"] == "tiny:latest" for m in s.ps()["models"]))
        c.close()
        before = embed(s, input="the river")["embeddings"]
        os.kill(s.engine_pid(), 9)
        s.wait_for(lambda: s.post("/api/embed", {"model": "tiny", "input": "x"})[0] == 200)
        assert embed(s, input="the river")["embeddings"] == before


if __name__ == "__main__":
    main(sys.modules[__name__])
