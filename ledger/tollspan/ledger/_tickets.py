"""What a producer waits on: resolved once by the writer, after the commit, for a thread or for a task."""

import asyncio
import threading
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ticket(Generic[T]):
    """One answer of the writer. Made by the thread or inside the task that is going to wait for it.

    Between the writer's answer and the waiter's giving up, one wins: `claim` is taken once, by whoever comes first.
    """

    __slots__ = ("_claim", "_error", "_future", "_loop", "_ready", "_result")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._claim = threading.Lock()
        self._result: T | None = None
        self._error: BaseException | None = None
        self._loop = loop
        self._future: asyncio.Future[None] | None = loop.create_future() if loop else None
        self._ready = threading.Lock()
        self._ready.acquire()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the waiting task; None for a waiting thread."""
        return self._loop

    @property
    def settled(self) -> bool:
        """Whether it was answered or given up."""
        return self._claim.locked()

    def answer(self, result: T | None, error: BaseException | None = None) -> bool:
        """Set the answer; False when the waiter has given up. The waiter sleeps on until `wake`."""
        if self._claim.locked():
            return False
        self._result, self._error = result, error  # first: whoever then comes too late to give up reads them at once
        return self._claim.acquire(blocking=False)

    def give_up(self) -> bool:
        """Stop waiting; False when the answer was there first, and then it is the caller's to use or to return."""
        return self._claim.acquire(blocking=False)

    def wait(self, timeout_s: float | None = None) -> T | None:
        """The answer, for a thread. Raises TimeoutError, or the error that the writer met."""
        if not self._ready.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise TimeoutError
        return self._take()

    async def wait_async(self, timeout_s: float | None = None) -> T | None:
        """The answer, for a task, which waits once. Raises TimeoutError, or the error that the writer met."""
        assert self._future is not None, "a ticket made without a loop is for threads"
        if timeout_s is None:
            await self._future
        else:
            # Not wait_for: it swallows a cancellation that comes together with the answer.
            async with asyncio.timeout(timeout_s):
                await self._future
        return self._take()

    def result(self) -> T | None:
        """The answer of a ticket that was answered before `give_up` could be; does not wait."""
        return self._take()

    def _take(self) -> T | None:
        if self._error is not None:
            raise self._error
        return self._result

    def _wake_thread(self) -> None:
        self._ready.release()

    def _wake_task(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


def wake(tickets: Iterable[Ticket[T]]) -> list[Ticket[T]]:
    """Wake the waiters of answered tickets, each event loop once; gives back those whose loop is closed."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Ticket[T]]] = {}
    for ticket in tickets:
        if ticket.loop is None:
            ticket._wake_thread()  # noqa: SLF001 - the two halves of one mechanism
        else:
            by_loop.setdefault(ticket.loop, []).append(ticket)
    unreachable: list[Ticket[T]] = []
    for loop, group in by_loop.items():
        try:
            loop.call_soon_threadsafe(_wake_tasks, group)
        except RuntimeError:
            unreachable += group
    return unreachable


def _wake_tasks(tickets: Iterable[Ticket[T]]) -> None:
    for ticket in tickets:
        ticket._wake_task()  # noqa: SLF001 - the two halves of one mechanism
