"""With draining asked for, a stream that is left early costs its caller no time and is booked at its actual usage."""

import asyncio
import contextlib
import gc
import gzip
import logging
import os
import subprocess
import sys
import threading
import time

import pytest
from sdk_calls import (
    FLAVOURS,
    KINDS,
    MODELS,
    arguments,
    canned,
    create,
    drive,
    entered,
    library_of,
    listed,
    make_client,
    method,
    mocked,
    next_of,
    resolved,
)

from tollspan.budget import budget
from tollspan.console import _provider
from tollspan.exporter import pipeline
from tollspan.instrumentation import _drain_work
from tollspan.ledger import Ledger, internal_errors

SLOW = "slow=0.03"
STUCK = "slow=60"
FLAVOUR = pytest.mark.parametrize("flavour", FLAVOURS)
ENDLESS_S = 30


@pytest.fixture
def drains(monkeypatch):
    """Every stream is drained."""
    monkeypatch.setenv("TOLLSPAN_DRAIN_CUT_STREAMS", "true")


@pytest.fixture(autouse=True)
def _nothing_left():
    """What a test drains is over when it ends."""
    yield
    wait_for(lambda: not _drain_work._process.running)
    assert len(_drain_work._process.slots) == _drain_work.MAX_DRAINS


@pytest.fixture
def served(monkeypatch):
    """Of each stream that the provider has served: whether it could write all of it."""
    found, original = [], _provider._Handler._stream

    def stream(handler, events, step):
        found.append(None)
        place = len(found) - 1
        try:
            original(handler, events, step)
            found[place] = True
        except ConnectionError:
            found[place] = False

    monkeypatch.setattr(_provider._Handler, "_stream", stream)
    return found


def wait_for(condition, *, collect=False):
    until = time.monotonic() + ENDLESS_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
        gc.collect() if collect else None


def pause():
    time.sleep(0.005)


async def until_settled(seen, *, asynchronous, calls=1):
    """Let the event loop work until so many calls are settled, and nothing is drained any more."""
    until = time.monotonic() + ENDLESS_S
    while len(seen.of("commit", "cancel")) < calls or _drain_work._process.running:
        assert time.monotonic() < until
        await asyncio.sleep(0.005) if asynchronous else pause()
        gc.collect()  # openai's streams are in reference cycles


def run(provider, seen, flavour, treat, *, asynchronous, fault=SLOW, create=create, calls=1, **more):
    """Open a stream, treat it, let go of it, and keep the client until the call is settled."""

    async def work():
        client = make_client(provider, FLAVOURS[flavour], asynchronous=asynchronous)
        stream = await resolved(create(client, flavour, stream=True, extra_headers={"x-local-provider": fault}, **more))
        await treat(stream)
        del stream
        await until_settled(seen, asynchronous=asynchronous, calls=calls)
        idle = [connection.is_idle() for connection in client._client._transport._pool.connections]
        await resolved(client.close())
        return idle

    return drive(work(), asynchronous=asynchronous)


async def closed(stream):
    """Leave by `close`, twice: what the caller sees is as without draining, and at once."""
    await next_of(stream)
    await resolved(stream.close())
    await resolved(stream.close())
    assert stream.response.is_closed
    assert stream.response.elapsed.total_seconds() > 0
    assert len(_drain_work._process.running) == 1


async def left(stream):
    async with entered(stream):
        await next_of(stream)


async def broken_off(stream):
    if hasattr(stream, "__aiter__"):
        async for _ in stream:
            break
    else:
        for _ in stream:
            break


async def unread(stream):
    await resolved(stream.close())


async def forgotten(_stream):
    pass


async def cancelled(stream):
    task = asyncio.create_task(listed(stream))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def timed_out(stream):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(listed(stream), 0.02)


WAYS = [(way, a) for way in (closed, left, broken_off, unread, forgotten) for a in (False, True)]
WAYS += [(cancelled, True), (timed_out, True)]


