"""A local server that gives prepared answers in the wire format of any provider, and remembers what it was asked."""

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer: `body` (JSON where it is no bytes), or `chunks` of a stream. `cut_after` closes it after so many."""

    body: Any = b""
    chunks: tuple[bytes, ...] = ()
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None

    @property
    def content(self):
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def sse(*events, done=False):
    """Server-sent events, one chunk each; with `done`, OpenAI's `[DONE]` follows."""
    chunks = tuple(b"data: %s\n\n" % json.dumps(event).encode() for event in events)
    return Reply(chunks=(*chunks, b"data: [DONE]\n\n") if done else chunks, content_type="text/event-stream")


def ndjson(*events):
    """Lines of JSON, one chunk each."""
    chunks = tuple(json.dumps(event).encode() + b"\n" for event in events)
    return Reply(chunks=chunks, content_type="application/x-ndjson")


def cut(reply):
    """The same answer, broken off: a stream after its first two chunks, another one in the middle of its body."""
    return replace(reply, cut_after=2)


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self):
        """Its body, read as JSON; None where it is none."""
        with contextlib.suppress(ValueError):
            return json.loads(self.content)
        return None


class WireServer:
    """Runs while its block does. `reply` is what it answers, or a function from the request to that."""

    def __init__(self):
        self.reply: Reply | Callable[[Asked], Reply] = Reply(status=404)
        self.asked: list[Asked] = []

    def __enter__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self):
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_port}"


def _handler(server):
    return type("Handler", (_Handler,), {"wire_server": server})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wire_server: WireServer

    def log_message(self, *args):
        """Say nothing."""

    def setup(self):
        super().setup()
        self.connection.settimeout(30)

    def do_POST(self):
        server = self.wire_server
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, self.path, headers, self._content())
        server.asked.append(asked)
        with contextlib.suppress(ConnectionError):
            self._answer(server.reply(asked) if callable(server.reply) else server.reply)

    do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815 - the names that http.server looks for

    def _content(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, reply):
        self.send_response(reply.status)
        self.send_header("content-type", reply.content_type)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.chunks:
            self._stream(reply)
            return
        content = reply.content
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if reply.cut_after is None else content[: len(content) // 2])
        self.close_connection = reply.cut_after is not None

    def _stream(self, reply):
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for chunk in reply.chunks[: reply.cut_after]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        if reply.cut_after is None:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True
