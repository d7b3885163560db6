"""Raw requests and aiohttp: what they send to a model's endpoint counts, however its answer is read, cut or lost."""

import asyncio
import contextlib
import gc
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from wire_server import Reply, cut, sse

from tollspan.budget import BudgetExceeded, budget
from tollspan.exporter import pipeline
from tollspan.instrumentation import uncovered

requests = pytest.importorskip("requests", reason="requests is not installed")
aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")

MODEL = "gpt-4o-mini"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "One river."}], "max_tokens": 50}
STREAMED = ASK | {"stream": True, "stream_options": {"include_usage": True}}
PATH = "/v1/chat/completions"
USAGE = {"prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25}
COUNTED = {"tokens_in": 18, "tokens_out": 7}
_ONE = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": MODEL}
_CHUNK = _ONE | {"object": "chat.completion.chunk"}
WHOLE = Reply(
    _ONE
    | {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Danube."}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)
STREAM = sse(
    *(_CHUNK | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in "Danub"),
    _CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    _CHUNK | {"choices": [], "usage": USAGE},
    done=True,
)
EVENTS = b"".join(STREAM.chunks)
ZIPPED = Reply(gzip.compress(WHOLE.content), headers={"content-encoding": "gzip"})
ZIPPED_STREAM = Reply(
    chunks=(gzip.compress(EVENTS),), content_type="text/event-stream", headers={"content-encoding": "gzip"}
)
OTHERS = {
    "/v1/responses": (
        {"model": MODEL, "input": "One river."},
        {
            "id": "resp_1",
            "model": MODEL,
            "status": "completed",
            "output": [],
            "usage": {"input_tokens": 18, "output_tokens": 7},
        },
        "openai",
    ),
    "/v1/messages": (
        {"model": "claude-haiku-4-5", "messages": ASK["messages"], "max_tokens": 50},
        {
            "id": "msg_1",
            "type": "message",
            "model": "claude-haiku-4-5",
            "content": [],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 18, "output_tokens": 7},
        },
        "anthropic",
    ),
    "/v1/completions": (
        {"model": "gpt-3.5-turbo-instruct", "prompt": "One river."},
        {
            "id": "c",
            "model": "gpt-3.5-turbo-instruct",
            "choices": [{"index": 0, "text": "x", "finish_reason": "stop"}],
            "usage": USAGE,
        },
        "openai",
    ),
}


# ---- the two libraries, behind one face


def _post_by_requests(url, body=ASK, *, read=None, **options):
    with requests.Session() as session:
        response = session.post(url, json=body, stream=read is not None, timeout=options.pop("timeout", 10), **options)
        return response.status_code, response.content if read is None else read(response)


def _post_by_aiohttp(url, body=ASK, *, read=None, **options):
    async def work():
        timeout = options.pop("timeout", 10)
        timeout = timeout if isinstance(timeout, aiohttp.ClientTimeout) else aiohttp.ClientTimeout(total=timeout)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=body, **options) as response,
        ):
            return response.status, await (read or aiohttp.ClientResponse.read)(response)

    return asyncio.run(work())


POSTS = {"requests": _post_by_requests, "aiohttp": _post_by_aiohttp}
LIBRARIES = pytest.mark.parametrize("library", POSTS)


def outcome(post, *args, **options):
    """What a call gives, or its exception."""
    try:
        return post(*args, **options)
    except Exception as error:  # noqa: BLE001 - whichever it is
        return error


# ---- ways to read an answer


def _lines(response):
    return b"".join(line + b"\n" for line in response.iter_lines())


def _raw_reads(response):
    parts = iter(lambda: response.raw.read(7), b"")
    return b"".join(parts)


def _raw_into(response):
    buffer, found = bytearray(16), []
    while size := response.raw.readinto(buffer):
        found.append(bytes(buffer[:size]))
    return b"".join(found)


BY_REQUESTS = {
    "content": lambda r: r.content,
    "text": lambda r: r.text.encode(),
    "iteration": b"".join,
    "iter_content": lambda r: b"".join(r.iter_content(5)),
    "iter_content at once": lambda r: b"".join(r.iter_content(None)),
    "iter_lines": _lines,
    "raw.read": lambda r: r.raw.read(),
    "raw.read in parts": _raw_reads,
    "raw.readinto": _raw_into,
    "raw.stream": lambda r: b"".join(r.raw.stream(9)),
    "raw.read1": lambda r: b"".join(iter(r.raw.read1, b"")),
    "raw iteration": lambda r: b"".join(r.raw),
}


async def _joined(parts):
    return b"".join([part async for part in parts])


