#!/usr/bin/env python3
"""Acceptance test of src/http: drives tests/e2e/http/server.c over raw sockets and checks every trap of the
HTTP library that src/http/httpd_own.h lists. Usage: test_http.py SERVER [NAME]... ; prints TAP."""

import json
import os
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM = sys.argv[1]
ONLY = sys.argv[2:]
HOST = b"Host: x\r\n"
# A disconnect is seen at once; the bound is for a busy machine (unseen would be seconds, or never).
AT_ONCE_MS = 500


def now_ms():
    return time.monotonic() * 1000


class Server:
    """The test server as a child, with its events (time, words) collected by a thread."""

    def __init__(self, *args, files=None):
        limit = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, files)) if files else None
        self.unix = next((a[5:] for a in args if a.startswith("unix:")), None)
        self.errors = tempfile.TemporaryFile()
        self.child = subprocess.Popen(
            [PROGRAM, *args], stdout=subprocess.PIPE, stderr=self.errors, errors="replace", preexec_fn=limit
        )
        self.events, self.n_marks = [], 0
        self.news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(self.wait("port")[1][1])

    def _read(self):
        for line in self.child.stdout:
            words = line.split()
            with self.news:
                self.events.append((float(words[0]), words[1:]))
                self.news.notify_all()
        with self.news:
            self.events.append((now_ms(), ["eof"]))
            self.news.notify_all()

    def mark(self):
        """A place behind the events of all that was answered so far."""
        self.n_marks += 1
        path = f"/mark/{self.n_marks}"
        self.ask(get(path))
        i, words, _ = self.wait("body", None, path)
        return self.wait("gone", words[1], since=i)[0] + 1

    def n_bodies(self, since):
        """How many requests reached the handler since a mark."""
        end = self.mark()
        return sum(w[0] == "body" and not w[2].startswith("/mark") for _, w in self.events[since:end])

    def wait(self, *words, since=0, timeout=5):
        """The first event from since on that begins with words (None: any word), as (index, words, ms)."""
        end = time.monotonic() + timeout
        with self.news:
            while True:
                for i in range(since, len(self.events)):
                    ms, got = self.events[i]
                    if len(got) >= len(words) and all(w in (None, g) for w, g in zip(words, got)):
                        return i, got, ms
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no event {words} within {timeout} s")
                self.news.wait(left)

    def connect(self, receive_bytes=None, timeout=10):
        s = socket.socket(socket.AF_UNIX if self.unix else socket.AF_INET)
        if receive_bytes:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        s.settimeout(timeout)
        s.connect(self.unix or ("127.0.0.1", self.port))
        return s

    def ask(self, data):
        with self.connect() as s:
            s.sendall(data)
            return response(s)

    def stats(self):
        return json.loads(self.ask(b"GET /stats HTTP/1.1\r\n" + HOST + b"\r\n").body)

    def n_files(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def rss_kib(self):
        with open(f"/proc/{self.child.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(20)
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace")
        self.wait("eof")
        assert code == 0, f"exit code {code}: {said[-2000:]}"
        assert said == "", f"standard error: {said[-2000:]}"


class Response:
    def __init__(self, status, headers, body, whole):
        self.status, self.headers, self.body, self.whole = status, headers, body, whole


class Reader:
    """Reads responses one after the other from a socket."""

    def __init__(self, s):
        self.s, self.data, self.ended = s, b"", False

    def fill(self):
        try:
            more = self.s.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            more = b""
        self.ended = not more
        self.data += more
        return bool(more)

    def line(self):
        while b"\r\n" not in self.data:
            if not self.fill():
                return None
        line, self.data = self.data.split(b"\r\n", 1)
        return line

    def take(self, n):
        while len(self.data) < n:
            if not self.fill():
                break
        got, self.data = self.data[:n], self.data[n:]
        return got

    def response(self, head=False):
        """None if the connection ended before a response began."""
        first = self.line()
        if first is None:
            return None
        status, headers = int(first.split()[1]), {}
        while line := self.line():
            name, value = line.split(b":", 1)
            headers[name.decode().lower()] = value.strip().decode()
        if head or status == 100:
            return Response(status, headers, b"", True)
        if headers.get("transfer-encoding") == "chunked":
            return self.chunked(status, headers)
        if "content-length" in headers:
            n = int(headers["content-length"])
            body = self.take(n)
            return Response(status, headers, body, len(body) == n)
        while self.fill():
            pass
        body, self.data = self.data, b""
        return Response(status, headers, body, True)

    def chunked(self, status, headers):
        body = bytearray()
        while (line := self.line()) is not None:
            n = int(line, 16)
            body += self.take(n)
            if self.take(2) != b"\r\n":
                break
            if n == 0:
                return Response(status, headers, bytes(body), True)
        return Response(status, headers, bytes(body), False)


def response(s, head=False):
    return Reader(s).response(head)


def get(path, extra=b""):
    return b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST + extra + b"\r\n"


def post(path, body, extra=b""):
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST " + path.encode() + b" HTTP/1.1\r\n" + HOST + length + extra + b"\r\n" + body


def leave(s, how):
    if how == "rst":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half":
        s.shutdown(socket.SHUT_WR)
    else:
        s.close()


def check_gone(server, path, request, how, prepare=None):
    """A client whose request is in the handler's hands leaves: the handler hears of it at once."""
    since = server.mark()
    s = server.connect()
    s.sendall(request)
    i, words, _ = server.wait("body", None, path, since=since)
    if prepare:
        prepare(s)
    left = now_ms()
    leave(s, how)
    _, _, ms = server.wait("gone", words[1], "1", since=i, timeout=2)
    assert ms - left < AT_ONCE_MS, f"seen after {ms - left:.0f} ms"
    if how == "half":
        # The server closes its side too.
        s.settimeout(2)
        while s.recv(65536):
            pass
        s.close()


TESTS = []


def test(*args, **kw):
    def add(f):
        TESTS.append((f, args, kw))
        return f

    return add


# --- disconnects ---


@test()
def parked_disconnect(server):
    for how in "fin", "rst", "half":
        check_gone(server, "/slow", post("/slow?ms=5000", b"{}"), how)


@test()
def parked_with_pipelined_bytes_disconnect(server):
    for how in "fin", "rst", "half":
        check_gone(server, "/slow", post("/slow?ms=5000", b"{}") + get("/v"), how)


@test()
def parked_chunked_disconnect(server):
    chunked = b"POST /slow?ms=5000 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    for how in "fin", "rst", "half":
        check_gone(server, "/slow", chunked, how)


@test()
def stream_disconnect(server):
    for how in "fin", "rst", "half":
        check_gone(server, "/stream", get("/stream?n=1000&ms=10"), how, lambda s: s.recv(100))


@test()
def blocked_stream_disconnect(server):
    """The stream waits for a reader that does not read: its end is still seen."""
    for how in "fin", "rst", "half":
        check_gone(server, "/fill", get("/fill?n=100000000"), how, lambda s: time.sleep(0.2))


@test("unix:{tmp}/sock")
def unix_socket(server):
    r = server.ask(post("/x", b"hello"))
    assert json.loads(r.body)["peer"] == "unix"
    for how in "fin", "half":
        check_gone(server, "/slow", post("/slow?ms=5000", b"{}"), how)


@test()
def disconnect_in_turn_with_answer(server):
    """Clients leave about when the answer is given: each request still ends exactly once (the server checks)."""
    rnd = random.Random(7)
    since = server.mark()
    for i in range(60):
        s = server.connect()
        s.sendall(post("/slow?ms=3", b"{}"))
        time.sleep(rnd.random() * 0.006)
        leave(s, rnd.choice(["fin", "rst"]))
    time.sleep(0.3)
    events = [w for _, w in server.events[since : server.mark()]]
    assert sum(w[0] == "body" for w in events) == sum(w[0] == "gone" for w in events)
    assert server.stats()["open"] == 0


@test()
def half_close_of_quick_request_is_answered(server):
    """printf ... | nc: the client closes its side right behind the request."""
    for request in get("/v"), post("/x", b"{}" * 1000), get("/v") + get("/v"):
        with server.connect() as s:
            s.sendall(request)
            s.shutdown(socket.SHUT_WR)
            reader = Reader(s)
            for _ in range(request.count(b"HTTP/1.1")):
                r = reader.response()
                assert r and r.status == 200 and r.whole
            assert not reader.fill(), "the server closes too"


@test()
def aborted_uploads_leave_nothing(server):
    """A FIN behind a short read is lost by the library: such sockets must not stay in CLOSE-WAIT."""
    files = server.n_files()
    rnd = random.Random(5)
    block = bytes(200000)
    for i in range(150):
        s = server.connect()
        if rnd.random() < 0.5:
            s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 3000000\r\n\r\n")
        else:
            s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2dc6c0\r\n")
        s.sendall(block[: rnd.randrange(len(block))])
        if rnd.random() < 0.3:
            time.sleep(0.003)
        leave(s, "rst" if rnd.random() < 0.4 else "fin")
    end = time.monotonic() + 3
    while server.n_files() > files and time.monotonic() < end:
        time.sleep(0.05)
    assert server.n_files() <= files, f"{server.n_files()} descriptors, {files} before"


@test()
def cut_headers_leave_nothing(server):
    files = server.n_files()
    for i in range(40):
        s = server.connect()
        s.sendall(get("/v")[: i % 30])
        if i % 2:
            time.sleep(0.002)
        leave(s, "fin" if i % 3 else "rst")
    end = time.monotonic() + 2
    while server.n_files() > files and time.monotonic() < end:
        time.sleep(0.05)
    assert server.n_files() <= files


@test()
def disconnect_does_not_spin(server):
    """The watch is level-triggered: left on, a half-closed connection would eat a processor."""
    s = server.connect()
    s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\n12345")
    parked = server.connect()
    parked.sendall(post("/slow?ms=1000", b""))
    time.sleep(0.1)
    s.shutdown(socket.SHUT_WR)
    before = server.stats()["cpu_us"]
    time.sleep(0.4)
    used = server.stats()["cpu_us"] - before
    assert used < 100000, f"{used} us of processor time in 400 ms"
    s.close()
    parked.close()


# --- streams ---


@test()
def one_write_is_one_chunk(server):
    with server.connect() as s:
        s.sendall(get("/stream?n=30&ms=8"))
        sizes, data = 0, b""
        while b"\r\n0\r\n\r\n" not in data:
            data += s.recv(65536)
            sizes += 1
        assert data.count(b'{"i":') == 30
        assert len(re.findall(rb"\r\n8\r\n|\r\n9\r\n", data)) == 30
        # Each piece comes by itself; a busy machine may join some.
        assert sizes >= 20, sizes


@test()
def burst_in_one_turn(server):
    """Many writes in one turn go out together and whole."""
    r = server.ask(get("/burst?n=5000&bytes=100"))
    assert r.whole and r.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(x)["i"] for x in r.body.splitlines()] == list(range(5000))


@test()
def writes_allocate_nothing(server):
    server.stats()
    before = server.stats()["allocations"]
    assert server.ask(get("/stream?n=5&ms=1&bytes=500")).whole
    few = server.stats()["allocations"] - before
    assert server.ask(get("/stream?n=1000&ms=1&bytes=500")).whole
    many = server.stats()["allocations"] - before - few
    assert many <= few + 4, f"{few} allocations for 5 writes, {many} for 1000"


@test()
def pipelined_behind_stream(server):
    with server.connect() as s:
        s.sendall(get("/stream?n=5&ms=20") + get("/v"))
        reader = Reader(s)
        assert reader.response().body.count(b"\n") == 5
        assert reader.response().body == b'{"version":"1"}'


@test()
def slow_reader_is_bounded(server):
    """40 MB for a reader of 10 kB/s: the server's memory stays, and the reader may still leave."""
    before = server.rss_kib()
    s = server.connect(receive_bytes=8192)
    s.sendall(get("/fill?n=40000000"))
    for _ in range(10):
        time.sleep(0.05)
        s.recv(1024)
    assert server.rss_kib() - before < 4096
    s.close()


@test()
def fast_reader_gets_all(server):
    with server.connect() as s:
        s.sendall(get("/fill?n=20000000"))
        r = response(s)
        assert r.whole and len(r.body) == 20000000 and not r.body.strip(b"x")


@test()
def flood_is_refused_at_the_bound(server):
    since = server.mark()
    s = server.connect(receive_bytes=8192)
    s.sendall(get("/flood?bytes=1000"))
    i, words, _ = server.wait("slow", since=since)
    assert 1000000 < int(words[2]) <= 1 << 20
    # The handler aborted it itself: finished, not gone.
    server.wait("gone", words[1], "0", since=i)
    s.close()


@test("stream=1000")
def stalled_reader_is_cut(server):
    """Nothing read for stream_stall_ms: the connection is given up."""
    since = server.mark()
    s = server.connect(receive_bytes=8192)
    s.sendall(get("/fill?n=40000000"))
    i, words, began = server.wait("body", since=since)
    _, _, ms = server.wait("gone", words[1], "1", since=i, timeout=5)
    assert 700 < ms - began < 4000, ms - began
    s.close()


@test("stream=1000")
def quiet_stream_is_not_cut(server):
    """Waiting for the producer is no stall."""
    r = server.ask(get("/stream?n=2&ms=1300"))
    assert r.whole and r.body.count(b"\n") == 2


@test()
def abort_cuts_without_final_chunk(server):
    since = server.mark()
    with server.connect() as s:
        s.sendall(get("/abort?n=3&ms=20"))
        r = response(s)
        assert r.status == 200 and not r.whole and r.body.count(b"\n") >= 2
    server.wait("gone", since=since)
    with server.connect() as s:
        s.sendall(get("/cut"))
        assert response(s) is None


# --- bodies ---


@test()
def bodies_arrive_whole(server):
    rnd = random.Random(1)
    for n in 0, 1, 1000, 8191, 8192, 100000, 3000000:
        body = rnd.randbytes(n)
        for chunked in False, True:
            if chunked:
                data = b"POST /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
                at = 0
                while at < n:
                    step = rnd.randrange(1, 200000)
                    piece = body[at : at + step]
                    data += b"%x\r\n%s\r\n" % (len(piece), piece)
                    at += step
                data += b"0\r\n\r\n"
            else:
                data = post("/x", body)
            got = json.loads(server.ask(data).body)
            assert got["bytes"] == n
    a = json.loads(server.ask(post("/x", body)).body)["hash"]
    assert a == got["hash"], "chunked or not, the bytes are the same"


@test("body=1000", "stall=300")
def bodies_in_pieces(server):
    """Of any length, however often the handler says wait, and longer than a stalled client may take."""
    rnd = random.Random(2)
    for n in 0, 1, 999, 100000, 3000000:
        body = rnd.randbytes(n)
        data = b"POST /pieces?bytes=200000&ms=40 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        for at in range(0, n, 70000):
            data += b"%x\r\n%s\r\n" % (len(body[at : at + 70000]), body[at : at + 70000])
        whole = json.loads(server.ask(post("/pieces?bytes=200000&ms=40", body)).body)
        chunked = json.loads(server.ask(data + b"0\r\n\r\n").body)
        assert whole["bytes"] == n and whole["hash"] == chunked["hash"] and whole["head"] == chunked["head"]
    body = rnd.randbytes(30000)
    assert json.loads(server.ask(post("/pieces?bytes=10000&ms=700", body)).body)["bytes"] == 30000, "our wait is no stall"
    with server.connect() as s:
        since = server.mark()
        s.sendall(b"POST /pieces HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nabc")
        assert 200 < closed_after(s) < 1900, "the client's is one"
        _, words, _ = server.wait("begin", since=since)
        server.wait("gone", words[1], "1", since=since)


@test()
def pieces_disconnect(server):
    """Clients that leave between pieces, while the handler has them wait or not, are gone once."""
    files = server.n_files()
    rnd = random.Random(6)
    for i in range(60):
        since = server.mark()
        s = server.connect()
        path = rnd.choice([b"/pieces", b"/pieces?bytes=5000&ms=50"])
        s.sendall(b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 3000000\r\n\r\n" + bytes(rnd.randrange(1, 60000)))
        _, words, _ = server.wait("begin", since=since)
        leave(s, rnd.choice(["rst", "fin"]))
        server.wait("gone", words[1], "1", since=since, timeout=5)
    assert server.n_files() <= files


@test()
def pieces_while_the_server_ends(server):
    """Open uploads, waiting and not, end with the server; it says itself that nothing is left."""
    sockets = [server.connect() for _ in range(6)]
    for i, s in enumerate(sockets):
        path = b"/pieces?bytes=1000&ms=5000" if i % 2 else b"/pieces"
        s.sendall(b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 3000000\r\n\r\n" + bytes(50000))
    for i in range(6):
        server.wait("begin", str(i))
    server.child.terminate()
    server.wait("stopped", timeout=5)
    for s in sockets:
        s.close()
    assert server.child.wait(5) == 0


@test()
def chunked_body_parked_and_answered(server):
    """The library calls the handler of a suspended connection when the body was chunked."""
    chunked = b"POST /slow?ms=100 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    pieces = [b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n"]
    with server.connect() as s:
        s.sendall(chunked)
        for piece in pieces:
            time.sleep(0.02)
            s.sendall(piece)
        time.sleep(0.02)
        s.sendall(chunked + b"".join(pieces) + get("/v"))
        reader = Reader(s)
        for want in b'{"slow":true}', b'{"slow":true}', b'{"version":"1"}':
            assert reader.response().body == want


@test("body=100000")
def too_large_by_length(server):
    """Refused on the headers; the answer arrives although the client goes on sending."""
    since = server.mark()
    head = b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 190000\r\n\r\n"
    with server.connect() as s:
        s.sendall(head)
        r = response(s)
        assert r.status == 413 and json.loads(r.body)["error"] and r.headers["connection"] == "close"
    for _ in range(5):
        with server.connect() as s:
            s.sendall(head)
            for _ in range(19):
                time.sleep(0.002)
                s.sendall(bytes(10000))  # a closed connection would fail here
            r = response(s)
            assert r and r.status == 413 and r.whole
    assert server.ask(post("/x", bytes(100000))).status == 200
    assert server.n_bodies(since) == 1
    with server.connect() as s:
        s.sendall(head.replace(b"190000", b"99999999999999999999999"))
        assert response(s).status in (400, 413)


@test("body=100000")
def too_large_chunked(server):
    """A little over is read to its end and answered; an endless body is cut."""
    head = b"POST /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    with server.connect() as s:
        s.sendall(head + b"1d4c0\r\n" + bytes(120000) + b"\r\n0\r\n\r\n")
        assert response(s).status == 413
    with server.connect() as s:
        s.sendall(head)
        try:
            for _ in range(1000):
                s.sendall(b"2710\r\n" + bytes(10000) + b"\r\n")
            raise AssertionError("10 MB taken")
        except (ConnectionResetError, BrokenPipeError):
            pass


@test("bodies=300000")
def all_bodies_bounded(server):
    held = []
    for _ in range(3):
        s = server.connect()
        s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 90001\r\n\r\n" + bytes(90000))
        held.append(s)
    time.sleep(0.2)
    r = server.ask(post("/x", bytes(90000)))
    assert r.status == 503 and r.headers["retry-after"] == "1"
    held.pop().close()
    time.sleep(0.3)
    assert server.ask(post("/x", bytes(90000))).status == 200
    for s in held:
        s.sendall(b"!")
        assert json.loads(response(s).body)["bytes"] == 90001
    assert server.ask(post("/x", bytes(290000))).status == 200, "all given back"


@test("body=100000")
def expect_continue(server):
    with server.connect() as s:
        s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        reader = Reader(s)
        assert reader.response().status == 100
        s.sendall(b"hello")
        assert json.loads(reader.response().body)["head"] == "hello"
    with server.connect() as s:
        s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n")
        assert response(s).status == 413, "refused without the body"


# --- deadlines ---


def closed_after(s, drip=None, limit=5):
    """Milliseconds until the server closes; drip is sent every 100 ms."""
    began = now_ms()
    while now_ms() - began < limit * 1000:
        if select.select([s], [], [], 0.1)[0]:
            try:
                if not s.recv(65536):
                    break
            except ConnectionResetError:
                break
        if drip:
            try:
                s.sendall(drip)
            except (ConnectionResetError, BrokenPipeError):
                break
    return now_ms() - began


@test("header=600")
def slow_headers(server):
    with server.connect() as s:
        assert 400 < closed_after(s) < 1900, "silent"
    with server.connect() as s:
        s.sendall(b"GET /v HTTP/1.1\r\n")
        assert 400 < closed_after(s, b"X-A: b\r\n") < 1900, "a header now and then"
    with server.connect() as s:
        s.sendall(get("/v"))
        assert response(s).status == 200
        s.sendall(b"GET /v HTTP/1.1\r\n")
        assert 400 < closed_after(s, b"X-A: b\r\n") < 1900, "the second request too"
    with server.connect() as s:
        s.sendall(post("/slow?ms=900", b"{}"))
        assert response(s).status == 200, "a parked request has no deadline"


@test("stall=900")
def trickling_body(server):
    """A byte now and then is no progress: the connection is not held by it. The answer says why."""
    for head, drip in (b"Content-Length: 100000\r\n\r\n", b"x"), (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"):
        with server.connect() as s:
            s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + head)
            began = now_ms()
            while not select.select([s], [], [], 0.1)[0]:
                s.sendall(drip)
                assert now_ms() - began < 5000
            r = response(s)
            assert r.status == 408 and json.loads(r.body)["error"], r
            assert closed_after(s) < 5000
    with server.connect() as s:  # enough at a time may take as long as it wants
        s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 200000\r\n\r\n")
        for _ in range(20):
            time.sleep(0.1)
            s.sendall(bytes(10000))
        assert json.loads(response(s).body)["bytes"] == 200000


@test("stall=400", "moving=1")
def stalled_body(server):
    for head in b"Content-Length: 100000\r\n\r\n1234", b"Transfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n":
        with server.connect() as s:
            s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + head)
            assert 300 < closed_after(s) < 1900
    with server.connect() as s:
        s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n")
        for c in b"123456789":
            time.sleep(0.12)
            s.sendall(bytes([c]))
        assert json.loads(response(s).body)["head"] == "123456789", "slow, but it moves"


@test("idle=500")
def idle_connection(server):
    with server.connect() as s:
        s.sendall(get("/v"))
        assert response(s).status == 200
        assert 300 < closed_after(s) < 1900


@test("connections=20", "header=300")
def idle_connections_give_way(server):
    """More clients than connections: the idle ones are closed soon, the waiting ones get their turn."""
    held = []
    for _ in range(20):
        s = server.connect()
        s.sendall(get("/v"))
        assert response(s).status == 200
        held.append(s)
    s = server.connect(timeout=3)
    s.sendall(get("/v"))
    assert response(s).status == 200
    for s in held:
        s.close()


@test("connections=1")
def listens_again_behind_the_limit(server):
    """The library stops listening when it is full, and by itself does not begin again."""
    for _ in range(3):
        first = server.connect()
        first.sendall(get("/v"))
        assert response(first).status == 200
        second = server.connect(timeout=3)
        second.sendall(get("/v"))
        time.sleep(0.05)
        first.close()
        assert response(second).status == 200
        second.close()


# --- the protocol ---


@test()
def ambiguous_framing_is_refused(server):
    def request(*headers):
        return b"POST /x HTTP/1.1\r\n" + HOST + b"".join(h + b"\r\n" for h in headers) + b"\r\n5\r\nhello\r\n0\r\n\r\n"

    te, cl = b"Transfer-Encoding: chunked", b"Content-Length: 5"
    bad = [
        (cl, te),
        (te, cl),
        (cl, b"Content-Length: 3"),
        (cl, cl),
        (te, te),
        (b"Transfer-Encoding: xchunked",),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding:",),
        (b"Content-Length: +5",),
        (b"Content-Length: -5",),
        (b"Content-Length: 0x5",),
        (b"Content-Length: 5 5",),
        (b"Content-Length: 5, 5",),
        (b"Content-Length:",),
        (b"Content-Length : 5",),
    ]
    since = server.mark()
    for headers in bad:
        with server.connect(timeout=3) as s:
            s.sendall(request(*headers))
            reader = Reader(s)
            r = reader.response()
            assert r is None or r.status == 400, f"{headers}: {r and r.status}"
            assert reader.response() is None, f"{headers}: the connection goes on"
    for size in b"ZZ", b"-5", b"0x5", b"+5", b"fffffffffffffffff":
        with server.connect(timeout=3) as s:
            s.sendall(b"POST /x HTTP/1.1\r\n" + HOST + te + b"\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n")
            r = response(s)
            assert r is None or r.status in (400, 413), f"chunk size {size}"
    with server.connect(timeout=3) as s:
        s.sendall(b"POST /x HTTP/1.0\r\n" + te + b"\r\n\r\n0\r\n\r\n")
        assert response(s).status == 400
    assert server.n_bodies(since) == 0, "none reached the handler"


@test()
def paths_and_queries(server):
    def echo(target, status=200):
        r = server.ask(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
        assert r.status == status, f"{target}: {r.status}"
        return json.loads(r.body)

    assert echo(b"/%76x")["path"] == "/vx"
    assert echo(b"/a%2fb%20c%C3%A4")["path"] == "/a/b c\u00e4"
    assert echo(b"/a+b")["path"] == "/a+b"
    got = echo(b"/x?a=%00&b=%zz?c")
    assert got["path"] == "/x" and got["query"] == "a=%00&b=%zz?c", "the query stays raw"
    assert echo(b"/x?")["query"] == ""
    for target in b"/a%00b", b"/%", b"/%4", b"/%zz", b"/%4z", b"/v%00", b"?a=1":
        echo(target, 400)
    # Not cut at the NUL: this must not become /v.
    since = server.mark()
    echo(b"/v%00.json", 400)
    assert server.n_bodies(since) == 0


@test()
def methods_are_text(server):
    for method in b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"FOO", b"PROPFIND":
        r = server.ask(method + b" /x HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
        assert json.loads(r.body)["method"] == method.decode()


@test()
def head_has_no_body(server):
    with server.connect() as s:
        reader = Reader(s)
        for path in "/v", "/burst?n=3", "/stream?n=2&ms=5", "/x":
            s.sendall(get(path).replace(b"GET", b"HEAD", 1))
            r = reader.response(head=True)
            assert r.status == 200
            if path == "/v":
                assert r.headers["content-length"] == "15"
        s.sendall(get("/v"))
        assert reader.response().body == b'{"version":"1"}', "the connection is still in step"


@test()
def headers(server):
    r = server.ask(get("/x", b"X-Test: a b\r\n"))
    assert json.loads(r.body)["x_test"] == "a b"
    assert r.headers["x-echo"] == "yes" and r.headers["content-type"] == "application/json"
    assert "x-split" not in r.headers and "x-evil" not in r.headers and "bad name" not in r.headers
    assert server.ask(b"GET /v HTTP/1.1\r\n\r\n").status == 400, "no Host"
    assert server.ask(b"GET /v HTTP/1.1\r\nHost : x\r\n\r\n").status == 400, "a blank before the colon"
    long = b"Cookie: " + b"c" * 10000 + b"\r\n"
    assert json.loads(server.ask(post("/x", bytes(50000), long)).body)["bytes"] == 50000
    assert server.ask(get("/x", b"A: " + b"x" * 100000 + b"\r\n")).status in (413, 431)
    assert server.ask(get("/" + "u" * 70000)).status == 414


@test()
def keep_alive_and_pipelining(server):
    with server.connect() as s:
        reader = Reader(s)
        for i in range(50):
            s.sendall(post("/x", b"%d" % i))
            assert json.loads(reader.response().body)["head"] == str(i)
        s.sendall(get("/v") * 100)
        for _ in range(100):
            assert reader.response().status == 200
        s.sendall(post("/slow?ms=50", b"{}") * 3 + get("/v", b"Connection: close\r\n"))
        for _ in range(3):
            assert reader.response().body == b'{"slow":true}'
        assert reader.response().status == 200
        assert reader.response() is None


@test()
def http_1_0(server):
    with server.connect() as s:
        s.sendall(b"GET /stream?n=3&ms=20 HTTP/1.0\r\n\r\n")
        r = response(s)
        assert r.status == 200 and "transfer-encoding" not in r.headers
        assert r.body.count(b"\n") == 3
    with server.connect() as s:
        s.sendall(b"GET /v HTTP/1.0\r\n\r\n")
        reader = Reader(s)
        assert reader.response().body == b'{"version":"1"}'
        assert reader.response() is None
    check_gone(server, "/slow", b"GET /slow?ms=5000 HTTP/1.0\r\n\r\n", "fin")


@test()
def garbage(server):
    junk = [b"\x16\x03\x01\x02\x00\x01\x00\xff\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n\r\n\r\n", b"GET\r\n\r\n",
            b"GET /v HTTP/9.9\r\n\r\n", b" \r\n\r\n", b"GET /v\r\n\r\n", b"GET  HTTP/1.1\r\nHost: x\r\n\r\n"]  # fmt: skip
    for data in junk:
        with server.connect(timeout=3) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            try:
                while s.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    assert server.ask(get("/v")).status == 200


@test()
def mutations(server):
    """Damaged requests in random pieces: the server lives on and every request ends."""
    rnd = random.Random(1)
    base = [
        post("/slow?ms=20", b"{}"),
        get("/v"),
        b"PUT /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET /stream?n=3&ms=3 HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc",
    ]
    for _ in range(1200):
        data = bytearray(rnd.choice(base) * rnd.randint(1, 3))
        for _ in range(rnd.randint(0, 4)):
            data[rnd.randrange(len(data))] = rnd.randrange(256)
        cut = rnd.randrange(len(data))
        try:
            s = server.connect()
            s.sendall(data[:cut])
            s.sendall(data[cut:])
            if rnd.random() < 0.3:
                s.shutdown(socket.SHUT_WR)
            leave(s, rnd.choice(["fin", "rst"]))
        except OSError:
            pass
    time.sleep(0.5)
    assert server.ask(get("/v")).status == 200
    assert server.stats()["open"] == 0


# --- many, and the end ---


@test(files=(256, 4096))
def five_hundred_parked_and_idle(server):
    """More connections than the soft limit of descriptors: the server raises it."""
    held = [server.connect() for _ in range(500)]
    since = server.mark()
    for s in held:
        s.sendall(post("/slow?ms=1500", b"{}"))
    began = now_ms()
    assert server.ask(get("/v")).status == 200
    assert now_ms() - began < 1000, "answers while 500 wait"
    for s in held[:100]:
        s.close()
    for s in held[100:]:
        assert response(s).body == b'{"slow":true}'
    gone = [w for _, w in server.events[since : server.mark()] if w[0] == "gone" and w[2] == "1"]
    assert len(gone) == 100, len(gone)
    for s in held[100:]:
        s.sendall(get("/v"))
    for s in held[100:]:
        assert response(s).status == 200
        s.close()


@test()
def drain(server):
    """No new connections; idle ones are closed, open requests are answered."""
    idle = server.connect()
    idle.sendall(get("/v"))
    assert response(idle).status == 200
    parked, stream = server.connect(), server.connect()
    since = server.mark()
    parked.sendall(post("/slow?ms=500", b"{}"))
    stream.sendall(get("/stream?n=20&ms=20"))
    server.wait("body", since=server.wait("body", since=since)[0] + 1)
    server.child.send_signal(signal.SIGUSR1)
    server.wait("drained")
    try:
        server.connect()
        raise AssertionError("a new connection was accepted")
    except ConnectionRefusedError:
        pass
    assert closed_after(idle) < 1000
    r = response(parked)
    assert r.body == b'{"slow":true}' and r.headers["connection"] == "close"
    r = response(stream)
    assert r.whole and r.body.count(b"\n") == 20
    assert closed_after(parked) < 1000


@test()
def stop_with_open_requests(server):
    """The library would abort the process if a suspended connection were left."""
    open_requests = [
        post("/slow?ms=9000", b"{}"),
        get("/stream?n=1000&ms=10"),
        get("/stream?n=1000&ms=5000"),
        get("/fill?n=100000000"),
        b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n123",
        b"POST /slow?ms=9000 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" + get("/v"),
        b"GET /v HT",
        b"",
    ]
    held = []
    for data in open_requests * 5:
        s = server.connect()
        s.sendall(data)
        held.append(s)
    time.sleep(0.3)
    began = now_ms()
    server.stop()
    assert now_ms() - began < 2000
    events = [w for _, w in server.events]
    assert sum(w[0] == "body" for w in events) == sum(w[0] == "gone" for w in events) == 25
    for s in held:
        s.close()


@test()
def requests_per_second(server):
    """A figure for the log, not a bound."""
    with server.connect() as s:
        reader = Reader(s)
        before, began = server.stats()["cpu_us"], now_ms()
        for _ in range(20):
            s.sendall(get("/v") * 100)
            for _ in range(100):
                reader.response()
        used, took = server.stats()["cpu_us"] - before, now_ms() - began
    print(f"# 2000 requests: {took:.0f} ms, {used / 2000:.1f} us of the server's processor time each")
    before = server.stats()["cpu_us"]
    assert server.ask(get("/stream?n=1000&ms=1")).body.count(b"\n") == 1000
    used = server.stats()["cpu_us"] - before
    print(f"# 1000 streamed lines: {used / 1000:.1f} us of the server's processor time each")


def run(f, args, kw):
    with tempfile.TemporaryDirectory() as tmp:
        server = Server(*(a.replace("{tmp}", tmp) for a in args), **kw)
        try:
            f(server)
            if server.child.poll() is None:
                server.stop()
        finally:
            if server.child.poll() is None:
                server.child.kill()
                server.child.wait()
            server.errors.seek(0)
            for line in server.errors.read().decode(errors="replace").splitlines()[:40]:
                print("#", line)


def main():
    chosen = [t for t in TESTS if not ONLY or t[0].__name__ in ONLY]
    print(f"1..{len(chosen)}")
    failed = 0
    for i, (f, args, kw) in enumerate(chosen, 1):
        began = time.monotonic()
        try:
            run(f, args, kw)
            word = "ok"
        except Exception as e:  # a failing test must not hide the others
            word, failed = "not ok", failed + 1
            trace = e.__traceback__
            while trace.tb_next:
                trace = trace.tb_next
            print(f"# {type(e).__name__}: {e} (line {trace.tb_lineno})")
        print(f"{word} {i} - {f.__name__} # {time.monotonic() - began:.1f} s", flush=True)
    sys.exit(1 if failed else 0)


main()
