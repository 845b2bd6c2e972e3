#!/usr/bin/env python3
"""Pull and push against a registry that misbehaves in every way we could think of, without a server in between."""
import contextlib, json, os, pathlib, random, resource, shutil, signal, subprocess, sys, tempfile, threading, time

from fake import FakeRegistry, MANIFEST, manifest_of, sha
from harness import main

PROGRAM = os.environ["REGISTRY_PROGRAM"]
MODEL = random.Random(7).randbytes(3_000_000)
JSON, BLOBS = manifest_of(MODEL, b"MIT", b"other")


@contextlib.contextmanager
def store():
    folder = tempfile.mkdtemp(prefix="minka-registry-")
    try:
        yield pathlib.Path(folder) / "models"
    finally:
        shutil.rmtree(folder)


def start(what, folder, registry, stall=2, retry=5, key="-", proxies=None, host=None, **more):
    args = [PROGRAM, what, str(folder), f"{host or registry.host}/library/m:latest", str(stall), str(retry), key]
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env.update(proxies or {})
    return subprocess.Popen(args, stdout=subprocess.PIPE, text=True, env=env, **more)


def run(what, folder, registry, **more):
    """The last line: "ok" or "error: ...". A crash or a hang fails the test."""
    p = start(what, folder, registry, **more)
    out, _ = p.communicate(timeout=60)
    assert p.returncode in (0, 1), (p.returncode, out)
    return out.splitlines()[-1]


def part(folder, data=MODEL):
    return folder / "blobs" / (sha(data).replace(":", "-") + "-part")


def manifest_path(folder, registry):
    return folder / "manifests" / registry.host / "library" / "m" / "latest"


def complete(folder, registry, blobs=BLOBS, manifest=JSON):
    for digest, data in blobs.items():
        assert (folder / "blobs" / digest.replace(":", "-")).read_bytes() == data
    assert manifest_path(folder, registry).read_bytes() == manifest
    assert len(list((folder / "blobs").iterdir())) == len(blobs), list((folder / "blobs").iterdir())


def nothing(folder, registry):
    """No manifest, and no file where none belongs."""
    assert not manifest_path(folder, registry).exists()
    for path in folder.parent.rglob("*"):
        assert path.is_dir() or path.parent == folder / "blobs" or path.name.startswith("."), path


def test_whole():
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        p = start("pull", folder, r)
        lines = p.communicate(timeout=30)[0].splitlines()
        assert p.returncode == 0, lines
        complete(folder, r)
        assert lines[0] == "pulling manifest 0 0" and lines[-1] == "ok"
        assert lines[-4:-1] == ["verifying sha256 digest 0 0", "writing manifest 0 0", "success 0 0"], lines
        assert f"pulling {sha(MODEL)[7:19]} {len(MODEL)} {len(MODEL)}" in lines
        assert r.requests("manifests")[0]["Accept"] == MANIFEST
        before = len(r.requests("blobs"))
        assert run("pull", folder, r) == "ok" and len(r.requests("blobs")) == before, "what is there is not fetched again"


def test_killed_at_any_byte():
    rng = random.Random(1)
    offsets = [0, 1, len(MODEL) - 1] + [rng.randrange(len(MODEL)) for _ in range(5)]
    for offset in offsets:
        with store() as folder, FakeRegistry(JSON, BLOBS) as r:
            held, first = threading.Event(), [True]

            def hold(h, kind, what):
                if kind == "blob" and what == sha(MODEL) and first[0]:
                    first[0] = False
                    h.send_blob(MODEL, offset)
                    held.wait(20)
                    h.close_connection = True
                    return True

            r.hook = hold
            p = start("pull", folder, r, stall=30)
            end = time.monotonic() + 20
            size = lambda: part(folder).stat().st_size if part(folder).exists() else -1
            while size() != offset and time.monotonic() < end:
                time.sleep(0.005)
            assert size() == offset, (offset, size())
            os.kill(p.pid, signal.SIGKILL)
            p.wait()
            held.set()
            p.stdout.close()
            assert part(folder).read_bytes() == MODEL[:offset]
            nothing(folder, r)
            assert run("pull", folder, r) == "ok"
            complete(folder, r)
            ranges = [q[2].get("Range") for q in r.seen if sha(MODEL) in q[1]]
            assert ranges == [None, f"bytes={offset}-" if offset else None], ranges


