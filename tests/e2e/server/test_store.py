#!/usr/bin/env python3
"""Models come in and go: Modelfiles, blobs, copies, deletions, and a server that is killed in the middle of them."""
import contextlib, hashlib, http.client, json, os, pathlib, random, signal, socket, struct, subprocess, sys, tempfile, threading, time

from harness import MINKA, TINY, Server, Skip, main, real_model, together

SANITIZED = "MINKA_E2E_TINY" in os.environ


def minka(s, *args, folder=None, code=0):
    """Runs a command against the server; its output, both streams."""
    got = subprocess.run([MINKA, *args], env=s.env, cwd=folder or s.folder, capture_output=True, text=True, timeout=60,
                         stdin=subprocess.DEVNULL)
    assert got.returncode == code, (args, got)
    return got.stdout + got.stderr


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def upload(s, data, digest=None):
    return s.call("POST", "/api/blobs/" + (digest or sha256(data)), data)[0]


def answer(s, model, messages, **more):
    status, got = s.post("/api/chat", {"model": model, "messages": messages, "stream": False, **more})
    assert status == 200, got
    return got["message"]["content"]


def blobs(s):
    return sorted(os.listdir(os.path.join(s.store, "blobs")))


def store_whole(s):
    """Every blob has the hash its name says, every model listed has its blobs and can be shown."""
    for name in blobs(s):
        data = pathlib.Path(s.store, "blobs", name).read_bytes()
        assert name == sha256(data).replace(":", "-"), name
    models = s.get("/api/tags")[1]["models"]
    for m in models:
        status, shown = s.post("/api/show", {"model": m["name"]})
        assert status == 200 and shown["model_info"]["general.architecture"] == "llama", (m["name"], shown)
    return {m["name"] for m in models}


def again(s):
    """Kills the server as hard as it goes and starts another one on the same store."""
    s.process.send_signal(signal.SIGKILL)
    s.process.wait()
    s.__enter__()


MODELFILE = """# a test
FROM ./models/weights.gguf
PARAMETER temperature 0
PARAMETER seed 7
PARAMETER num_predict 9
PARAMETER stop "never "
PARAMETER stop ever
SYSTEM \"\"\"Be "brief".
Please.\"\"\"
MESSAGE user hello
MESSAGE assistant hi
LICENSE MIT
"""
OPTIONS = {"temperature": 0, "seed": 7, "num_predict": 9, "stop": ["never ", "ever"]}


def create_and_use(path):
    with Server() as s:
        work = pathlib.Path(s.folder, "work")
        (work / "models").mkdir(parents=True)
        (work / "models" / "weights.gguf").symlink_to(path)
        (work / "Modelfile").write_text(MODELFILE)
        out = minka(s, "create", "Mine:v1", folder=work)
        assert "copying file sha256:" in out and out.rstrip().endswith("success"), out
        # The same through another folder; nothing is copied a second time.
        out = minka(s, "create", "second", "-f", "work/Modelfile")
        assert "copying" not in out and "using existing layer" in out and "creating" not in out, out
        minka(s, "import", str(path), "plain")

        wanted = answer(s, "plain", [{"role": "system", "content": 'Be "brief".\nPlease.'}, {"role": "user", "content": "hello"},
                                     {"role": "assistant", "content": "hi"}, {"role": "user", "content": "Who?"}], options=OPTIONS)
        asked = [{"role": "user", "content": "Who?"}]
        assert answer(s, "mine:V1", asked) == wanted
        assert answer(s, "second", asked) == wanted
        assert answer(s, "second", asked, options={"num_predict": 1}) != wanted

        shown = minka(s, "show", "mine:v1", "--modelfile")
        work.joinpath("again").write_text(shown)
        minka(s, "create", "again", "-f", "again", folder=work)
        body = lambda text: text.split("\n\n", 1)[1]
        assert body(minka(s, "show", "again", "--modelfile")) == body(shown)
        assert minka(s, "show", "again", "--system") == 'Be "brief".\nPlease.'
        assert minka(s, "show", "again", "--license") == "MIT\n"
        assert 'stop                           "never "' in minka(s, "show", "again", "--parameters")

        assert minka(s, "cp", "MINE:v1", "me/copy") == "copied 'MINE:v1' to 'me/copy'\n"
        assert minka(s, "rm", "mine:v1", "second", "again") == "deleted 'mine:v1'\ndeleted 'second'\ndeleted 'again'\n"
        assert answer(s, "me/copy", asked) == wanted
        assert "not found" in minka(s, "rm", "mine:v1", code=1)
        assert store_whole(s) == {"me/copy:latest", "plain:latest"}
        # While a name is left the model stays loaded; the last one takes it along.
        minka(s, "rm", "plain")
        time.sleep(0.3)
        assert len(s.ps()["models"]) == 1
        minka(s, "rm", "me/copy")
        s.wait_for(lambda: not s.ps()["models"])
        assert blobs(s) == [] and os.listdir(os.path.join(s.store, "manifests")) == []


