#!/usr/bin/env python3
"""A draft model: set by a Modelfile or a request, loaded and unloaded with its target, and the same answers with it, without
it and with one that cannot be used."""
import os, pathlib, subprocess, sys, time

from harness import MINKA, Server, TINY, main, together

DATA = TINY.parent
DRAFT, FOREIGN = DATA / "llama-q-q6_k.gguf", DATA / "bert-q8_0.gguf"
SCHEMA = {"type": "object", "required": ["a", "b"], "properties": {"a": {"enum": ["on", "off"]}, "b": {"type": "integer"}}}


def server(env=None, models=None):
    models = models or {"target": TINY, "draft": DRAFT, "foreign": FOREIGN}
    return Server(models, env={"MINKA_SPECULATION": "always", **(env or {})})


def create(s, modelfile, name):
    pathlib.Path(s.folder, "Modelfile").write_text(modelfile)
    subprocess.run([MINKA, "create", name, "-f", "Modelfile"], env=s.env, cwd=s.folder, check=True, stdout=subprocess.DEVNULL)


def body(model="target", draft=None, n=60, **options):
    options = {"temperature": 0, "num_predict": n, "num_ctx": 256, **options}
    if draft is not None:
        options["draft_model"] = draft
    return {"model": model, "prompt": "the wheel and the stone", "raw": True, "options": options}


def events(s, b):
    lines = s.stream("/api/generate", b)
    assert "error" not in lines[-1], lines[-1]
    return [{k: v for k, v in line.items() if not k.endswith(("_duration", "_at", "model"))} for line in lines]


def loaded(s):
    return {m["name"] for m in s.ps()["models"]}


def blob(s, name):
    path = s.post("/api/show", {"model": name})[1]["modelfile"].split("\nFROM ")[1].split("\n")[0]
    return path


def test_from_a_modelfile():
    """It is shown, used, in `ps` with its memory, and goes with its target."""
    with server() as s:
        create(s, "FROM target\nPARAMETER draft_model draft\n", "fast")
        shown = s.post("/api/show", {"model": "fast"})[1]
        assert "draft_model" in shown["parameters"] and '"draft"' in shown["parameters"], shown["parameters"]
        assert "PARAMETER draft_model draft" in shown["modelfile"]
        want = events(s, body())
        memory = s.ps()["memory"]
        assert loaded(s) == {"target:latest"}
        got = [events(s, body("fast", n=200 + i)) for i in range(3)]  # the first may end before the draft is there
        s.wait_for(lambda: loaded(s) == {"target:latest", "draft:latest"})
        assert [e["response"] for e in got[0][:50]] == [e["response"] for e in want[:50]]
        s.wait_for(lambda: s.ps()["memory"]["weights"] >= memory["weights"] + os.path.getsize(DRAFT))
        assert events(s, body("fast")) == want
        s.post("/api/generate", {"model": "fast", "keep_alive": 0})
        s.wait_for(lambda: loaded(s) == set())
        assert s.ps()["memory"]["weights"] == 0 and s.ps()["memory"]["scratch"] == 0


def test_the_same_answers():
    """Alone and in a crowd, drawn in every way, under a grammar, over the end of the context."""
    cases = [dict(), dict(temperature=0.7, seed=3), dict(temperature=1, seed=4, repeat_penalty=1.2), dict(num_ctx=40, n=120),
             dict(draft_num_predict=1), dict(stop=["a"], temperature=0.9, seed=5)]
    with server() as s:
        bodies = [body(draft=d, **c) for c in cases for d in ("", "draft")]
        bodies += [{**body(draft=d, temperature=t, seed=2), "format": SCHEMA} for t in (0, 1) for d in ("", "draft")]
        alone = [events(s, b) for b in bodies]
        for i in range(0, len(bodies), 2):
            assert alone[i] == alone[i + 1], (bodies[i], alone[i][-1], alone[i + 1][-1])
        assert "draft:latest" in loaded(s)
        assert together([lambda b=b: events(s, b) for b in bodies]) == alone


