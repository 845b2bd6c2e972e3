"""A registry on loopback whose answers a test bends: FakeRegistry(blobs).hook = function(handler, kind, what) that answers
by itself (True) or leaves it (falsy) to the ordinary answer. Kinds: manifest, blob, token, upload, other."""
import hashlib, http.server, json, socket, ssl, sys, threading, urllib.parse

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def manifest_of(model, *more):
    """A manifest of a model layer and further layers, and its blobs by digest."""
    config = b'{"model_format":"gguf","model_family":"llama"}'
    entry = lambda media, data: {"mediaType": media, "digest": sha(data), "size": len(data)}
    layers = [entry("application/vnd.ollama.image.model", model)] + [entry("application/vnd.ollama.image.license", m) for m in more]
    m = {"schemaVersion": 2, "mediaType": MANIFEST, "config": entry("application/vnd.docker.container.image.v1+json", config),
         "layers": layers}
    return json.dumps(m).encode(), {sha(b): b for b in (config, model, *more)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, body=b"", headers=(), length=None):
        self.send_response(code)
        for k, v in dict(headers).items():
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def range_start(self):
        text = self.headers.get("Range")
        return int(text.removeprefix("bytes=").removesuffix("-")) if text else 0

    def cut(self):
        """Ends the connection as a broken one."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def send_blob(self, data, stop=None):
        """The asked range of data; with stop, only up to that offset, and True is returned if that is not all."""
        start = self.range_start()
        end = len(data) if stop is None else max(min(stop, len(data)), start)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[start:end])
            self.wfile.flush()
        return end < len(data)

    def kind(self):
        path = urllib.parse.urlsplit(self.path).path
        parts = path.split("/")
        if path == "/token":
            return "token", ""
        if "/blobs/uploads/" in path:
            return "upload", parts[-1]
        if len(parts) >= 3 and parts[-2] in ("manifests", "blobs"):
            return parts[-2][:-1], parts[-1]
        return "other", path

    def handle_any(self):
        registry = self.server.registry
        kind, what = self.kind()
        with registry.lock:
            registry.seen.append((self.command, self.path, dict(self.headers)))
        try:
            if registry.hook and registry.hook(self, kind, what):
                return
            if kind == "manifest" and self.command == "GET" and registry.manifest is not None:
                self.answer(200, registry.manifest, {"Content-Type": MANIFEST})
            elif kind == "blob" and what in registry.blobs:
                self.send_blob(registry.blobs[what])
            else:
                self.body()
                self.answer(404, b'{"errors":[]}')
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        """A client that resets its connection is no error of a test."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, address)


class FakeRegistry:
    def __init__(self, manifest=None, blobs=None, hook=None, tls=None):
        """tls: a file with a key and a certificate."""
        self.manifest, self.blobs, self.hook = manifest, dict(blobs or {}), hook
        self.seen, self.lock = [], threading.Lock()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.registry = self
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = ("https://" if tls else "http://") + self.host
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def requests(self, kind, method="GET"):
        """Headers of the requests so far whose path has /kind/ in it."""
        with self.lock:
            return [h for m, p, h in self.seen if m == method and f"/{kind}/" in p]
