"""What holds for every method of every SDK in the table: tests over the cases of the module that imports them.

A module of an SDK says what its methods are and what the provider sends, as `CASES`, and has `from contract import *`.
"""

import asyncio
import contextlib
import gc
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from wire_server import Reply, cut

from tollspan.budget import BudgetExceeded, CallRefused, budget
from tollspan.instrumentation import CALL_SITES, uncovered

__all__ = [
    "Case",
    "test_a_budget_refuses_before_anything_is_sent",
    "test_a_cut_answer",
    "test_a_refused_request_costs_nothing",
    "test_a_stream_that_is_left",
    "test_an_answer",
    "test_the_row_is_in_the_table",
    "test_without_us_again",
]


@dataclass(frozen=True)
class Case:
    """One way to call one method.

    `site` is the row that covers it: `module:Class.method`. `client` makes a client for the address of a server; where
    it has `close` or `aclose`, that is called in the end. `run` makes the call on it, and gives the answer, the stream,
    or what is awaited to one of them. `reply` is what the provider sends, and `usage` what that says. `refusal` is an
    error of the provider, as it words them. `shown` makes of an answer, or of an item of a stream, what is compared.
    `bounded` is False where no budget can be set for such a call without more being said. `cuttable` is False where the
    SDK does not notice that an answer ends before its end. `free` says that nobody bills it.
    """

    name: str
    site: str
    client: Callable[[str], Any]
    run: Callable[[Any], Any]
    reply: Any
    usage: Mapping[str, float] | None
    provider: str
    model: str | None
    operation: str = "chat"
    streams: bool = False
    asynchronous: bool = False
    refusal: Reply = field(default_factory=lambda: Reply({"error": {"message": "no", "type": "invalid"}}, status=400))
    shown: Callable[[Any], Any] = repr
    bounded: bool = True
    cuttable: bool = True
    free: bool = False

    @property
    def id(self):
        return f"{'async ' if self.asynchronous else ''}{self.name}".replace(" ", "-")


async def _awaited(value):
    return await value if inspect.isawaitable(value) else value


async def _closed(client):
    for name in ("aclose", "close"):
        close = getattr(client, name, None)
        if callable(close):
            with contextlib.suppress(Exception):
                await _awaited(close())
            return


def driven(case, server, use):
    """Make a client, call, and have `use` (a coroutine function) do something with what came."""

    async def work():
        client = case.client(server.url)
        try:
            result = await _awaited(case.run(client))
            return await use(result)
        finally:
            result = None
            await _closed(client)

    return _drive(work(), asynchronous=case.asynchronous)


def _drive(work, *, asynchronous):
    if asynchronous:
        return asyncio.run(work)
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a sync call must not suspend")


async def read(result):
    """All items of a stream."""
    if hasattr(result, "__aiter__"):
        return [item async for item in result]
    return list(result)


async def unchanged(result):
    """An answer as it came."""
    return result


def fully(case):
    """What reads the answer of a case to its end."""
    return read if case.streams else unchanged


async def first(result):
    """The first item of a stream."""
    if hasattr(result, "__aiter__"):
        async for item in result:
            return item
    else:
        for item in result:
            return item
    raise AssertionError("the stream is empty")


def seen_by_the_user(case, server):
    """Type and content of what the user gets; of an exception, its type and text."""

    async def use(result):
        if case.streams:
            return type(result), [case.shown(item) for item in await read(result)]
        return type(result), case.shown(result)

    try:
        return driven(case, server, use)
    except Exception as error:  # noqa: BLE001 - whichever it is, it is to be the same
        return type(error), str(error)


def test_an_answer(case, server, instrumented):
    """The answer is as without us; one commit has exactly what the provider says was used, and one span has it too."""
    server.reply = case.reply
    bare = seen_by_the_user(case, server)
    assert not (isinstance(bare[0], type) and issubclass(bare[0], BaseException)), bare
    asked = len(server.asked)
    with instrumented() as seen:
        assert seen_by_the_user(case, server) == bare
        event, (span,) = seen.end, seen.spans
    assert not uncovered
    assert event.event_type == "commit"
    assert (event.status, event.attempts, event.error_type) == ("ok", 1, None)
    assert (event.usage or None) == (dict(case.usage) if case.usage is not None else None)
    assert (event.provider, event.model, event.operation) == (case.provider, case.model, case.operation)
    assert (event.cost_source == "free") is case.free
    assert event.cost_source is not None
    assert event.cost_actual_usd == 0 or not case.free
    assert span.attributes["gen_ai.operation.name"] == case.operation
    assert span.attributes.get("gen_ai.usage.input_tokens") == (case.usage or {}).get("tokens_in")
    without_us, with_us = server.asked[:asked], server.asked[asked:]
    assert [(a.method, a.path, a.json) for a in with_us] == [(a.method, a.path, a.json) for a in without_us]


