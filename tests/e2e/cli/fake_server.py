"""A scripted model server: enough of Ollama's API for the command line, on a free port of 127.0.0.1 or on a Unix
socket. What it answers depends on the last message; what it was asked is kept in `requests`."""

import http.server
import json
import os
import socket
import threading
import time

MODELS = [
    {"name": "smollm2:135m", "digest": "0123456789abcdef" * 4, "size": 91000000, "modified_at": "MINUTES"},
    {"name": "Big:latest", "digest": "sha256:" + "fedcba9876543210" * 4, "size": 4700000000, "modified_at": "2020-01-02T03:04:05.123456789+01:00"},
    {"name": "thinker:latest", "digest": "a" * 64, "size": 999, "modified_at": "0001-01-01T00:00:00Z"},
]  # fmt: skip

SHOW = {
    "license": "  First line of the licence\n\nSecond line\nThird line\n",
    "modelfile": "FROM /x\n",
    "parameters": 'stop                           "<|im_end|>"\ntemperature                    0.5',
    "template": "{{ .Prompt }}",
    "system": "You are terse.",
    "details": {"family": "llama", "parameter_size": "134.52M", "quantization_level": "Q4_1"},
    "model_info": {
        "general.architecture": "llama",
        "general.parameter_count": 134515008,
        "llama.context_length": 8192,
        "llama.embedding_length": 576,
        "llama.rope.freq_base": 100000.0,
        "tokenizer.ggml.tokens": ["a", "bb", "ccc", "dddd", "e"],
        "tokenizer.ggml.add_bos_token": False,
    },
    "capabilities": ["completion"],
}


def stamp(seconds_from_now):
    t = time.time() + seconds_from_now
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t)) + ".5Z"