@pytest.mark.parametrize(
    ("treat", "asynchronous"), WAYS, ids=[f"{way.__name__}-{'async' if a else 'sync'}" for way, a in WAYS]
)
@pytest.mark.parametrize("by", ["budget", "setting"])
@FLAVOUR
def test_a_stream_that_is_left_is_booked_at_its_usage(
    provider, instrumented, served, caplog, monkeypatch, *, treat, by, flavour, asynchronous
):
    """However it is left: the provider writes all of it, one commit has its usage, and its connection is free again."""
    caplog.set_level(logging.WARNING)
    if by == "setting":
        monkeypatch.setenv("TOLLSPAN_DRAIN_CUT_STREAMS", "true")
    entered_budget = budget("5 USD", name="b", cut_stream="drain") if by == "budget" else contextlib.nullcontext()
    with instrumented() as seen, entered_budget:
        idle = run(provider, seen, flavour, treat, asynchronous=asynchronous)
        holds = seen.open_holds
    event, bill = seen.end, provider.billed[-1]
    assert event.usage == {"tokens_in": bill.input_tokens, "tokens_out": bill.output_tokens}
    assert (event.event_type, event.status, event.estimated) == ("commit", "cancelled", False)
    assert event.error_type == ("CancelledError" if treat in (cancelled, timed_out) else None)
    assert event.cost_actual_usd > 0
    assert [e.event_type for e in seen.events] == (["precheck_hold", "commit"] if by == "budget" else ["commit"])
    assert served == [True]
    assert (idle, holds) == ([True], 0)
    noise = [r.message for r in caplog.records if r.name.startswith(("tollspan", "opentelemetry"))]
    assert not noise
    assert internal_errors.count == 0


@KINDS
def test_without_being_asked_for_nothing_is_drained(provider, seen, served, asynchronous):
    """A stream is cut as ever, its hold becomes the estimate, and no task or thread is there for it."""
    before = threading.active_count()

    async def close(stream):
        assert not type(stream.response.stream._stream).__module__.startswith("tollspan")
        await next_of(stream)
        await resolved(stream.close())

    with budget("5 USD", name="b"):
        run(provider, seen, "chat", close, asynchronous=asynchronous)
    wait_for(lambda: served != [None])
    assert served == [False]
    assert (seen.end.estimated, seen.end.status) == (True, "cancelled")
    assert threading.active_count() <= before + 2  # the provider's for the connection, and the ledger's


@KINDS
def test_the_caller_waits_for_nothing(provider, seen, asynchronous):
    """The stream is closed at once, and what the call holds stays held until its usage has come."""

    async def close(stream):
        await next_of(stream)
        await resolved(stream.close())
        assert entry.held > 0
        assert not seen.of("commit")

    with budget("5 USD", name="b", cut_stream="drain") as entry:
        run(provider, seen, "messages", close, asynchronous=asynchronous)
        assert entry.held == 0
        assert entry.spent == seen.end.cost_actual_usd
    duration_ms = seen.end.timing["total_ms"]
    assert duration_ms < (seen.spans[0].end_time - seen.spans[0].start_time) / 10**6 - 100  # what the caller saw


@KINDS
@FLAVOUR
@pytest.mark.usefixtures("drains")
def test_reading_on_after_closing(provider, seen, flavour, asynchronous):
    """A closed stream cannot be read, and says so as ever."""

    async def close(stream):
        await next_of(stream)
        await resolved(stream.close())
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of the SDK or of the HTTP library, by the SDK's version
            await listed(stream)
        library = library_of(FLAVOURS[flavour])
        assert library.ReadError in (type(caught.value), type(caught.value.__cause__))

    run(provider, seen, flavour, close, asynchronous=asynchronous)
    assert not seen.end.estimated


@KINDS
@FLAVOUR
@pytest.mark.usefixtures("drains")
def test_a_stream_that_was_read_is_not_drained(provider, seen, flavour, asynchronous):
    """SDKs close their streams after the last event: such a call is settled at once, and well."""

    async def read(stream):
        assert len(await listed(stream)) > 4
        assert not _drain_work._process.running
        assert len(seen.of("commit")) == 1

    run(provider, seen, flavour, read, asynchronous=asynchronous, fault="ok")
    assert (seen.end.status, seen.end.estimated) == ("ok", False)


