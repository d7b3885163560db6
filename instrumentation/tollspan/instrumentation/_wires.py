"""The wire: every attempt passes here before it is sent, the SDK's own retries included, and every answer passes back.

One public method is wrapped for each HTTP library: `Client.send` and `AsyncClient.send`. Requests to other endpoints
pass after one look at their path.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import orjson
from opentelemetry.context import attach
from opentelemetry.trace import set_span_in_context

from tollspan.budget import CallRefused
from tollspan.exporter import pipeline
from tollspan.ledger import internal_errors

from . import _semconv as sc
from ._call import Call, current
from ._drain import drainable
from ._fetches import is_fetch, overheard
from ._patience import LIMITS, RATE_LIMITS, Waits, is_hopeless
from ._readers import Reader, reader_for_path
from ._refusals import AttemptRefused
from ._tap import AsyncTap, HideUsage, Tap, tap_class
from ._wrappers import InForce, Wrapper, open_call

uncovered: Counter[str] = Counter()
"""Requests to known endpoints that no row of the table covers, by path; they are recorded all the same."""
_lock = threading.Lock()
_ASKED = frozenset({"input", "messages", "model", "prompt"})
"""What the body of a request to a model has; other services have paths that end in `/responses`, too."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One HTTP library: its module, and the two classes whose `send` carries the requests."""

    module: str
    sync_client: str = "Client"
    async_client: str = "AsyncClient"


WIRES = (Wire("httpx2"), Wire("httpx"))