def test_create_tiny():
    create_and_use(TINY)


def test_create_real():
    if SANITIZED:
        raise Skip("sanitizer builds use the tiny model")
    create_and_use(real_model())


def test_create_refused():
    """What cannot be made is told in one line with exit code 1, and nothing is made."""
    with Server() as s:
        cases = {
            "ADAPTER x\nFROM x": "ADAPTER is not supported",
            "FROM x\nRENDERER y": "RENDERER is not supported",
            "FROM x\nPARSER y": "PARSER is not supported",
            "FROM x\nDRAFT y": "DRAFT is not supported",
            "FROMM x": "(line 1): command must be one of",
            "SYSTEM x": "no FROM line",
            'FROM x\nSYSTEM "x': "unexpected EOF",
            "FROM x\nPARAMETER top_k many": "invalid int value [many]",
            "FROM x\nPARAMETER frobs 1": "unknown parameter 'frobs'",
            "FROM x\nREQUIRES one": "requires must be a valid semver",
            "FROM ./Modelfile": "supplied file was not in GGUF format",
            "FROM ./weights.gguf": "FROM ./weights.gguf: there is no such file or folder",
            "FROM .": "no Modelfile or model files found",
        }
        for text, error in cases.items():
            pathlib.Path(s.folder, "Modelfile").write_text(text)
            out = minka(s, "create", "m", code=1)
            assert "Error: " in out and error in out, (text, out)
        assert "specified Modelfile wasn't found" in minka(s, "create", "m", "-f", "nope", code=1)
        assert "invalid model name: a b" in minka(s, "create", "a b", code=1)
        assert "--experimental" in minka(s, "create", "m", "--experimental", code=1)
        pathlib.Path(s.folder, "Modelfile").write_text(f"FROM {TINY}")
        assert "quantization is only supported" in minka(s, "create", "m", "-q", "q8_0", code=1)
        assert store_whole(s) == set()


def gguf_text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def test_projector():
    """A second FROM of type mmproj becomes the projector, and is shown as one."""
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 4)
    for key, value in (("general.architecture", "clip"), ("general.type", "mmproj"), ("general.name", "eye")):
        data += gguf_text(key) + struct.pack("<I", 8) + gguf_text(value)
    data += gguf_text("clip.vision.embedding_length") + struct.pack("<II", 4, 77)
    data += bytes(-len(data) % 32)
    with Server() as s:
        pathlib.Path(s.folder, "eye.gguf").write_bytes(data)
        pathlib.Path(s.folder, "Modelfile").write_text(f"FROM {TINY}\nFROM eye.gguf\n")
        minka(s, "create", "eyed")
        shown = s.post("/api/show", {"model": "eyed"})[1]
        assert shown["projector_info"]["clip.vision.embedding_length"] == 77
        assert minka(s, "show", "eyed", "--modelfile").count("\nFROM /") == 2
        assert "  Projector\n    architecture        clip" in minka(s, "show", "eyed")
        assert store_whole(s) == {"eyed:latest"}


def test_upload():
    """A blob of any size, from two clients at once, with a wrong hash, from a client that leaves."""
    big = random.Random(1).randbytes(48 << 20)
    with Server() as s:
        before = resident(s)
        assert sorted(together([lambda: upload(s, big), lambda: upload(s, big)])) in ([200, 201], [201, 201])
        assert resident(s) - before < 12 << 20, "an upload is held in memory"
        assert upload(s, big) == 200
        assert upload(s, b"other bytes", sha256(big[:9])) == 400
        assert s.call("HEAD", "/api/blobs/" + sha256(big))[0] == 200
        c = s.connect()
        c.putrequest("POST", "/api/blobs/" + sha256(b"x" * 100))
        c.putheader("Content-Length", "100")
        c.endheaders(b"x" * 50)
        c.sock.shutdown(socket.SHUT_RDWR)
        c.close()
        small = b"chunked" * 1000
        c = s.connect()
        c.request("POST", "/api/blobs/" + sha256(small), iter([small[:10], small[10:]]), encode_chunked=True,
                  headers={"Transfer-Encoding": "chunked"})
        assert c.getresponse().status == 201
        s.wait_for(lambda: len(blobs(s)) == 2)
        store_whole(s)


