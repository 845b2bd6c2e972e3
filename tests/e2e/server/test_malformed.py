#!/usr/bin/env python3
"""Malformed requests on every route: each gets the reference's code, and the text where clients depend on it; after each a
normal request works, and nothing of it stays behind."""
import http.client, json, os, socket, sys, time

from harness import Server, TINY, main

G, C, S = "/api/generate", "/api/chat", "/api/show"
OC, OP = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "hi"}]


def deep(n, opening="[", closing="]"):
    return opening * n + closing * n


# name: (method, path, body, code, text of the answer)
CASES = {
    # what is no JSON, or not the JSON that the route takes
    "empty body": ("POST", G, b"", 400, "missing request body"),
    "blank body": ("POST", C, b" \n\t ", 400, "missing request body"),
    "empty body of pull": ("POST", "/api/pull", b"", 400, "missing request body"),
    "empty body of delete": ("DELETE", "/api/delete", b"", 400, "missing request body"),
    "cut off": ("POST", G, b'{"model":"m","prompt":"x"', 400, "EOF"),
    "single quotes": ("POST", C, b"{'model':'m'}", 400, ""),
    "form": ("POST", G, b"model=m&prompt=x", 400, ""),
    "XML": ("POST", OC, b"<model>m</model>", 400, ""),
    "array for object": ("POST", G, b"[]", 400, "cannot unmarshal array"),
    "number for object": ("POST", "/api/copy", b"7", 400, "cannot unmarshal number"),
    "comma at the end": ("POST", G, b'{"model":"m",}', 400, ""),
    "NaN": ("POST", G, b'{"model":"m","prompt":"x","options":{"temperature":NaN}}', 400, ""),
    "Infinity": ("POST", OC, b'{"model":"m","messages":[],"temperature":Infinity}', 400, ""),
    "number out of range": ("POST", G, b'{"model":"m","prompt":"x","options":{"temperature":1e999}}', 400, ""),
    "hexadecimal number": ("POST", G, b'{"model":"m","prompt":"x","options":{"seed":0x10}}', 400, ""),
    "NUL byte in JSON": ("POST", G, b'{"model":"m"\0}', 400, ""),
    "control character in a string": ("POST", G, b'{"model":"m","prompt":"a\x01b","options":{"num_predict":1}}', 400, ""),
    "lone NUL": ("POST", C, b"\0", 400, ""),
    "gzip": ("POST", G, b"\x1f\x8b\x08\0\0\0\0\0", 400, ""),
    "bad escape": ("POST", G, b'{"model":"m","prompt":"\\x41"}', 400, ""),
    "deep arrays": ("POST", G, deep(5000), 400, ""),
    "deep objects": ("POST", OC, deep(5000, '{"a":', "}"), 400, ""),
    "deep in a known field": ("POST", C, '{"model":"m","messages":' + deep(400) + "}", 400, ""),
    # wrong types
    "model is a number": ("POST", G, {"model": 7, "prompt": "x"}, 400, "of type string"),
    "model is an array": ("POST", C, {"model": ["m"]}, 400, "of type string"),
    "prompt is an object": ("POST", G, {"model": "m", "prompt": {}}, 400, "of type string"),
    "stream is text": ("POST", G, {"model": "m", "prompt": "x", "stream": "true"}, 400, "of type bool"),
    "options is text": ("POST", G, {"model": "m", "prompt": "x", "options": "hot"}, 400, ""),
    "messages is text": ("POST", C, {"model": "m", "messages": "hi"}, 400, ""),
    "message is a number": ("POST", C, {"model": "m", "messages": [1]}, 400, ""),
    "content is a number": ("POST", C, {"model": "m", "messages": [{"role": "user", "content": 1}]}, 400, "of type string"),
    "keep_alive is an object": ("POST", G, {"model": "m", "keep_alive": {}}, 400, ""),
    "keep_alive without a unit": ("POST", G, {"model": "m", "keep_alive": "24"}, 400, "duration"),
    "tools is an object": ("POST", C, {"model": "m", "messages": HI, "tools": {"a": 1}}, 400, ""),
    "format is unknown": ("POST", G, {"model": "m", "prompt": "x", "format": "yaml"}, 400, "invalid format"),
    "think is unknown": ("POST", C, {"model": "m", "messages": HI, "think": "very"}, 400, "invalid think value"),
    "images is text": ("POST", G, {"model": "m", "prompt": "x", "images": "aGk="}, 400, ""),
    "context of text": ("POST", G, {"model": "m", "prompt": "x", "context": ["a"]}, 400, ""),
    "context outside the vocabulary": ("POST", G, {"model": "m", "prompt": "x", "context": [4000000000]}, 400, "context holds"),
    # options out of place
    "option of a wrong type": ("POST", G, {"model": "m", "prompt": "x", "options": {"top_k": "many"}}, 500, 'option "top_k" must be of type integer'),
    "stop is a number": ("POST", G, {"model": "m", "prompt": "x", "options": {"stop": 5}}, 500, 'option "stop" must be'),
    "top_logprobs below 0": ("POST", G, {"model": "m", "prompt": "x", "logprobs": True, "top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
    "top_logprobs above 20": ("POST", C, {"model": "m", "messages": HI, "logprobs": True, "top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    "raw with a system text": ("POST", G, {"model": "m", "prompt": "x", "raw": True, "system": "s"}, 400, "raw mode does not support template, system, or context"),
    "role is unknown": ("POST", C, {"model": "m", "messages": [{"role": "king", "content": "x"}]}, 400, "role"),
    # names
    "no model": ("POST", C, {"messages": HI}, 400, "model is required"),
    "empty model": ("POST", G, {"model": "", "prompt": "x"}, 404, "model '' not found"),
    "unknown model": ("POST", G, {"model": "nobody", "prompt": "x"}, 404, "model 'nobody' not found"),
    "unknown model in show": ("POST", S, {"model": "nobody"}, 404, "not found"),
    "path as a name": ("POST", G, {"model": "../../../etc/passwd", "prompt": "x"}, 400, "invalid model name"),
    "NUL in a name": ("POST", G, b'{"model":"m\\u0000","prompt":"x"}', 400, "invalid model name"),
    "long name": ("POST", G, {"model": "m" * 5000, "prompt": "x"}, 400, "invalid model name"),
    "name of blanks": ("POST", C, {"model": "   ", "messages": HI}, 400, ""),
    "invalid UTF-8 in a name": ("POST", G, b'{"model":"m\xff","prompt":"x"}', 400, ""),
    "copy from nowhere": ("POST", "/api/copy", {"source": "nobody", "destination": "y"}, 404, "not found"),
    "copy to a bad name": ("POST", "/api/copy", {"source": "m", "destination": "a//b"}, 400, "is invalid"),
    "delete of nothing": ("DELETE", "/api/delete", {"model": "nobody"}, 404, "not found"),
    "delete of a bad name": ("DELETE", "/api/delete", {"model": "::"}, 400, ""),
    "pull of a bad name": ("POST", "/api/pull", {"model": "a b"}, 400, "invalid model name"),
    "push without a model": ("POST", "/api/push", {}, 400, ""),
    "blob without digest": ("HEAD", "/api/blobs/xyz", None, 400, ""),
    "blob of an unknown digest": ("HEAD", "/api/blobs/sha256:" + "0" * 64, None, 404, ""),
    "blob that has another digest": ("POST", "/api/blobs/sha256:" + "0" * 64, b"other", 400, "digest mismatch"),
    "create from nothing": ("POST", "/api/create", {"model": "x"}, 400, "neither 'from' or 'files' was specified"),
    "create of a bad name": ("POST", "/api/create", {"model": "a b", "from": "m"}, 400, "invalid model name"),
    "create from a bad digest": ("POST", "/api/create", {"model": "x", "files": {"a.gguf": "sha256:1"}}, 400, "invalid digest format"),
    "create from a path outside": ("POST", "/api/create", {"model": "x", "files": {"../a.gguf": "sha256:" + "0" * 64}}, 400, "file path must be relative"),
    # embeddings
    "embed of a number": ("POST", "/api/embed", {"model": "m", "input": 7}, 400, "invalid input type"),
    "embed of numbers": ("POST", "/api/embed", {"model": "m", "input": ["a", 7]}, 400, "invalid input type"),
    "embed by nobody": ("POST", "/api/embed", {"model": "nobody", "input": "x"}, 404, 'model "nobody" not found, try pulling it first'),
    "embeddings without a model": ("POST", "/api/embeddings", {"prompt": "x"}, 400, "model is required"),
    "OpenAI: embeddings of nothing": ("POST", "/v1/embeddings", {"model": "m"}, 400, "invalid input"),
    "OpenAI: embeddings in a format": ("POST", "/v1/embeddings", {"model": "m", "input": "x", "encoding_format": "xml"}, 400, "Invalid value for 'encoding_format'"),
    # OpenAI
    "OpenAI: empty messages": ("POST", OC, {"model": "m", "messages": []}, 400, "[] is too short - 'messages'"),
    "OpenAI: no body": ("POST", OC, b"", 400, ""),
    "OpenAI: unknown model": ("POST", OC, {"model": "nobody", "messages": HI}, 404, "not found"),
    "OpenAI: content of numbers": ("POST", OC, {"model": "m", "messages": [{"role": "user", "content": 3}]}, 400, "invalid message content type"),
    "OpenAI: image at an address": ("POST", OC, {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x/y.png"}]}]},
                                    400, "image URLs are not currently supported"),
    "OpenAI: effort": ("POST", OC, {"model": "m", "messages": HI, "reasoning_effort": "huge"}, 400, "invalid reasoning value"),
    "OpenAI: prompt is a number": ("POST", OP, {"model": "m", "prompt": 3}, 400, ""),
    "OpenAI: max_tokens is text": ("POST", OC, {"model": "m", "messages": HI, "max_tokens": "ten"}, 400, ""),
    "OpenAI: temperature is text": ("POST", OC, {"model": "m", "messages": HI, "temperature": "hot"}, 400, ""),
    "OpenAI: model of nothing": ("GET", "/v1/models/nobody", None, 404, "not found"),
    # paths and methods
    "unknown path": ("GET", "/api/nothing", None, 404, "404 page not found"),
    "path outside": ("GET", "/../../etc/passwd", None, 404, ""),
    "GET of a POST route": ("GET", G, None, 405, "405 method not allowed"),
    "PUT": ("PUT", "/api/tags", b"{}", 405, "405 method not allowed"),
    "unknown method": ("BREW", "/", None, 405, "405 method not allowed"),
    "method in lower case": ("get", "/api/tags", None, 405, ""),
    "DELETE of a model list": ("DELETE", "/v1/models", None, 405, ""),
}

HOST = b"Host: localhost\r\n"
POST = b"POST /api/generate HTTP/1.1\r\n" + HOST

# name: (bytes, codes of the answers that are right; None = closed without one)
RAW = {
    "HTTP/0.9": (b"GET /\r\n\r\n", (400, None)),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 404, 405, 505, None)),
    "TLS hello": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200), (400, None)),
    "version of the future": (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", (400, 505, None)),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", (400,)),
    "foreign host": (b"GET /api/tags HTTP/1.1\r\nHost: evil.example\r\n\r\n", (403,)),
    "foreign origin": (b"GET /api/tags HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\n\r\n", (403,)),
    "NUL in the path": (b"GET /api/tags%00 HTTP/1.1\r\n" + HOST + b"\r\n", (400,)),
    "bad escape": (b"GET /api/%zz HTTP/1.1\r\n" + HOST + b"\r\n", (400,)),
    "NUL byte in a header": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: a\0b\r\n\r\n", (200, 400, None)),
    "header without a colon": (b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n", (200, 400, None)),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n{}", (400, None)),
    "length of words": (POST + b"Content-Length: ten\r\n\r\n{}", (400, None)),
    "length beyond 64 bits": (POST + b"Content-Length: 99999999999999999999999\r\n\r\n{}", (400, 413, None)),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", (400,)),
    "length and chunks": (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", (400,)),
    "unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n{}", (400, 501, None)),
    "chunk of garbage": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", (400, None)),
    "chunk beyond 64 bits": (POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n", (400, 413, None)),
    "length too large": (POST + b"Content-Length: 5000000000\r\n\r\n", (413,)),
    "header too large": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 40000 + b"\r\n\r\n", (431, 400, None)),
    "too many headers": (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: 1\r\n" % i for i in range(5000)) + b"\r\n", (431, None)),
    "path too long": (b"GET /" + b"a" * 60000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", (414, 431, 400, None)),
    "blank lines for ever": (b"\r\n" * 10000, (400, 431, None)),
    "unknown expectation": (POST + b"Expect: wonders\r\nContent-Length: 2\r\n\r\n{}", (400, 417, 404, None)),
    "body that ends early": (POST + b'Content-Length: 400\r\n\r\n{"model":"m"', (None,)),
    "second request of garbage": (b"GET /api/version HTTP/1.1\r\n" + HOST + b"\r\n\x00\xff\xfe garbage\r\n\r\n", (200,)),
}


def text_of(body, path):
    """The error's text, in the form of the route's dialect."""
    if not body.startswith(b"{"):
        return body.decode()
    error = json.loads(body)["error"]
    if path.startswith("/v1/"):
        assert set(error) == {"message", "type", "param", "code"}, error
        return error["message"]
    assert isinstance(error, str), error
    return error


def send_raw(port, data):
    """Code of the first answer, or None if the server closed without one. Our side is closed behind the request."""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as c:
        got = b""
        try:
            c.sendall(data)
            c.shutdown(socket.SHUT_WR)
            while part := c.recv(65536):
                got += part
        except OSError:  # cut
            pass
    if not got:
        return None
    line = got.split(b"\r\n", 1)[0].split()
    assert line[0].startswith(b"HTTP/1."), got[:100]
    return int(line[1])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def healthy(s, connection):
    """A normal request, on a connection that was there before."""
    connection.request("POST", G, json.dumps({"model": "m", "prompt": "x", "raw": True, "stream": False, "options": {"num_predict": 1}}))
    r = connection.getresponse()
    body = r.read()
    assert r.status == 200 and json.loads(body)["done"], (r.status, body)


def test_malformed_requests():
    assert len(CASES) + len(RAW) >= 60
    with Server({"m": TINY}) as s:
        steady = s.connect()
        healthy(s, steady)
        engine = s.engine_pid()
        before = descriptors(s.process.pid), descriptors(engine)
        wrong = []
        for name, (method, path, body, code, words) in CASES.items():
            status, headers, data = s.call(method, path, body)
            if status != code or (data and words not in text_of(data, path)) or (words and not data and method != "HEAD"):
                wrong.append((name, status, data[:200]))
            healthy(s, steady)
        for name, (data, codes) in RAW.items():
            got = send_raw(s.port, data)
            if got not in codes:
                wrong.append((name, got))
            healthy(s, steady)
        print(f"# {len(CASES)} requests and {len(RAW)} connections")
        assert not wrong, "\n".join(map(str, wrong))
        assert s.engine_pid() == engine, "the engine has been restarted"
        s.wait_for(lambda: (descriptors(s.process.pid), descriptors(engine)) <= before)
        assert s.ps()["queue"] == {"running": 0, "waiting": 0}
        steady.close()


def test_limits_have_answers():
    """Over a limit is an answer, not a reset: too large a body, too large a header, too many that wait."""
    with Server({"m": TINY}) as s:
        status, _, data = s.call("POST", G, b'{"model":"m","prompt":"' + b"x" * (33 << 20) + b'"}')
        assert status == 413 and json.loads(data)["error"], (status, data)
        status, _, data = s.call("GET", "/api/version", headers={"X-Large": "x" * 40000})
        assert status == 431, (status, data)
        status, _, data = s.call("POST", C, json.dumps({"model": "m", "messages": HI * 17000}))
        assert status in (400, 413) and json.loads(data)["error"], (status, data[:200])
        status, _, data = s.call("POST", G, b'{"model":"m","context":[' + b"1," * (2 << 20) + b"1]}")
        assert status in (400, 413) and json.loads(data)["error"], (status, data[:200])


def test_slow_clients_are_let_go():
    """Headers and bodies that trickle are cut within 10 seconds and do not keep others waiting."""
    trickles = {"headers": (b"GET / HTTP/1.1\r\n" + HOST, b"X"),
                "body": (POST + b"Content-Length: 100000\r\n\r\n", b"x"),
                "nothing": (b"", None)}
    with Server({"m": TINY}) as s:
        open_ones = {}
        for name, (start, _) in trickles.items():
            c = socket.create_connection(("127.0.0.1", s.port), timeout=1)
            c.sendall(start)
            c.setblocking(False)
            open_ones[name] = c
        began, closed, said, slowest = time.monotonic(), {}, set(), 0
        while len(closed) < len(trickles) and time.monotonic() - began < 14:
            for name, c in open_ones.items():
                if name in closed:
                    continue
                try:
                    if trickles[name][1]:
                        c.send(trickles[name][1])
                    got = c.recv(4096)
                    if got:
                        assert got.startswith(b"HTTP/1.1 408 ") and name != "nothing", (name, got)
                        said.add(name)
                    else:
                        closed[name] = time.monotonic() - began
                except BlockingIOError:
                    pass
                except OSError:
                    closed[name] = time.monotonic() - began
            asked = time.monotonic()
            assert s.get("/api/version")[0] == 200
            slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.2)
        print("# closed after " + ", ".join(f"{n} {t:.1f} s" for n, t in closed.items()))
        assert set(closed) == set(trickles) and max(closed.values()) < 10.9, closed
        assert slowest < 2, slowest
        assert said == {"headers", "body"}, said
        for c in open_ones.values():
            c.close()


if __name__ == "__main__":
    main(sys.modules[__name__])
