"""Serve a local stand-in for LLM providers, for demos, tests and benchmarks: its answers are made up.

It speaks OpenAI chat completions, OpenAI responses and Anthropic messages (JSON and SSE) on paths that end in
`/chat/completions`, `/responses` and `/messages`; it counts, bills and honours maximum tokens as a provider does, and
fails on demand. It counts a request's input for free on `/messages/count_tokens` and `/responses/input_tokens`, unless
the header `x-local-provider-count` has one step of those below. It listens on 127.0.0.1 only and needs no key. Alone:
`python -m tollspan.console._provider --port 0`.

Faults. A plan is one step per attempt, joined by commas; the last step repeats: `status=500,status=500,ok`. It stands
in the request header `x-local-provider`, else in `Answer.fault`. Attempts are counted per plan text and per value of
the header `x-local-provider-key`: give each logical call a key of its own. The steps besides `ok`:
    status=N           answer status N; options are headers (`;retry-after=S`; SDKs ignore 0), or a page (`;body=html`)
    drop, reset        close (FIN) or reset (RST) the connection before any byte of the answer
    hang=S             wait S seconds before the answer
    slow=S             wait S seconds between the chunks of a stream, or the slices of a JSON body
    cut=K              close after K chunks of a stream, or in the middle of a JSON body
    error-event        send a stream's error event after 2 chunks; no effect without `stream`
    not-json           send a body, or a stream's only event, that is not JSON
All but `status` are billed in full when the request has arrived: a provider may have done the work by then.
"""

import argparse
import contextlib
import logging
import secrets
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, islice
from typing import Any, Self

from tollspan.console import _provider_wire as wire

__all__ = ["Answer", "Bill", "LocalProvider", "Request", "main"]

_log = logging.getLogger(__name__)
_ABOUT = "tollspan local provider: answers are made up, nothing is billed"
_STEPS = frozenset({"ok", "status", "drop", "reset", "hang", "slow", "cut", "error-event", "not-json"})
_KEYS = frozenset({"authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie"})
_JSON = "application/json"
_MAX_KEPT = 10_000


