"""The one thread of a process that writes to the ledger.

Producers only enqueue. A batch is written at 100 events or after 200 ms; a hold or a durable event is written at once,
and while its fsync runs the next ones gather: the disk itself is the batching window. Waiters wake after the commit.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ._ending import at_the_end
from ._errors import LedgerConflict, LedgerError, LedgerUnavailable
from ._fork import stop_for_forks
from ._holds import Balance, Grant, Refusal
from ._store import Batch, Definition, Entry, HoldRequest, Key, Outcome, SQLiteStore
from ._sweep import at_hold
from ._tickets import Ticket, wake

_log = logging.getLogger("tollspan.ledger")

BATCH = 500
WAKE_AT = 100
INTERVAL_S = 0.2
SETTLE_WITHIN_S = 0.01
POLL_S = 0.02
_BACKOFF_S = (0.05, 5.0)
_END_S = 5.0
_WATCHED_BALANCES = 4096

Answer = Grant | Refusal


@dataclass(slots=True)
class WriterCounts:
    """What the writer has seen since the process began, for `doctor` and the metrics."""

    written: int = 0
    replayed: int = 0
    conflicts: int = 0
    rejected: int = 0
    failures: int = 0
    last_error: str | None = None


@dataclass(slots=True)
class _Pending:
    entry: Entry | Definition | None
    ticket: Ticket[None] | None = None


@dataclass(slots=True, eq=False)
class _Waiting:
    request: HoldRequest
    ticket: Ticket[Answer]
    until: float | None  # time.monotonic(); None: answer at once


class Writer:
    """Queue, thread and write connection of one ledger in one process; safe to call from any thread."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self._reset()
        stop_for_forks(self)

    def _reset(self) -> None:
        self.store_lock = threading.RLock()
        self.counts = WriterCounts()
        self.balances: dict[Key, Balance] = {}
        self._start_lock = threading.Lock()
        self._queue: deque[_Pending] = deque()
        self._in_flight = 0
        self._asking: deque[_Waiting] = deque()
        self._waiting: list[_Waiting] = []
        self._deferred: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._urgent = self._stop = self._ends_well = False
        self._thread: threading.Thread | None = None
        self._data_version: tuple[int, int] | None = None
        self._retry_at, self._backoff = 0.0, _BACKOFF_S[0]

    @property
    def pending(self) -> int:
        """Events that are not on disk yet."""
        return len(self._queue) + self._in_flight + len(self._deferred)

    def put(self, entry: Entry) -> None:
        """Enqueue an event; never blocks. One that settles a hold is written within 10 ms, others within 200 ms."""
        self._queue.append(_Pending(entry))
        if entry.release is not None:
            self._urgent = True
            self._nudge()
        elif len(self._queue) >= WAKE_AT:
            self._nudge()
        self.start()

    def define(self, definition: Definition) -> None:
        """Enqueue a budget's definition; it is written with the next events."""
        self._queue.append(_Pending(definition))
        self.start()

    def put_durable(
        self, entry: Entry | Definition | None, loop: asyncio.AbstractEventLoop | None = None
    ) -> Ticket[None]:
        """Enqueue and write at once; the ticket is answered when it (and all before it) is on disk."""
        ticket: Ticket[None] = Ticket(loop)
        self._queue.append(_Pending(entry, ticket))
        self._retry_at = 0.0
        self.start()
        self._wake.set()
        return ticket

    def ask(
        self, request: HoldRequest, *, wait_s: float | None = None, loop: asyncio.AbstractEventLoop | None = None
    ) -> Ticket[Answer]:
        """Ask for a hold. A refusal is answered at once, or, with `wait_s`, after so many seconds of waiting in line.

        The ticket raises LedgerUnavailable where the ledger cannot be written within the busy timeout.
        """
        ticket: Ticket[Answer] = Ticket(loop)
        until = None if wait_s is None else time.monotonic() + wait_s
        self._asking.append(_Waiting(replace(request, queued=until is not None), ticket, until))
        self.start()
        self._wake.set()
        return ticket

    def defer(self, action: Callable[[], None]) -> None:
        """Run something on the writer's thread at its next turn. Takes no lock: safe inside `__del__`."""
        self._deferred.append(action)

    def start(self) -> None:
        """Start the thread if it is not running."""
        if self._thread is None:
            with self._start_lock:
                if not self._ends_well:
                    self._ends_well = True
                    at_the_end(self._end)
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="tollspan-writer", daemon=True)
                    thread.start()
                    self._thread = thread

    def close(self, timeout_s: float) -> int:
        """Write what is queued, end the thread, close the file; gives back how many events could not be written.

        Takes no longer than twice `timeout_s` seconds, even where another process stands still in a write of its own.
        """
        self._stop = True
        if self.pending:
            self.start()
        thread = self._thread
        if thread is not None:
            self._wake.set()
            thread.join(timeout_s)
        self._stop = False
        if self.store_lock.acquire(timeout=timeout_s):
            self._store.retire()
            self.store_lock.release()
        return self.pending

    def _end(self) -> None:
        left = self.close(_END_S)
        if left:
            _log.error("%d events are lost: %s", left, self.counts.last_error or "the process had to end")

    def before_fork(self) -> None:
        """Finish what is being written, and write nothing until the fork is over."""
        self.store_lock.acquire()
        self._store.before_fork()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on; a child starts empty, because what is queued belongs to the parent, which still has it."""
        self._store.after_fork(in_child=in_child)
        if in_child:
            self._reset()
        else:
            self.store_lock.release()

    def _nudge(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    # ---- the thread

    def _run(self) -> None:
        while True:
            self._wake.wait(POLL_S if self._waiting else INTERVAL_S)
            self._wake.clear()
            if self._urgent and not self._asking and not self._stop:
                self._wake.wait(SETTLE_WITHIN_S)
                self._wake.clear()
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - the thread must outlive any bug of ours, or nothing is written any more
                _log.exception("the ledger's writer met an error of its own")
                time.sleep(_BACKOFF_S[0])
            if self._stop and self._ended():
                return

    def _ended(self) -> bool:
        """Whether all is written, or cannot be, so that the thread ends; whoever enqueues after this starts another."""
        with self._start_lock:
            self._thread = None
            left = self._queue or self._asking or self._waiting or self._deferred
            if left and not self.counts.last_error:
                self._thread = threading.current_thread()
                return False
        return True

    def _turn(self) -> None:
        self._urgent = False
        self._run_deferred()
        # No more than there is now: producers who are never done must not keep those who wait from being served.
        for _ in range(1 + max(len(self._queue), len(self._asking)) // BATCH):
            if not self._asking and not self._stop and time.monotonic() < self._retry_at:
                break
            if not self._write_batch():
                break
        self._follow_others()
        if self._waiting:
            self._serve_waiting()

    def _run_deferred(self) -> None:
        while self._deferred:
            try:
                self._deferred.popleft()()
            except Exception:  # noqa: BLE001 - one abandoned call must not keep the others from being recorded
                _log.exception("settling an abandoned call failed")

    def _write_batch(self) -> bool:
        self._in_flight = min(BATCH, len(self._queue))  # before they leave the queue, or a flush could miss them
        try:
            batch = [self._queue.popleft() for _ in range(self._in_flight)]
            return self._commit(batch, self._next_asking())
        finally:
            self._in_flight = 0

    def _commit(self, batch: list[_Pending], asking: list[_Waiting]) -> bool:
        """Write and answer. False where the store cannot be written: then the events wait in memory.

        One entry that cannot be stored (a number too large, text that is no text) must not keep back the others: such a
        batch is halved until that one stands alone.
        """
        parts = [(batch, asking)]
        while parts:
            batch, asking = parts.pop()
            try:
                outcome = self._write(batch, [a.request for a in asking])
            except LedgerUnavailable as error:
                left = [(batch, asking), *reversed(parts)]
                self._put_back([p for b, _ in left for p in b], [a for _, more in left for a in more], error)
                return False
            except Exception as error:  # noqa: BLE001 - logged by the one that it concerns
                if len(batch) + len(asking) == 1:
                    self._reject(batch, asking, error)
                else:
                    parts += reversed(_halves(batch, asking))
            else:
                self._answer(batch, asking, outcome)
        return True

    def _next_asking(self) -> list[_Waiting]:
        """Those to decide now; one that is ready to wait stands behind others that wait for the same balance."""
        taken = [self._asking.popleft() for _ in range(min(BATCH, len(self._asking)))]
        in_line = {limit.key for waiting in self._waiting for limit in waiting.request.limits}
        now: list[_Waiting] = []
        for asking in taken:
            if asking.until is not None and any(limit.key in in_line for limit in asking.request.limits):
                self._waiting.append(asking)
            elif not asking.ticket.settled:
                now.append(asking)
        return now

    def _write(self, batch: list[_Pending], requests: list[HoldRequest]) -> Outcome:
        entries = [p.entry for p in batch if isinstance(p.entry, Entry)]
        definitions = [p.entry for p in batch if isinstance(p.entry, Definition)]
        if not (entries or definitions or requests):
            return Outcome([], {}, 0, {})
        with self.store_lock:
            outcome = self._store.write(entries, requests, definitions)
        self.counts.written += len(entries) - outcome.duplicates
        self.counts.replayed += outcome.duplicates
        self.counts.last_error, self._backoff, self._retry_at = None, _BACKOFF_S[0], 0.0
        self._publish(outcome.balances)
        return outcome

    def _answer(self, batch: list[_Pending], asking: list[_Waiting], outcome: Outcome) -> None:
        settled: list[Ticket[None]] = []
        index = 0
        for pending in batch:
            conflict = outcome.conflicts.get(index) if isinstance(pending.entry, Entry) else None
            index += isinstance(pending.entry, Entry)
            if conflict:
                self.counts.conflicts += 1
                _log.error("%s; it was not stored again", conflict)
            if pending.ticket is not None:
                pending.ticket.answer(None, LedgerConflict(conflict) if conflict else None)
                settled.append(pending.ticket)
        wake(settled)
        self._answer_holds(asking, outcome.answers)

    def _answer_holds(self, asking: Iterable[_Waiting], answers: Iterable[Answer]) -> None:
        answered: list[_Waiting] = []
        for waiting, answer in zip(asking, answers, strict=True):
            if isinstance(answer, Refusal) and answer.busy and waiting.until is not None and not self._stop:
                if waiting not in self._waiting:
                    self._waiting.append(waiting)
            elif waiting.ticket.answer(answer):
                answered.append(waiting)
            elif isinstance(answer, Grant):
                self._give_back(waiting.request)
        unreachable = wake([waiting.ticket for waiting in answered])  # their event loops are closed
        for waiting in answered:
            if waiting.ticket in unreachable and isinstance(waiting.ticket.result(), Grant):
                self._give_back(waiting.request)

    def _give_back(self, request: HoldRequest) -> None:
        """Nobody waits for this hold any more: cancel it before anyone misses the room."""
        self.put(Entry(request.withdraw, request.hold_id))

    def _put_back(self, batch: list[_Pending], asking: list[_Waiting], error: LedgerError) -> None:
        if self.counts.last_error is None:
            _log.error("%s. Events wait in memory until it can be written", error)
        self.counts.failures += 1
        self.counts.last_error = str(error)
        wake([p.ticket for p in batch if p.ticket is not None and p.ticket.answer(None, error)])
        self._queue.extendleft(reversed([_Pending(p.entry) for p in batch if p.entry is not None]))
        wake([a.ticket for a in asking if a.ticket.answer(None, error)])
        self._retry_at = time.monotonic() + self._backoff
        self._backoff = min(self._backoff * 2, _BACKOFF_S[1])

    def _reject(self, batch: list[_Pending], asking: list[_Waiting], error: Exception) -> None:
        """Leave out the one entry that cannot be stored."""
        self.counts.rejected += 1
        _log.error("an event cannot be stored and was left out: %s: %s", type(error).__name__, error)
        tickets: list[Ticket[Any]] = [pending.ticket for pending in batch if pending.ticket is not None]
        tickets += [waiting.ticket for waiting in asking]
        wake([ticket for ticket in tickets if ticket.answer(None, error)])
        for entry in (pending.entry for pending in batch):
            # The call may have been billed, so what it held is spent. An event that is made already was made here.
            if isinstance(entry, Entry) and entry.release is not None and callable(entry.event):
                self.defer(partial(self._settle_at_hold, entry.release))

    def _settle_at_hold(self, hold_id: bytes) -> None:
        self.put(at_hold(self._store, hold_id, "its settlement could not be stored"))

    def _serve_waiting(self) -> None:
        """Give holds to those in line, first come first served for each balance; answer those who wait in vain."""
        self._waiting = [waiting for waiting in self._waiting if not waiting.ticket.settled]
        try:
            with self.store_lock, self._store.looking() as look:
                now = time.monotonic()
                ready = [waiting for waiting in self._waiting if self._is_ready(waiting, look, now)]
        except LedgerUnavailable as error:
            self._put_back([], self._waiting, error)
            return
        if ready:
            self._commit([], ready)  # where another process was quicker, they keep their places in line
        self._waiting = [waiting for waiting in self._waiting if not waiting.ticket.settled]

    def _is_ready(self, waiting: _Waiting, look: Batch, now: float) -> bool:
        late = self._stop or (waiting.until is not None and now >= waiting.until)
        if not late and look.stands_behind(waiting.request):
            return False
        answer = look.answer(waiting.request)
        if isinstance(answer, Refusal) and (late or not answer.busy) and waiting.ticket.answer(answer):
            wake([waiting.ticket])
        return isinstance(answer, Grant)

    def _publish(self, balances: dict[Key, Balance]) -> None:
        if len(self.balances) > _WATCHED_BALANCES:
            self.balances.clear()
        self.balances.update(balances)

    def _follow_others(self) -> None:
        """Take over what other processes have committed into the balances that best_effort reads."""
        if not self.balances or self.counts.last_error:
            return
        with self.store_lock, suppress(LedgerUnavailable):  # the next write reports it
            version = self._store.data_version()
            if version != self._data_version:
                self._data_version = version
                self.balances.update(self._store.balances(list(self.balances)))


def _halves(batch: list[_Pending], asking: list[_Waiting]) -> list[tuple[list[_Pending], list[_Waiting]]]:
    if batch and asking:
        return [(batch, []), ([], asking)]
    half = max(len(batch), len(asking)) // 2
    return [(batch[:half], asking[:half]), (batch[half:], asking[half:])]