# ---- other shapes


@KINDS
@pytest.mark.usefixtures("drains")
def test_the_callers_own_include_usage(provider, seen, asynchronous):
    """Where the caller has asked for the usage chunk it is read as well; where it was declined, none comes."""
    options = ({"include_usage": True}, {"include_usage": False})
    for calls, option in enumerate(options, 1):
        run(provider, seen, "chat", closed, asynchronous=asynchronous, calls=calls, stream_options=option)
    assert [event.estimated for event in seen.of("commit")] == [False, True]


@KINDS
@pytest.mark.usefixtures("drains")
def test_an_entered_stream(provider, seen, asynchronous):
    """Anthropic's `.stream()`, left in the middle, is drained."""

    async def work():
        client = make_client(provider, "anthropic", asynchronous=asynchronous)
        more = {"extra_headers": {"x-local-provider": SLOW}}
        async with entered(client.messages.stream(**arguments("messages", **more))) as stream:
            await next_of(stream)
        await until_settled(seen, asynchronous=asynchronous)
        await resolved(client.close())

    drive(work(), asynchronous=asynchronous)
    assert (seen.end.status, seen.end.usage["tokens_out"]) == ("cancelled", 90)


@KINDS
@pytest.mark.usefixtures("drains")
def test_a_response_that_is_not_read(provider, seen, asynchronous):
    """The usage of a JSON answer that nobody reads is known, too."""

    async def work():
        client = make_client(provider, "openai", asynchronous=asynchronous)
        send = method(client, "chat.completions.with_streaming_response.create")
        async with entered(send(**arguments("chat", extra_headers={"x-local-provider": SLOW}))):
            pass
        await until_settled(seen, asynchronous=asynchronous)
        await resolved(client.close())

    drive(work(), asynchronous=asynchronous)
    assert (seen.end.status, seen.end.usage["tokens_out"]) == ("cancelled", 90)


@KINDS
@FLAVOUR
@pytest.mark.usefixtures("drains")
def test_a_compressed_stream(provider, seen, flavour, asynchronous):
    """What comes compressed, over a transport of the user's own, is drained and read."""

    async def slowly(pieces):
        for piece in pieces:
            yield piece

    def answer(request):
        whole = canned(request)
        packed = gzip.compress(whole["content"])
        pieces = [packed[start : start + 37] for start in range(0, len(packed), 37)]
        headers = {**whole["headers"], "content-encoding": "gzip"}
        return {**whole, "headers": headers, "content": slowly(pieces) if asynchronous else iter(pieces)}

    async def work():
        http_client = mocked(FLAVOURS[flavour], answer, asynchronous=asynchronous)
        client = make_client(provider, FLAVOURS[flavour], asynchronous=asynchronous, http_client=http_client)
        stream = await resolved(create(client, flavour, stream=True))
        await next_of(stream)
        await resolved(stream.close())
        await until_settled(seen, asynchronous=asynchronous)
        await resolved(client.close())

    drive(work(), asynchronous=asynchronous)
    assert (seen.end.usage, seen.end.status) == ({"tokens_in": 20, "tokens_out": 10}, "cancelled")


# ---- limits and failures


def held(seen, event):
    """Whether an event keeps what was held for its call."""
    return event.estimated and event.cost_est_usd == seen.of("precheck_hold")[0].cost_est_usd


@KINDS
@FLAVOUR
@pytest.mark.parametrize(
    ("fault", "ending"), [("cut=5", ("cancelled", None)), ("error-event", ("error", "api_error"))], ids=["cut", "error"]
)
def test_a_stream_that_breaks_while_it_is_drained(provider, seen, *, flavour, fault, ending, asynchronous):
    """Where the server drops the rest, or sends an error, the hold becomes the estimate, as without draining."""
    with budget("5 USD", name="b", cut_stream="drain"):
        run(provider, seen, flavour, unread, asynchronous=asynchronous, fault=fault)
    assert (seen.end.status, seen.end.error_type) == ending
    assert held(seen, seen.end)
    assert seen.open_holds == 0