def test_cut_again_and_again():
    cuts = [5, 400_000, 400_001, 1_000_000, 2_999_999]
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        left = list(cuts)

        def cut(h, kind, what):
            if kind == "blob" and what == sha(MODEL) and left:
                h.send_blob(MODEL, left.pop(0))
                h.cut()
                return True

        r.hook = cut
        assert run("pull", folder, r) == "ok"
        complete(folder, r)
        assert [q[2].get("Range") for q in r.seen if sha(MODEL) in q[1]] == [None] + [f"bytes={c}-" for c in cuts]


def test_server_without_ranges():
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        first = [True]

        def whole(h, kind, what):
            if kind == "blob" and what == sha(MODEL):
                if first[0]:
                    first[0] = False
                    h.send_blob(MODEL, 1_234_567)
                    h.cut()
                else:
                    h.answer(200, MODEL)
                return True

        r.hook = whole
        assert run("pull", folder, r) == "ok"
        complete(folder, r)


def test_wrong_content():
    bad = bytes([MODEL[0] ^ 1]) + MODEL[1:]
    with store() as folder, FakeRegistry(JSON, {**BLOBS, sha(MODEL): bad}) as r:
        got = run("pull", folder, r)
        assert got == f"error: digest mismatch, file must be downloaded again: want {sha(MODEL)}, got {sha(bad)}", got
        assert not part(folder).exists()
        nothing(folder, r)


def test_damaged_part():
    """A part that does not belong: the pull begins again by itself. One that is too long, too."""
    for damaged in (b"x" * 1000, b"x" * len(MODEL), MODEL + b"y"):
        with store() as folder, FakeRegistry(JSON, BLOBS) as r:
            (folder / "blobs").mkdir(parents=True)
            part(folder).write_bytes(damaged)
            assert run("pull", folder, r) == "ok"
            complete(folder, r)


def test_large_part():
    """Hashed in several steps."""
    large = MODEL * 24
    text, blobs = manifest_of(large)
    with store() as folder, FakeRegistry(text, blobs) as r:
        (folder / "blobs").mkdir(parents=True)
        part(folder, large).write_bytes(large[:-1000])
        p = start("pull", folder, r)
        lines = p.communicate(timeout=30)[0].splitlines()
        assert lines[-1] == "ok" and len(large) > 2 * (32 << 20), lines
        complete(folder, r, blobs, text)
        assert [q[2].get("Range") for q in r.seen if sha(large) in q[1]] == [f"bytes={len(large) - 1000}-"]
        shown = [int(l.split()[-1]) for l in lines if sha(large)[7:19] in l]
        assert shown == sorted(shown), "the bar goes one way"


def test_range_refused():
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        (folder / "blobs").mkdir(parents=True)
        part(folder).write_bytes(MODEL[:77])
        r.hook = lambda h, kind, what: h.range_start() and (h.answer(416), True)[1]
        assert run("pull", folder, r) == "ok"
        complete(folder, r)


def lie(answer):
    def hook(h, kind, what):
        if kind == "blob" and what == sha(MODEL):
            answer(h)
            h.close_connection = True
            return True
    return hook


def test_lying_lengths():
    def endless(h):
        h.send_response(200)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        for _ in range(100):
            h.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")

    def shifted(h):
        h.answer(206, MODEL[5:], {"Content-Range": f"bytes 5-{len(MODEL) - 1}/{len(MODEL)}"})

    cases = [(lambda h: h.answer(200, MODEL + b"more"), "error: the registry has 3000004 bytes for a blob of 3000000"),
             (lambda h: h.answer(200, MODEL[:-4]), "error: the registry has 2999996 bytes for a blob of 3000000"),
             (endless, "error: the registry sends more than the 3000000 bytes of blob " + sha(MODEL)[7:19]),
             (shifted, "error: the registry sends another range than asked for")]
    for answer, want in cases:
        with store() as folder, FakeRegistry(JSON, BLOBS, lie(answer)) as r:
            got = run("pull", folder, r)
            assert got == want, (got, want)
            nothing(folder, r)


