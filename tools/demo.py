#!/usr/bin/env python3
"""make run: fetches a small model, imports it, starts the server, sends eight chats at the same moment and shows the
eight answers growing side by side. On a terminal the server then goes on until Ctrl-C; without one the program ends
with 0 when all eight have answered.

usage: demo.py PATH-OF-MINKA
"""
import http.client, json, os, pathlib, shutil, signal, subprocess, sys, textwrap, threading, time

MODEL = "smollm2:135m"
QUESTIONS = [
    "What is the capital of Peru, and what is it known for?",
    "Write a haiku about the sea.",
    "Explain in two sentences why the sky is blue.",
    "Give me three ideas for a rainy Sunday.",
    "How do I boil an egg?",
    "What does the word 'minka' make you think of?",
    "Tell a very short story about a lighthouse.",
    "List five fruits and their colours.",
]
root = pathlib.Path(__file__).resolve().parent.parent


def fail(text):
    print(f"Error: {text}", file=sys.stderr)
    sys.exit(1)


class Chat(threading.Thread):
    """One streamed chat; its fields are read by the painter while it runs."""

    def __init__(self, address, question, start):
        super().__init__(daemon=True)
        self.address, self.question, self.start_line = address, question, start
        self.text, self.error, self.final = "", None, None
        self.tokens, self.first, self.last = 0, None, None

    def rate(self):
        if self.final and self.final.get("eval_duration"):
            return self.final["eval_count"] / self.final["eval_duration"] * 1e9
        if self.tokens > 1 and self.last > self.first:
            return (self.tokens - 1) / (self.last - self.first)
        return 0.0

    def run(self):
        body = {"model": MODEL, "messages": [{"role": "user", "content": self.question}],
                "options": {"num_predict": 160, "temperature": 0.7, "seed": 7}}
        try:
            connection = http.client.HTTPConnection(*self.address, timeout=300)
            connection.connect()
            self.start_line.wait()
            connection.request("POST", "/api/chat", json.dumps(body))
            for line in connection.getresponse():
                self.take(json.loads(line))
            if not self.final and not self.error:
                self.error = "the stream ended without a final object"
        except (OSError, ValueError, http.client.HTTPException) as e:
            self.error = str(e) or type(e).__name__

    def take(self, event):
        now = time.monotonic()
        if "error" in event:
            self.error = event["error"]
            return
        self.text += event["message"]["content"]
        if event["done"]:
            self.final = event
        else:
            self.tokens += 1
            self.first, self.last = self.first or now, now


def get(address, path):
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def megabytes(n):
    return f"{n / 1e6:.0f} MB"


def status_line(address, chats, began):
    ps = get(address, "/api/ps")
    queue, memory = ps.get("queue", {}), ps.get("memory", {})
    tokens = sum(c.final["eval_count"] if c.final else c.tokens for c in chats)
    seconds = max(max((c.last or began) for c in chats) - began, 1e-3)
    return (f"total {tokens / seconds:.0f} tokens/s | running {queue.get('running', 0)}, waiting {queue.get('waiting', 0)}"
            f" | memory: weights {megabytes(memory.get('weights', 0))}, KV {megabytes(memory.get('kv', 0))},"
            f" scratch {megabytes(memory.get('scratch', 0))} of {megabytes(memory.get('limit', 0))}")


def cell(chat, width, height):
    """The end of one answer as `height` lines of `width` columns, the question and the rate on top."""
    head = textwrap.shorten(chat.question, width - 12, placeholder="...")
    rate = "failed" if chat.error else f"{chat.rate():.0f} tok/s"
    lines = []
    for part in (chat.error or chat.text).splitlines():
        lines += textwrap.wrap(part, width) or [""]
    lines = lines[-(height - 1):] + [""] * (height - 1 - len(lines))
    return [f"\x1b[1m{head:<{width - len(rate) - 1}}\x1b[0m \x1b[32m{rate}\x1b[0m"] + [f"{line[:width]:<{width}}" for line in lines]


def paint(chats, status, first):
    columns, rows = shutil.get_terminal_size((100, 30))
    across = 4 if columns >= 120 else 2
    width, down = (columns - 3 * (across - 1)) // across, len(chats) // across
    height = max(3, min(14, (rows - 3) // down - 1))
    out = []
    for row in range(down):
        cells = [cell(c, width, height) for c in chats[row * across:(row + 1) * across]]
        out += ["   ".join(parts) for parts in zip(*cells)] + [""]
    out.append(status[:columns])
    if not first:
        sys.stdout.write(f"\x1b[{len(out)}A")
    sys.stdout.write("".join(f"\x1b[2K{line}\n" for line in out))
    sys.stdout.flush()


def run_chats(address, terminal):
    start = threading.Event()
    chats = [Chat(address, q, start) for q in QUESTIONS]
    for c in chats:
        c.start()
    began = time.monotonic()
    start.set()
    first = True
    while any(c.is_alive() for c in chats):
        time.sleep(0.1)
        if terminal:
            paint(chats, status_line(address, chats, began), first)
            first = False
    status = status_line(address, chats, began)
    if terminal:
        paint(chats, status, first)
    else:
        for c in chats:
            print(f"--- {c.question}  [{c.rate():.0f} tokens/s]\n{c.error or c.text.strip()}\n")
        print(status)
    bad = [c for c in chats if c.error or not c.text.strip()]
    if bad:
        fail(f"{len(bad)} of {len(chats)} chats failed: {bad[0].error or 'an empty answer'}")


def wait_ready(server, address):
    for _ in range(200):
        if server.poll() is not None:
            sys.exit(1)  # it has said why on standard error
        try:
            get(address, "/api/version")
            return
        except (OSError, ValueError):
            time.sleep(0.05)
    fail("the server did not become ready within 10 seconds")


def host_and_port():
    text = os.environ.get("OLLAMA_HOST", "").strip() or "127.0.0.1:11434"
    text = text.split("://")[-1].split("/")[0]
    host, _, port = text.rpartition(":")
    host = (host or text).strip("[]")
    return ("127.0.0.1" if host in ("", "0.0.0.0", "::") else host, int(port) if port.isdigit() else 11434)


def main():
    minka = sys.argv[1]
    terminal = sys.stdout.isatty() and sys.stdin.isatty()
    fetched = subprocess.run([sys.executable, str(root / "tools" / "fetch_model.py"), "smollm2"], stdout=subprocess.PIPE, text=True)
    if fetched.returncode:
        sys.exit(fetched.returncode)
    if subprocess.run([minka, "import", fetched.stdout.strip(), MODEL]).returncode:
        sys.exit(1)
    address = host_and_port()
    server = subprocess.Popen([minka, "serve"], start_new_session=True)
    try:
        wait_ready(server, address)
        run_chats(address, terminal)
        if terminal:
            host = "" if address == ("127.0.0.1", 11434) else f"OLLAMA_HOST={address[0]}:{address[1]} "
            print(f"\nServing on http://{address[0]}:{address[1]} until Ctrl-C. Talk to it from another terminal:\n"
                  f"  {host}{minka} run {MODEL}\n"
                  f"  {host}ollama run {MODEL}\n"
                  f"  curl http://{address[0]}:{address[1]}/api/chat -d '{{\"model\": \"{MODEL}\", \"messages\": "
                  f"[{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'\n")
            server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGINT)
            server.wait(15)


main()
