#!/usr/bin/env python3
"""The server's and the command line's side of pull and push: killed and started again, shared, cancelled, responsive, and
what `minka pull`, `push` and `run` show."""
import contextlib, json, os, pathlib, signal, subprocess, sys, tempfile, threading, time

from fake import FakeRegistry, manifest_of, sha
from harness import MINKA, TINY, Server, main, together

GGUF = TINY.read_bytes()
JSON, BLOBS = manifest_of(GGUF, b"MIT")
MODEL = sha(GGUF)


class Gate:
    """Sends the first `stop` bytes of the model's blob and then waits until it is opened; what it saw is kept."""

    def __init__(self, registry, stop=200_000):
        self.opened, self.left, self.stop = threading.Event(), threading.Event(), stop
        self.reached, self.count = threading.Event(), 0
        registry.hook = self

    def __call__(self, h, kind, what):
        if kind != "blob" or what != MODEL or h.command != "GET":
            return False
        self.count += 1
        if not h.send_blob(GGUF, None if self.opened.is_set() else self.stop):
            return True
        self.reached.set()
        h.connection.settimeout(0.05)
        for _ in range(600):
            if self.opened.is_set():
                h.wfile.write(GGUF[max(self.stop, h.range_start()):])
                return True
            with contextlib.suppress(TimeoutError):
                if not h.connection.recv(1):
                    self.left.set()
                    break
        h.close_connection = True
        return True


def name(registry, tag="latest"):
    return f"{registry.host}/library/m:{tag}"


def ask(registry, tag="latest", **more):
    return {"model": name(registry, tag), "insecure": True, **more}


def part(server):
    return pathlib.Path(server.store, "blobs", MODEL.replace(":", "-") + "-part")


def complete(server):
    for digest, data in BLOBS.items():
        assert pathlib.Path(server.store, "blobs", digest.replace(":", "-")).read_bytes() == data
    assert not part(server).exists()


def test_killed_server():
    with FakeRegistry(JSON, BLOBS) as r:
        gate = Gate(r)
        with tempfile.TemporaryDirectory() as store:
            with Server(store=store) as s:
                c, answer = s.open_stream("/api/pull", ask(r))
                assert json.loads(answer.readline()) == {"status": "pulling manifest"}
                assert gate.reached.wait(20)
                s.wait_for(lambda: part(s).exists() and part(s).stat().st_size == gate.stop)
                s.process.kill()
                s.process.wait()
                c.close()
            gate.opened.set()
            with Server(store=store) as s:
                assert s.get("/api/tags")[1]["models"] == []
                assert s.stream("/api/pull", ask(r))[-1] == {"status": "success"}
                complete(s)
                assert [h.get("Range") for h in r.requests("blobs") if h.get("Range")] == [f"bytes={gate.stop}-"]
                status, body = s.post("/api/generate", {"model": name(r), "prompt": "x", "stream": False, "options": {"num_predict": 4}})
                assert status == 200 and body["done"], body


def test_two_share():
    with FakeRegistry(JSON, BLOBS) as r, Server() as s:
        gate = Gate(r)

        def late():
            assert gate.reached.wait(20)
            c, answer = s.open_stream("/api/pull", ask(r))
            first = json.loads(answer.readline())
            gate.opened.set()
            lines = [first] + [json.loads(l) for l in answer.read().splitlines()]
            c.close()
            return lines

        one, two = together([lambda: s.stream("/api/pull", ask(r)), late])
        assert gate.count == 1, gate.count
        for lines in (one, two):
            assert lines[0] == {"status": "pulling manifest"} and lines[-1] == {"status": "success"}, lines
            assert any(l.get("completed") == len(GGUF) for l in lines)
        complete(s)


def test_two_names_one_blob():
    with FakeRegistry(JSON, BLOBS) as r, Server() as s:
        gate = Gate(r)

        def other():
            assert gate.reached.wait(20)
            c, answer = s.open_stream("/api/pull", ask(r, "other"))
            while json.loads(answer.readline()).get("digest") != MODEL:
                pass
            gate.opened.set()
            lines = [json.loads(l) for l in answer.read().splitlines()]
            c.close()
            return lines

        one, two = together([lambda: s.stream("/api/pull", ask(r)), other])
        assert one[-1] == two[-1] == {"status": "success"} and gate.count == 1, gate.count
        assert len(s.get("/api/tags")[1]["models"]) == 2
        complete(s)


