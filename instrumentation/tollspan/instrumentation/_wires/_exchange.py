"""The way of an attempt, the same for every HTTP library: budgets first, then the request, then a look at its answer.

Every attempt comes by here before it is sent, the SDK's own retries included. Requests to other endpoints pass after
one look at their path.
"""

import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import set_span_in_context

from tollspan.budget import CallRefused
from tollspan.instrumentation import _semconv as sc
from tollspan.instrumentation._call import Call, Expected, current
from tollspan.instrumentation._content import CAPTURE
from tollspan.instrumentation._fetches import fetch_of, overhear
from tollspan.instrumentation._opening import open_call
from tollspan.instrumentation._outcomes import FIRST_ERROR
from tollspan.instrumentation._readers import Fetch, Reader, reader_for_path
from tollspan.instrumentation._refusals import AttemptRefused
from tollspan.instrumentation._tap import HideUsage
from tollspan.instrumentation._wires._counts import aask, ask
from tollspan.instrumentation._wires._library import AsyncLibrary, Library, SyncLibrary
from tollspan.instrumentation._wires._waits import awaited, waited, waits_of
from tollspan.instrumentation._wrappers import InForce
from tollspan.ledger import internal_errors

if TYPE_CHECKING:
    from contextvars import Token

uncovered: Counter[str] = Counter()
"""Requests to known endpoints that no row of the table covers, by path; they are recorded all the same."""
_lock = threading.Lock()
_FORM = re.compile(rb"[A-Za-z_]\w*=")
_FIRST_SERVER_ERROR = 500


def exchange(library: SyncLibrary, send: Callable[[Any], Any], request: Any) -> Any:
    """Send a request, with all that has to be done before and after. Gives the answer to hand on."""
    reader = _reader_of(library, request)
    if reader is None:
        fetch = fetch_of(library.method(request), library.url(request).path)
        response = send(request)
        return response if fetch is None else _overheard(library, fetch, request, response)
    call, body = _call_for(library, reader, request)
    if call is None or call.sending is not None:
        return send(request)
    if body is not None:
        ask(library, send, call, request, body)
        _admit_new(call)
    if call.on_wire:
        request = _prepared(library, call, request, body)
    waits = waits_of(call)
    call.before_attempt(_size(library, call, request))
    own = current() is None
    with InForce(call) if own else _Inside(call):
        while True:
            call.sending = library
            try:
                response = send(request)
            except BaseException as error:
                call.broke(error)
                raise
            finally:
                call.sending = None
            if waits is None or not waited(waits, library, call, request, response):
                break
            call.before_attempt(_size(library, call, request))
    return _answered(library, call, response, own=own)