def test_errors_of_the_server():
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        count = [0]

        def flaky(h, kind, what):
            count[0] += 1
            if count[0] % 2:
                h.answer(503, b"busy")
                return True

        r.hook = flaky
        assert run("pull", folder, r) == "ok"
        complete(folder, r)
    with store() as folder, FakeRegistry(JSON, BLOBS, lie(lambda h: h.answer(500, b"out\x1b[31m of order"))) as r:
        got = run("pull", folder, r)
        assert got == "error: max retries exceeded: 500: out [31m of order", got
        assert len([q for q in r.seen if sha(MODEL) in q[1]]) == 7
        nothing(folder, r)
    with store() as folder, FakeRegistry(JSON, BLOBS, lie(lambda h: h.answer(403, b"no"))) as r:
        assert run("pull", folder, r) == "error: 403: no"
    with store() as folder, FakeRegistry() as r:
        assert run("pull", folder, r) == "error: pull model manifest: file does not exist"
        nothing(folder, r)


def test_nobody_answers():
    with store() as folder, FakeRegistry() as r:
        pass
    began = time.monotonic()
    got = run("pull", folder, r, retry=3000)
    assert got.startswith(f"error: pull model manifest: http://{r.host}: Failed to connect"), got
    assert time.monotonic() - began < 2, "a wrong address is told at once"
    shutil.rmtree(folder.parent)


def test_stalled():
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        release, stalls = threading.Event(), [True]

        def stall(h, kind, what):
            if kind == "blob" and what == sha(MODEL) and stalls:
                stalls.pop()
                h.send_blob(MODEL, h.range_start() + 1000)
                release.wait(20)
                h.close_connection = True
                return True

        r.hook = stall
        assert run("pull", folder, r, stall=1) == "ok"
        release.set()
        complete(folder, r)
        assert [q[2].get("Range") for q in r.seen if sha(MODEL) in q[1]] == [None, "bytes=1000-"]


def test_proxies():
    for variable in ("http_proxy", "HTTP_PROXY"):
        with store() as folder, FakeRegistry(JSON, BLOBS) as r:
            assert run("pull", folder, r, proxies={variable: r.url}, host="registry.invalid") == "ok"
            assert all(p.startswith("http://registry.invalid/v2/") for _, p, _ in r.seen), r.seen
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        assert run("pull", folder, r, proxies={"http_proxy": "http://127.0.0.1:1"}) == "ok", "loopback needs no proxy"
        got = run("pull", folder, r, proxies={"http_proxy": r.url, "no_proxy": "registry.invalid"}, host="registry.invalid")
        assert "Could not resolve host" in got, got


# --- redirects and tokens ---

def with_token(registry, hook=None):
    """The registry wants "Bearer good" everywhere; its token service gives it."""
    def ask(h, kind, what):
        if kind == "token":
            h.answer(200, b'{"token":"good"}')
            return True
        if h.headers.get("Authorization") != "Bearer good":
            h.body()
            h.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{registry.url}/token",service="s v",scope="repository:library/m:pull"'})
            return True
        return hook and hook(h, kind, what)
    registry.hook = ask


def test_redirects_keep_the_token_home():
    with store() as folder, FakeRegistry(JSON, BLOBS) as r, FakeRegistry(None, BLOBS) as far:
        def away(h, kind, what):
            if kind == "blob":
                h.answer(307, b"", {"Location": f"{far.url}/store/blobs/{what}?signed=1"})
                return True
        with_token(r, away)
        far.hook = lambda h, kind, what: what == sha(MODEL) and len(far.seen) < 6 and (h.send_blob(MODEL, 1_000_000), h.cut(), True)[2]
        assert run("pull", folder, r) == "ok"
        complete(folder, r)
        assert far.seen and not any("Authorization" in h for _, _, h in far.seen), "the token stays with its host"
        assert any(h.get("Authorization") == "Bearer good" for h in r.requests("blobs"))
        assert all(p.endswith("?signed=1") for _, p, _ in far.seen)


