"""However a stream ends, its call is settled exactly once, and the user sees the ending that the SDK makes of it."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.trace import get_current_span
from sdk_calls import FLAVOURS, KINDS, create, drive, listed, make_client, next_of, resolved

from tollspan.budget import budget, reach
from tollspan.instrumentation._call import CURRENT


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


async def _stream_ends(provider, flavour, ending, *, asynchronous):
    client = make_client(provider, FLAVOURS[flavour], asynchronous=asynchronous)
    try:
        stream = await resolved(
            create(client, flavour, stream=True, extra_headers={"x-local-provider": ending.fault})
        )
        await ending.treat(stream)
        del stream
        # openai's stream is in a reference cycle of its own: also without us, it ends with the garbage collection.
        gc.collect()
        await asyncio.sleep(0) if asynchronous else None
    finally:
        await resolved(client.close())


@KINDS
@pytest.mark.parametrize("strict", [False, True], ids=["unbudgeted", "strict"])
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda e: e.name.replace(" ", "-"))
def test_ending(provider, seen, caplog, ending, flavour, strict, asynchronous):
    """One settlement with the right status, an estimate where usage never came, no open hold, and not a word in the log."""
    if ending.only not in (None, asynchronous):
        pytest.skip("an ending of the other kind of stream")
    caplog.set_level(logging.WARNING)
    with budget("5 USD", name="b") if strict else contextlib.nullcontext():
        drive(_stream_ends(provider, flavour, ending, asynchronous=asynchronous), asynchronous=asynchronous)
    event = seen.end
    assert (event.event_type, event.status, event.error_type) == ("commit", ending.status, ending.error_type)
    assert event.estimated == (ending.status != "ok")
    assert event.http_status == 200
    _check_money(event, provider.billed[-1], strict=strict, seen=seen)
    (span,) = seen.spans
    assert span.attributes["tollspan.event_id"] == event.event_id
    assert not [record.message for record in caplog.records if record.name.startswith(("tollspan", "opentelemetry"))]
    assert CURRENT.get() is None
    assert not reach().entries
    assert not get_current_span().get_span_context().is_valid


def _check_money(event, bill, *, strict, seen):
    assert seen.open_holds == 0
    kinds = [e.event_type for e in seen.events]
    assert kinds == (["precheck_hold", "commit"] if strict else ["commit"])
    if not event.estimated:
        assert event.usage == {"tokens_in": bill.input_tokens, "tokens_out": bill.output_tokens}
        return
    assert not event.usage
    assert event.cost_actual_usd is None
    assert event.cost_est_usd > 0
    if strict:
        hold, commit = seen.events
        assert commit.cost_est_usd == hold.cost_est_usd
        assert commit.charges == hold.charges