async def _chunks(response):
    return b"".join([data async for data, _ in response.content.iter_chunks()])


async def _parts(response):
    found = []
    while part := await response.content.read(7):
        found.append(part)
    return b"".join(found)


async def _any(response):
    found = []
    while part := await response.content.readany():
        found.append(part)
    return b"".join(found)


async def _readlines(response):
    found = []
    while line := await response.content.readline():
        found.append(line)
    return b"".join(found)


async def _until(response):
    found = []
    while part := await response.content.readuntil(b"\n\n"):
        found.append(part)
    return b"".join(found)


async def _exactly(response):
    found = [await response.content.readexactly(10)]
    with contextlib.suppress(asyncio.IncompleteReadError):
        found.append(await response.content.readexactly(1 << 20))
    return b"".join(found)


async def _text(response):
    return (await response.text()).encode()


BY_AIOHTTP = {
    "read": aiohttp.ClientResponse.read,
    "text": _text,
    "iteration": lambda r: _joined(r.content),
    "iter_any": lambda r: _joined(r.content.iter_any()),
    "iter_chunked": lambda r: _joined(r.content.iter_chunked(5)),
    "iter_chunks": _chunks,
    "content.read": lambda r: r.content.read(),
    "content.read in parts": _parts,
    "content.readany": _any,
    "content.readline": _readlines,
    "content.readuntil": _until,
}
WAYS = [
    *(pytest.param("requests", way, id=f"requests-{name}") for name, way in BY_REQUESTS.items()),
    *(pytest.param("aiohttp", way, id=f"aiohttp-{name}") for name, way in BY_AIOHTTP.items()),
]


@pytest.mark.parametrize("streams", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(("library", "read"), WAYS)
def test_however_an_answer_is_read(server, instrumented, library, read, streams):
    """Each way to read gives what it gives without us, and one commit with the usage; the request is as it was."""
    server.reply, body = (STREAM, STREAMED) if streams else (WHOLE, ASK)
    bare = POSTS[library](server.url + PATH, body, read=read)
    assert b"Danub" in bare[1] or b'"b"' in bare[1]
    with instrumented() as seen:
        assert POSTS[library](server.url + PATH, body, read=read) == bare
        event, (span,) = seen.end, seen.spans
    assert (event.event_type, event.status, event.usage) == ("commit", "ok", COUNTED)
    assert (event.attempts, event.provider, event.model, event.category) == (1, "openai", MODEL, "uncovered")
    assert event.cost_actual_usd * 10**9 == 18 * 150 + 7 * 600
    assert ("ttft_ms" in event.timing) == streams
    assert span.attributes["tollspan.uncovered"] is True
    assert dict(uncovered) == {PATH: 1}
    assert server.asked[0].content == server.asked[1].content


@pytest.mark.parametrize("reply", [ZIPPED, ZIPPED_STREAM], ids=["json", "stream"])
@LIBRARIES
def test_a_compressed_answer(server, instrumented, library, reply):
    """An answer that is compressed is read like any other."""
    server.reply = reply
    body = STREAMED if reply is ZIPPED_STREAM else ASK
    with instrumented() as seen:
        read = {"requests": BY_REQUESTS["iter_content"], "aiohttp": BY_AIOHTTP["iter_any"]}[library]
        _, content = POSTS[library](server.url + PATH, body, read=read)
        assert b"usage" in content
        assert (seen.end.status, seen.end.usage) == ("ok", COUNTED)


@pytest.mark.parametrize("path", OTHERS)
@LIBRARIES
def test_other_flavours(server, instrumented, library, path):
    """Other endpoints of models are known by their paths as well."""
    body, reply, provider = OTHERS[path]
    server.reply = Reply(reply)
    with instrumented() as seen:
        POSTS[library](server.url + path, body)
        assert (seen.end.usage, seen.end.provider) == (COUNTED, provider)
    assert dict(uncovered) == {path: 1}


@LIBRARIES
def test_other_requests_pass(server, instrumented, library):
    """Other paths and bodies are no calls of a model, under a strict budget too."""
    server.reply = Reply({"ok": True})
    with instrumented() as seen, budget("0.000000001 USD", name="b"):
        for path, body in (("/v1/files", ASK), ("/surveys/7/responses", {"answers": 1}), ("/oauth2/token", {})):
            assert POSTS[library](server.url + path, body)[0] == 200
        assert seen.events == []
    assert not uncovered


@LIBRARIES
def test_a_strict_budget(server, instrumented, library):
    """A budget that has no room raises before anything is sent; one that has changes nothing of a raw request."""
    server.reply = WHOLE
    with instrumented() as seen:
        with budget("0.000001 USD", name="none"), pytest.raises(BudgetExceeded):
            POSTS[library](server.url + PATH)
        assert not server.asked
        with budget("1 USD", name="some") as entry:
            POSTS[library](server.url + PATH)
        assert entry.spent * 10**9 == 18 * 150 + 7 * 600
        assert seen.open_holds == 0
    assert server.asked[0].json == ASK


# ---- what goes wrong


def _refused_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@contextlib.contextmanager
def _deaf(then):
    """A server that takes a connection and its request, and then does what `then` does with it, once for each."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        kept = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    connection.settimeout(20)
                    kept.append(connection)
                    connection.recv(65536)
                    then(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for connection in kept:
                connection.close()
    thread.join(20)


def _nothing(_connection):
    """Leave it waiting."""


def _reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()


def _hang_up(connection):
    connection.close()


@LIBRARIES
def test_a_connection_that_is_refused(instrumented, library):
    """Where nobody listens nothing was sent: a cancel, and the hold is given back."""
    url = f"http://127.0.0.1:{_refused_port()}{PATH}"
    bare = outcome(POSTS[library], url)
    assert isinstance(bare, Exception)
    with instrumented() as seen, budget("1 USD", name="b") as entry:
        assert type(outcome(POSTS[library], url)) is type(bare)
        assert (seen.end.event_type, seen.end.status, seen.open_holds) == ("cancel", "error", 0)
        assert (entry.spent, entry.held) == (0, 0)


@pytest.mark.parametrize(
    "url", ["http://nobody.invalid/v1/chat/completions", "https://127.0.0.1:{port}/v1/chat/completions"]
)
@LIBRARIES
def test_a_name_or_a_handshake_that_fails(server, instrumented, library, url):
    """A host that is not there, or that speaks no TLS, got nothing."""
    url = url.format(port=server.url.rpartition(":")[2])
    with instrumented() as seen:
        assert isinstance(outcome(POSTS[library], url), Exception)
        assert seen.end.event_type == "cancel"


@LIBRARIES
def test_a_certificate_that_is_not_trusted(instrumented, library, tmp_path):
    """Where the certificate is not trusted, nothing was sent."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"]
    subprocess.run([*made, "-keyout", "key.pem", "-out", "own.pem"], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem", tmp_path / "key.pem")

    def shake_hands(connection):
        with contextlib.suppress(OSError):
            context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: shake_hands(listening.accept()[0]), daemon=True)
        thread.start()
        with instrumented() as seen:
            assert isinstance(
                outcome(POSTS[library], f"https://127.0.0.1:{listening.getsockname()[1]}{PATH}"), Exception
            )
            assert seen.end.event_type == "cancel"
        thread.join(20)