def test_cancel():
    with FakeRegistry(JSON, BLOBS) as r, Server() as s:
        gate = Gate(r)
        streams = [s.open_stream("/api/pull", ask(r)) for _ in range(2)]
        assert gate.reached.wait(20)
        began = time.monotonic()
        assert s.get("/api/version")[0] == 200 and time.monotonic() - began < 1, "the loop is free meanwhile"
        streams[0][0].close()
        streams[0][1].close()
        assert not gate.left.wait(0.5), "one who waits keeps it going"
        streams[1][0].close()
        streams[1][1].close()
        assert gate.left.wait(5), "the last one who leaves ends it"
        s.wait_for(lambda: part(s).exists() and part(s).stat().st_size == gate.stop)
        gate.opened.set()
        assert s.stream("/api/pull", ask(r))[-1] == {"status": "success"}
        complete(s)


def test_stop_during_pull():
    """An interrupt ends the server at once, also in the middle of a pull."""
    with FakeRegistry(JSON, BLOBS) as r:
        gate = Gate(r)
        with Server() as s:
            c, answer = s.open_stream("/api/pull", ask(r))
            assert gate.reached.wait(20)
            s.process.send_signal(signal.SIGINT)
            assert s.process.wait(5) == 0
            c.close()
        gate.opened.set()


def test_too_many():
    with FakeRegistry(JSON, BLOBS) as r, Server() as s:
        hold = threading.Event()
        r.hook = lambda h, kind, what: hold.wait(20) and False
        streams = [s.open_stream("/api/pull", ask(r, f"t{i}")) for i in range(8)]
        for _, answer in streams:
            assert json.loads(answer.readline()) == {"status": "pulling manifest"}
        status, body = s.post("/api/pull", ask(r, "t8"))
        assert status == 503 and "try again" in body["error"], body
        hold.set()
        for c, answer in streams:
            assert json.loads(answer.read().splitlines()[-1]) == {"status": "success"}
            c.close()


def test_errors():
    with FakeRegistry() as r, Server() as s:
        assert s.post("/api/pull", {}) == (400, {"error": "invalid model name"})
        assert s.post("/api/pull", {"model": "a//b"}) == (400, {"error": "invalid model name"})
        assert s.post("/api/push", {}) == (400, {"error": "model is required"})
        assert s.post("/api/pull", {"model": 5})[0] == 400
        assert s.stream("/api/pull", ask(r)) == [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
        assert s.post("/api/pull", ask(r, stream=False)) == (500, {"error": "pull model manifest: file does not exist"})
        assert s.post("/api/pull", {"name": f"http://{name(r)}"}) == (500, {"error": "insecure protocol http"})
        status, body = s.post("/api/pull", {"model": name(r), "stream": False})
        assert status == 500 and "SSL" in body["error"].upper(), "without insecure it speaks TLS"
        assert s.stream("/api/push", ask(r))[-1] == {"error": f'model "{name(r)}" not found'}


def test_tls():
    """https is what is spoken without `insecure`: only with a certificate that is trusted, and never down to http."""
    with tempfile.TemporaryDirectory() as folder:
        pem = folder + "/pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", pem, "-out", folder + "/cert", "-subj",
                        "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"], check=True, capture_output=True)
        with open(pem, "a") as f, open(folder + "/cert") as cert:
            f.write(cert.read())
        with FakeRegistry(JSON, BLOBS, tls=pem) as r, FakeRegistry(JSON, BLOBS) as plain:
            with Server() as s:
                status, body = s.post("/api/pull", {"model": name(r), "stream": False})
                assert status == 500 and "certificate" in body["error"], body
                assert not r.seen
            with Server(env={"SSL_CERT_FILE": folder + "/cert"}) as s:
                r.hook = lambda h, kind, what: kind == "blob" and (h.answer(307, b"", {"Location": f"{plain.url}{h.path}"}), True)[1]
                status, body = s.post("/api/pull", {"model": name(r), "stream": False})
                assert (status, body) == (500, {"error": "insecure protocol http"}) and not plain.seen
                r.hook = None
                assert s.post("/api/pull", {"model": name(r), "stream": False}) == (200, {"status": "success"})
                complete(s)


# --- command line ---

def cli(server, *args, **more):
    return subprocess.run([MINKA, *args], env=server.env, capture_output=True, text=True, timeout=60, **more)


