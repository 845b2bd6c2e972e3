#!/usr/bin/env python3
"""make bench: minka beside running peers, on the same machine, in the same run, alternating; prints ratios with spread.

usage: bench.py PATH-OF-MINKA [--model FILE.gguf] [--peer NAME=URL[=MODEL]]... [--rounds N] [--only CASE,...] [--json FILE]

A peer is any running server that speaks Ollama's or OpenAI's API and has the same model file loaded; MODEL is the name to
ask it for (default: smollm2:135m). minka is started by this program with a store of its own. Every case asks minka and each
peer in turn, round by round; figures are medians over the rounds, in brackets smallest and largest; "x" is minka / peer.
Prompts begin with a number that is new in each round, so that no cached prefix is measured. The cases edit* and free* let minka
guess tokens ahead (a second minka with MINKA_SPECULATION=0 as a peer shows what that brings), all others don't.
"""
import argparse, http.client, json, os, pathlib, random, selectors, shutil, signal, socket, statistics, subprocess, sys, tempfile, time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORDS = ("the river stone light morning clock energy table water village number question answer wheel north bread window "
         "road bridge letter garden winter summer paper forest mountain story child teacher music market").split()


def text_of(n_words, seed):
    r = random.Random(seed)
    return f"{seed} " + " ".join(r.choice(WORDS) for _ in range(n_words))


class Target:
    """One server: where it is, how it is asked, and who listens there."""

    def __init__(self, name, url, model):
        self.name, self.model = name, model
        parts = urllib.parse.urlsplit(url)
        self.address = (parts.hostname, parts.port or 80)
        self.native = self.get("/api/version").status == 200

    def get(self, path):
        c = http.client.HTTPConnection(*self.address, timeout=60)
        c.request("GET", path)
        r = c.getresponse()
        r.body = r.read()
        c.close()
        return r

    def request_bytes(self, prompt, n, temperature=0, guess=False):
        if self.native:
            path = "/api/generate"
            body = {"model": self.model, "prompt": prompt, "raw": True, "stream": True,
                    "options": {"num_predict": n, "temperature": temperature, "seed": 7, "num_ctx": 4096}}
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
            try:
                for line in open(f"/proc/{pid}/smaps_rollup"):
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
                roots += map(int, open(f"/proc/{pid}/task/{pid}/children").read().split())
            except OSError:
                pass
        return total


def owns(pid, inodes):
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") in inodes for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


class Stream:
    """The answer of one request, read as bytes; parsed only after it has ended, so that the load costs little."""

    def __init__(self, target, prompt, n, temperature, guess):
        self.target = target
        self.data, self.times = bytearray(), []
        self.start = time.perf_counter()
        self.sock = socket.create_connection(target.address, timeout=300)
        self.sock.sendall(target.request_bytes(prompt, n, temperature, guess))

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