def test_steps_are_saved():
    """The file of the target under another digest guesses all that a greedy target draws."""
    path = pathlib.Path("/tmp") / f"minka-draft-{os.getpid()}.gguf"
    data = TINY.read_bytes()
    path.write_bytes(data + bytes(32))  # bytes behind the last tensor belong to nothing
    try:
        with server(models={"target": TINY, "twin": path}) as s:
            events(s, body(draft="twin", n=200, num_ctx=512))
            idle = lambda: s.ps()["queue"]["running"] == 0 and s.ps()["steps"]
            s.wait_for(lambda: "twin:latest" in loaded(s))
            steps = []
            for draft in ("", "twin"):
                time.sleep(0.3)
                before = s.wait_for(idle)
                n = events(s, {**body(draft=draft, n=100, num_ctx=512, draft_num_predict=4), "prompt": "water"})[-1]["eval_count"]
                time.sleep(0.3)
                steps.append(s.wait_for(idle) - before)
            assert n == 100 and steps[1] <= 100 / 5 + 5, steps
    finally:
        path.unlink()


def test_refused():
    """What is wrong is said by name, with what to do."""
    with server() as s:
        for draft, status, text in [
            ("nobody", 404, "draft model 'nobody' not found: pull it"),
            ("target", 400, "draft model 'target' is the model itself"),
            ("foreign", 400, "draft model 'foreign' has another vocabulary than target:latest"),
            ("a b", 400, "no name of a model: a b"),
            (7, 500, 'option "draft_model" must be of type string'),
        ]:
            got = s.post("/api/generate", body(draft=draft))
            assert got[0] == status and text in got[1]["error"], got
        assert s.post("/api/generate", body(draft="nobody", draft_num_predict=0) | {"stream": False})[0] == 200
        create(s, "FROM target\nPARAMETER draft_model nobody\n", "lost")
        b = {"model": "lost", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        status, answer = s.post("/v1/chat/completions", b)
        assert status == 404 and "nobody" in answer["error"]["message"], answer
        assert events(s, body("lost", draft="")) == events(s, body())


def test_damaged():
    """Cut off before it is loaded, and while it is used: the target's requests go on, the log has one line."""
    for size in (100, os.path.getsize(DRAFT) // 2):
        with server() as s:
            want = events(s, body())
            os.truncate(blob(s, "draft"), size)
            for _ in range(4):
                assert events(s, body(draft="draft")) == want
            said = [line for line in s.log_text().splitlines() if "level=ERROR" in line or "level=WARN" in line]
            assert len(said) == 1 and loaded(s) == {"target:latest"}, said
    with server() as s:
        want = events(s, body(n=200))
        events(s, body(n=200, draft="draft"))
        s.wait_for(lambda: "draft:latest" in loaded(s))
        os.truncate(blob(s, "draft"), os.path.getsize(DRAFT) // 2)
        for _ in range(4):
            assert events(s, body(n=200, draft="draft")) == want
        said = [line for line in s.log_text().splitlines() if "level=ERROR" in line or "level=WARN" in line]
        assert len(said) == 1 and "draft" in said[0], said
        s.wait_for(lambda: loaded(s) == {"target:latest"})
        assert s.post("/api/generate", body("draft"))[0] != 200


def test_no_room():
    """A budget that holds the target but not the draft beside it."""
    with server() as s:
        events(s, body(n=200, draft="draft"))
        s.wait_for(lambda: "draft:latest" in loaded(s))
        m = s.ps()["memory"]
        want = events(s, body(n=200))
    with server() as s:
        events(s, body())
        alone = s.ps()["memory"]
    most = alone["weights"] + alone["scratch"] + alone["kv"] + (34 << 20)
    assert most < m["weights"] + m["scratch"] + (32 << 20)
    with server(env={"MINKA_MEMORY": str(most)}) as s:
        for _ in range(3):
            assert events(s, body(n=200, draft="draft")) == want
        assert loaded(s) == {"target:latest"}
        used = s.ps()["memory"]
        assert used["weights"] + used["scratch"] + used["kv"] + (32 << 20) <= used["limit"]


if __name__ == "__main__":
    main(sys.modules[__name__])