def resident(s):
    with open(f"/proc/{s.process.pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid):
    """What the descriptors of a process mean; one may close while they are listed."""
    for p in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            yield os.readlink(p)


def test_two_creates_at_once():
    data = TINY.read_bytes()
    with Server() as s:
        assert upload(s, data) == 201

        def make(name, system):
            return lambda: s.stream("/api/create", {"model": name, "files": {"w.gguf": sha256(data)}, "system": system})[-1]

        for round in range(4):
            jobs = [make("same", f"a{round}"), make("same", f"b{round}"), make("x", f"c{round}"), make("Y", f"d{round}")]
            assert together(jobs) == [{"status": "success"}] * 4
            assert store_whole(s) == {"same:latest", "x:latest", "Y:latest"}
            assert s.post("/api/show", {"model": "same"})[1]["system"] in (f"a{round}", f"b{round}")
        # Replaced texts went with their manifests: weights, config, three system texts.
        assert len(blobs(s)) == 5, blobs(s)


def test_delete_while_streaming():
    """The stream goes on to its end; the name is gone at once, the bytes are too, and the model can come back."""
    data = TINY.read_bytes()
    with Server({"m": TINY}) as s:
        body = {"model": "m", "prompt": "one two three", "raw": True, "options": {"num_predict": 400, "seed": 1}}
        whole = [o["response"] for o in s.stream("/api/generate", body)]
        c, r = s.open_stream("/api/generate", body)
        first = json.loads(r.readline())
        assert not first["done"]
        assert s.call("DELETE", "/api/delete", {"model": "m"})[0] == 200
        assert s.post("/api/show", {"model": "m"})[0] == 404 and blobs(s) == []
        rest = [json.loads(line) for line in r.read().splitlines()]
        c.close()
        assert rest[-1]["done"] and [o["response"] for o in [first] + rest] == whole
        assert s.post("/api/generate", body)[0] == 404
        # The engine gives the disk its room back once the model is unloaded.
        held = lambda: any("blobs" in f and "(deleted)" in f for f in open_files(s.engine_pid()))
        assert held()
        assert upload(s, data) == 201
        s.post("/api/create", {"model": "other", "files": {"m": sha256(data)}, "stream": False})
        s.post("/api/generate", {"model": "other", "keep_alive": 0})
        s.wait_for(lambda: not held())
        s.call("DELETE", "/api/delete", {"model": "other"})
        assert upload(s, data) == 201
        assert s.post("/api/create", {"model": "m", "files": {"m": sha256(data)}, "stream": False}) == (200, {"status": "success"})
        assert [o["response"] for o in s.stream("/api/generate", body)] == whole


def test_killed_while_uploading():
    """kill -9 at growing distances into an upload: afterwards the store has whole blobs only."""
    big = random.Random(2).randbytes(24 << 20)
    with Server({"stays": TINY}) as s:
        for i in range(3 if SANITIZED else 7):
            c = s.connect()
            c.putrequest("POST", "/api/blobs/" + sha256(big))
            c.putheader("Content-Length", str(len(big)))
            c.endheaders()
            with contextlib.suppress(OSError):
                c.send(big[: len(big) * i // 6])
                if i == 6:
                    time.sleep(0.02)  # between the last byte and the name
            again(s)
            c.close()
            assert store_whole(s) == {"stays:latest"}
        assert upload(s, big) in (200, 201)


def test_killed_while_creating_and_removing():
    """kill -9 at random moments of create, cp and rm: what is listed works, and the next try succeeds."""
    data = TINY.read_bytes()
    chance = random.Random(3)
    with Server({"stays": TINY}) as s:
        upload(s, data)

        def work(port):
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                for i in range(10**6):
                    for method, path, body in (
                        ("POST", "/api/create", {"model": "m", "files": {"m.gguf": sha256(data)}, "system": f"text {i}"}),
                        ("POST", "/api/create", {"model": "n", "from": "m", "parameters": {"seed": i}}),
                        ("POST", "/api/copy", {"source": "m", "destination": "copy"}),
                        ("DELETE", "/api/delete", {"model": "m"}),
                        ("DELETE", "/api/delete", {"model": "copy"}),
                        ("DELETE", "/api/delete", {"model": "n"}),
                    ):
                        c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                        c.request(method, path, json.dumps(body))
                        c.getresponse().read()
                        c.close()

        for _ in range(4 if SANITIZED else 12):
            t = threading.Thread(target=work, args=(s.port,))
            t.start()
            time.sleep(chance.uniform(0.005, 0.15))
            again(s)
            t.join()
            assert "stays:latest" in store_whole(s)
            upload(s, data)
            for path, body in (("create", {"model": "m", "files": {"m": sha256(data)}, "stream": False}),
                               ("copy", {"source": "m", "destination": "n"})):
                assert s.post("/api/" + path, body)[0] == 200
            assert answer(s, "n", [{"role": "user", "content": "x"}], options={"num_predict": 1}) is not None


def test_start_prunes():
    """What no model names goes at the next start, an hour after its last use; OLLAMA_NOPRUNE keeps it."""
    for env, kept in (({}, False), ({"OLLAMA_NOPRUNE": "1"}, True)):
        with Server({"m": TINY}, env=env) as s:
            old, fresh = b"old", b"fresh"
            assert upload(s, old) == upload(s, fresh) == 201
            name = os.path.join(s.store, "blobs", sha256(old).replace(":", "-"))
            os.utime(name, (time.time() - 7200,) * 2)
            again(s)
            assert os.path.exists(name) == kept
            assert len(blobs(s)) == 3 + kept and store_whole(s) == {"m:latest"}


main(sys.modules[__name__])