@LIBRARIES
def test_a_connection_that_is_not_answered(instrumented, library):
    """Where a connection does not come about in time, nothing was sent."""
    with socket.socket() as listening, contextlib.ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        for _ in range(3):  # the queue of the listening socket is full: no more handshakes
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(address)
        short = {"requests": (0.2, 10), "aiohttp": aiohttp.ClientTimeout(connect=0.2)}[library]
        with instrumented() as seen:
            error = outcome(POSTS[library], f"http://127.0.0.1:{address[1]}{PATH}", timeout=short)
            assert isinstance(error, Exception)
            assert seen.end.event_type == "cancel", error


@pytest.mark.parametrize("then", [_nothing, _reset, _hang_up], ids=["silence", "a reset", "a hang-up"])
@LIBRARIES
def test_an_answer_that_does_not_come(instrumented, library, then):
    """The request was sent, and nobody can tell whether it is billed: a commit of the most that it may have cost."""
    with _deaf(then) as port, instrumented() as seen, budget("1 USD", name="b") as entry:
        url = f"http://127.0.0.1:{port}{PATH}"
        assert isinstance(outcome(POSTS[library], url, timeout=0.5 if then is _nothing else 10), Exception)
        event = seen.end
        assert (event.event_type, event.status, event.estimated) == ("commit", "error", True)
        assert event.spend_usd > 0
        assert entry.spent == event.spend_usd
        assert (entry.held, seen.open_holds) == (0, 0)


