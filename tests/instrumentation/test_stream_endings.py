"""However a stream ends, its call is settled exactly once, and the user sees the ending that the SDK makes of it."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.trace import get_current_span
from sdk_calls import (
    FLAVOURS,
    KINDS,
    MODELS,
    RATES,
    SURFACES,
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

from tollspan.budget import budget, reach
from tollspan.exporter import pipeline
from tollspan.instrumentation._call import CURRENT
from tollspan.ledger import Ledger


@dataclass(frozen=True)
class Ending:
    """How a stream is treated, by which fault of the provider, and what is to stand in the ledger then."""

    name: str
    treat: Callable[[Any], Awaitable[Any]]
    fault: str = "ok"
    status: str = "ok"
    error_type: str | None = None
    only: bool | None = None
    """Whether it is an ending of async streams only, of sync ones only, or (None) of both."""


async def _closed_early(stream):
    await next_of(stream)
    await resolved(stream.close())


async def _left_early(stream):
    async with contextlib.AsyncExitStack() as stack:
        if hasattr(stream, "__aenter__"):
            await stack.enter_async_context(stream)
        else:
            stack.enter_context(stream)
        await next_of(stream)


async def _broken_off(stream):
    if hasattr(stream, "__aiter__"):
        async for _ in stream:
            break
    else:
        for _ in stream:
            break


async def _unread(_stream):
    pass


async def _read_and_raise(stream):
    with contextlib.suppress(Exception):
        await listed(stream)


async def _cancelled(stream):
    async def read():
        await listed(stream)

    task = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _in_another_thread(stream):
    thread = threading.Thread(target=list, args=(stream,))
    thread.start()
    thread.join()


async def _in_another_context(stream):
    contextvars.Context().run(list, stream)


async def _in_another_task(stream):
    await asyncio.create_task(listed(stream), context=contextvars.Context())


ENDINGS = (
    Ending("read to its end", listed),
    Ending("closed early", _closed_early, status="cancelled"),
    Ending("left early", _left_early, status="cancelled"),
    Ending("broken off", _broken_off, status="cancelled"),
    Ending("never read", _unread, status="cancelled"),
    Ending("cut by the server", _read_and_raise, fault="cut=3", status="error", error_type="RemoteProtocolError"),
    Ending("an error event", _read_and_raise, fault="error-event", status="error", error_type="api_error"),
    Ending("cancelled", _cancelled, fault="slow=0.05", status="cancelled", error_type="CancelledError", only=True),
    Ending("in another thread", _in_another_thread, only=False),
    Ending("in another context", _in_another_context, only=False),
    Ending("in another task", _in_another_task, only=True),
)


CASES = [(e, asynchronous) for e in ENDINGS for asynchronous in (False, True) if e.only in (None, asynchronous)]
CASE_IDS = [f"{e.name}-{'async' if asynchronous else 'sync'}".replace(" ", "-") for e, asynchronous in CASES]


def with_stream(provider, kind, treat, *, asynchronous, fault="ok", **more):
    """Open a stream (of a flavour, or of anthropic's helper), treat it, and let go of it."""
    flavour, _, helper = kind.partition(" ")

    async def work():
        client = make_client(provider, FLAVOURS[flavour], asynchronous=asynchronous)
        more["extra_headers"] = {"x-local-provider": fault}
        try:
            if helper:
                async with entered(client.messages.stream(**arguments(flavour, **more))) as stream:
                    await treat(stream)
            else:
                stream = await resolved(create(client, flavour, stream=True, **more))
                await treat(stream)
            # openai's stream is in a reference cycle of its own: without us, too, it ends with the collection.
            del stream
            gc.collect()
            await asyncio.sleep(0) if asynchronous else None
        finally:
            await resolved(client.close())

    drive(work(), asynchronous=asynchronous)
    gc.collect()


@pytest.mark.parametrize(("ending", "asynchronous"), CASES, ids=CASE_IDS)
@pytest.mark.parametrize("strict", [False, True], ids=["unbudgeted", "strict"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_ending(provider, seen, caplog, *, ending, flavour, strict, asynchronous):
    """One settlement with the right status, an estimate where usage never came, no open hold, and an empty log."""
    caplog.set_level(logging.WARNING)
    with budget("5 USD", name="b") if strict else contextlib.nullcontext():
        with_stream(provider, flavour, ending.treat, asynchronous=asynchronous, fault=ending.fault)
    event = seen.end
    assert (event.event_type, event.status, event.error_type) == ("commit", ending.status, ending.error_type)
    assert (event.estimated, event.http_status) == (ending.status != "ok", 200)
    _check_money(event, provider.billed[-1], strict=strict, seen=seen)
    (span,) = seen.spans
    assert span.attributes["tollspan.event_id"] == event.event_id
    assert span.attributes.get("tollspan.cost.estimated", False) == event.estimated
    assert not [record.message for record in caplog.records if record.name.startswith(("tollspan", "opentelemetry"))]
    assert CURRENT.get() is None
    assert not reach().entries
    assert not get_current_span().get_span_context().is_valid


def _check_money(event, bill, *, strict, seen):
    assert seen.open_holds == 0
    assert [e.event_type for e in seen.events] == (["precheck_hold", "commit"] if strict else ["commit"])
    if not event.estimated:
        assert event.usage == {"tokens_in": bill.input_tokens, "tokens_out": bill.output_tokens}
        return
    assert not event.usage
    assert event.cost_actual_usd is None
    assert event.cost_est_usd > 0
    assert event.reason
    if strict:
        hold, commit = seen.events
        assert (commit.cost_est_usd, commit.charges) == (hold.cost_est_usd, hold.charges)


@KINDS
@pytest.mark.parametrize(
    ("treat", "status"),
    [(listed, "ok"), (_unread, "cancelled"), (next_of, "cancelled")],
    ids=["read", "unread", "left"],
)
def test_endings_of_the_helper(provider, seen, *, treat, status, asynchronous):
    """Anthropic's `.stream()` sends when it is entered; leaving it early is a cancellation."""
    with budget("5 USD", name="b"):
        with_stream(provider, "messages helper", treat, asynchronous=asynchronous)
    assert [e.event_type for e in seen.events] == ["precheck_hold", "commit"]
    assert (seen.end.status, seen.end.estimated, seen.open_holds) == (status, status != "ok", 0)


@KINDS
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("name", ["chat.stream", "responses.stream", "messages.stream", "beta.messages.stream"])
def test_a_helper_that_is_never_entered(provider, seen, *, name, asynchronous):
    """What is made and never entered sends nothing, holds nothing and records nothing."""
    surface = next(surface for surface in SURFACES if surface.name == name)
    sent = len(provider.requests)

    async def work():
        client = make_client(provider, surface.sdk, asynchronous=asynchronous)
        path = name if name != "chat.stream" else "chat.completions.stream"
        manager = method(client, path, f"beta.{path}")(**arguments(surface.flavour))
        del manager
        await resolved(client.close())

    with budget("5 USD", name="b"):
        drive(work(), asynchronous=asynchronous)
    gc.collect()
    assert not seen.events
    assert len(provider.requests) == sent


async def _whole(response):
    return await resolved(response.read())


async def _a_part(response):
    await next_of(
        aiter(response.iter_bytes(10)) if hasattr(response.iter_bytes(10), "__aiter__") else response.iter_bytes(10)
    )


@KINDS
@pytest.mark.parametrize("strict", [False, True], ids=["unbudgeted", "strict"])
@pytest.mark.parametrize("flavour", ["chat", "messages"])
@pytest.mark.parametrize(
    ("treat", "fault", "status"),
    [
        (_whole, "ok", "ok"),
        (_unread, "ok", "cancelled"),
        (_a_part, "slow=0.02", "cancelled"),
        (_whole, "cut=1", "error"),
    ],
    ids=["read", "unread", "partly-read", "cut"],
)
def test_a_response_that_is_not_read(provider, seen, *, treat, fault, status, flavour, strict, asynchronous):
    """A JSON answer of with_streaming_response that was not read whole was billed all the same: at most its hold."""
    path = {"chat": "chat.completions", "responses": "responses", "messages": "messages"}[flavour]
    before = len(provider.billed)

    async def work():
        client = make_client(provider, FLAVOURS[flavour], asynchronous=asynchronous)
        send = method(client, f"{path}.with_streaming_response.create")
        try:
            with contextlib.suppress(Exception):
                async with entered(send(**arguments(flavour, extra_headers={"x-local-provider": fault}))) as response:
                    await treat(response)
        finally:
            await resolved(client.close())

    with budget("5 USD", name="b") if strict else contextlib.nullcontext():
        drive(work(), asynchronous=asynchronous)
    event, (bill,) = seen.end, provider.billed[before:]
    assert (event.event_type, event.status, event.estimated) == ("commit", status, status != "ok")
    rate_in, rate_out = RATES[FLAVOURS[flavour]]
    assert event.spend_usd * 10**9 >= rate_in * bill.input_tokens + rate_out * bill.output_tokens
    assert seen.open_holds == 0
    assert not strict or status == "ok" or event.spend_usd == seen.events[0].cost_est_usd


def test_an_abandoned_stream_is_settled_without_another_call(provider, seen):
    """The writer's thread records an abandoned stream by itself, even where it is the first call of the process."""

    async def look(_stream):
        assert pipeline().is_open  # to open the ledger takes locks, for which a garbage collection is no place

    with_stream(provider, "chat", look, asynchronous=False)
    store, until = pipeline().ledger.store, time.monotonic() + 5
    while not store.query("SELECT 1 FROM event") and time.monotonic() < until:
        time.sleep(0.02)
    assert len(store.query("SELECT 1 FROM event")) == 1


LEFT_OPEN = f"""
import os, sys
if "bare" not in sys.argv:
    from tollspan.instrumentation import instrument
    instrument()
import openai, anthropic
url, ask = os.environ["PROVIDER"], [{{"role": "user", "content": "Hello"}}]
ours = openai.OpenAI(base_url=url + "/v1", api_key="x")
theirs = anthropic.Anthropic(base_url=url, api_key="x")
for _ in (kept := ours.chat.completions.create(model={MODELS["openai"]!r}, messages=ask, stream=True)):
    break
for _ in theirs.messages.create(model={MODELS["anthropic"]!r}, messages=ask, max_tokens=9, stream=True):
    break
if "fork" in sys.argv and os.fork() == 0:
    for _ in (more := ours.chat.completions.create(model={MODELS["openai"]!r}, messages=ask, stream=True)):
        break
    sys.exit()
if "fork" in sys.argv:
    os.wait()
"""


@pytest.mark.parametrize("arguments", [(), ("fork",)], ids=["alone", "with-a-child"])
def test_a_stream_that_is_open_when_the_process_ends(provider, ledger_path, arguments):
    """Streams left open at the end of a process, and of a forked child, are settled once, and it ends as without us."""

    def run(*more):
        # Python 3.12 warns of every fork beside a thread.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LEFT_OPEN, *arguments, *more]
        environment = {**os.environ, "PROVIDER": provider.url}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
        return done.returncode, done.stderr

    assert run() == run("bare")  # 0, but for Python 3.13.0, which crashes with such a stream
    with Ledger.from_file(ledger_path) as ledger:
        events = list(ledger.events)
    assert [(e.event_type, e.status, e.estimated) for e in events] == [("commit", "cancelled", True)] * (
        2 + len(arguments)
    )


def test_streams_side_by_side(provider, seen):
    """Streams that are read in turns are settled each with its own usage."""
    with make_client(provider, "openai") as client:
        streams = [create(client, "chat", stream=True, max_completion_tokens=tokens) for tokens in (20, 30)]
        while [item for stream in streams if (item := next(stream, None))]:
            pass
    assert sorted(event.usage["tokens_out"] for event in seen.of("commit")) == [20, 30]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_happens_after_the_last_event_is_no_error(provider, seen, flavour):
    """A server that is slow to close the connection after a stream's last event has answered well."""

    async def slow_to_close(content):
        yield content
        await asyncio.sleep(0.3)

    def answer(request):
        whole = canned(request)
        return {**whole, "content": slow_to_close(whole["content"])}

    async def work():
        http_client = mocked(FLAVOURS[flavour], answer, asynchronous=True)
        client = make_client(provider, FLAVOURS[flavour], asynchronous=True, http_client=http_client)
        async with client:
            stream = await create(client, flavour, stream=True)
            async for _ in stream:
                pass

    drive(work(), asynchronous=True)
    assert (seen.end.status, seen.end.estimated, seen.end.error_type) == ("ok", False, None)


@pytest.mark.parametrize(("flavour", "terminal"), [("chat", b"data: [DONE]"), ("messages", b"event: message_stop")])
def test_a_stream_without_its_terminal_event(provider, seen, flavour, terminal):
    """Some servers just end a stream after its last chunk: with a reason to finish in it, it is whole."""

    def answer(request):
        whole = canned(request)
        return {**whole, "content": iter([whole["content"].partition(terminal)[0]])}

    sdk = FLAVOURS[flavour]
    with make_client(provider, sdk, http_client=mocked(sdk, answer, asynchronous=False)) as client:
        assert len(list(create(client, flavour, stream=True))) > 4
    assert (seen.end.status, seen.end.estimated, seen.end.error_type) == ("ok", False, None)


class _Forever:
    def __await__(self):
        yield


def test_a_coroutine_that_is_thrown_away(provider, seen, caplog):
    """A call whose task is destroyed in the middle of it may have been billed: it is settled, and nothing is logged."""
    library = library_of("openai")

    async def never(_request):
        await _Forever()

    async def work():
        http_client = library.AsyncClient(transport=library.MockTransport(never))
        client = make_client(provider, "openai", asynchronous=True, http_client=http_client)
        client._platform = "Linux"  # else the SDK asks for it in a thread
        pending, context = create(client, "chat"), contextvars.copy_context()
        while (future := context.run(pending.send, None)) is not None:
            future._asyncio_future_blocking = False
            await future
        # The garbage collector closes a coroutine in whatever context it runs in.
        contextvars.Context().run(pending.close)

    with budget("5 USD", name="b") as entry:
        drive(work(), asynchronous=True)
        hold, end = seen.events
        assert (entry.spent, entry.held) == (hold.cost_est_usd, 0)
    assert (end.event_type, end.status, end.error_type, end.estimated) == ("commit", "cancelled", "GeneratorExit", True)
    assert not [record.message for record in caplog.records if record.name.startswith(("tollspan", "opentelemetry"))]
