"""The one thread of a process that writes to the ledger.

Producers only enqueue. A batch is written at 100 events or after 200 ms; a hold or a durable event is written at once,
and while its fsync runs the next ones gather: the disk itself is the batching window. Waiters wake after the commit.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ._batch import Entry, HoldRequest, Key
from ._ending import at_the_end
from ._errors import LedgerConflict, LedgerUnavailable
from ._fork import stop_for_forks
from ._holds import Balance, Grant, Refusal
from ._journal import Beginning, Journal, Segment
from ._listeners import Listeners
from ._store import Definition, Outcome, SQLiteStore
from ._sweep import at_hold, read_back
from ._tickets import Ticket, wake
from ._upkeep import Upkeep
from ._waiting import Answer, Waiting, WaitingLine

_log = logging.getLogger("tollspan.ledger")

BATCH = 500
WAKE_AT = 100
INTERVAL_S = 0.2
SETTLE_WITHIN_S = 0.01
POLL_S = 0.02
_BACKOFF_S = (0.05, 5.0)
_END_S = 5.0
_WATCHED_BALANCES = 4096
_MILESTONES = frozenset(10**n for n in range(12))


@dataclass(slots=True)
class WriterCounts:
    """What the writer has seen since the process began, for `doctor` and the metrics.

    Events: `written`, `replayed` (stored before), `rejected` (cannot be stored), `spilled` (waited in the journal
    alone), `lost` (no room in memory and no journal). `conflicts` are ids that came with different content, `failures`
    transactions that were rolled back. Of dead processes: events `recovered` from their journals, and `orphans`, calls
    counted at what they may have cost. `lag_ms` is how long the oldest event of the last batch had waited.
    """

    written: int = 0
    replayed: int = 0
    conflicts: int = 0
    rejected: int = 0
    failures: int = 0
    spilled: int = 0
    lost: int = 0
    recovered: int = 0
    orphans: int = 0
    lag_ms: float = 0.0
    last_error: str | None = None


@dataclass(slots=True)
class _Pending:
    entry: Entry | Definition | None
    ticket: Ticket[None] | None = None
    segment: Segment | None = None
    since: float = field(default_factory=time.monotonic)


class Writer:
    """Queue, thread and write connection of one ledger in one process; safe to call from any thread.

    Events wait in memory up to `queue_limit`; while the ledger cannot be written, further ones wait in the journal.
    """

    def __init__(
        self, store: SQLiteStore, *, journal: bool = True, queue_limit: int = 100_000, keep_days: int | None = None
    ) -> None:
        self._store = store
        self._queue_limit = queue_limit
        self.listeners = Listeners()
        self.journal = Journal(store.path, store.owner, enabled=journal)
        self.upkeep = Upkeep(store, keep_days=keep_days)
        self._reset()
        stop_for_forks(self)

    def _reset(self) -> None:
        self.store_lock = threading.RLock()
        self.counts = WriterCounts()
        self.balances: dict[Key, Balance] = {}
        self._start_lock = threading.Lock()
        self._queue: deque[_Pending] = deque()
        self._in_flight = 0
        self._line = WaitingLine()
        self._deferred: deque[Callable[[], None]] = deque()
        self._noted: deque[str] = deque()
        self._wake = threading.Event()
        self._urgent = self._stop = self._ends_well = False
        self._thread: threading.Thread | None = None
        self._data_version: tuple[int, int] | None = None
        self._retry_at, self._backoff = 0.0, _BACKOFF_S[0]

    @property
    def pending(self) -> int:
        """Events that are not on disk yet."""
        return len(self._queue) + self._in_flight + len(self._deferred) + self.journal.spilled

    def put(self, entry: Entry) -> None:
        """Enqueue an event; never blocks. One that settles a hold is written within 10 ms, others within 200 ms.

        When this returns the event is in the journal, if there is one: the process may be killed from then on.
        """
        segment = self.journal.append(entry)
        if len(self._queue) >= self._queue_limit and self._wait_elsewhere(entry, segment):
            return
        self._queue.append(_Pending(entry, None, segment))
        if entry.release is not None:
            self._urgent = True
            self._nudge()
        elif len(self._queue) >= WAKE_AT:
            self._nudge()
        self.start()

    def begin(self, beginning: Beginning) -> Segment | None:
        """Note in the journal that a call is about to be sent; the Entry that settles it takes what this gives."""
        return self.journal.begin(beginning)

    def define(self, definition: Definition) -> None:
        """Enqueue a budget's definition; it is written with the next events."""
        self._queue.append(_Pending(definition))
        self.start()

    def put_durable(
        self, entry: Entry | Definition | None, loop: asyncio.AbstractEventLoop | None = None
    ) -> Ticket[None]:
        """Enqueue and write at once; the ticket is answered when it (and all before it) is on disk."""
        ticket: Ticket[None] = Ticket(loop)
        segment = self.journal.append(entry) if isinstance(entry, Entry) else None
        self._queue.append(_Pending(entry, ticket, segment))
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
        self._line.asking.append(Waiting(replace(request, queued=until is not None), ticket, until))
        self.start()
        self._wake.set()
        return ticket

    def defer(self, action: Callable[[], None]) -> None:
        """Run something on the writer's thread at its next turn. Takes no lock: safe inside `__del__`."""
        self._deferred.append(action)

    def settle_at_hold(self, hold_id: bytes, reason: str) -> None:
        """Settle a call whose own settlement failed: what it held becomes estimated spend, so that no room is lost."""
        self.defer(partial(self._settle_at_hold, hold_id, reason))

    def note(self, fact: str, count: int = 1) -> None:
        """Add to a fact of the ledger with the next batch, for `doctor` in any process."""
        self._noted.extend([fact] * count)

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
            self._store.retire(keep_owner=not self.journal.close())
            self.store_lock.release()
        self.listeners.drain(timeout_s)
        return self.pending

    def _end(self) -> None:
        left = self.close(_END_S)
        if left:
            why = self.counts.last_error or "the process had to end"
            if self.journal.works:
                _log.error("%d events wait in the journal for the next process that opens the ledger: %s", left, why)
            else:
                _log.error("%d events are lost: %s", left, why)

    def before_fork(self) -> None:
        """Finish what is being written, and write nothing until the fork is over."""
        self.store_lock.acquire()
        self._store.before_fork()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on; a child starts empty, because what is queued belongs to the parent, which still has it."""
        if in_child:
            self.journal.forget()
        self._store.after_fork(in_child=in_child)
        if in_child:
            self.listeners.restart()
            self._reset()
        else:
            self.store_lock.release()

    def _nudge(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    def _wait_elsewhere(self, entry: Entry, segment: Segment | None) -> bool:
        """There is no room in memory: an event waits in the journal alone, or, without one, is lost, and said to be."""
        if segment is not None:
            if entry.begun is not None:
                segment.begun.append(entry.begun)
            segment.spilled.append(None)
            self.counts.spilled += 1
            return True
        if entry.release is not None:
            return False  # one for each hold there is: they are few, and without them a budget stays short for ever
        self.counts.lost += 1
        self.note("lost_events")
        if self.counts.lost in _MILESTONES:
            why = self.counts.last_error or "they come faster than it can be written"
            _log.error(
                "%d events are lost: there is no room for them in memory, and no journal: %s", self.counts.lost, why
            )
        return True

    # ---- the thread

    def _run(self) -> None:
        while True:
            self._wake.wait(POLL_S if self._line.waiting else INTERVAL_S)
            self._wake.clear()
            if self._urgent and not self._line.asking and not self._stop:
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
            left = self._queue or self._line or self._deferred
            if left and not self.counts.last_error:
                self._thread = threading.current_thread()
                return False
        return True

    def _turn(self) -> None:
        self._urgent = False
        self._run_deferred()
        # No more than there is now: producers who are never done must not keep those who wait from being served.
        for _ in range(1 + max(len(self._queue), len(self._line.asking)) // BATCH):
            if not self._line.asking and not self._stop and time.monotonic() < self._retry_at:
                break
            if not self._write_batch():
                break
        self._follow_others()
        if self._line.waiting:
            self._serve_waiting()
        self.journal.tidy()
        if not self.counts.last_error:
            with self.store_lock, suppress(LedgerUnavailable):  # the next write reports it
                self._rest()

    def _rest(self) -> None:
        """What comes after the queue: events that waited in the journal alone, and then what can wait for long."""
        for segment in self.journal.to_read_back():
            for outcome in read_back(self._store, segment):
                self._publish(outcome)
        if not self._queue and not self._line and not self._stop:
            self.upkeep.turn(self)

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
            return self._commit(batch, self._line.take(BATCH))
        finally:
            self._in_flight = 0

    def _commit(self, batch: list[_Pending], asking: list[Waiting]) -> bool:
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

    def _write(self, batch: list[_Pending], requests: list[HoldRequest]) -> Outcome:
        entries = [p.entry for p in batch if isinstance(p.entry, Entry)]
        definitions = [p.entry for p in batch if isinstance(p.entry, Definition)]
        if not (entries or definitions or requests):
            return Outcome()
        noted = list(self._noted)
        with self.store_lock:
            outcome = self._store.write(entries, requests, definitions, Counter(noted))
            self._publish(outcome)  # in here, or a balance could overwrite a newer one
        for _ in noted:
            self._noted.popleft()
        self.counts.written += len(entries) - outcome.duplicates
        self.counts.replayed += outcome.duplicates
        self.counts.last_error, self._backoff, self._retry_at = None, _BACKOFF_S[0], 0.0
        if batch:
            self.counts.lag_ms = (time.monotonic() - batch[0].since) * 1000
        return outcome

    def _answer(self, batch: list[_Pending], asking: list[Waiting], outcome: Outcome) -> None:
        settled: list[Ticket[None]] = []
        index = 0
        for pending in batch:
            conflict = outcome.conflicts.get(index) if isinstance(pending.entry, Entry) else None
            index += isinstance(pending.entry, Entry)
            _is_stored(pending)
            if conflict:
                self.counts.conflicts += 1
                self.note("conflicts")
                _log.error("%s; it was not stored again", conflict)
            if pending.ticket is not None:
                pending.ticket.answer(None, LedgerConflict(conflict) if conflict else None)
                settled.append(pending.ticket)
        wake(settled)
        self._answer_holds(asking, outcome.answers)

    def _answer_holds(self, asking: Iterable[Waiting], answers: Iterable[Answer]) -> None:
        answered: list[Waiting] = []
        for waiting, answer in zip(asking, answers, strict=True):
            if isinstance(answer, Refusal) and answer.busy and waiting.until is not None and not self._stop:
                self._line.stay(waiting)
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
        self.put(Entry(request.withdraw(), request.hold_id))

    def _put_back(self, batch: list[_Pending], asking: list[Waiting], error: LedgerUnavailable) -> None:
        if self.counts.last_error is None:
            kept = "in the journal" if self.journal.works else "in memory"
            _log.error("%s. Events wait %s until it can be written", error, kept)
        self.counts.failures += 1
        self.note("write_failures")
        self.counts.last_error = str(error)
        # Those behind the batch too: it may be long before the ledger can be written, and they need not wait for that.
        told = [p for p in (*batch, *self._queue.copy()) if p.ticket is not None]
        wake([p.ticket for p in told if p.ticket is not None and p.ticket.answer(None, error)])
        for pending in told:
            pending.ticket = None
        self._queue.extendleft(reversed([p for p in batch if p.entry is not None]))
        wake([a.ticket for a in asking if a.ticket.answer(None, error)])
        if error.uncertain:
            for asked in asking:
                self._give_back(asked.request)
        self._retry_at = time.monotonic() + self._backoff
        self._backoff = min(self._backoff * 2, _BACKOFF_S[1])

    def _reject(self, batch: list[_Pending], asking: list[Waiting], error: Exception) -> None:
        """Leave out the one entry that cannot be stored."""
        self.counts.rejected += 1
        self.note("rejected_events")
        _log.error("an event cannot be stored and was left out: %s: %s", type(error).__name__, error)
        tickets: list[Ticket[Any]] = [pending.ticket for pending in batch if pending.ticket is not None]
        tickets += [waiting.ticket for waiting in asking]
        wake([ticket for ticket in tickets if ticket.answer(None, error)])
        for pending in batch:
            _is_stored(pending)  # in so far as it is done with; the journal's file is set aside
            if pending.segment is not None:
                pending.segment.suspect = True
            entry = pending.entry
            if isinstance(entry, Entry) and entry.release is not None and not entry.substitute:
                self.settle_at_hold(entry.release, "its settlement could not be stored")  # it may have been billed

    def _settle_at_hold(self, hold_id: bytes, reason: str) -> None:
        self.put(at_hold(self._store, hold_id, reason))

    def _serve_waiting(self) -> None:
        """Give holds to those in line, first come first served for each balance; answer those who wait in vain."""
        try:
            with self.store_lock, self._store.looking() as look:
                ready = self._line.ready(look, closing=self._stop)
        except LedgerUnavailable as error:
            self._put_back([], self._line.waiting, error)
            return
        if ready:
            self._commit([], ready)  # where another process was quicker, they keep their places in line
        self._line.forget_answered()

    def _publish(self, outcome: Outcome) -> None:
        if len(self.balances) > _WATCHED_BALANCES:
            self.balances.clear()
        self.balances.update(outcome.balances)
        self.listeners.publish(outcome.stored, outcome.latest)

    def _follow_others(self) -> None:
        """Take over what other processes have committed into the balances that best_effort reads."""
        if not self.balances or self.counts.last_error:
            return
        with self.store_lock, suppress(LedgerUnavailable):  # the next write reports it
            version = self._store.data_version()
            if version != self._data_version:
                self._data_version = version
                self.balances.update(self._store.balances(list(self.balances)))


def _is_stored(pending: _Pending) -> None:
    """Tell the journal's files that they need not keep this one any more."""
    if pending.segment is not None:
        pending.segment.done += 1
    if isinstance(pending.entry, Entry) and pending.entry.begun is not None:
        pending.entry.begun.ended += 1


def _halves(batch: list[_Pending], asking: list[Waiting]) -> list[tuple[list[_Pending], list[Waiting]]]:
    if batch and asking:
        return [(batch, []), ([], asking)]
    half = max(len(batch), len(asking)) // 2
    return [(batch[:half], asking[:half]), (batch[half:], asking[half:])]
