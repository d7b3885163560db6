"""The way of an attempt, the same for every HTTP library: budgets first, then the request, then a look at its answer.

Every attempt comes by here before it is sent, the SDK's own retries included. Requests to other endpoints pass after
one look at their path.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from importlib import import_module
from typing import Any, Protocol

import orjson
from opentelemetry.context import attach
from opentelemetry.trace import set_span_in_context

from tollspan.budget import CallRefused
from tollspan.exporter import pipeline
from tollspan.instrumentation import _semconv as sc
from tollspan.instrumentation._call import Call, Expected, current
from tollspan.instrumentation._fetches import fetch_of, overhear
from tollspan.instrumentation._patience import LIMITS, RATE_LIMITS, Waits, is_hopeless
from tollspan.instrumentation._readers import Fetch, Reader, reader_for_path
from tollspan.instrumentation._refusals import AttemptRefused
from tollspan.instrumentation._tap import HideUsage, Sink
from tollspan.instrumentation._wrappers import InForce, open_call
from tollspan.ledger import internal_errors

uncovered: Counter[str] = Counter()
"""Requests to known endpoints that no row of the table covers, by path; they are recorded all the same."""
_lock = threading.Lock()
_FIRST_ERROR = 400
_FIRST_SERVER_ERROR = 500


class Library(Protocol):
    """What there is to know of an HTTP library's requests and answers."""

    is_async: bool
    """Whether it awaits: then one method of an SDK may send several requests at a time."""

    def method(self, request: Any) -> str:
        """The HTTP method, in upper case."""
        ...

    def url(self, request: Any) -> Any:
        """The URL: anything with `scheme`, `host`, `port` and `path`."""
        ...

    def body(self, request: Any) -> bytes | None:
        """The body; None where it is streamed, and so cannot be sent a second time."""
        ...

    def is_changeable(self, request: Any) -> bool:
        """Whether its body may still be changed: not where it is signed."""
        ...

    def with_body(self, request: Any, body: bytes) -> Any:
        """The request with another body, of JSON."""
        ...

    def status(self, response: Any) -> int:
        """The HTTP status."""
        ...

    def headers(self, response: Any) -> Mapping[str, str]:
        """The headers of the answer; names in any case find them."""
        ...

    def content(self, response: Any) -> bytes | None:
        """The body of the answer where it is read already, else None."""
        ...

    def with_content(self, response: Any, content: bytes) -> Any:
        """An answer like this one, with another body."""
        ...

    def tap(self, response: Any, sink: Sink, hide: HideUsage | None) -> None:
        """Have the sink hear what is read from the answer."""
        ...


def is_signed(headers: Mapping[Any, Any]) -> bool:
    """Whether a request is signed as AWS wants it: its body cannot be changed after that."""
    return any(str(headers.get(name, "")).startswith("AWS4-") for name in ("authorization", "Authorization"))


class SyncLibrary(Library, Protocol):
    """One that blocks."""

    def finish(self, response: Any) -> None:
        """Read the rest of an answer that is not going to be handed on, and let go of its connection."""
        ...


class AsyncLibrary(Library, Protocol):
    """One that awaits."""

    async def finish(self, response: Any) -> None:
        """Read the rest of an answer that is not going to be handed on, and let go of its connection."""
        ...


def exchange(library: SyncLibrary, send: Callable[[Any], Any], request: Any) -> Any:
    """Send a request, with all that has to be done before and after. Gives the answer to hand on."""
    method = library.method(request)
    reader = reader_for_path(library.url(request).path) if method == "POST" else None
    if reader is None:
        fetch = fetch_of(method, library.url(request).path)
        response = send(request)
        return response if fetch is None else _overheard(library, fetch, request, response)
    call, is_new = _call_for(library, reader, request)
    if call is None or call.sending is not None:
        return send(request)
    if is_new:
        _admit_new(call)
        request = _prepared(library, call, request)
    waits = _waits_of(call)
    call.before_attempt(_size(library, request))
    own = current() is None
    with InForce(call) if own else nullcontext():
        while True:
            call.sending = library
            try:
                response = send(request)
            except BaseException as error:
                call.broke(error)
                raise
            finally:
                call.sending = None
            if waits is None or not _waited(waits, library, call, request, response):
                break
            call.before_attempt(_size(library, request))
    return _answered(library, call, response, own=own)


