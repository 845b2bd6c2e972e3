"""What the parts of `make bench` share: servers, requests, and a load generator that costs little."""
import contextlib, http.client, json, os, random, selectors, shutil, signal, socket, statistics, subprocess, sys, tempfile, time
import urllib.parse

WORDS = ("the river stone light morning clock energy table water village number question answer wheel north bread window "
         "road bridge letter garden winter summer paper forest mountain story child teacher music market").split()
CTX = 4096  # of every request that is compared: another one would make some peers load their model again


def text_of(n_words, seed):
    """Words without sense; the number in front is new in each round, so that no cached prefix is measured."""
    r = random.Random(seed)
    return f"{seed} " + " ".join(r.choice(WORDS) for _ in range(n_words))


def turn(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def edit_of(seed):
    """A prompt whose answer repeats much of it, as edits and quotations do."""
    r = random.Random(seed)
    lines = [f"def {a}_{b}({c}, {d}):\n    total = {c} * {r.randrange(90)} + {d}\n    return total - {r.randrange(90)}\n"
             for a, b, c, d in (r.sample(WORDS, 4) for _ in range(6))]
    return turn(f"Copy this file {seed} without changes:\n```python\n" + "\n".join(lines) + "```") + "```python\n"


def chat_of(seed):
    """A question of a chat; the answer is free text."""
    r = random.Random(seed)
    a, b, c = r.sample(WORDS[1:], 3)
    return turn(r.choice((
        f"Tell me a story about a {a}, a {b} and a {c}.", f"What do a {a} and a {b} have in common?",
        f"Explain to a child what a {a} has to do with a {b}.", f"Write a letter about a {a} to a friend who likes the {b}.",
        f"Why do the people of a village need a {a} and a {b}?")))


class Target:
    """One server: where it is, how it is asked, and who listens there."""

    def __init__(self, name, url, model):
        self.name, self.model = name, model
        parts = urllib.parse.urlsplit(url)
        self.address = (parts.hostname, parts.port or 80)
        self.native = self.get("/api/version").status == 200

    def get(self, path, body=None):
        c = http.client.HTTPConnection(*self.address, timeout=60)
        c.request("POST" if body else "GET", path, body and json.dumps(body))
        r = c.getresponse()
        r.body = r.read()
        c.close()
        return r

    def ps(self):
        return json.loads(self.get("/api/ps").body)

    def idle_ps(self):
        """When nothing runs: figures come ten times a second."""
        while self.ps()["queue"]["running"]:
            time.sleep(0.02)
        time.sleep(0.15)
        return self.ps()

    def request_bytes(self, prompt, n, temperature, guess, num_ctx):
        if self.native:
            path = "/api/generate"
            body = {"model": self.model, "prompt": prompt, "raw": True, "stream": True,
                    "options": {"num_predict": n, "temperature": temperature, "seed": 7, "num_ctx": num_ctx}}
            if not guess:  # greedy text runs into loops, which guesses would make a race of their own
                body["options"]["draft_num_predict"] = 0
        else:
            path = "/v1/completions"
            body = {"model": self.model, "prompt": prompt, "stream": True, "max_tokens": n, "temperature": temperature, "seed": 7,
                    "stream_options": {"include_usage": True}}
        data = json.dumps(body).encode()
        head = (f"POST {path} HTTP/1.1\r\nHost: {self.address[0]}:{self.address[1]}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n")
        return head.encode() + data

    def process_memory(self):
        """Resident bytes (proportional set size) of the processes that serve the port, children included."""
        inodes = set()
        for line in open("/proc/net/tcp").read().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == self.address[1]:
                inodes.add(f"socket:[{fields[9]}]")
        roots = [int(p) for p in os.listdir("/proc") if p.isdigit() and owns(p, inodes)]
        total, seen = 0, set()
        while roots:
            pid = roots.pop()
            if pid in seen:
                continue
            seen.add(pid)
            with contextlib.suppress(OSError):
                for line in open(f"/proc/{pid}/smaps_rollup"):
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
                roots += map(int, open(f"/proc/{pid}/task/{pid}/children").read().split())
        return total


def owns(pid, inodes):
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") in inodes for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


class Stream:
    """The answer of one request, read as bytes; parsed only after it has ended, so that the load costs little."""

    def __init__(self, target, prompt, n, **how):
        self.target = target
        self.data, self.times = bytearray(), []
        request = target.request_bytes(prompt, n, **how)
        self.start = time.perf_counter()
        self.sock = socket.create_connection(target.address, timeout=300)
        self.sock.sendall(request)

    def finish(self):
        """(first, last, prompt tokens, output tokens)"""
        self.sock.close()
        lines = [l for l in bytes(self.data).split(b"\n") if l.strip().startswith((b"{", b"data: {"))]
        final = None
        for line in lines:
            value = json.loads(line.strip().removeprefix(b"data: "))
            if "error" in value:
                raise RuntimeError(f"{self.target.name}: {value['error']}")
            if value.get("done") or value.get("usage"):
                final = value
        if final is None and self.target.native and self.times:
            return self.times[0], self.times[-1], 0, len(self.times)  # Ollama ends an answer that repeats itself like this
        if final is None:
            raise RuntimeError(f"{self.target.name}: no final object: {bytes(self.data[-300:])!r}")
        if self.target.native:
            counts = final.get("prompt_eval_count", 0), final.get("eval_count", 0)
        else:
            counts = final["usage"]["prompt_tokens"], final["usage"]["completion_tokens"]
        return self.times[0], self.times[-1], *counts


def ask(target, prompts, n, half_way=None, temperature=0, guess=False, num_ctx=CTX):
    """Sends all prompts at once and reads the answers as they come; half_way(streams) is called once."""
    selector = selectors.DefaultSelector()
    streams = [Stream(target, p, n, temperature=temperature, guess=guess, num_ctx=num_ctx) for p in prompts]
    for s in streams:
        s.sock.setblocking(False)
        selector.register(s.sock, selectors.EVENT_READ, s)
    n_open = len(streams)
    while n_open:
        for key, _ in selector.select(300):
            s = key.data
            chunk = s.sock.recv(1 << 16)
            now = time.perf_counter()
            if not chunk:
                selector.unregister(s.sock)
                n_open -= 1
            else:
                if b'"response":' in chunk or b'"text":' in chunk:
                    s.times.append(now)
                s.data += chunk
        if half_way and all(len(s.times) > n // 2 for s in streams):
            half_way(streams)
            half_way = None
    return streams


def import_models(minka, store, files):
    """files: {name: path of a GGUF file}"""
    for name, path in files.items():
        subprocess.run([minka, "import", path, name], env=dict(os.environ, OLLAMA_MODELS=store), check=True, stdout=subprocess.DEVNULL)


class Server:
    """A program whose `serve` follows OLLAMA_HOST and OLLAMA_MODELS, on a free port; a context manager."""

    def __init__(self, program, store, **env):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = tempfile.mkdtemp(prefix="minka-bench-")
        env = dict(os.environ, OLLAMA_HOST=f"127.0.0.1:{self.port}", OLLAMA_MODELS=store, HOME=self.folder, **env)
        with open(os.path.join(self.folder, "log"), "w") as log:
            self.process = subprocess.Popen([program, "serve"], env=env, stdout=log, stderr=log)
        for _ in range(400):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            time.sleep(0.05)
        sys.exit(f"Error: {program} does not start: " + open(log.name).read())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def spread(values, form="{:,.0f}"):
    return f"{form} [{form}..{form}]".format(statistics.median(values), min(values), max(values))
