"""What stands around an SDK's method: open the call, let the SDK work, close the call. Results pass untouched."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

from opentelemetry.context import attach, detach
from opentelemetry.trace import set_span_in_context

from tollspan.exporter import pipeline
from tollspan.ledger import internal_errors

from ._call import CURRENT, AttemptRefused, Call, Expected
from ._calls import CallSite
from ._readers import Reader

Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]


def wrapper_for(site: CallSite) -> Wrapper:
    """The wrapper of a call site, for wrapt."""
    makers = {"call": _call, "async call": _async_call, "enter": _enter, "async enter": _async_enter}
    return makers[site.kind](site.reader)


def open_call(reader: Reader, url: Any, arguments: Mapping[str, Any], *, clampable: bool) -> Call | None:
    """A new call to the host of `url`; None where something of ours went wrong, and then the SDK works as without us."""
    with internal_errors:
        return Call(pipeline(), reader, url, reader.request(arguments), clampable=clampable)
    return None


def _call(reader: Reader) -> Wrapper:
    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = None if CURRENT.get() else open_call(reader, instance._client.base_url, kwargs, clampable=True)  # noqa: SLF001 - every resource of these SDKs has it
        if call is None:
            return wrapped(*args, **kwargs)
        call.admit()
        kwargs = call.prepared(kwargs)
        context = attach(set_span_in_context(call.span))
        CURRENT.set(call)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            _failed(call, error)
        finally:
            CURRENT.set(None)
            detach(context)
        call.returned(result)
        return result

    return wrapper


def _async_call(reader: Reader) -> Wrapper:
    async def wrapper(
        wrapped: Callable[..., Awaitable[Any]], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = None if CURRENT.get() else open_call(reader, instance._client.base_url, kwargs, clampable=True)  # noqa: SLF001 - every resource of these SDKs has it
        if call is None:
            return await wrapped(*args, **kwargs)
        await call.aadmit()
        kwargs = call.prepared(kwargs)
        context = attach(set_span_in_context(call.span))
        CURRENT.set(call)
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            _failed(call, error)
        finally:
            CURRENT.set(None)
            detach(context)
        call.returned(result)
        return result

    return wrapper


def _enter(reader: Reader) -> Wrapper:
    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ARG001 - wrapt's signature
        if CURRENT.get():
            return wrapped(*args, **kwargs)
        expected = Expected(reader)
        CURRENT.set(expected)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            _failed(expected.call, error)
        finally:
            CURRENT.set(None)
        _returned(expected.call, result)
        return result

    return wrapper


def _async_enter(reader: Reader) -> Wrapper:
    async def wrapper(
        wrapped: Callable[..., Awaitable[Any]],
        instance: Any,  # noqa: ARG001 - wrapt's signature
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if CURRENT.get():
            return await wrapped(*args, **kwargs)
        expected = Expected(reader)
        CURRENT.set(expected)
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            _failed(expected.call, error)
        finally:
            CURRENT.set(None)
        _returned(expected.call, result)
        return result

    return wrapper


def _returned(call: Call | None, result: Any) -> None:
    if call is not None:
        call.returned(result)


def _failed(call: Call | None, error: BaseException) -> NoReturn:
    """Settle the call and raise on: the SDK's exception as it is, or why a budget refused the attempt."""
    if isinstance(error, AttemptRefused):
        first = error.__cause__
        if call is not None:
            call.failed(first or error)
        raise error.refusal from first
    if call is not None:
        call.failed(error)
    raise error