@KINDS
@pytest.mark.parametrize("limit", ["DRAIN_TIMEOUT_S", "MAX_BYTES"])
def test_limits_of_a_drain(provider, seen, served, monkeypatch, *, limit, asynchronous):
    """A stream that goes on for too long, or is too large, is cut in the end, and its hold becomes the estimate."""
    monkeypatch.setattr(_drain_work, limit, {"DRAIN_TIMEOUT_S": 0.1, "MAX_BYTES": 400}[limit])
    fault = STUCK if limit == "DRAIN_TIMEOUT_S" else SLOW
    with budget("5 USD", name="b", cut_stream="drain"):
        idle = run(provider, seen, "chat", unread, asynchronous=asynchronous, fault=fault)
    assert seen.end.status == "cancelled"
    assert held(seen, seen.end)
    assert idle == []
    assert served != [True]


@KINDS
def test_a_server_that_does_not_close(provider, seen, monkeypatch, asynchronous):
    """With the last event the call is settled; the connection of a server that then says nothing is closed soon."""
    monkeypatch.setattr(_drain_work, "_LINGER_S", 0.1)
    original, over = _provider.wire.events, threading.Event()

    def events(*about):
        yield from original(*about)
        over.wait(ENDLESS_S)

    monkeypatch.setattr(_provider.wire, "events", events)
    with budget("5 USD", name="b", cut_stream="drain"):
        idle = run(provider, seen, "chat", unread, asynchronous=asynchronous, fault="ok")
    assert not over.is_set()
    over.set()
    assert (seen.end.usage["tokens_out"], idle) == (90, [])


@KINDS
def test_more_streams_than_are_drained_at_a_time(provider, seen, asynchronous):
    """Of seventeen streams that are left at once sixteen are drained; the last one is cut, and keeps its hold."""
    many = _drain_work.MAX_DRAINS + 1

    async def work():
        client = make_client(provider, "openai", asynchronous=asynchronous)
        headers = {"x-local-provider": "slow=0.1"}
        streams = [await resolved(create(client, "chat", stream=True, extra_headers=headers)) for _ in range(many)]
        for stream in streams:
            await resolved(stream.close())
        await until_settled(seen, asynchronous=asynchronous, calls=many)
        await resolved(client.close())

    with budget("50 USD", name="b", cut_stream="drain"):
        drive(work(), asynchronous=asynchronous)
    ends = sorted(seen.of("commit"), key=lambda event: event.call_id)
    assert [event.estimated for event in ends] == [False] * (many - 1) + [True]
    assert held(seen, ends[-1])


@KINDS
def test_a_client_that_is_closed_meanwhile(provider, seen, asynchronous):
    """A thread reads on when the caller closes the client; a task, whose connection is closed then, cannot."""

    async def work():
        client = make_client(provider, "openai", asynchronous=asynchronous)
        stream = await resolved(create(client, "chat", stream=True, extra_headers={"x-local-provider": SLOW}))
        await next_of(stream)
        await resolved(stream.close())
        await resolved(client.close())
        await until_settled(seen, asynchronous=asynchronous)

    with budget("5 USD", name="b", cut_stream="drain"):
        drive(work(), asynchronous=asynchronous)
    assert (seen.end.status, held(seen, seen.end)) == ("cancelled", asynchronous)
    assert seen.open_holds == 0


@pytest.mark.usefixtures("drains")
def test_another_thread_that_reads(provider, seen):
    """A stream that is closed while another thread waits for its next chunk is cut, and that thread gets the error."""
    caught = []
    with make_client(provider, "openai") as client:
        stream = create(client, "chat", stream=True, extra_headers={"x-local-provider": "slow=0.5"})
        next(stream)

        def read():
            try:
                list(stream)
            except Exception as error:  # noqa: BLE001 - the SDK's, whichever it is
                caught.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        wait_for(stream.response.stream._stream._in_use.locked)
        stream.close()
        thread.join(ENDLESS_S)
    assert len(caught) == 1
    assert (seen.end.estimated, len(seen.of("commit"))) == (True, 1)


