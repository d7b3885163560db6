"""What stands around an SDK's method: open the call, let the SDK work, close the call. Results pass untouched."""

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any

from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from tollspan.exporter import CURRENT, pipeline
from tollspan.ledger import internal_errors

from ._call import Call, Expected, current
from ._calls import CallSite
from ._readers import Reader
from ._refusals import AttemptRefused

Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]


def wrapper_for(site: CallSite) -> Wrapper:
    """The wrapper of a call site, for wrapt."""
    makers = {"call": _call, "async call": _async_call, "enter": _enter, "async enter": _async_enter}
    return makers[site.kind](site)


def open_call(reader: Reader, url: Any, arguments: Mapping[str, Any], *, clampable: bool) -> Call | None:
    """A new call to the host of `url`; None where something of ours went wrong: then the SDK works as without us."""
    with internal_errors:
        return Call(pipeline(), reader, url, reader.request(arguments), clampable=clampable)
    return None


def _open(site: CallSite, resource: Any, arguments: Mapping[str, Any]) -> Call | None:
    """A new call of a method of an SDK's resource; None inside of another call, and where something went wrong."""
    if current() is not None:
        return None
    with internal_errors:
        # Where the client sends its requests: every resource of these SDKs has it, and nothing public tells it.
        return open_call(site.reader, resource._client.base_url, arguments, clampable=site.clampable)  # noqa: SLF001
    return None


class InForce:
    """While a call is in force, the wire reports to it and its span is the current one. An exception ends the call.

    Where a budget has refused an attempt, its refusal takes the place of the exception that carried it up.
    """

    __slots__ = ("_call", "_context")

    def __init__(self, call: Call | Expected) -> None:
        self._call = call
        # A call that is only expected makes its span current later: this token takes that back, too.
        span = call.span if isinstance(call, Call) else INVALID_SPAN
        self._context = attach(get_current() if span is INVALID_SPAN else set_span_in_context(span))
        call.in_force = True
        CURRENT.set(call)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.in_force = False
        # The garbage collector throws a pending coroutine away in whatever context it happens to run in.
        if CURRENT.get() is self._call:
            CURRENT.set(None)
            detach(self._context)
        if error is None:
            return
        call = self._call if isinstance(self._call, Call) else self._call.call
        if call is not None and isinstance(error, GeneratorExit):
            call.destroyed(error)
        elif call is not None:
            call.failed(error.refusal if isinstance(error, AttemptRefused) else error)
        if isinstance(error, AttemptRefused):
            raise error.refusal from error.__cause__


def _call(site: CallSite) -> Wrapper:
    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = _open(site, instance, kwargs)
        if call is None:
            return wrapped(*args, **kwargs)
        call.admit()
        kwargs = call.prepared(kwargs)
        with InForce(call):
            result = wrapped(*args, **kwargs)
        call.returned(result)
        return result

    return wrapper


def _async_call(site: CallSite) -> Wrapper:
    async def wrapper(
        wrapped: Callable[..., Awaitable[Any]], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = _open(site, instance, kwargs)
        if call is None:
            return await wrapped(*args, **kwargs)
        await call.aadmit()
        kwargs = call.prepared(kwargs)
        with InForce(call):
            result = await wrapped(*args, **kwargs)
        call.returned(result)
        return result

    return wrapper


def _enter(site: CallSite) -> Wrapper:
    def wrapper(wrapped: Callable[..., Any], _manager: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if current() is not None:
            return wrapped(*args, **kwargs)
        expected = Expected(site.reader)
        with InForce(expected):
            result = wrapped(*args, **kwargs)
        if expected.call is not None:
            expected.call.returned(result)
        return result

    return wrapper


def _async_enter(site: CallSite) -> Wrapper:
    async def wrapper(
        wrapped: Callable[..., Awaitable[Any]], _manager: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if current() is not None:
            return await wrapped(*args, **kwargs)
        expected = Expected(site.reader)
        with InForce(expected):
            result = await wrapped(*args, **kwargs)
        if expected.call is not None:
            expected.call.returned(result)
        return result

    return wrapper