def ask(target, prompts, n, while_running=None, temperature=0, guess=False):
    """Sends all prompts at once and reads the answers as they come."""
    selector = selectors.DefaultSelector()
    streams = [Stream(target, p, n, temperature, guess) for p in prompts]
    for s in streams:
        s.sock.setblocking(False)
        selector.register(s.sock, selectors.EVENT_READ, s)
    open_streams, probed = len(streams), False
    while open_streams:
        for key, _ in selector.select(300):
            s = key.data
            chunk = s.sock.recv(1 << 16)
            now = time.perf_counter()
            if not chunk:
                selector.unregister(s.sock)
                open_streams -= 1
            else:
                if b'"response":' in chunk or b'"text":' in chunk:
                    s.times.append(now)
                s.data += chunk
        if while_running and not probed and all(len(s.times) > n // 2 for s in streams):
            while_running()
            probed = True
    return streams


def edit_of(seed):
    """A prompt whose answer repeats much of it, as edits and quotations do."""
    r = random.Random(seed)
    lines = [f"def {a}_{b}({c}, {d}):\n    total = {c} * {r.randrange(90)} + {d}\n    return total - {r.randrange(90)}\n"
             for a, b, c, d in (r.sample(WORDS, 4) for _ in range(6))]
    return (f"<|im_start|>user\nCopy this file {seed} without changes:\n```python\n" + "\n".join(lines) +
            "```<|im_end|>\n<|im_start|>assistant\n```python\n")


def case_stream(target, n_streams, seed, n=128, prompt=lambda seed: text_of(12, seed), temperature=0, guess=False):
    streams = ask(target, [prompt(seed * 100 + i) for i in range(n_streams)], n, temperature=temperature,
                  guess=guess)
    ends = [s.finish() for s in streams]
    if n_streams == 1:
        first, last, _, tokens = ends[0]
        return (tokens - 1) / (last - first)
    return sum(e[3] for e in ends) / (max(e[1] for e in ends) - min(s.start for s in streams))


def case_prompt(target, n_words, seed):
    stream = ask(target, [text_of(n_words, seed)], 1)[0]
    first, _, tokens, _ = stream.finish()
    return tokens / (first - stream.start)


def case_mixed(target, seed):
    """8 at once, prompts of about 360 tokens, 64 new ones each: total output rate, and the 99th percentile gap in ms."""
    streams = ask(target, [text_of(330, seed * 100 + i) for i in range(8)], 64)
    ends = [s.finish() for s in streams]
    gaps = sorted(b - a for s in streams for a, b in zip(s.times, s.times[1:]))
    rate = sum(e[3] for e in ends) / (max(e[1] for e in ends) - min(s.start for s in streams))
    return rate, gaps[int(len(gaps) * 0.99)] * 1000 if gaps else float("nan")


def case_one_token(target, seed):
    ask(target, ["1"], 1)[0].finish()
    stream = ask(target, [f"{seed} is"], 1)[0]
    return (stream.finish()[0] - stream.start) * 1000


def case_memory(target, seed):
    seen = []
    streams = ask(target, [text_of(12, seed * 100 + i) for i in range(16)], 128, lambda: seen.append(target.process_memory()))
    [s.finish() for s in streams]
    return (seen[0] if seen else target.process_memory()) / 1e6


CASES = {  # name: (what is printed, function, more is better)
    "decode1": ("1 stream, tokens/s", lambda t, s: case_stream(t, 1, s), True),
    "decode4": ("4 streams, tokens/s in total", lambda t, s: case_stream(t, 4, s), True),
    "decode8": ("8 streams, tokens/s in total", lambda t, s: case_stream(t, 8, s), True),
    "decode16": ("16 streams, tokens/s in total", lambda t, s: case_stream(t, 16, s, 96), True),
    "decode64": ("64 streams, tokens/s in total", lambda t, s: case_stream(t, 64, s, 64), True),
    "edit1": ("1 stream that repeats much of its prompt, tokens/s", lambda t, s: case_stream(t, 1, s, prompt=edit_of, guess=True), True),
    "edit16": ("16 streams that repeat much of their prompts, tokens/s", lambda t, s: case_stream(t, 16, s, prompt=edit_of, guess=True), True),
    "free1": ("1 stream of free text (temperature 1.2), tokens/s", lambda t, s: case_stream(t, 1, s, temperature=1.2, guess=True), True),
    "free16": ("16 streams of free text, tokens/s", lambda t, s: case_stream(t, 16, s, temperature=1.2, guess=True), True),
    "prompt512": ("prompt of about 512 tokens, tokens/s", lambda t, s: case_prompt(t, 480, s), True),
    "prompt1300": ("prompt of about 1,300 tokens, tokens/s", lambda t, s: case_prompt(t, 1220, s), True),
    "mixed": ("8 prompts of 360 + 64 new each, tokens/s", lambda t, s: case_mixed(t, s)[0], True),
    "mixed_gap": ("the same, 99th percentile gap, ms", lambda t, s: case_mixed(t, s)[1], False),
    "one_token": ("one-token request, ms", case_one_token, False),
    "memory16": ("resident MB with 16 streams", case_memory, False),
}


def spread(values):
    return f"{statistics.median(values):,.1f} [{min(values):,.1f}..{max(values):,.1f}]"


def measure(name, targets, rounds):
    title, function, more = CASES[name]
    got = {t.name: [] for t in targets}
    for r in range(rounds):
        for t in targets if r % 2 == 0 else targets[::-1]:
            got[t.name].append(function(t, int(time.time() * 1000) % 1000000 * 10 + r))
    print(f"\n{title}")
    mine = got["minka"]
    for t in targets:
        line = f"  {t.name:<12} {spread(got[t.name])}"
        if t.name != "minka":
            ratios = [a / b if more else b / a for a, b in zip(mine, got[t.name])]
            line += f"   minka is {statistics.median(ratios):.2f} x [{min(ratios):.2f}..{max(ratios):.2f}]"
        print(line, flush=True)
    return got


def start_minka(minka, model):
    folder = tempfile.mkdtemp(prefix="minka-bench-")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = dict(os.environ, OLLAMA_HOST=f"127.0.0.1:{port}", OLLAMA_MODELS=os.path.join(folder, "models"), HOME=folder)
    subprocess.run([minka, "import", model, "smollm2:135m"], env=env, check=True, stdout=subprocess.DEVNULL)
    log = open(os.path.join(folder, "log"), "w")
    process = subprocess.Popen([minka, "serve"], env=env, stderr=log)
    for _ in range(200):
        try:
            return process, folder, Target("minka", f"http://127.0.0.1:{port}", "smollm2:135m")
        except OSError:
            time.sleep(0.05)
    sys.exit("Error: minka does not start: " + open(log.name).read())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minka")
    parser.add_argument("--model", help="GGUF file (default: the small model of make run)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL[=MODEL]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(CASES), help="cases: " + ", ".join(CASES))
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    options = parser.parse_args()
    model = options.model or subprocess.run([sys.executable, str(ROOT / "tools" / "fetch_model.py"), "smollm2"], check=True,
                                            stdout=subprocess.PIPE, text=True).stdout.strip()
    process, folder, mine = start_minka(options.minka, model)
    try:
        targets = [mine]
        for peer in options.peer:
            name, url, *rest = peer.split("=")
            targets.append(Target(name, url, rest[0] if rest else "smollm2:135m"))
        for t in targets:
            ask(t, ["warm up"], 2)[0].finish()
        print(f"{os.cpu_count()} processors, {options.rounds} rounds, model {pathlib.Path(model).name}, {time.strftime('%Y-%m-%d %H:%M')}")
        figures = {name: measure(name, targets, options.rounds) for name in options.only.split(",")}
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(figures, indent=1))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