async def _in_another_thread(result):
    reader = threading.Thread(target=lambda: _drive(read(result), asynchronous=False))
    reader.start()
    reader.join()


async def _in_another_task(result):
    await asyncio.create_task(read(result))


async def _closed_early(result):
    await first(result)
    close = next((c for name in ("aclose", "close") if (c := getattr(result, name, None))), None)
    if close is None:
        pytest.skip("this stream cannot be closed")
    await _awaited(close())


async def _unread(result):
    pass


ENDINGS = {
    "closed": _closed_early,
    "dropped": first,
    "unread": _unread,
    "another thread": _in_another_thread,
    "another task": _in_another_task,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_stream_that_is_left(case, server, instrumented, ending):
    """However a stream ends, it is one commit; what it has used is known, or is an estimate, or is not known."""
    if not case.streams or ending == f"another {'thread' if case.asynchronous else 'task'}":
        pytest.skip("not for this kind of method")
    server.reply = case.reply
    with instrumented() as seen:
        driven(case, server, ENDINGS[ending])
        gc.collect()
        ends, open_holds = seen.of("commit", "cancel"), seen.open_holds
    if ending == "unread" and not server.asked:
        assert ends == []  # it would have been sent with the first step
        return
    (event,) = ends
    assert event.event_type == "commit"
    assert open_holds == 0
    if event.status == "ok":
        assert (event.usage or None) == (dict(case.usage) if case.usage is not None else None)
    else:
        assert event.status == "cancelled"
        assert event.usage or event.reason


def test_a_cut_answer(case, server, instrumented):
    """An answer that the network cuts is what it is without us, and is one commit: somebody will have to pay for it."""
    if not case.cuttable:
        pytest.skip("the SDK takes what came for the whole answer")
    server.reply = cut(case.reply) if isinstance(case.reply, Reply) else lambda asked: cut(case.reply(asked))
    kind, _ = seen_by_the_user(case, server)
    assert issubclass(kind, BaseException)
    with instrumented() as seen:
        assert seen_by_the_user(case, server)[0] is kind
        (event,) = seen.of("commit", "cancel")
    assert event.event_type == "commit"
    assert event.status in ("error", "cancelled")
    assert event.reason


def test_a_refused_request_costs_nothing(case, server, instrumented):
    """What the provider refuses raises what it raises without us, and is a cancel."""
    server.reply = case.refusal
    bare = seen_by_the_user(case, server)
    assert issubclass(bare[0], Exception)
    with instrumented() as seen:
        assert seen_by_the_user(case, server)[0] is bare[0]
        event = seen.end
    assert (event.event_type, event.status, event.http_status) == ("cancel", "error", case.refusal.status)
    assert event.spend_usd is None


def test_a_budget_refuses_before_anything_is_sent(case, server, instrumented):
    """A budget that has no room raises its own exception, whatever the SDK does with errors, and nothing is sent.

    What is free goes through all the same.
    """
    server.reply = case.reply

    raises = contextlib.nullcontext() if case.free else pytest.raises(BudgetExceeded if case.bounded else CallRefused)
    with instrumented() as seen:
        with budget("0.000000001 USD", name="tiny"), budget("1 tokens", name="few"), raises:
            driven(case, server, fully(case))
        gc.collect()
        assert len(server.asked) == case.free
        assert seen.open_holds == 0


def test_without_us_again(case, server, instrumented):
    """When the instrumentation is taken away, nothing is recorded any more."""
    server.reply = case.reply
    with instrumented() as seen:
        pass
    seen_by_the_user(case, server)
    assert seen.events == []


def test_the_row_is_in_the_table(case):
    """The row that a case says it drives is one of the table."""
    assert case.site in {f"{site.module}:{site.name}" for site in CALL_SITES}


# ---- for those modules that have such a thing


def attempts_of_one_call(case, server, instrumented, busy):
    """The provider is busy at first: the SDK's own repetition is seen, and the call is one commit."""
    server.reply = lambda _asked: busy if len(server.asked) == 1 else case.reply
    with instrumented() as seen:
        driven(case, server, fully(case))
        assert len(server.asked) == 2
        assert (seen.end.event_type, seen.end.attempts, dict(seen.end.usage)) == ("commit", 2, dict(case.usage))
        assert [event.http_status for event in seen.of("retry")] == [busy.status]


def settled_by_its_last_event(case, server, instrumented):
    """Whoever has the last event of a stream need neither read on nor close it for the call to be settled."""
    server.reply = case.reply

    async def look(result):
        items = aiter(result) if case.asynchronous else iter(result)
        for _ in case.reply.chunks:
            assert (await anext(items)) if case.asynchronous else next(items)
        event = seen.end
        assert await read(items) == []
        return event

    with instrumented() as seen:
        event = driven(case, server, look)
    assert (event.status, dict(event.usage)) == ("ok", case.usage)