@pytest.mark.parametrize(("reply", "body"), [(WHOLE, ASK), (STREAM, STREAMED)], ids=["json", "stream"])
@LIBRARIES
def test_a_body_that_is_cut(server, instrumented, library, reply, body):
    """A body that the network cuts raises what it raises without us, and is a commit with an estimate."""
    server.reply = cut(reply)
    for read in (None, {"requests": BY_REQUESTS["iter_content"], "aiohttp": BY_AIOHTTP["iter_any"]}[library]):
        bare = outcome(POSTS[library], server.url + PATH, body, read=read)
        assert isinstance(bare, Exception), bare
        with instrumented() as seen:
            assert type(outcome(POSTS[library], server.url + PATH, body, read=read)) is type(bare)
            events = seen.of("commit", "cancel")
        assert [(e.event_type, e.status, e.estimated) for e in events[-1:]] == [("commit", "error", True)]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "no", "type": "invalid_request_error"}}, "cancel"),
        (429, {"error": {"message": "slowly", "type": "rate_limit"}}, "cancel"),
        (500, {"error": {"message": "oh", "type": "server_error"}}, "cancel"),
        (502, b"<html>bad gateway</html>", "commit"),
        (408, {"error": {"message": "late", "type": "timeout"}}, "commit"),
    ],
)
@LIBRARIES
def test_errors(server, instrumented, library, *, status, body, kind):
    """An error that the provider says is not billed is a cancel; of others nobody can tell."""
    server.reply = Reply(body, status=status)
    for read in (None, {"requests": BY_REQUESTS["content"], "aiohttp": BY_AIOHTTP["text"]}[library]):
        with instrumented() as seen:
            assert POSTS[library](server.url + PATH, read=read)[0] == status
            event = seen.of("commit", "cancel")[-1]
        assert (event.event_type, event.status, event.http_status) == (kind, "error", status)


@LIBRARIES
def test_an_error_that_the_library_raises(server, instrumented, library):
    """It is the same where the library makes an exception of an error's status."""
    server.reply = Reply({"error": {"message": "no", "type": "invalid_request_error"}}, status=400)
    with instrumented() as seen:
        if library == "requests":
            with pytest.raises(requests.HTTPError):
                requests.post(server.url + PATH, json=ASK, timeout=10).raise_for_status()
        else:
            error = outcome(_post_by_aiohttp, server.url + PATH, raise_for_status=True)
            assert isinstance(error, aiohttp.ClientResponseError)
        assert (seen.end.event_type, seen.end.http_status) == ("cancel", 400)


# ---- redirects


@pytest.mark.parametrize("status", [307, 308])
@LIBRARIES
def test_a_redirect_is_one_call(server, instrumented, library, status):
    """A request that is sent on to another place is one call, with the usage of its last answer."""
    moved = Reply(status=status, headers={"location": "/elsewhere/v1/chat/completions"})
    server.reply = lambda asked: moved if asked.path == PATH else WHOLE
    with instrumented() as seen:
        assert POSTS[library](server.url + PATH)[0] == 200
        assert (seen.end.event_type, seen.end.status, seen.end.usage) == ("commit", "ok", COUNTED)
    assert [(asked.path, asked.json) for asked in server.asked] == [
        (PATH, ASK),
        ("/elsewhere/v1/chat/completions", ASK),
    ]


@LIBRARIES
def test_a_redirect_that_is_not_followed(server, instrumented, library):
    """A redirect is no answer of a model: nobody bills it."""
    server.reply = Reply(status=307, headers={"location": "/elsewhere"})
    with instrumented() as seen:
        assert POSTS[library](server.url + PATH, allow_redirects=False)[0] == 307
        assert seen.end.event_type == "cancel"


# ---- answers that are left


def _leave_by_requests(url, how):
    session = requests.Session()
    response = session.post(url, json=STREAMED, stream=True, timeout=10)
    if how != "unread":
        next(response.iter_content(10))
    if how in ("close", "unread"):
        response.close()
    elif how == "session":
        session.close()
    del response
    gc.collect()
    session.close()


def _leave_by_aiohttp(url, how):
    async def work():
        session = aiohttp.ClientSession()
        response = await session.post(url, json=STREAMED)
        if how != "unread":
            await response.content.read(10)
        if how in ("close", "unread"):
            response.close()
        elif how == "session":
            await session.close()
        del response
        gc.collect()
        await session.close()

    asyncio.run(work())


@pytest.mark.filterwarnings("ignore:Unclosed response:ResourceWarning")
@pytest.mark.parametrize("how", ["close", "unread", "dropped", "session"])
@pytest.mark.parametrize("leave", [_leave_by_requests, _leave_by_aiohttp], ids=["requests", "aiohttp"])
def test_an_answer_that_is_left(server, instrumented, leave, how):
    """An answer that is closed, dropped, or lost with its session is one commit, by an estimate."""
    server.reply = Reply(chunks=(*STREAM.chunks[:3], b": wait\n\n" * 40_000), content_type="text/event-stream")
    with instrumented() as seen:
        leave(server.url + PATH, how)
        gc.collect()
        event = seen.end
    assert (event.event_type, event.status, event.estimated) == ("commit", "cancelled", True)


