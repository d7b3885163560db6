"""What a decorated function becomes: a twin of its own kind that enters the budget for each call.

The entry of a generator is in force only while the generator itself runs, never in its consumer between two yields.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from ._entry import BudgetEntry, close
from ._reach import enter, leave

NewEntry = Callable[[], BudgetEntry]


def plain(new_entry: NewEntry, function: Callable[..., Any]) -> Callable[..., Any]:
    """The twin of a function."""

    def twin(*args: Any, **kwargs: Any) -> Any:
        entry = new_entry()
        enter(entry)
        try:
            return function(*args, **kwargs)
        finally:
            close(entry)

    return twin


def coroutine(new_entry: NewEntry, function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """The twin of a coroutine function."""

    async def twin(*args: Any, **kwargs: Any) -> Any:
        entry = new_entry()
        enter(entry)
        try:
            return await function(*args, **kwargs)
        finally:
            close(entry)

    return twin


def generator(new_entry: NewEntry, function: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
    """The twin of a generator function."""

    def twin(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        entry, inner = new_entry(), function(*args, **kwargs)
        step: Callable[[Any], Any] = inner.send
        argument: Any = None
        try:
            while True:
                try:
                    enter(entry)
                    try:
                        value = step(argument)
                    finally:
                        leave(entry)
                except StopIteration as stop:
                    return stop.value
                try:
                    step, argument = inner.send, (yield value)
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - what is thrown in goes to the inner generator, all of it
                    step, argument = inner.throw, error
        finally:
            enter(entry)
            try:
                inner.close()
            finally:
                close(entry)

    return twin


def async_generator(new_entry: NewEntry, function: Callable[..., AsyncGenerator[Any, Any]]) -> Callable[..., Any]:
    """The twin of an async generator function."""

    async def twin(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        entry, inner = new_entry(), function(*args, **kwargs)
        step: Callable[[Any], Awaitable[Any]] = inner.asend
        argument: Any = None
        try:
            while True:
                try:
                    enter(entry)
                    try:
                        value = await step(argument)
                    finally:
                        leave(entry)
                except StopAsyncIteration:
                    return
                try:
                    step, argument = inner.asend, (yield value)
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - what is thrown in goes to the inner generator, all of it
                    step, argument = inner.athrow, error
        finally:
            enter(entry)
            try:
                await inner.aclose()
            finally:
                close(entry)

    return twin