def test_redirects_at_home():
    """Relative, with the token; as often as ten times, not more; only to http and https, without a password."""
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        def around(h, kind, what):
            if kind == "blob" and "?" not in h.path:
                h.answer(302, b"", {"Location": f"/v2/other/blobs/{what}?x"})
                return True
        with_token(r, around)
        assert run("pull", folder, r) == "ok"
        complete(folder, r)
    cases = [("/v2/library/m/manifests/latest", "stopped after 10 redirects")] + [
        (to, "the registry redirects to an address that is not valid" if "@" in to else None)
        for to in ("ftp://127.0.0.1/x", "file:///etc/passwd", "http://user:secret@127.0.0.1/x", "http://[", "x" * 20000)]
    for to, want in cases:
        with store() as folder, FakeRegistry(JSON, BLOBS) as r:
            r.hook = lambda h, kind, what: (h.answer(307, b"", {"Location": to}), True)[1]
            got = run("pull", folder, r)
            assert got.startswith("error: pull model manifest: ") and (not want or want in got), got
            assert len(r.seen) <= 12
            nothing(folder, r)


def test_tokens():
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        with_token(r)
        assert run("pull", folder, r) == "ok"
        complete(folder, r)
        token = [q for q in r.seen if q[1].startswith("/token")]
        assert len(token) == 1 and "service=s+v" in token[0][1] and "scope=repository%3Alibrary%2Fm%3Apull" in token[0][1], token
        assert "Authorization" not in token[0][2]


def test_signed_token_request():
    """The signature is checked by openssl with the key that ssh-keygen reads."""
    import base64
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        with_token(r)
        key = str(folder.parent / "home" / "id_ed25519")
        for _ in range(2):
            shutil.rmtree(folder, ignore_errors=True)
            assert run("pull", folder, r, key=key) == "ok"
        assert os.stat(key).st_mode & 0o777 == 0o600
        public = pathlib.Path(key + ".pub").read_text().split()[1]
        for _, path, headers in [q for q in r.seen if q[1].startswith("/token")]:
            name, signature = headers["Authorization"].split(":")
            assert name == public
            raw = base64.b64decode(public)[-32:]
            der = folder.parent / "public.der"
            der.write_bytes(bytes.fromhex("302a300506032b6570032100") + raw)
            empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            (folder.parent / "text").write_text(f"GET,{r.url}{path},{base64.b64encode(empty.encode()).decode()}")
            (folder.parent / "sig").write_bytes(base64.b64decode(signature))
            subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", der, "-rawin", "-in",
                            folder.parent / "text", "-sigfile", folder.parent / "sig"], check=True, capture_output=True)
        if shutil.which("ssh-keygen"):
            shown = subprocess.run(["ssh-keygen", "-y", "-f", key], check=True, capture_output=True, text=True).stdout
            assert shown.split()[1] == public


def test_refused_tokens():
    def challenge(value):
        return lambda h, kind, what: (h.answer(401, b"", {"WWW-Authenticate": value} if value else {}), True)[1]

    with FakeRegistry() as other:
        cases = [(None, "no usable realm|another authentication"), ("Basic realm=x", "another authentication than Bearer"),
                 ("Bearer service=x", "no usable realm"), (f'Bearer realm="{other.url}/token"', "another host for its tokens"),
                 ('Bearer realm="file:///etc/passwd"', "another host for its tokens"), ('Bearer realm="', "no usable realm"),
                 ("Bearer " + "realm=," * 5000, "no usable realm")]
        for value, want in cases:
            with store() as folder, FakeRegistry(JSON, BLOBS, challenge(value)) as r:
                got = run("pull", folder, r)
                assert got.startswith("error: pull model manifest: ") and any(w in got for w in want.split("|")), (value, got)
                assert len(r.seen) == 1
        assert not other.seen, "no signature for a stranger"
    for reply, want in [((200, b'{"token":"bad"}'), "unauthorized: access denied"), ((200, b"garbage"), "no usable token"),
                        ((200, b'{"token":"a\\r\\nX: y"}'), "no usable token"), ((200, b'{"token":"' + b"x" * 50000), "larger than"),
                        ((403, b""), "unauthorized: access denied"), ((200, b'{"token":5}'), "no usable token")]:
        with store() as folder, FakeRegistry(JSON, BLOBS) as r:
            with_token(r)
            ask = r.hook
            r.hook = lambda h, kind, what: (h.answer(*reply), True)[1] if kind == "token" else ask(h, kind, what)
            got = run("pull", folder, r)
            assert got.startswith("error: pull model manifest: ") and want in got, (reply[1][:40], got)
            assert len(r.seen) <= 3, "no loop"