@LIBRARIES
def test_a_closed_session(server, instrumented, library):
    """What a session refuses to send because it is closed was not sent."""

    async def by_aiohttp():
        session = aiohttp.ClientSession()
        await session.close()
        await session.post(server.url + PATH, json=ASK)

    with instrumented() as seen:
        if library == "aiohttp":
            with pytest.raises(RuntimeError):
                asyncio.run(by_aiohttp())
            assert seen.of("commit") == []
        else:  # which opens its connections again
            server.reply = WHOLE
            session = requests.Session()
            session.close()
            session.post(server.url + PATH, json=ASK, timeout=10)
            session.close()
            assert seen.end.usage == COUNTED


def test_a_task_that_is_cancelled(instrumented):
    """A task that is cancelled while it waits for an answer leaves one commit, by an estimate."""

    async def work(port):
        session = aiohttp.ClientSession()
        task = asyncio.ensure_future(session.post(f"http://127.0.0.1:{port}{PATH}", json=ASK))
        assert await asyncio.to_thread(arrived.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await session.close()

    arrived = threading.Event()
    with _deaf(lambda _connection: arrived.set()) as port, instrumented() as seen:
        asyncio.run(work(port))
        assert (seen.end.event_type, seen.end.status, seen.end.estimated) == ("commit", "cancelled", True)


# ---- what stays as it is


@pytest.mark.parametrize("streams", [False, True])
def test_connections_are_kept_by_requests(server, instrumented, *, streams):
    """The connection of an answer that was read goes back to its pool, and is used again."""
    server.reply = STREAM if streams else WHOLE
    with instrumented() as seen, requests.Session() as session:
        for _ in range(3):
            response = session.post(server.url + PATH, json=STREAMED if streams else ASK, stream=streams, timeout=10)
            assert b"".join(response.iter_content(100))
        pools = session.get_adapter(server.url).poolmanager.pools
        (pool,) = [pools[key] for key in pools.keys()]  # noqa: SIM118 - it is no mapping
        assert (pool.num_connections, pool.num_requests) == (1, 3)
        assert len(seen.of("commit")) == 3


@pytest.mark.parametrize("streams", [False, True])
def test_connections_are_kept_by_aiohttp(server, instrumented, *, streams):
    """The same of the connector of a session."""
    server.reply = STREAM if streams else WHOLE
    made = []

    async def work():
        trace = aiohttp.TraceConfig()

        async def created(*_):
            made.append(1)

        trace.on_connection_create_end.append(created)
        async with aiohttp.ClientSession(trace_configs=[trace]) as session:
            for _ in range(3):
                async with session.post(server.url + PATH, json=STREAMED if streams else ASK) as response:
                    assert await response.read()

    with instrumented() as seen:
        asyncio.run(work())
        assert len(seen.of("commit")) == 3
    assert len(made) == 1


def test_what_aiohttp_takes_is_sent_as_it_is(server, instrumented):
    """Bytes, text, forms, streams and relative addresses are sent as without us."""
    server.reply = WHOLE

    async def stream():
        yield json.dumps(ASK).encode()

    async def work():
        async with aiohttp.ClientSession(server.url) as session:
            for data in (json.dumps(ASK).encode(), json.dumps(ASK), aiohttp.FormData({"model": MODEL}), stream()):
                async with session.post(PATH, data=data) as response:
                    assert (await response.json())["model"] == MODEL

    asyncio.run(work())
    bare = [asked.content for asked in server.asked]
    with instrumented() as seen:
        asyncio.run(work())
        ends = seen.of("commit", "cancel")
    assert [asked.content for asked in server.asked[len(bare) :]] == bare
    assert [event.usage for event in ends][:2] == [COUNTED, COUNTED]


def test_a_prepared_request_and_a_hook(server, instrumented):
    """A prepared request and a hook on its answer work as without us."""
    server.reply = WHOLE
    heard = []
    with instrumented() as seen, requests.Session() as session:
        request = requests.Request(
            "POST", server.url + PATH, json=ASK, hooks={"response": lambda r, **_: heard.append(r)}
        )
        response = session.send(session.prepare_request(request), timeout=10)
        assert (response.json()["usage"], heard) == (USAGE, [response])
        assert response.elapsed.total_seconds() > 0
        assert seen.end.usage == COUNTED
        assert pipeline().ledger.verify() == []
