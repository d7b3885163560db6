"""The one thread of a process that writes to the ledger.

Producers only enqueue. A batch is written at 100 events or after 200 ms; a hold or a durable event is written at once,
and while its fsync runs the next ones gather: the disk itself is the batching window. Waiters are woken after the commit.
"""

import asyncio
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ._errors import LedgerConflict, LedgerError, LedgerUnavailable
from ._holds import Balance, Grant, Refusal, decide
from ._store import Definition, Entry, HoldRequest, Key, Outcome, SQLiteStore
from ._tickets import Ticket, wake

_log = logging.getLogger("tollspan.ledger")

BATCH = 500
WAKE_AT = 100
INTERVAL_S = 0.2
SETTLE_WITHIN_S = 0.01
POLL_S = 0.02
_BACKOFF_S = (0.05, 5.0)
_WATCHED_BALANCES = 4096

Answer = Grant | Refusal
_writers: "weakref.WeakSet[Writer]" = weakref.WeakSet()


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
        self._stop = False
        self.counts = WriterCounts()
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        self.store_lock = threading.RLock()
        self.balances: dict[Key, Balance] = {}
        self._start_lock = threading.Lock()
        self._queue: deque[_Pending] = deque()
        self._asking: deque[_Waiting] = deque()
        self._waiting: list[_Waiting] = []
        self._deferred: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._urgent = False
        self._thread: threading.Thread | None = None
        self._data_version: int | None = None
        self._retry_at, self._backoff = 0.0, _BACKOFF_S[0]

    @property
    def pending(self) -> int:
        """Events that are not on disk yet."""
        return len(self._queue)

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
        self.start()
        self._wake.set()
        return ticket

    def ask(
        self, request: HoldRequest, *, wait_s: float | None = None, loop: asyncio.AbstractEventLoop | None = None
    ) -> Ticket[Answer]:
        """Ask for a hold. A refusal is answered at once, or, with `wait_s`, after so many seconds of waiting in line."""
        ticket: Ticket[Answer] = Ticket(loop)
        until = None if wait_s is None else time.monotonic() + wait_s
        self._asking.append(_Waiting(request, ticket, until))
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
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="tollspan-writer", daemon=True)
                    self._thread.start()

    def close(self, timeout_s: float) -> int:
        """Write what is queued and end the thread; gives back how many events could not be written in time."""
        self._stop = True
        if self._queue or self._deferred:
            self.start()
        thread = self._thread
        if thread is not None:
            self._wake.set()
            thread.join(timeout_s)
            self._thread = None if not thread.is_alive() else thread
        self._stop = False
        return self.pending

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
            except Exception:  # the thread must outlive any bug of ours, or nothing is written any more
                _log.exception("the ledger's writer met an error of its own")
                time.sleep(_BACKOFF_S[0])
            if self._stop and not (self._queue or self._asking or self._waiting or self._deferred):
                return
            if self._stop and self.counts.last_error:
                return

    def _turn(self) -> None:
        self._urgent = False
        self._run_deferred()
        while self._queue or self._asking:
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
            except Exception:  # one abandoned call must not keep the others from being recorded
                _log.exception("settling an abandoned call failed")

    def _write_batch(self) -> bool:
        batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        asking = self._next_asking()
        try:
            outcome = self._write(batch, [a.request for a in asking])
        except LedgerUnavailable as error:
            self._put_back(batch, asking, error)
            return False
        except Exception as error:  # noqa: BLE001 - logged by the one that it concerns
            self._write_one_by_one(batch, asking, error)
            return True
        self._answer(batch, asking, outcome)
        return True

    def _next_asking(self) -> list[_Waiting]:
        """Those to decide now; one that is ready to wait stands in line behind others that wait for the same balance."""
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
        answered: list[Ticket[Answer]] = []
        for waiting, answer in zip(asking, answers, strict=True):
            if isinstance(answer, Refusal) and answer.busy and waiting.until is not None and not self._stop:
                if waiting not in self._waiting:
                    self._waiting.append(waiting)
            elif waiting.ticket.answer(answer):
                answered.append(waiting.ticket)
            elif isinstance(answer, Grant):
                self._give_back(waiting.request)
        for ticket in wake(answered):
            _log.warning("an event loop was closed while %r waited for a hold; its owner's end settles it", ticket)

    def _give_back(self, request: HoldRequest) -> None:
        """Nobody waits for this hold any more: cancel it before anyone misses the room."""
        self.put(Entry(request.withdraw(), request.hold_id))

    def _put_back(self, batch: list[_Pending], asking: list[_Waiting], error: LedgerError) -> None:
        if self.counts.last_error is None:
            _log.error("%s. Events wait in memory until it can be written", error)
        self.counts.failures += 1
        self.counts.last_error = str(error)
        for pending in batch:
            if pending.ticket is not None:
                pending.ticket.answer(None, error)
        wake([p.ticket for p in batch if p.ticket is not None])
        self._queue.extendleft(reversed([_Pending(p.entry) for p in batch if p.entry is not None]))
        failed = [a.ticket for a in asking if a.ticket.answer(None, error)]
        wake(failed)
        self._retry_at = time.monotonic() + self._backoff
        self._backoff = min(self._backoff * 2, _BACKOFF_S[1])

    def _write_one_by_one(self, batch: list[_Pending], asking: list[_Waiting], error: Exception) -> None:
        """One entry that cannot be stored (a number too large, text that is no text) must not keep back the others."""
        if len(batch) + len(asking) > 1:
            for pending in batch:
                self._alone([pending], [])
            for waiting in asking:
                self._alone([], [waiting])
            return
        self.counts.rejected += 1
        _log.error("an event cannot be stored and was left out: %s: %s", type(error).__name__, error)
        for pending in batch:
            if pending.ticket is not None and pending.ticket.answer(None, error):
                wake([pending.ticket])
        for waiting in asking:
            if waiting.ticket.answer(None, error):
                wake([waiting.ticket])

    def _alone(self, batch: list[_Pending], asking: list[_Waiting]) -> None:
        try:
            outcome = self._write(batch, [a.request for a in asking])
        except LedgerUnavailable as error:
            self._put_back(batch, asking, error)
        except Exception as error:  # noqa: BLE001 - logged there
            self._write_one_by_one(batch, asking, error)
        else:
            self._answer(batch, asking, outcome)

    def _serve_waiting(self) -> None:
        """Give holds to those in line, first come first served for each balance; answer those who wait in vain."""
        now, blocked, ready = time.monotonic(), set[Key](), list[_Waiting]()
        for waiting in self._waiting[:]:
            keys = {limit.key for limit in waiting.request.limits}
            late = self._stop or (waiting.until is not None and now >= waiting.until)
            if waiting.ticket.settled:
                self._waiting.remove(waiting)
                continue
            if late or not keys & blocked:
                likely = self._likely(waiting.request)
                if isinstance(likely, Grant) and not keys & blocked:
                    ready.append(waiting)
                elif late or (isinstance(likely, Refusal) and not likely.busy):
                    self._waiting.remove(waiting)
                    self._refuse(waiting, likely)
                    continue
            blocked |= keys
        if ready:
            self._grant_ready(ready)

    def _refuse(self, waiting: _Waiting, likely: Answer) -> None:
        limit = waiting.request.limits[0]
        refusal = (
            likely
            if isinstance(likely, Refusal)
            else Refusal(limit, self.balances.get(limit.key, Balance()), 0, busy=True)
        )
        if waiting.ticket.answer(refusal):
            wake([waiting.ticket])

    def _likely(self, request: HoldRequest) -> Answer:
        """What the store would answer now; only a write transaction can promise it."""
        with self.store_lock:
            balances = self._store.balances(limit.key for limit in request.limits)
        now = [balances[limit.key] for limit in request.limits]
        return decide(request.demand, request.limits, now, patient=request.patient)

    def _grant_ready(self, ready: list[_Waiting]) -> None:
        for waiting in ready:
            self._waiting.remove(waiting)
        try:
            outcome = self._write([], [w.request for w in ready])
        except LedgerUnavailable as error:
            self._put_back([], ready, error)
            return
        # Another process may have been quicker: who is refused again keeps the place in line.
        refused = [w for w, a in zip(ready, outcome.answers, strict=True) if isinstance(a, Refusal) and a.busy]
        self._waiting[:0] = refused
        self._answer_holds(ready, outcome.answers)

    def _publish(self, balances: dict[Key, Balance]) -> None:
        if len(self.balances) > _WATCHED_BALANCES:
            self.balances.clear()
        self.balances.update(balances)

    def _follow_others(self) -> None:
        """Take over what other processes have committed into the balances that best_effort reads."""
        if not self.balances or self.counts.last_error:
            return
        with self.store_lock:
            version = self._store.data_version()
            if version != self._data_version:
                self._data_version = version
                self.balances.update(self._store.balances(list(self.balances)))


def _before_fork() -> None:
    for writer in list(_writers):
        writer.store_lock.acquire()
        writer._store.before_fork()  # noqa: SLF001 - fork handling is the writer's own


def _after_fork_in_parent() -> None:
    for writer in list(_writers):
        writer._store.after_fork(in_child=False)  # noqa: SLF001 - fork handling is the writer's own
        writer.store_lock.release()


def _after_fork_in_child() -> None:
    for writer in list(_writers):
        writer._store.after_fork(in_child=True)  # noqa: SLF001 - fork handling is the writer's own
        writer._reset()  # noqa: SLF001 - what is queued belongs to the parent, which still has it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
