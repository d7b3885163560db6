"""What stands around an SDK's method: open the call, let the SDK work, close the call. Results pass untouched."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import _AsyncGeneratorContextManager, _GeneratorContextManager
from types import AsyncGeneratorType, GeneratorType, TracebackType
from typing import Any

from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from tollspan.exporter import CURRENT
from tollspan.ledger import internal_errors

from ._call import Call, Expected, current
from ._counting import waits_for_wire
from ._opening import open_call
from ._refusals import AttemptRefused
from ._sites import CallSite, Task
from ._sockets._ahead import is_ahead, leave, settled_unless_taken
from ._sockets._mistral import connected
from ._urls import parsed_url

Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]


def wrapper_for(site: CallSite) -> Wrapper:
    """The wrapper of a call site, for wrapt."""
    makers = {
        "call": _call,
        "async call": _async_call,
        "sends": _sends,
        "async sends": _async_sends,
        "starts": _starts,
        "async connects": _async_connects,
    }
    return makers[site.kind](site)


def _open(site: CallSite, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """A new call of a method of an SDK; None inside of another call, and where something went wrong."""
    if current() is not None or site.reader is None:
        return None
    with internal_errors:
        form = site.form
        body = form.body(args, kwargs)
        if body is not None:
            url, path = form.url(instance), form.path(args, kwargs)
            return open_call(site.reader, url, body, path, vendor=site.vendor, changeable=True)
    return None


def _prepared(
    site: CallSite, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with what admission and accounting need changed in them."""
    with internal_errors:
        body = site.form.body(args, kwargs)
        if body is not None and (changed := call.prepared(body)) is not body:
            return site.form.put(args, kwargs, changed)
    return args, kwargs


class InForce:
    """While a call is in force, the wire reports to it and its span is the current one. An exception ends the call.

    Where a budget has refused an attempt, its refusal takes the place of the exception that carried it up.
    """

    __slots__ = ("_call", "_context")

    def __init__(self, call: Call | Expected) -> None:
        self._call = call
        # The span of a call that is only expected is current while it is sent: the wire sees to that.
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
        call = _open(site, instance, args, kwargs)
        if call is None:
            return wrapped(*args, **kwargs)
        if waits_for_wire(call, instance):
            call.on_wire = call.unadmitted = True
        else:
            call.admit()
            args, kwargs = _prepared(site, call, args, kwargs)
        with InForce(call):
            result = wrapped(*args, **kwargs)
        call.returned(result)
        return result

    return wrapper


