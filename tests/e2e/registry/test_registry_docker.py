#!/usr/bin/env python3
"""Debian's docker-registry on loopback: what our push brings there our pull takes back into another store, byte for byte,
without and with token authentication (tokens signed by openssl, checked by the registry)."""
import base64, contextlib, hashlib, http.client, json, os, pathlib, shutil, subprocess, sys, tempfile, time

from fake import FakeRegistry
from harness import TINY, Server, Skip, free_port, main

REGISTRY = shutil.which("docker-registry")
CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@contextlib.contextmanager
def docker_registry(auth=""):
    if not REGISTRY:
        raise Skip("docker-registry is not installed")
    folder, port = tempfile.mkdtemp(prefix="minka-docker-"), free_port()
    pathlib.Path(folder, "config.yml").write_text(CONFIG.format(folder=folder, port=port) + auth)
    log = open(os.path.join(folder, "log"), "w")
    p = subprocess.Popen([REGISTRY, "serve", os.path.join(folder, "config.yml")], stdout=log, stderr=log)
    try:
        for _ in range(500):
            assert p.poll() is None, pathlib.Path(folder, "log").read_text()
            with contextlib.suppress(OSError):
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                c.request("GET", "/v2/")
                c.getresponse().read()
                break
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        p.terminate()
        p.wait(20)
        log.close()
        shutil.rmtree(folder)


def files(store):
    """Relative path -> SHA-256 of every file of a store but its lock."""
    root = pathlib.Path(store)
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*")
            if p.is_file() and p.relative_to(root).parts[0] in ("blobs", "manifests")}


def there_and_back(host):
    name = f"{host}/library/tiny:q4"
    with Server({name: TINY}) as a, Server() as b:
        lines = a.stream("/api/push", {"model": name, "insecure": True})
        assert lines[0] == {"status": "retrieving manifest"} and lines[-2:] == [{"status": "pushing manifest"}, {"status": "success"}], lines
        size = TINY.stat().st_size
        digest = "sha256:" + hashlib.sha256(TINY.read_bytes()).hexdigest()
        assert {"status": f"pushing {digest[7:19]}", "digest": digest, "total": size, "completed": size} in lines
        assert a.post("/api/push", {"model": name, "insecure": True, "stream": False}) == (200, {"status": "success"})
        lines = b.stream("/api/pull", {"model": name, "insecure": True})
        assert lines[0] == {"status": "pulling manifest"} and [l["status"] for l in lines[-3:]] == [
            "verifying sha256 digest", "writing manifest", "success"], lines
        assert {"status": f"pulling {digest[7:19]}", "digest": digest, "total": size, "completed": size} in lines
        assert files(a.store) == files(b.store) and len(files(b.store)) == 3
        ask = {"model": name, "prompt": "x", "stream": False, "options": {"num_predict": 8, "seed": 1}}
        answers = [s.post("/api/generate", ask)[1]["response"] for s in (a, b)]
        assert answers[0] == answers[1]
        assert b.post("/api/pull", {"model": name, "insecure": True, "stream": False}) == (200, {"status": "success"})
        assert b.post("/api/pull", {"model": f"{host}/library/none", "insecure": True, "stream": False}) == (
            500, {"error": "pull model manifest: file does not exist"})


def test_plain():
    with docker_registry() as host:
        there_and_back(host)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed_token(folder, query):
    """A JWT as distribution's token specification wants it, RS256 with the certificate in its header."""
    der = subprocess.run(["openssl", "x509", "-in", folder + "/cert", "-outform", "DER"], check=True, capture_output=True).stdout
    kind, repository, actions = query["scope"].rsplit(":", 2)[0].split(":", 1)[0], query["scope"].split(":", 1)[1].rsplit(":", 1)[0], \
        query["scope"].rsplit(":", 1)[1].split(",")
    now = int(time.time())
    claims = {"iss": "tests", "sub": "", "aud": query["service"], "exp": now + 300, "nbf": now - 10, "iat": now, "jti": str(now),
              "access": [{"type": kind, "name": repository, "actions": actions}]}
    head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
    text = b64(json.dumps(head).encode()) + "." + b64(json.dumps(claims).encode())
    signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", folder + "/key"], input=text.encode(), check=True,
                               capture_output=True).stdout
    return text + "." + b64(signature)


def test_tokens():
    """The token service and the registry must be one host (reference), so both stand behind one port here."""
    import urllib.parse
    with tempfile.TemporaryDirectory() as folder, FakeRegistry() as front:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder + "/key", "-out", folder + "/cert",
                        "-subj", "/CN=tests", "-days", "2"], check=True, capture_output=True)
        auth = f'auth: {{token: {{realm: "{front.url}/token", service: tests, issuer: tests, rootcertbundle: {folder}/cert}}}}\n'
        with docker_registry(auth) as host:
            tokens = []

            def forward(h, kind, what):
                if kind == "token":
                    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(h.path).query))
                    tokens.append((query, h.headers.get("Authorization")))
                    h.answer(200, json.dumps({"token": signed_token(folder, query)}).encode())
                    return True
                c = http.client.HTTPConnection(host, timeout=30)
                c.request(h.command, h.path, h.body() or None, dict(h.headers))
                r = c.getresponse()
                keep = {k: v for k, v in r.getheaders() if k.lower() not in ("content-length", "transfer-encoding", "connection")}
                h.answer(r.status, r.read(), keep, r.getheader("Content-Length") if h.command == "HEAD" else None)
                c.close()
                return True

            front.hook = forward
            there_and_back(front.host)
            actions = {q["scope"].rsplit(":", 1)[1] for q, _ in tokens}
            assert "pull" in actions and any("push" in a for a in actions), actions
            assert all(signature and ":" in signature for _, signature in tokens), "signed with the key"
            assert front.requests("blobs", "HEAD"), "the requests went through here"


if __name__ == "__main__":
    main(sys.modules[__name__])