@dataclass(slots=True)
class Request:
    """One attempt as it came in: lower-case `headers` without keys, times in epoch seconds (None if not reached)."""

    path: str
    flavour: wire.Flavour
    model: str
    body: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    arrived_at: float
    first_byte_at: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer; counts are in tokens. A malformed `fault` (see the module's docstring) raises ValueError.

    `text`: filler if None. `output_tokens`: wanted per choice, before the request's maximum cuts it; if None, the count
    of `text`, else the provider's setting. `input_tokens`: if None, the count of the request's text. `cached_tokens`
    and `cache_write_tokens` are parts of the input, `reasoning_tokens` of each choice's output.
    """

    text: str | None = None
    output_tokens: int | None = None
    input_tokens: int | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    fault: str = "ok"

    def __post_init__(self) -> None:
        _parse_plan(self.fault)


@dataclass(frozen=True, slots=True)
class Bill:
    """What one attempt would be billed: tokens of both directions, all parts included, and their price in USD."""

    path: str
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class _Step:
    kind: str = "ok"
    value: float = 0.0
    options: Mapping[str, str] = field(default_factory=dict)


def _parse_plan(text: str) -> list[_Step]:
    plan = []
    for part in text.split(","):
        (kind, _, value), *options = (item.strip().partition("=") for item in part.split(";"))
        if kind not in _STEPS or (kind in {"status", "hang", "slow", "cut"}) != bool(value):
            raise ValueError(f"no such step of a fault plan: {part!r}; known are {', '.join(sorted(_STEPS))}")
        plan.append(_Step(kind, float(value or 0), {name: given for name, _, given in options}))
    return plan


def _compose(request: Request, answer: Answer, *, output_tokens: int, pieces: int) -> wire.Reply:
    """Decide the whole answer: its text, its counts, and whether the request's maximum cuts it."""
    body, limit = request.body, wire.output_limit(request.flavour, request.body)
    tool, schema = wire.tool_asked(body), wire.schema_asked(body)
    fixed = tool[1] if tool else answer.text
    if fixed is None and schema is not None:
        fixed = wire.dumps(wire.instance_of(schema))
    wanted = output_tokens if answer.text is None else wire.count_tokens(answer.text)
    wanted = wanted if answer.output_tokens is None else answer.output_tokens
    each = wanted if limit is None else min(wanted, limit)
    reasoning = min(answer.reasoning_tokens, each)
    total = wire.input_tokens(body) if answer.input_tokens is None else answer.input_tokens
    cached, n = min(answer.cached_tokens, total), body.get("n") or 1
    return wire.Reply(
        ident=f"local_{secrets.token_hex(12)}",
        created=int(time.time()),
        model=request.model,
        text=wire.visible_text(fixed, each - reasoning, cut=each < wanted),
        tool=tool[0] if tool else None,
        cut=each < wanted,
        n=n,
        pieces=pieces,
        input=total,
        cached=cached,
        written=min(answer.cache_write_tokens, total - cached),
        output=each * n,
        reasoning=reasoning * n,
    )


def _events(request: Request, reply: wire.Reply, step: _Step) -> Iterable[bytes]:
    events = wire.events(request.flavour, reply, request.body)
    if step.kind == "cut":
        return islice(events, int(step.value))
    if step.kind == "error-event":
        return chain(islice(events, 2), [wire.error_event(request.flavour)])
    # Named, because Anthropic's client does not read the data of a nameless event.
    return [b"event: message_start\ndata: {not json\n\n"] if step.kind == "not-json" else events


@dataclass(slots=True)
class _Core:
    """Settings, and the books of what came in and what it would cost; `lock` guards the books."""

    answer: Callable[[Request], Answer]
    output_tokens: int
    pieces: int
    delay_s: float
    price: tuple[Decimal, Decimal] | None
    requests: list[Request] = field(default_factory=list)
    billed: list[Bill] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)
    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def decide(self, request: Request) -> tuple[wire.Reply, _Step]:
        """Make the answer, and take this attempt's step of the plan; raise `Refusal` for what cannot be answered."""
        try:
            answer = self.answer(request)
            steps = _parse_plan(plan := request.headers.get("x-local-provider", answer.fault))
            reply = _compose(request, answer, output_tokens=self.output_tokens, pieces=self.pieces)
        except ValueError as error:
            raise wire.Refusal(400, str(error)) from error
        except Exception as error:
            _log.exception("local provider: a request could not be answered")
            raise wire.Refusal(500, f"the local provider failed with {type(error).__name__}") from error
        key = request.headers.get("x-local-provider-key", ""), plan
        with self.lock:
            self.attempts[key] += 1
            return reply, steps[min(self.attempts[key], len(steps)) - 1]

    def bill(self, path: str, reply: wire.Reply) -> None:
        cost = self.price and (self.price[0] * reply.input + self.price[1] * reply.output).scaleb(-6)
        with self.lock:
            self.billed.append(Bill(path, reply.model, reply.input, reply.output, cost))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, core: _Core) -> None:
        self.core, self.stopping = core, threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close without a FIN first, so that a reset stays a reset."""
        self._open.discard(request)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        # A client that goes away is no event here: demos and tests do it on purpose.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            _log.exception("local provider: a request failed")

    def close(self) -> None:
        """Stop serving, and end the open connections so that no handler waits on."""
        self.stopping.set()
        self.shutdown()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection; the base class calls `do_GET` or `do_POST` once for each request on it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    current: Request | None

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's signature
        """Write nothing: the base class would write a line for each request to stderr."""

    def do_GET(self) -> None:
        self.current, path = None, self.path.partition("?")[0]
        if path == "/":
            self._send(200, _ABOUT + "\n", mime="text/plain")
        elif path.endswith("/models"):
            self._send(200, wire.dumps(wire.models()))
        else:
            self._fail(None, 404, f"no such path here: GET {path}")

    def do_POST(self) -> None:
        self.current, path = None, self.path.partition("?")[0]
        flavour, raw = wire.flavour_of(path), self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            if (counted := wire.counted(path, raw)) is not None:
                self._count(path, counted)
            else:
                self._answer(self._receive(path, flavour, raw))
        except wire.Refusal as refusal:
            self._fail(flavour, *refusal.args)

    def _count(self, path: str, counted: wire.Json) -> None:
        self.server.core.counts.append(path)
        (step,) = _parse_plan(self.headers.get("x-local-provider-count", "ok"))
        self._pause(step.value if step.kind == "hang" else 0)
        if step.kind == "status":
            raise wire.Refusal(int(step.value), "local provider: a chosen fault")
        if step.kind == "drop":
            self.close_connection = True
        else:
            self._send(200, "<html>" if step.kind == "not-json" else wire.dumps(counted))

    def _receive(self, path: str, flavour: wire.Flavour | None, raw: bytes) -> Request:
        arrived, core = time.time(), self.server.core
        if flavour is None:
            raise wire.Refusal(404, f"no such path here: POST {path}")
        body = wire.checked(flavour, raw)
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in _KEYS}
        self.current = Request(path, flavour, body["model"], body, headers, arrived)
        with core.lock:
            core.requests.append(self.current)
            del core.requests[:-_MAX_KEPT]
        return self.current

    def _answer(self, request: Request) -> None:
        core = self.server.core
        reply, step = core.decide(request)
        if step.kind != "status":
            core.bill(request.path, reply)
        self._pause(core.delay_s + (step.value if step.kind == "hang" else 0))
        if step.kind == "status":
            self._fail(request.flavour, int(step.value), "local provider: a chosen fault", **step.options)
        elif step.kind in {"drop", "reset"}:
            self.close_connection = True
            # Closed with a linger time of zero, a connection ends with RST.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", step.kind == "reset", 0))
        elif request.body.get("stream"):
            self._stream(_events(request, reply, step), step)
        else:
            body = "<html>" if step.kind == "not-json" else wire.dumps(wire.payload(request.flavour, reply))
            self._send(200, body, fault=step.kind, gap=step.value)

    def _pause(self, seconds: float) -> None:
        if seconds and self.server.stopping.wait(seconds):
            raise ConnectionAbortedError("the provider was stopped")

    def _fail(self, flavour: wire.Flavour | None, status: int, message: str, **options: str) -> None:
        headers = "".join(f"{name}: {value}\r\n" for name, value in options.items() if name != "body")
        page = options.get("body") == "html"
        text = "<html>a gateway's page</html>" if page else wire.dumps(wire.error(flavour, status, message))
        self._send(status, text, mime="text/html" if page else _JSON, more=headers)

    def _head(self, status: int, mime: str, more: str) -> bytes:
        if self.current is not None:
            self.current.first_byte_at = time.time()
        ident = f"req_local_{secrets.token_hex(8)}"
        return (
            f"HTTP/1.1 {status} {self.responses.get(status, ('Unknown',))[0]}\r\nserver: tollspan-local-provider\r\n"
            f"content-type: {mime}\r\nx-request-id: {ident}\r\nrequest-id: {ident}\r\n{more}\r\n"
        ).encode()

    def _send(
        self, status: int, text: str, *, mime: str = _JSON, more: str = "", fault: str = "", gap: float = 0
    ) -> None:
        data = text.encode()
        head = self._head(status, mime, f"content-length: {len(data)}\r\n{more}")
        if fault == "cut":
            data, self.close_connection = data[: len(data) // 2], True
        size = max(1, len(data) // 4) if fault == "slow" else len(data)
        self.wfile.write(head + data[:size])
        for start in range(size, len(data), size):
            self._pause(gap)
            self.wfile.write(data[start : start + size])

    def _stream(self, events: Iterable[bytes], step: _Step) -> None:
        self.wfile.write(self._head(200, "text/event-stream; charset=utf-8", "transfer-encoding: chunked\r\n"))
        for number, event in enumerate(events):
            self._pause(step.value if number and step.kind == "slow" else 0)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.close_connection |= step.kind == "cut"
        self.wfile.write(b"" if step.kind == "cut" else b"0\r\n\r\n")


class LocalProvider:
    """A provider on 127.0.0.1 that makes its answers up, see the module's docstring; also a context manager.

    `port`: 0 takes a free one. `answer`: called for each attempt, in its connection's thread; `Answer()` if None.
    `output_tokens`: tokens of an answer for each choice, before the request's maximum. `chunks`: text events of a
    stream. `delay_s`: seconds before each answer. `price`: USD per million input and output tokens, for the bills.
    `billed` holds all bills, `requests` the newest 10,000 attempts, `counts` the paths of requests that were counted,
    all in the order of arrival.

        with LocalProvider() as provider: openai.OpenAI(base_url=provider.openai_url, api_key="local")
    """

    def __init__(
        self,
        *,
        port: int = 0,
        answer: Callable[[Request], Answer] | None = None,
        output_tokens: int = 40,
        chunks: int = 8,
        delay_s: float = 0.0,
        price: tuple[Decimal, Decimal] | None = None,
    ) -> None:
        self._core = _Core(answer or (lambda _: Answer()), output_tokens, chunks, delay_s, price)
        self.billed, self.requests, self.counts = self._core.billed, self._core.requests, self._core.counts
        self._port = port
        self._server: _Server | None = None

    def start(self) -> Self:
        """Listen and serve in a daemon thread; OSError if the port is taken. No effect if already started."""
        if self._server is None:
            self._server = _Server(self._port, self._core)
            threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening and close every connection; the books stay. No effect if not started."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Root URL, without a slash at its end; RuntimeError before `start`."""
        if self._server is None:
            raise RuntimeError("the local provider is not started: call start(), or use it in a with statement")
        return f"http://127.0.0.1:{self._server.server_port}"

    anthropic_url = url  # Anthropic's client adds `/v1` itself

    @property
    def openai_url(self) -> str:
        """`base_url` for OpenAI clients."""
        return f"{self.url}/v1"

    def billed_usd(self) -> Decimal:
        """Sum up the bills in USD; RuntimeError without a `price`, since unpriced is not free."""
        if self._core.price is None:
            raise RuntimeError("the local provider has no price: LocalProvider(price=(input, output) USD per million)")
        return sum((bill.cost_usd or Decimal(0) for bill in tuple(self.billed)), Decimal(0))


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; the first line on stdout is `{"url": ...}`."""
    parser = argparse.ArgumentParser(prog="python -m tollspan.console._provider", description=_ABOUT)
    for option, kind, default in (("--port", int, 0), ("--output-tokens", int, 40), ("--delay-s", float, 0.0)):
        parser.add_argument(option, type=kind, default=default, help=f"as of LocalProvider, default {default}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), LocalProvider(**vars(parser.parse_args(argv))) as provider:
        sys.stdout.write(wire.dumps({"url": provider.url}) + "\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