# --- hostile manifests ---

def layer(digest, size):
    return json.dumps({"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": size}]}).encode()


def test_hostile_manifests():
    good = sha(MODEL)
    cases = {
        b"": "no manifest", b"{": "no manifest", b"[]": "no manifest", b"{}": "no manifest", b'{"layers":[]}': "no layers",
        b"\xff\xfe": "no manifest", b"[" * 100000: "no manifest", b'{"layers":{"a":1}}': "no manifest",
        b'{"a":' * 3000: "no manifest", b'{"layers":[1,null,"x"]}': "digest",
        layer("sha256:" + "../" * 21 + "x", 1): "digest", layer("sha256:../../../../etc/passwd", 1): "digest",
        layer("sha512:" + "a" * 64, 1): "digest", layer("sha256:" + "A" * 64, 1): "digest", layer("", 1): "digest",
        layer("sha256-" + "a" * 64, 1): "digest", layer("sha256:" + "a" * 63 + "\0", 1): "no manifest",
        layer(good, -1): "size", layer(good, 1.5): "size", layer(good, "7"): "size", layer(good, 1 << 62): "bytes",
        layer(good, 10 << 40): "not enough room",
        json.dumps({"layers": [{"digest": good, "size": 1}, {"digest": good, "size": 2}]}).encode(): "two sizes",
        json.dumps({"layers": [{"digest": "sha256:%064x" % i, "size": 0} for i in range(5000)]}).encode(): "5000 layers",
        b" " * (5 << 20): "larger than",
    }
    for text, want in cases.items():
        with store() as folder, FakeRegistry(text, BLOBS) as r:
            got = run("pull", folder, r)
            assert got.startswith("error: ") and want in got, (text[:60], got)
            nothing(folder, r)
            assert not r.requests("blobs")


def test_hostile_answers():
    def endless(h, kind, what):
        h.send_response(200)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        for _ in range(200):
            h.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        h.close_connection = True
        return True

    def headers(h, kind, what):
        h.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(500)) + b"\r\n")
        h.close_connection = True
        return True

    def noise(h, kind, what):
        h.wfile.write(random.Random(3).randbytes(3000))
        h.close_connection = True
        return True

    for hook, want in [(endless, "larger than 4194304 bytes"), (headers, "of headers"), (noise, "")]:
        with store() as folder, FakeRegistry(JSON, BLOBS, hook) as r:
            got = run("pull", folder, r)
            assert got.startswith("error: pull model manifest: ") and want in got, got
            nothing(folder, r)


def test_equal_layers_once():
    text, blobs = manifest_of(MODEL, b"MIT", b"MIT", b"")
    with store() as folder, FakeRegistry(text, blobs) as r:
        assert run("pull", folder, r) == "ok"
        complete(folder, r, blobs, text)
        assert len(r.requests("blobs")) == 3, "the empty blob needs no request"


def test_disk_full_meanwhile():
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        got = run("pull", folder, r, preexec_fn=limit)
        assert got.startswith("error: ") and "too large" in got.lower(), got
        assert part(folder).read_bytes() == MODEL[:1 << 20], "what came is kept"
        nothing(folder, r)
        assert run("pull", folder, r) == "ok"
        complete(folder, r)


def test_replaced_model():
    """A new version under the same name: what only the old one used goes."""
    with store() as folder, FakeRegistry(JSON, BLOBS) as r:
        assert run("pull", folder, r) == "ok"
        r.manifest, blobs = manifest_of(MODEL[:1000], b"MIT")
        r.blobs.update(blobs)
        p = start("pull", folder, r)
        lines = p.communicate(timeout=30)[0].splitlines()
        assert "removing unused layers 0 0" in lines, lines
        complete(folder, r, blobs, r.manifest)


# --- push ---

