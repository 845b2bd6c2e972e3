"""What the end-to-end tests share: a server with a store of its own on a free port, HTTP with JSON, and a runner that
reports every test_* function of a module in TAP.

Usage of a test module: `python3 test_x.py PATH-OF-MINKA [NAME ...]`
"""
import contextlib, http.client, json, os, pathlib, shutil, signal, socket, subprocess, sys, tempfile, threading, time, traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MINKA = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
TINY = ROOT / "tests" / "golden" / "data" / "llama-q-q4_k.gguf"


class Skip(Exception):
    """Raised by a test that cannot run here; the reason is printed."""


def real_model():
    path = os.environ.get("MINKA_TEST_SMOLLM2")
    if not path:
        raise Skip("MINKA_TEST_SMOLLM2 is not set")
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A running `minka serve`; models is {name: path of a GGUF file}. Use as a context manager."""

    def __init__(self, models=None, env=None, store=None):
        self.folder = tempfile.mkdtemp(prefix="minka-e2e-")
        self.store = store or os.path.join(self.folder, "models")
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("OLLAMA_", "MINKA_"))}
        self.env.update(OLLAMA_HOST=self.host, OLLAMA_MODELS=self.store, HOME=self.folder, MINKA_DEBUG="1")
        # The engine is a child without a leak to report: its memory lives as long as it does.
        self.env.setdefault("ASAN_OPTIONS", "detect_leaks=0")
        self.env.update(env or {})
        for name, path in (models or {}).items():
            subprocess.run([MINKA, "import", str(path), name], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def __enter__(self):
        self.log = open(os.path.join(self.folder, "log"), "w+")
        self.process = subprocess.Popen([MINKA, "serve"], env=self.env, stderr=self.log, stdin=subprocess.DEVNULL)
        for _ in range(400):
            assert self.process.poll() is None, "the server ended: " + self.log_text()
            with contextlib.suppress(OSError):
                if self.get("/api/version")[0] == 200:
                    return self
            time.sleep(0.02)
        raise AssertionError("the server is not ready: " + self.log_text())

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if kind and kind is not Skip:
            print("# server log:\n# " + self.log_text()[-4000:].replace("\n", "\n# "))
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_text(self):
        self.log.flush()
        with open(self.log.name) as f:
            return f.read()

    def engine_pid(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
            children = f.read().split()
        assert len(children) == 1, children
        return int(children[0])

    # --- HTTP ---
    def connect(self, timeout=120):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def call(self, method, path, body=None, headers=None):
        """(status, headers, bytes) of one request; body: bytes, or anything that becomes JSON."""
        c = self.connect()
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        got = r.status, dict(r.getheaders()), r.read()
        c.close()
        return got

    def get(self, path):
        status, _, body = self.call("GET", path)
        return status, json.loads(body) if body[:1] in b"{[" else body

    def post(self, path, body):
        status, _, data = self.call("POST", path, body)
        return status, json.loads(data) if data else None

    def stream(self, path, body):
        """All NDJSON objects of a streamed answer, in order."""
        status, _, data = self.call("POST", path, body)
        assert status == 200, (status, data)
        return [json.loads(line) for line in data.splitlines()]

    def open_stream(self, path, body):
        """A connection whose answer is being streamed, and its response; the caller reads lines and closes."""
        c = self.connect()
        c.request("POST", path, json.dumps(body))
        return c, c.getresponse()

    def ps(self):
        return self.get("/api/ps")[1]

    def wait_for(self, condition, seconds=20, every=0.01):
        """Polls until condition() holds; returns its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(every)
        raise AssertionError("the condition did not come true: " + json.dumps(self.ps()))


def together(jobs):
    """Runs functions at the same moment, each on a thread; returns their results in order, or raises the first error."""
    results, barrier = [None] * len(jobs), threading.Barrier(len(jobs))

    def work(i, job):
        barrier.wait()
        try:
            results[i] = job()
        except BaseException as e:  # carried over to the caller
            results[i] = e

    threads = [threading.Thread(target=work, args=item) for item in enumerate(jobs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for r in results:
        if isinstance(r, BaseException):
            raise r
    return results


def main(module):
    """Runs the module's test_* functions in the order of the file and prints TAP."""
    wanted = sys.argv[2:]
    tests = [(n, f) for n, f in vars(module).items() if n.startswith("test_") and callable(f) and (not wanted or n in wanted)]
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for i, (name, function) in enumerate(tests, 1):
        try:
            function()
            print(f"ok {i} {name}", flush=True)
        except Skip as e:
            print(f"ok {i} {name} # SKIP {e}", flush=True)
        except BaseException:
            failed += 1
            print("# " + traceback.format_exc().replace("\n", "\n# "))
            print(f"not ok {i} {name}", flush=True)
    sys.exit(1 if failed else 0)