async def aexchange(library: AsyncLibrary, send: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """As `exchange`, from a task."""
    reader = _reader_of(library, request)
    if reader is None:
        fetch = fetch_of(library.method(request), library.url(request).path)
        response = await send(request)
        return response if fetch is None else _overheard(library, fetch, request, response)
    call, body = _call_for(library, reader, request)
    if call is None or call.sending is not None:
        return await send(request)
    if body is not None:
        await aask(library, send, call, request, body)
        await _aadmit_new(call)
    if call.on_wire:
        request = _prepared(library, call, request, body)
    waits = waits_of(call)
    await call.abefore_attempt(_size(library, call, request))
    own = current() is None
    with InForce(call) if own else _Inside(call):
        while True:
            call.sending = library
            try:
                response = await send(request)
            except BaseException as error:
                call.broke(error)
                raise
            finally:
                call.sending = None
            if waits is None or not await awaited(waits, library, call, request, response):
                break
            await call.abefore_attempt(_size(library, call, request))
    return _answered(library, call, response, own=own)


class _Inside:
    """Around an attempt of an expected call: its span is the current one, and no longer than that.

    What a method does after its request, such as telling callbacks of it, is done in its caller's context.
    """

    __slots__ = ("_call", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        if isinstance(current(), Expected):
            self._token = attach(set_span_in_context(self._call.span))

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            detach(self._token)


# ---- whose request it is


def _reader_of(library: Library, request: Any) -> Reader | None:
    """The reader of the flavour that a path speaks; else that of the call site, where the body is of its kind."""
    with internal_errors:
        if library.method(request) != "POST":
            return None
        found = reader_for_path(library.url(request).path)
        if found is None and (reader := _reader_here()) is not None:
            return reader if _asks(reader, library.body(request)) else None
        return found
    return None


def _reader_here() -> Reader | None:
    """The reader that the call site names for what is first seen, or only then admitted, on the wire."""
    here = current()
    return here.reader if isinstance(here, Expected) or (here is not None and here.unadmitted) else None


def _asks(reader: Reader, content: bytes | None) -> bool:
    """Whether a body may be a request of this flavour: an SDK also asks for its credentials while it sends."""
    body = _object(content)
    if body:
        return not reader.asked_keys or not reader.asked_keys.isdisjoint(body)
    return _FORM.match(content or b"") is None


def _call_for(library: Library, reader: Reader, request: Any) -> tuple[Call | None, dict[str, Any] | None]:
    """The call that this request belongs to, and, where it is to be admitted now, the JSON object that it is."""
    with internal_errors:
        return _known_or_new(library, reader, request)
    return None, None


def _known_or_new(library: Library, reader: Reader, request: Any) -> tuple[Call | None, dict[str, Any] | None]:
    here = current()
    if isinstance(here, Call):
        return here, _object(library.body(request)) if here.admitted_on_wire() else None
    if here is not None and here.call is not None:
        beside = library.is_async and here.call.sending is library
        if not here.call.is_over and not beside:
            return here.call, None
        if not beside:
            here.call.returned(None)
    content = library.body(request)
    body = _object(content)
    is_json = bool(body) or content == b"{}"
    if here is None and is_json and reader.asked_keys and reader.asked_keys.isdisjoint(body):
        return None, None
    url = library.url(request)
    reader = (here.reader if here is not None else None) or reader
    vendor = here.vendor if here is not None else None
    # What is no JSON object, such as a form, has nothing in it that could be changed here; a raw request is the user's.
    changeable = here is not None and bool(body) and library.is_changeable(request)
    call = open_call(reader, url, body, url.path, vendor=vendor, changeable=changeable)
    if here is None:
        _note_uncovered(call, url.path)
    elif call is not None:
        here.call = call
    if call is not None:
        call.on_wire = True
    return call, body


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


def _size(library: Library, call: Call, request: Any) -> int | None:
    with internal_errors:
        content = library.body(request)
        if CAPTURE.active:
            call.asked = content
        return None if content is None else len(content)
    return None


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


def _prepared(library: Library, call: Call, request: Any, body: dict[str, Any] | None) -> Any:
    """The request with what admission and accounting need changed in its body: an SDK repeats it as it made it."""
    if not call.changeable:
        return request
    with internal_errors:
        body = _object(library.body(request)) if body is None else body
        if (changed := call.prepared(body)) is not body:
            return library.with_body(request, orjson.dumps(changed))
    return request


# ---- afterwards


def _answered(library: Library, call: Call, response: Any, *, own: bool) -> Any:
    """Read an answer that is here already, or put a tap on one that is still to come. Gives the answer to hand on."""
    with internal_errors:
        content = library.content(response)
        # Some requests ask for a stream by a header alone.
        if "event-stream" in library.headers(response).get("content-type", ""):
            call.facts.stream = True
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
        _settle_start()
        if library.status(response) < FIRST_ERROR:
            sink = overhear(fetch, library.url(request), library.content(response))
            if sink is not None:
                sink.encoding = library.headers(response).get("content-encoding", sink.encoding)
                library.tap(response, sink, None)
    return response


def _settle_start() -> None:
    """What a method polls for, it has started: that is in the ledger before what the poll tells of it."""
    here = current()
    if isinstance(here, Expected) and here.call is not None and here.call.is_over:
        here.call.returned(None)