class Uploads:
    """The upload half of a registry, into r.blobs and r.manifest; with storage, parts are redirected there."""

    def __init__(self, registry, storage=None):
        self.registry, self.storage, self.sessions, self.etags = registry, storage, {}, []
        registry.hook = self
        if storage:
            storage.hook = self.part

    def part(self, h, kind, what):
        self.sessions[h.path.split("/")[-1]] += h.body()
        h.answer(200)
        return True

    def __call__(self, h, kind, what):
        r, session = self.registry, what
        location = f"{r.url}/v2/library/m/blobs/uploads/{session}?state=1"
        if kind == "manifest" and h.command == "PUT":
            r.manifest = h.body()
            h.answer(201)
        elif kind == "upload" and h.command == "POST":
            session = str(len(self.sessions))
            self.sessions[session] = b""
            h.answer(202, b"", {"Location": f"/v2/library/m/blobs/uploads/{session}"})
        elif kind == "upload" and h.command == "PATCH" and self.storage:
            assert h.headers["X-Redirect-Uploads"] == "1"
            h.body()
            h.answer(307, b"", {"Location": f"{self.storage.url}/store/{session}", "Docker-Upload-Location": location})
        elif kind == "upload" and h.command == "PATCH":
            body = h.body()
            at = len(self.sessions[session])
            assert h.headers["Content-Range"] == f"{at}-{at + max(len(body), 1) - 1}", h.headers["Content-Range"]
            self.sessions[session] += body
            h.answer(202, b"", {"Location": location})
        elif kind == "upload" and h.command == "PUT":
            data = self.sessions[session]
            query = dict(p.split("=") for p in h.path.split("?")[1].split("&"))
            self.etags.append(query["etag"])
            ok = sha(data) == query["digest"].replace("%3A", ":")
            r.blobs.update({sha(data): data} if ok else {})
            h.answer(201 if ok else 400)
        else:
            return False
        return True


def pulled(folder):
    """Fills a store, so that there is something to push."""
    with FakeRegistry(JSON, BLOBS) as r:
        assert run("pull", folder, r) == "ok"
        shutil.copytree(folder / "manifests" / r.host, folder / "manifests" / "x")


def push_from(folder, registry, **more):
    shutil.copytree(folder / "manifests" / "x", folder / "manifests" / registry.host)
    return run("push", folder, registry, **more)


def test_push():
    import hashlib
    for redirected in (False, True):
        with store() as folder:
            pulled(folder)
            with FakeRegistry() as r, FakeRegistry() as far:
                up = Uploads(r, far if redirected else None)
                with_token(r, up)
                assert push_from(folder, r) == "ok"
                assert r.manifest == JSON and r.blobs == BLOBS
                md5 = lambda b: hashlib.md5(b).digest()
                assert sorted(up.etags) == sorted(md5(md5(b)).hex() + "-1" for b in BLOBS.values())
                assert not any("Authorization" in h for _, _, h in far.seen) and bool(far.seen) == redirected
                before = len(r.seen)
                assert run("push", folder, r) == "ok"
                assert all(m in ("HEAD", "GET") or "/manifests/" in p for m, p, _ in r.seen[before:]), "all is there already"


def test_push_that_breaks():
    with store() as folder:
        pulled(folder)
        with FakeRegistry() as r:
            up, left = Uploads(r), [1, 2, 3]

            def breaking(h, kind, what):
                if kind == "upload" and h.command in ("PATCH", "PUT") and left:
                    if left.pop() == 2:
                        h.body()
                        h.answer(500)
                    else:
                        h.cut()
                    return True
                return up(h, kind, what)

            r.hook = breaking
            assert push_from(folder, r) == "ok"
            assert r.manifest == JSON and r.blobs == BLOBS


def test_push_refused():
    denied = lambda h, kind, what: (h.body(), h.answer(401), True)[2]
    cases = [(lambda h, kind, what: (h.body(), h.answer(403, b"read only"), True)[2], "403: "),
             (denied, "another authentication"),
             (lambda h, kind, what: h.command == "POST" and (h.answer(202), True)[1], "where to send the blob"),
             (lambda h, kind, what: h.command == "POST" and (h.answer(202, b"", {"Location": "gopher://x/"}), True)[1], "not valid")]
    for hook, want in cases:
        with store() as folder:
            pulled(folder)
            with FakeRegistry(None, {}, hook) as r:
                got = push_from(folder, r)
                assert got.startswith("error: ") and want in got, got
    with store() as folder, FakeRegistry() as r:
        assert run("push", folder, r) == f'error: model "{r.host}/library/m:latest" not found'


if __name__ == "__main__":
    main(sys.modules[__name__])