def _async_call(site: CallSite) -> Wrapper:
    async def wrapper(
        wrapped: Callable[..., Awaitable[Any]], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = _open(site, instance, args, kwargs)
        if call is None:
            return await wrapped(*args, **kwargs)
        if waits_for_wire(call, instance):
            call.on_wire = call.unadmitted = True
        else:
            await call.aadmit()
            args, kwargs = _prepared(site, call, args, kwargs)
        with InForce(call):
            result = await wrapped(*args, **kwargs)
        call.returned(result)
        return result

    return wrapper


def _sends(site: CallSite) -> Wrapper:
    def wrapper(wrapped: Callable[..., Any], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if current() is not None:
            return wrapped(*args, **kwargs)
        expected = Expected(site.reader, site.vendor)
        with InForce(expected):
            result = wrapped(*args, **kwargs)
        return _sent(expected, result)

    return wrapper


def _async_sends(site: CallSite) -> Wrapper:
    async def wrapper(
        wrapped: Callable[..., Awaitable[Any]], _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if current() is not None:
            return await wrapped(*args, **kwargs)
        expected = Expected(site.reader, site.vendor)
        with InForce(expected):
            result = await wrapped(*args, **kwargs)
        return _sent(expected, result)

    return wrapper


def _starts(site: CallSite) -> Wrapper:
    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        task = _task_of(site, instance)
        if task is None:
            return wrapped(*args, **kwargs)
        if task.runs == "in steps":
            return _run_in_steps(site, task, wrapped(*args, **kwargs))
        _admit_ahead(site, task)
        with settled_unless_taken(task.id, by_thread=task.runs == "in a thread"):
            return wrapped(*args, **kwargs)

    return wrapper


def _async_connects(site: CallSite) -> Wrapper:
    async def wrapper(
        wrapped: Callable[..., Awaitable[Any]], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        call = _open(site, instance, args, kwargs)
        if call is None:
            return await wrapped(*args, **kwargs)
        await call.aadmit()
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            call.failed(error)
            raise
        connected(result._websocket, parsed_url(site.form.path(args, kwargs)), call)  # noqa: SLF001 - as the row says
        return result

    return wrapper


def _task_of(site: CallSite, instance: Any) -> Task | None:
    with internal_errors:
        return site.task(instance) if site.task is not None else None
    return None


def _run_in_steps(site: CallSite, task: Task, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """The same generator, whose first step asks the budgets."""
    _admit_ahead(site, task)
    with settled_unless_taken(task.id):
        return (yield from steps)


def _admit_ahead(site: CallSite, task: Task) -> None:
    """Ask the budgets about a task, and leave its call for the wire; unless a method above has done that. May raise."""
    if site.reader is None or is_ahead(task.id):
        return
    call = open_call(site.reader, parsed_url(task.url), task.payload, "", vendor=site.vendor, changeable=False)
    if call is not None:
        call.admit()
        leave(task.id, call)


def _sent(expected: Expected, result: Any) -> Any:
    """What a method that sends gives back: as it is; or, a generator of the SDK's, one that sends in our name.

    A manager that contextlib makes of a generator sends when it is entered, and keeps its type.
    """
    if expected.call is not None:
        expected.call.returned(result)
    if type(result) is GeneratorType:
        return _stepped(result, expected)
    if type(result) is AsyncGeneratorType:
        return _astepped(result, expected)
    if type(result) is _GeneratorContextManager:
        result.gen = _stepped(result.gen, expected)
    elif type(result) is _AsyncGeneratorContextManager:
        result.gen = _astepped(result.gen, expected)
    return result


class _Step:
    """While a generator runs, what it sends is ours; its consumer's context stays as it is.

    Most of its steps only read on: so there is no span to make current here, and an error is the tap's to see.
    """

    __slots__ = ("_before", "_expected")

    def __init__(self, expected: Expected) -> None:
        self._expected = expected

    def __enter__(self) -> None:
        self._before = CURRENT.get()
        self._expected.in_force = True
        CURRENT.set(self._expected)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._expected.in_force = False
        CURRENT.set(self._before)
        if isinstance(error, AttemptRefused):
            raise error.refusal from error.__cause__


def _at_step(expected: Expected) -> InForce | _Step:
    return InForce(expected) if expected.call is None and current() is None else _Step(expected)


def _stepped(steps: Generator[Any, Any, Any], expected: Expected) -> Generator[Any, Any, Any]:
    """The same generator, with the expected calls in force at each of its steps."""
    step: Callable[[Any], Any] = steps.send
    value: Any = None
    while True:
        with _at_step(expected):
            try:
                item = step(value)
            except StopIteration as end:
                item, over = end.value, True
            else:
                over = False
        if over:
            _read(expected)
            return item
        try:
            step, value = steps.send, (yield item)
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:  # noqa: BLE001 - what is thrown in is the generator's to handle
            step, value = steps.throw, error


async def _astepped(steps: AsyncGenerator[Any, Any], expected: Expected) -> AsyncGenerator[Any, Any]:
    """As _stepped, of an async generator."""
    step: Callable[[Any], Awaitable[Any]] = steps.asend
    value: Any = None
    while True:
        with _at_step(expected):
            try:
                item = await step(value)
            except StopAsyncIteration:
                break
        try:
            step, value = steps.asend, (yield item)
        except GeneratorExit:
            await steps.aclose()
            raise
        except BaseException as error:  # noqa: BLE001 - what is thrown in is the generator's to handle
            step, value = steps.athrow, error
    _read(expected)


def _read(expected: Expected) -> None:
    """A generator has come to its end: what it sent last and read whole is settled, too."""
    if expected.call is not None:
        expected.call.returned(None)