async def aexchange(library: AsyncLibrary, send: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """As `exchange`, from a task."""
    method = library.method(request)
    reader = reader_for_path(library.url(request).path) if method == "POST" else None
    if reader is None:
        fetch = fetch_of(method, library.url(request).path)
        response = await send(request)
        return response if fetch is None else _overheard(library, fetch, request, response)
    call, is_new = _call_for(library, reader, request)
    if call is None or call.sending is not None:
        return await send(request)
    if is_new:
        await _aadmit_new(call)
        request = _prepared(library, call, request)
    waits = _waits_of(call)
    await call.abefore_attempt(_size(library, request))
    own = current() is None
    with InForce(call) if own else nullcontext():
        while True:
            call.sending = library
            try:
                response = await send(request)
            except BaseException as error:
                call.broke(error)
                raise
            finally:
                call.sending = None
            if waits is None or not await _awaited(waits, library, call, request, response):
                break
            await call.abefore_attempt(_size(library, request))
    return _answered(library, call, response, own=own)


# ---- whose request it is


def _call_for(library: Library, reader: Reader, request: Any) -> tuple[Call | None, bool]:
    """The call that this request belongs to, and whether it was opened just now."""
    here = current()
    if isinstance(here, Call):
        return here, False
    if here is not None and here.call is not None:
        beside = library.is_async and here.call.sending is library
        if not here.call.is_over and not beside:
            return here.call, False
        if not beside:
            here.call.returned(None)
    content = library.body(request)
    body = _object(content)
    if here is None and body and reader.asked_keys and reader.asked_keys.isdisjoint(body):
        return None, False
    url = library.url(request)
    reader = (here.reader if here is not None else None) or reader
    vendor = here.vendor if here is not None else None
    # What is no JSON object, such as a form, has nothing in it that could be changed here; a raw request is the user's.
    changeable = here is not None and bool(body) and library.is_changeable(request)
    call = open_call(reader, url, body, url.path, vendor=vendor, changeable=changeable)
    if here is None:
        _note_uncovered(call, url.path)
    elif call is not None:
        _expected(here, call)
    return call, True


def _expected(here: Expected, call: Call) -> None:
    here.call = call
    attach(set_span_in_context(call.span))  # until the expectation's own token is taken back


def _note_uncovered(call: Call | None, path: str) -> None:
    with _lock:
        uncovered[path] += 1
    if call is not None:
        call.record.category = "uncovered"
        call.span.set_attribute(sc.UNCOVERED, True)


def _object(content: bytes | None) -> dict[str, Any]:
    """The JSON object of a request; a body that streams or is none tells nothing, and is not ours to complain about."""
    try:
        body = orjson.loads(content or b"")
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _size(library: Library, request: Any) -> int | None:
    content = library.body(request)
    return None if content is None else len(content)


# ---- before it is sent


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


def _prepared(library: Library, call: Call, request: Any) -> Any:
    """The request with what admission and accounting need changed in its body."""
    if not call.changeable:
        return request
    with internal_errors:
        body = _object(library.body(request))
        if body and (changed := call.prepared(body)) is not body:
            return library.with_body(request, orjson.dumps(changed))
    return request


# ---- waiting for the provider


def _waits_of(call: Call) -> Waits | None:
    """The waits of a call for its provider, counted from its first attempt; None where this process does not wait."""
    patience = RATE_LIMITS.patience(pipeline().settings)
    if patience is None:
        return None
    if call.waits is None:
        call.waits = Waits(patience)
    return call.waits


def _waited(waits: Waits, library: SyncLibrary, call: Call, request: Any, response: Any) -> bool:
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


async def _awaited(waits: Waits, library: AsyncLibrary, call: Call, request: Any, response: Any) -> bool:
    """As _waited, from a task."""
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


# ---- afterwards


def _answered(library: Library, call: Call, response: Any, *, own: bool) -> Any:
    """Read an answer that is here already, or put a tap on one that is still to come. Gives the answer to hand on."""
    with internal_errors:
        content = library.content(response)
        if content is None:
            _listen(library, call, response)
        else:
            response = _answered_whole(library, call, response, content)
        if own:
            call.returned(response)
    return response


def _answered_whole(library: Library, call: Call, response: Any, content: bytes) -> Any:
    """A body that was read while it was sent for, or one that a mock transport made whole."""
    status, headers = library.status(response), library.headers(response)
    if not call.facts.stream:
        call.answered(status, content, headers)
        return response
    sink = call.listen(status, headers)
    sink.take(content)
    sink.end()
    hide = HideUsage()
    shown = hide(content) + hide.rest() if call.hide else content
    return response if shown == content else library.with_content(response, shown)


def _listen(library: Library, call: Call, response: Any) -> None:
    status, headers = library.status(response), library.headers(response)
    is_json = status >= _FIRST_SERVER_ERROR and "json" in headers.get("content-type", "")
    sink = call.listen(status, headers, is_json=is_json)
    sink.encoding = headers.get("content-encoding", sink.encoding)
    # A compressed stream is read at its end like any other, but cannot be rewritten on its way.
    library.tap(response, sink, HideUsage() if call.hide and sink.encoding == "identity" else None)


def _overheard(library: Library, fetch: Fetch, request: Any, response: Any) -> Any:
    """Count what a fetched answer has used, now or when it has been read."""
    with internal_errors:
        if library.status(response) < _FIRST_ERROR:
            sink = overhear(fetch, library.url(request), library.content(response))
            if sink is not None:
                sink.encoding = library.headers(response).get("content-encoding", sink.encoding)
                library.tap(response, sink, None)
    return response
