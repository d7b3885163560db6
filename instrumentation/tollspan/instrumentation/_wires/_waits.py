"""Waiting for a provider's rate limit, between two attempts of which the SDK sees the second one only."""

import asyncio
import time
from contextlib import suppress
from importlib import import_module
from typing import Any

from tollspan.exporter import pipeline
from tollspan.instrumentation._call import Call
from tollspan.instrumentation._patience import LIMITS, RATE_LIMITS, Waits, is_hopeless
from tollspan.instrumentation._wires._library import AsyncLibrary, Library, SyncLibrary
from tollspan.ledger import internal_errors


def waits_of(call: Call) -> Waits | None:
    """The waits of a call for its provider, counted from its first attempt; None where this process does not wait."""
    patience = RATE_LIMITS.patience(pipeline().settings)
    if patience is None:
        return None
    if call.waits is None:
        call.waits = Waits(patience)
    return call.waits


def waited(waits: Waits, library: SyncLibrary, call: Call, request: Any, response: Any) -> bool:
    """Wait for the provider's rate limit; False, at once, where this answer is to be handed on."""
    pause = _pause(waits, library, call, request, response)
    if pause is None:
        return False
    library.finish(response)
    if _is_hopeless(library, call, response):
        return False
    began = time.perf_counter()
    time.sleep(pause)
    call.waited((time.perf_counter() - began) * 1000)
    return True


async def awaited(waits: Waits, library: AsyncLibrary, call: Call, request: Any, response: Any) -> bool:
    """As waited, from a task."""
    pause = _pause(waits, library, call, request, response)
    if pause is None:
        return False
    await library.finish(response)
    if _is_hopeless(library, call, response):
        return False
    began = time.perf_counter()
    await _asleep(pause)
    call.waited((time.perf_counter() - began) * 1000)
    return True


def _pause(waits: Waits, library: Library, call: Call, request: Any, response: Any) -> float | None:
    """Seconds to wait before this request is sent again; None where it is not."""
    status = library.status(response)
    if status not in LIMITS or library.body(request) is None:
        return None
    with internal_errors:
        call.answered(status, None)
        return waits.pause(status, library.headers(response), attempts=call.record.attempts)
    return None


def _is_hopeless(library: Library, call: Call, response: Any) -> bool:
    body = library.content(response) or b""
    call.answered(library.status(response), body)
    return is_hopeless(body)


async def _asleep(seconds: float) -> None:
    loop = None
    with suppress(RuntimeError):
        loop = asyncio.get_running_loop()
    # Another kind of loop, such as trio's, is what httpx has brought anyio along for.
    await (asyncio.sleep(seconds) if loop else import_module("anyio").sleep(seconds))