@pytest.mark.usefixtures("drains")
def test_dropping_a_stream_takes_no_lock(provider, seen):
    """The garbage collector may leave a stream in a thread that holds any lock: the rest is drained all the same."""
    client = make_client(provider, "anthropic")
    stream = create(client, "messages", stream=True, extra_headers={"x-local-provider": SLOW})
    writer, dropped = pipeline().ledger.writer, []

    def drop():
        nonlocal stream
        with writer._start_lock, _drain_work._process._lock:
            stream = None
            gc.collect()
        dropped.append(True)

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    thread.join(5)
    assert dropped
    wait_for(lambda: seen.of("commit"))
    assert (seen.end.status, seen.end.estimated) == ("cancelled", False)
    client.close()


# ---- the end of a process

PROGRAM = f"""
import asyncio, os, sys, openai
from tollspan.instrumentation import instrument
instrument()
fault = {{"x-local-provider": os.environ["FAULT"]}}
asked = dict(model={MODELS["openai"]!r}, messages=[dict(role="user", content="Hello")])
asked.update(stream=True, extra_headers=fault)
options = dict(base_url=os.environ["PROVIDER"], api_key="x")
def leave():
    stream = openai.OpenAI(**options).chat.completions.create(**asked)
    next(stream)
    stream.close()
    return stream
async def aleave():
    stream = await openai.AsyncOpenAI(**options).chat.completions.create(**asked)
    await anext(stream)
    await stream.close()
"""
ENDS = {
    "thread": "leave()",
    "exit": "leave(); sys.exit(3)",
    "exception": "leave(); raise SystemExit(3)",
    "task": "asyncio.run(aleave())",
    "loop closed": "loop = asyncio.new_event_loop(); loop.run_until_complete(aleave()); loop.close()",
    "loop dropped": "loop = asyncio.new_event_loop(); loop.run_until_complete(aleave())",
    "child": "leave(); pid = os.fork(); sys.exit(0 if pid == 0 else os.waitpid(pid, 0)[1])",
    "multiprocessing": """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=leave)
child.start()
child.join()
""",
    "open in a child": """
stream = openai.OpenAI(**options).chat.completions.create(**asked)
next(stream)
if os.fork() == 0:
    own = leave()
    stream.close()
    sys.exit(0)
os.wait()
assert len(list(stream)) == 9
""",
}


@pytest.mark.parametrize(
    ("end", "fault", "estimated", "statuses"),
    [
        ("thread", SLOW, False, ["cancelled"]),
        ("thread", STUCK, True, ["cancelled"]),
        ("exit", SLOW, False, ["cancelled"]),
        ("task", SLOW, True, ["cancelled"]),
        ("loop closed", SLOW, True, ["cancelled"]),
        ("loop dropped", SLOW, True, ["cancelled"]),
        ("child", SLOW, False, ["cancelled"]),
        ("multiprocessing", SLOW, False, ["cancelled"]),
        ("open in a child", SLOW, False, ["cancelled", "ok"]),
    ],
)
def test_the_end_of_a_process(provider, ledger_path, *, end, fault, estimated, statuses):
    """A process waits a moment for what its threads drain, and settles the rest; its children leave it alone."""
    environment = {
        **os.environ,
        "PROVIDER": provider.openai_url,
        "FAULT": fault,
        "TOLLSPAN_DRAIN_CUT_STREAMS": "1",
    }
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM + ENDS[end]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=ENDLESS_S)
    assert (done.returncode, done.stderr) == (3 if end == "exit" else 0, "")
    with Ledger.from_file(ledger_path) as ledger:
        events = list(ledger.events)
    assert sorted(event.status for event in events) == statuses
    assert {(event.event_type, event.estimated) for event in events} == {("commit", estimated)}


def test_the_end_waits_until_connections_are_let_go():
    """A thread that dies while it gives a connection back keeps its pool's lock: a client's finalizer would hang."""

    class Draining:
        is_alive = True

        def __init__(self):
            self.settled, self.let_go = threading.Event(), threading.Event()
            self.settled.set()

        def give_up(self):
            assert self.let_go.is_set()

    process, drain = _drain_work._Process(), Draining()
    process.running.add(drain)
    threading.Timer(0.1, drain.let_go.set).start()
    process.end()
