#!/usr/bin/env python3
"""Several models in one server: who shares a batch, who waits for whom, what /api/ps shows; and model files that are cut
off, replaced or deleted while they are in use. Sanitizer builds use tiny models."""
import hashlib, json, os, shutil, socket, subprocess, sys, threading, time

from harness import MINKA, Server, Skip, TINY, main, real_model, together
from test_robust import OTHER, REAL, SLOW, answers, body, place


def gemma():
    path = os.environ.get("MINKA_TEST_GEMMA3")
    if not path:
        raise Skip("MINKA_TEST_GEMMA3 is not set")
    return path


def pair():
    return {"m": real_model() if REAL else TINY, "o": gemma() if REAL else OTHER}


class Stream:
    """An answer that is read on a thread: its lines and when they came."""

    def __init__(self, s, **more):
        self.lines, self.times = [], []
        self.connection = s.connect()
        self.connection.request("POST", "/api/generate", json.dumps(body(stream=True, **more)))
        self.socket = self.connection.sock  # the connection lets go of it when the answer says that it closes
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        try:
            for line in self.connection.getresponse():  # the headers come with the first text
                self.times.append(time.monotonic())
                self.lines.append(json.loads(line))
        except (OSError, ValueError, AttributeError):
            pass  # left

    def wait(self, n=1, seconds=60):
        end = time.monotonic() + seconds
        while len(self.lines) < n and self.thread.is_alive() and time.monotonic() < end:
            time.sleep(0.002)
        assert len(self.lines) >= n, self.lines
        return self

    def text(self):
        self.thread.join(120)
        assert not self.thread.is_alive() and self.lines[-1].get("done"), self.lines[-1:]
        return "".join(line["response"] for line in self.lines)

    def error(self):
        self.thread.join(120)
        assert not self.thread.is_alive()
        return self.lines[-1]["error"]

    def leave(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(20)


def own_blob(s, path):
    """The file's blob in the store. It may be a link to the file itself, which nobody must cut: it becomes a copy."""
    with open(path, "rb") as f:
        blob = f"{s.store}/blobs/sha256-" + hashlib.file_digest(f, "sha256").hexdigest()
    restore(path, blob)
    return blob


def restore(path, blob):
    shutil.copy(path, blob + ".new")
    os.chmod(blob + ".new", 0o644)
    os.rename(blob + ".new", blob)


def long_one(s, n=100000, **more):
    """Greedy text of these prompts (and "Two", "Three" of the other model) runs into a loop instead of an end token.
    Guesses would make short work of the loop."""
    return Stream(s, n=n, options={"temperature": 0, "num_ctx": 2048, "draft_num_predict": 0, **more.pop("options", {})}, **more)


def test_same_model_is_one_batch():
    with Server(pair()) as s:
        a = long_one(s).wait(3)
        b = long_one(s, prompt="Two").wait(3)
        a.wait(len(a.lines) + 5), b.wait(len(b.lines) + 5)
        assert a.thread.is_alive() and b.thread.is_alive(), "one was seen after the other, not beside it"
        s.wait_for(lambda: s.ps()["queue"] == {"running": 2, "waiting": 0})
        a.leave(), b.leave()
        s.wait_for(lambda: s.ps()["queue"] == {"running": 0, "waiting": 0})


def check_waits(s, a, b):
    """b waits for its turn while a gets on."""
    s.wait_for(lambda: s.ps()["queue"] == {"running": 1, "waiting": 1})
    a.wait(len(a.lines) + 50)
    assert a.thread.is_alive() and not b.lines, "the second has begun beside the first"


def test_cap_of_one_request():
    with Server(pair(), env={"OLLAMA_NUM_PARALLEL": "1"}) as s:
        a = long_one(s).wait()
        b = Stream(s, n=4, prompt="Two")
        check_waits(s, a, b)
        a.leave()
        assert b.text()


def test_cap_of_one_model():
    with Server(pair(), env={"OLLAMA_MAX_LOADED_MODELS": "1"}) as s:
        want = answers(s, model="o", n=8)["response"]
        a = long_one(s).wait()
        b = Stream(s, model="o", n=8)
        check_waits(s, a, b)
        s.wait_for(lambda: [m["name"] for m in s.ps()["models"]] == ["m:latest"])
        a.leave()
        assert b.text() == want
        s.wait_for(lambda: [m["name"] for m in s.ps()["models"]] == ["o:latest"])


def test_two_that_fit_answer_at_the_same_time():
    with Server(pair()) as s:
        want = answers(s, model="o", n=8)["response"]
        a = long_one(s).wait(3)
        assert Stream(s, model="o", n=8).text() == want
        n = len(a.lines)
        a.wait(n + 3)
        s.wait_for(lambda: {m["name"] for m in s.ps()["models"]} == {"m:latest", "o:latest"})
        a.leave()


def small_memory(models):
    """A limit at which each fits alone and both do not, from what they take."""
    takes = {}
    for name in models:
        with Server(models) as s:
            answers(s, model=name, n=4)
            memory = s.wait_for(lambda: (lambda m: m if m.get("kv") else None)(s.ps()["memory"]))
            takes[name] = memory["weights"] + memory["scratch"] + memory["kv"]
    return max(takes.values()) + min(takes.values()) // 2 + (32 << 20)


def test_two_that_do_not_fit():
    """The second waits until the first is idle, or until MINKA_MAX_WAIT has passed: then the first is parked."""
    if not REAL:
        raise Skip("tiny models always fit")
    models = pair()
    limit, greedy = small_memory(models), {"temperature": 0, "num_ctx": 2048}
    with Server(models, env={"MINKA_MEMORY": str(limit), "MINKA_MAX_WAIT": "700ms"}) as s:
        n = 160
        alone = {name: answers(s, model=name, n=n if name == "m" else 8)["response"] for name in models}
        assert [m["name"] for m in s.ps()["models"]] == ["o:latest"], "the idle one goes at once"
        # The first ends before the longest wait: the second takes its turn then.
        a = Stream(s, n=6)
        a.wait()
        b = Stream(s, model="o", n=8)
        a.text()
        assert b.text() == alone["o"] and a.times[-2] <= b.times[0]
        # The first goes on: it is parked after the longest wait, and comes back.
        text = answers(s, n=1500, options=greedy)["response"]
        a = long_one(s, n=1500).wait()
        start = time.monotonic()
        b = Stream(s, model="o", n=8)
        s.wait_for(lambda: s.ps()["queue"] == {"running": 1, "waiting": 1}, seconds=5)
        assert b.text() == alone["o"]
        waited = b.times[0] - start
        assert 0.5 < waited < 8, waited
        memory = s.ps()["memory"]
        assert memory["weights"] + memory["scratch"] + memory["kv"] <= limit, memory
        assert a.text() == text, "a parked answer goes on as if nothing had been"
        # In groups that alternate: the same bytes as alone.
        assert together([lambda k=k: answers(s, model=k, n=n if k == "m" else 8)["response"] for k in ["m", "o"] * 3]) == \
            [alone["m"], alone["o"]] * 3


def test_parked_while_its_model_is_gone():
    """Whatever an answer holds of its model outlives the unloading: text, stops and bytes are as if nothing had been."""
    n, wait = (1500, "100ms") if REAL else (4000, "20ms")
    with Server(pair(), env={"OLLAMA_MAX_LOADED_MODELS": "1", "MINKA_MAX_WAIT": wait}) as s:
        want = Stream(s, n=n, options={"temperature": 0, "num_ctx": 2048}).text()
        a, n_between = long_one(s, n=n).wait(), 0
        while a.thread.is_alive():
            assert answers(s, model="o", n=4, prompt=f"{n_between} and")["eval_count"] > 0
            n_between += a.thread.is_alive()  # then its model had to go for this one
        assert a.text() == want
        assert n_between >= 1


def own_cgroup():
    """A new memory cgroup (version 1 or 2) and the file of its limit."""
    for mount, file in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        folder = f"{mount}/minka-test-{os.getpid()}"
        try:
            os.mkdir(folder)
        except OSError:
            continue
        if os.path.exists(f"{folder}/{file}"):
            return folder, f"{folder}/{file}"
        os.rmdir(folder)
    raise Skip("no memory cgroup can be made here")


def test_limit_of_the_cgroup_is_followed():
    folder, file = own_cgroup()

    def put(name, value):
        with open(name, "w") as f:
            f.write(str(value))

    try:
        with Server({"m": TINY}) as s:
            answers(s)
            put(folder + "/cgroup.procs", s.process.pid)
            put(folder + "/cgroup.procs", s.engine_pid())
            for limit in (2 << 30, 1 << 30, 3 << 30):
                put(file, limit)
                s.wait_for(lambda: answers(s, n=1) and s.ps()["memory"]["limit"] == limit, seconds=8, every=0.2)
    finally:
        os.rmdir(folder)


def test_load_that_fails_tells_all_that_wait():
    good = TINY.read_bytes()
    at = good.index(b"tokenizer.ggml.model") + 20 + 4  # its type; then length and text
    length = int.from_bytes(good[at:at + 8], "little")
    bad = good[:at + 8] + b"z" * length + good[at + 8 + length:]
    with Server(pair()) as s:
        place(s, "bad", bad)
        texts = [t for _, t in together([lambda: s.post("/api/generate", body(model="bad")) for _ in range(4)])]
        assert len({t["error"] for t in texts}) == 1 and "z" * length in texts[0]["error"], texts
        print("# " + texts[0]["error"])
        assert answers(s)


def context_of(s, name="m:latest"):
    return {m["name"]: m["context_length"] for m in s.ps()["models"]}.get(name)


def test_ps_and_stop():
    with Server(pair()) as s:
        answers(s, n=2, options={"num_ctx": 512})
        s.wait_for(lambda: context_of(s) == 512)
        a = long_one(s, options={"num_ctx": 300}).wait(2)
        b = long_one(s, options={"num_ctx": 200}).wait(2)
        s.wait_for(lambda: context_of(s) == 300)
        a.leave()
        s.wait_for(lambda: context_of(s) == 200)
        b.leave()
        s.wait_for(lambda: context_of(s) == 200)
        shown = s.ps()["models"][0]
        assert shown["size"] >= os.path.getsize(pair()["m"]) and shown["digest"] and shown["expires_at"] > "2", shown
        run = lambda *args: subprocess.run([MINKA, *args], env=s.env, capture_output=True, text=True, timeout=60)
        row = run("ps").stdout.splitlines()[1].split()
        assert row[0] == "m:latest" and "200" in row and row[-3:] in (["minutes", "from", "now"], ["seconds", "from", "now"]), row
        assert run("stop", "m").returncode == 0
        s.wait_for(lambda: not s.ps()["models"])
        assert len(run("ps").stdout.splitlines()) == 1
        assert "couldn't find model" in run("stop", "nobody").stderr


def cut_under_a_stream(size_of):
    """What a reader of another model sees while a file is cut to size_of(its size) bytes."""
    path = pair()["o"]
    with Server(pair(), env={"OLLAMA_NUM_PARALLEL": "2"}) as s:
        n = 60 if REAL else 300
        alone = answers(s, n=n)["response"]
        blob = own_blob(s, path)
        before = answers(s, model="o", n=8)["response"]
        engine = s.engine_pid()
        hurt = [long_one(s, model="o", prompt=p).wait(3) for p in ("Two", "Three")]
        queued = long_one(s, model="o", prompt="Count")
        other = Stream(s, n=n)
        other.wait(2)
        os.truncate(blob, size_of(os.path.getsize(blob)))
        for h in hurt + [queued]:
            text = h.error()
            assert "cut off or can no longer be read" in text and "unexpectedly" not in text, text
        print("# " + text)
        assert other.text() == alone, "the other model's stream has suffered"
        assert s.engine_pid() == engine
        s.wait_for(lambda: [m["name"] for m in s.ps()["models"]] == ["m:latest"])
        status, answer = s.post("/api/generate", body(model="o"))
        assert status == 500 and len(answer["error"]) > 20 and "unexpectedly" not in answer["error"], answer
        print("# afterwards: " + answer["error"])
        restore(path, blob)
        assert answers(s, model="o", n=8)["response"] == before
        assert s.engine_pid() == engine
        assert answers(s, n=n)["response"] == alone


def test_file_cut_to_its_header_under_a_stream():
    cut_under_a_stream(lambda n: 4096)


def test_file_cut_within_its_last_page_under_a_stream():
    """No page is lost, its end only reads as zeros: no signal tells."""
    cut_under_a_stream(lambda n: n - 1)


def test_file_replaced_or_deleted_under_a_stream():
    """An open file stays what it is."""
    path = pair()["o"]
    with Server(pair()) as s:
        blob = own_blob(s, path)
        want = answers(s, model="o", n=60, keep_alive=0)["response"]
        for what in ("replaced", "deleted"):
            a = Stream(s, model="o", n=60)
            a.wait(3)
            if what == "replaced":
                with open(blob + ".new", "wb") as f:
                    f.write(b"something else")
                os.rename(blob + ".new", blob)
            else:
                os.unlink(blob)
            assert a.text() == want, what
            restore(path, blob)
        assert answers(s, model="o", n=60)["response"] == want


def test_file_cut_at_random_moments():
    """Before, while and after the file is checked, loaded and its prompt is read: an error or the answer, never the
    engine's end."""
    path = OTHER
    with Server({"m": TINY, "o": path}) as s:
        engine, blob, size = s.engine_pid(), own_blob(s, path), os.path.getsize(path)
        want = answers(s, model="o", n=30)["response"]
        seen = set()
        for i in range(40):
            a = Stream(s, model="o", n=30, keep_alive=0)
            time.sleep(i * 0.0007 * SLOW)
            os.truncate(blob, size * (i % 5) // 5)
            a.thread.join(60)
            last = a.lines[-1] if a.lines else {}
            if last.get("done"):
                assert "".join(line["response"] for line in a.lines) == want
            seen.add("done" if last.get("done") else "error")
            assert last.get("done") or "unexpectedly" not in last.get("error", ""), last
            s.wait_for(lambda: not s.ps()["models"])
            restore(path, blob)
            assert answers(s, model="o", n=30)["response"] == want
        assert s.engine_pid() == engine
        print(f"# seen: {sorted(seen)}")


if __name__ == "__main__":
    main(sys.modules[__name__])