def test_command_line():
    with FakeRegistry(JSON, BLOBS) as r, Server() as s:
        got = cli(s, "pull", name(r), "--insecure")
        assert got.returncode == 0 and got.stdout == "", (got.stdout, got.stderr)
        lines = got.stderr.splitlines()
        assert lines[0] == "pulling manifest" and lines[-3:] == ["verifying sha256 digest", "writing manifest", "success"], lines
        assert f"pulling {MODEL[7:19]}: 100% of 497 KB" in lines, lines
        got = cli(s, "run", name(r, "again"), "hello", "--insecure")
        assert got.returncode == 0 and "success" in got.stderr, got.stderr
        got = cli(s, "list")
        assert name(r) in got.stdout and name(r, "again") in got.stdout
        r.manifest = None
        for command in (["pull", name(r, "none")], ["run", name(r, "none"), "x"]):
            got = cli(s, *command, "--insecure")
            assert got.returncode == 1 and got.stderr.endswith("Error: pull model manifest: file does not exist\n"), got.stderr
        r.hook = lambda h, kind, what: h.command != "GET" and (h.body(), h.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{r.url}/token"'}), True)[2]
        got = cli(s, "push", name(r), "--insecure")
        assert got.returncode == 1, got
        r.hook = lambda h, kind, what: (h.answer(200, b'{"token":"x"}') if kind == "token" else (h.body(), h.answer(
            401, b"", {"WWW-Authenticate": f'Bearer realm="{r.url}/token"'})), True)[1]
        got = cli(s, "push", name(r), "--insecure")
        assert got.returncode == 1 and "you are not authorized to push to this namespace" in got.stderr, got.stderr


def test_interrupt():
    with FakeRegistry(JSON, BLOBS) as r, Server() as s:
        gate = Gate(r)
        p = subprocess.Popen([MINKA, "pull", name(r), "--insecure"], env=s.env, stderr=subprocess.PIPE, text=True)
        assert gate.reached.wait(20)
        s.wait_for(lambda: part(s).exists() and part(s).stat().st_size == gate.stop)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=10)
        assert p.returncode == 130 and f"'minka pull {name(r)}' goes on from there" in err, err
        assert gate.left.wait(5)
        gate.opened.set()
        assert cli(s, "pull", name(r), "--insecure").returncode == 0
        assert {"Range": f"bytes={gate.stop}-"}.items() <= r.requests("blobs")[-1].items() or any(
            h.get("Range") == f"bytes={gate.stop}-" for h in r.requests("blobs"))
        complete(s)


def test_python_client():
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "server"))
    from test_clients import client_python
    script = r'''
import json, os, ollama
c = ollama.Client(host=os.environ["MINKA_URL"])
name = os.environ["NAME"]
parts = list(c.pull(name, insecure=True, stream=True))
whole = c.pull(name, insecure=True)
c.push(name, insecure=True)
pushed = list(c.push(name, insecure=True, stream=True))
try:
    c.pull(name + "x", insecure=True)
    missing = None
except ollama.ResponseError as e:
    missing = [e.status_code, e.error]
try:
    for _ in c.pull(name + "x", insecure=True, stream=True): pass
    streamed = None
except ollama.ResponseError as e:
    streamed = e.error
print(json.dumps({"parts": [p.status for p in parts], "whole": whole.status, "total": max(p.total or 0 for p in parts),
                  "completed": max(p.completed or 0 for p in parts), "pushed": [p.status for p in pushed],
                  "missing": missing, "streamed": streamed}))
'''
    from test_registry_docker import docker_registry
    with docker_registry() as host:
        model = f"{host}/library/tiny"
        with Server({model: TINY}) as a:
            assert a.post("/api/push", {"model": model, "insecure": True, "stream": False})[0] == 200
        with Server() as s:
            env = dict(s.env, MINKA_URL=s.url, NAME=model, NO_PROXY="127.0.0.1")
            got = subprocess.run([str(client_python()), "-c", script], env=env, capture_output=True, text=True, timeout=60)
            assert got.returncode == 0, got.stderr[-2000:]
            out = json.loads(got.stdout.splitlines()[-1])
            assert out["parts"][0] == "pulling manifest" and out["parts"][-1] == out["whole"] == "success", out
            assert out["total"] == out["completed"] == len(GGUF), out
            assert out["pushed"][0] == "retrieving manifest" and out["pushed"][-1] == "success", out
            assert out["missing"] == [500, "pull model manifest: file does not exist"], out
            assert out["streamed"] == "pull model manifest: file does not exist", out


if __name__ == "__main__":
    main(sys.modules[__name__])