def pieces(prompt):
    """The answer to a prompt, piece by piece; a dict is a whole line of its own, a number a pause."""
    if prompt.startswith("say "):
        return [prompt[4:]]
    if prompt == "count":
        return ["one ", "two ", "three"]
    if prompt == "slow":
        return [x for i in range(200) for x in (f"w{i} ", 0.05)]
    if prompt == "wait":
        return [0.6, "done"]
    if prompt == "ponder":
        return [{"thinking": "Let me "}, {"thinking": "see."}, "42"]
    if prompt == "tool":
        return [{"tool_calls": [{"function": {"name": "f", "arguments": {"city": "Rome"}}}]}]
    if prompt == "break":
        return ["half", {"error": "the engine has stopped"}]
    if prompt == "cut":
        return ["half", "CUT"]
    if prompt == "wide":
        return ["\u00e4\u00f6\u00fc \u4f60\u597d ", "\U0001f600!"]
    if prompt == "escape":
        return ["a\x1b[31mb\x07c\u009bd\te"]
    if prompt == "long":
        return [w + " " for w in ("lorem ipsum dolor sit amet consectetur adipiscing elit " * 3).split()]
    return ["echo: " + prompt]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def address_string(self):
        return "client"

    def reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_HEAD(self):
        self.reply(200, {})

    def do_GET(self):
        path = self.path.removeprefix(self.server.prefix)
        if path == "/api/version":
            self.reply(200, {"version": self.server.version})
        elif path == "/api/tags":
            models = [{**m, "model": m["name"]} for m in MODELS]
            models[0]["modified_at"] = stamp(-200)
            self.reply(200, {"models": models})
        elif path == "/api/ps":
            base = {"digest": "0123456789abcdef" * 4, "context_length": 4096}
            self.reply(200, {"models": [
                {**base, "name": "smollm2:135m", "size": 150000000, "size_vram": 0, "expires_at": stamp(290)},
                {**base, "name": "gpu:latest", "size": 10, "size_vram": 10, "expires_at": "2345-01-01T00:00:00Z"},
                {**base, "name": "mix:latest", "size": 100, "size_vram": 52, "expires_at": stamp(-5)},
            ]})  # fmt: skip
        else:
            self.reply(404, {"error": "no such route"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        path = self.path.removeprefix(self.server.prefix)
        self.server.requests.append((path, body))
        model = body.get("model", "")
        known = [m["name"].lower() for m in MODELS] + ["smollm2", "thinker", "big", "embedder"] + self.server.extra
        if path in ("/api/pull", "/api/push"):
            self.transfer(model)
        elif path == "/api/create":
            bad = {"x/y/z/w": (400, "invalid model name"), "full": (500, "no space left")}.get(model)
            self.reply(bad[0] if bad else 200, {"error": bad[1]} if bad else {"status": "success"})
        elif model.lower() not in known:
            self.reply(404, {"error": f"model '{model}' not found"})
        elif path == "/api/show":
            show = dict(SHOW)
            if model.startswith("thinker"):
                show["capabilities"] = ["completion", "thinking"]
            if model == "embedder":
                show["capabilities"] = ["embedding"]
            if body.get("verbose"):
                show["tensors"] = [{"name": "output.weight", "type": "Q8_0", "shape": [576, 49152]}]
            self.reply(200, show)
        elif path == "/api/embed":
            self.reply(200, {"model": model, "embeddings": [[0.25, -0.5]]})
        elif path == "/api/generate":
            self.generate(body, body.get("prompt", ""), lambda text: {"response": text})
        elif path == "/api/chat":
            last = body["messages"][-1]["content"]
            self.generate(body, last, lambda text: {"message": {"role": "assistant", "content": text}})
        else:
            self.reply(404, {"error": "no such route"})

    def transfer(self, model):
        """Lines of a pull: a large blob in steps beside a small one; "hanging" stops half way, "nope" is not there."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        say = lambda status, **more: self.chunk(json.dumps({"status": status, **more}).encode() + b"\n")
        blob = lambda c, completed, total: say("pulling " + c * 12, digest="sha256:" + c * 64, total=total, completed=completed)
        try:
            say("pulling manifest")
            if model == "nope":
                self.chunk(b'{"error":"pull model manifest: file does not exist"}\n')
            elif model == "denied":
                self.chunk(b'{"error":"unauthorized: access denied"}\n')
            else:
                for i in range(0, 11):
                    blob("a", i * 100_000_000, 1_000_000_000)
                    if i == 3:
                        blob("b", 23, 23)
                    if i == 5 and model == "hanging":
                        for _ in range(200):
                            time.sleep(0.05)
                            blob("a", 500_000_000, 1_000_000_000)
                    time.sleep(0.15 if model == "slowly" else 0.0)
                say("writing manifest")
                if model != "cut":
                    say("success")
                self.server.extra.append(model)
            self.chunk(b"")
        except (BrokenPipeError, ConnectionResetError):
            self.server.dropped.append(model)
            self.close_connection = True

    def generate(self, body, prompt, wrap):
        if prompt == "busy":
            self.reply(503, {"error": "server busy, please try again.  maximum pending requests exceeded"})
            return
        if prompt == "nothink":
            self.reply(400, {"error": '"smollm2" does not support thinking'})
            return
        base = {"model": body["model"], "created_at": stamp(0)}
        if not prompt and body.get("think") and not body["model"].startswith("thinker"):
            self.reply(400, {"error": f'"{body["model"]}" does not support thinking'})
            return
        if not prompt:
            self.reply(200, {**base, **wrap(""), "done": True, "done_reason": "load"})
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces(prompt):
                if isinstance(piece, float):
                    time.sleep(piece)
                elif piece == "CUT":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                elif isinstance(piece, dict) and "error" in piece:
                    self.chunk(json.dumps(piece).encode() + b"\n")
                elif isinstance(piece, dict):
                    line = wrap("")
                    (line.get("message") or line).update(piece)
                    self.chunk(json.dumps({**base, **line, "done": False}).encode() + b"\n")
                else:
                    self.chunk(json.dumps({**base, **wrap(piece), "done": False}).encode() + b"\n")
            figures = {
                "total_duration": 1234567890, "load_duration": 2500000, "prompt_eval_count": 7, "prompt_eval_duration": 14000000,
                "eval_count": 10, "eval_duration": 500000000,
            }  # fmt: skip
            done = {**base, **wrap(""), "done": True, "done_reason": "stop", **figures}
            self.chunk(json.dumps(done).encode() + b"\n")
            self.chunk(b"")
        except (BrokenPipeError, ConnectionResetError):
            self.server.dropped.append(prompt)
            self.close_connection = True


class FakeServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, unix=None, prefix="", version="0.1.0", port=0):
        self.unix, self.prefix, self.version = unix, prefix, version
        self.requests, self.dropped, self.extra, self.open = [], [], [], []
        if unix:
            self.address_family = socket.AF_UNIX
        super().__init__(unix or ("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def get_request(self):
        request, address = super().get_request()
        self.open.append(request)
        return request, address or ("unix", 0)

    @property
    def host(self):
        return f"unix:{self.unix}" if self.unix else f"127.0.0.1:{self.server_address[1]}{self.prefix}"

    def close(self):
        self.shutdown()
        self.server_close()
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if self.unix:
            os.unlink(self.unix)