def send_wrapper(library: ModuleType) -> Wrapper:
    """The wrapper of `Client.send` of httpx or httpx2."""
    tap = tap_class(Tap, library.SyncByteStream)

    def send(wrapped: Callable[..., Any], _client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = args[0] if args else kwargs["request"]
        reader = _reader(request)
        if reader is None:
            response = wrapped(*args, **kwargs)
            return overheard(request, response, tap) if is_fetch(request) else response
        call, is_new = _call_for(reader, request)
        if call is None:
            return wrapped(*args, **kwargs)
        if is_new:
            _admit_new(call)
        waits = _waits_of(call)
        call.before_attempt(_size(request))
        own = current() is None
        with InForce(call) if own else nullcontext():
            while True:
                try:
                    response = wrapped(*args, **kwargs)
                except BaseException as error:
                    call.broke(error)
                    raise
                if waits is None or not _waited(waits, call, request, response):
                    break
                call.before_attempt(_size(request))
        return _answered(call, library, response, tap, own=own)

    return send


def async_send_wrapper(library: ModuleType) -> Wrapper:
    """The wrapper of `AsyncClient.send` of httpx or httpx2."""
    tap = tap_class(AsyncTap, library.AsyncByteStream)

    async def send(
        wrapped: Callable[..., Awaitable[Any]],
        _client: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        request = args[0] if args else kwargs["request"]
        reader = _reader(request)
        if reader is None:
            response = await wrapped(*args, **kwargs)
            return overheard(request, response, tap) if is_fetch(request) else response
        call, is_new = _call_for(reader, request)
        if call is None:
            return await wrapped(*args, **kwargs)
        if is_new:
            await _aadmit_new(call)
        waits = _waits_of(call)
        await call.abefore_attempt(_size(request))
        own = current() is None
        with InForce(call) if own else nullcontext():
            while True:
                try:
                    response = await wrapped(*args, **kwargs)
                except BaseException as error:
                    call.broke(error)
                    raise
                if waits is None or not await _awaited(waits, call, request, response):
                    break
                await call.abefore_attempt(_size(request))
        return _answered(call, library, response, tap, own=own)

    return send


def _reader(request: Any) -> Reader | None:
    return reader_for_path(request.url.path) if request.method == "POST" else None


def _size(request: Any) -> int | None:
    """How many bytes the request has; None where its body is streamed."""
    content = getattr(request, "_content", None)
    return None if content is None else len(content)


def _call_for(reader: Reader, request: Any) -> tuple[Call | None, bool]:
    """The call that this request belongs to, and whether it was opened just now."""
    here = current()
    if isinstance(here, Call):
        return here, False
    if here is not None and here.call is not None:
        return here.call, False
    body = _body(request)
    if here is None and body and _ASKED.isdisjoint(body):
        return None, False
    call = open_call(reader, request.url, body, clampable=False)
    if here is None:
        _note_uncovered(call, request.url.path)
    elif call is not None:
        here.call = call
        attach(set_span_in_context(call.span))  # until the expectation's own token is taken back
    return call, True


def _note_uncovered(call: Call | None, path: str) -> None:
    with _lock:
        uncovered[path] += 1
    if call is not None:
        call.record.category = "uncovered"
        call.span.set_attribute(sc.UNCOVERED, True)


def _body(request: Any) -> dict[str, Any]:
    try:
        body = orjson.loads(request.content)
    except Exception:  # noqa: BLE001 - a body that streams or is no JSON tells nothing, and is not ours to complain about
        return {}
    return body if isinstance(body, dict) else {}


def _admit_new(call: Call) -> None:
    try:
        call.admit()
    except CallRefused as refusal:
        if current() is None:
            raise
        raise AttemptRefused(refusal) from None


async def _aadmit_new(call: Call) -> None:
    try:
        await call.aadmit()
    except CallRefused as refusal:
        if current() is None:
            raise
        raise AttemptRefused(refusal) from None


def _waits_of(call: Call) -> Waits | None:
    """The waits of a call for its provider, counted from its first attempt; None where this process does not wait."""
    patience = RATE_LIMITS.patience(pipeline().settings)
    if patience is None:
        return None
    if call.waits is None:
        call.waits = Waits(patience)
    return call.waits


def _waited(waits: Waits, call: Call, request: Any, response: Any) -> bool:
    """Wait for the provider's rate limit; False, at once, where this answer is to be handed on."""
    pause = _pause(waits, call, request, response)
    if pause is None:
        return False
    try:
        with suppress(Exception):  # an error that cannot be read tells no more than its status
            response.read()
    finally:
        response.close()
    if _is_hopeless(call, response):
        return False
    began = time.perf_counter()
    time.sleep(pause)
    call.waited((time.perf_counter() - began) * 1000)
    return True


async def _awaited(waits: Waits, call: Call, request: Any, response: Any) -> bool:
    """As _waited, from a task."""
    pause = _pause(waits, call, request, response)
    if pause is None:
        return False
    try:
        with suppress(Exception):
            await response.aread()
    finally:
        await response.aclose()
    if _is_hopeless(call, response):
        return False
    began = time.perf_counter()
    await _asleep(pause)
    call.waited((time.perf_counter() - began) * 1000)
    return True


def _pause(waits: Waits, call: Call, request: Any, response: Any) -> float | None:
    """Seconds to wait before this request is sent again; None where it is not."""
    status = response.status_code
    if status not in LIMITS or _size(request) is None:  # a body that is streamed cannot be sent again
        return None
    with internal_errors:
        call.answered(status, None)
        return waits.pause(status, response.headers, attempts=call.record.attempts)
    return None


def _is_hopeless(call: Call, response: Any) -> bool:
    body = response.content if hasattr(response, "_content") else b""
    call.answered(response.status_code, body)
    return is_hopeless(body)


async def _asleep(seconds: float) -> None:
    loop = None
    with suppress(RuntimeError):
        loop = asyncio.get_running_loop()
    # Another kind of loop, such as trio's, is what httpx has brought anyio along for.
    await (asyncio.sleep(seconds) if loop else import_module("anyio").sleep(seconds))


def _answered(call: Call, library: ModuleType, response: Any, tap: type[Any], *, own: bool) -> Any:
    """Read an answer that is here already, or put a tap on one that is still to come. Gives the response to hand on."""
    with internal_errors:
        if hasattr(response, "_content"):
            response = _answered_whole(call, library, response)
        else:
            _listen(call, library, response, tap)
        if own:
            call.returned(response)
    return response


def _answered_whole(call: Call, library: ModuleType, response: Any) -> Any:
    """A body that was read inside `send`, or one that a mock transport made whole."""
    content = response.content
    if not call.facts.stream:
        call.answered(response.status_code, content)
        return response
    sink = call.listen(response.status_code)
    sink.take(content)
    sink.end()
    hide = HideUsage()
    shown = hide(content) + hide.rest() if call.hide else content
    if shown == content:
        return response
    headers = [(k, v) for k, v in response.headers.multi_items() if k not in ("content-encoding", "content-length")]
    return library.Response(
        response.status_code,
        headers=headers,
        content=shown,
        request=response.request,
        extensions=response.extensions,
        history=response.history,
        default_encoding=response.default_encoding,
    )


def _listen(call: Call, library: ModuleType, response: Any, tap: type[Any]) -> None:
    status, headers = response.status_code, response.headers
    is_json = status >= 500 and "json" in headers.get("content-type", "")  # noqa: PLR2004 - HTTP: the server's errors
    sink = call.listen(status, is_json=is_json)
    sink.encoding = headers.get("content-encoding", sink.encoding)
    # A compressed stream is read at its end like any other, but cannot be rewritten on its way.
    hide = HideUsage() if call.hide and sink.encoding == "identity" else None
    stream = response.stream
    if sink.is_complete is not None:
        stream = drainable(response, sink, library.ReadError, is_async=issubclass(tap, AsyncTap))
    response.stream = tap(stream, sink, hide)
