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
from dataclasses import replace
from functools import partial

from ._batch import Entry, HoldRequest
from ._counts import WriterCounts
from ._ending import at_the_end
from ._errors import LedgerConflict, LedgerUnavailable
from ._fork import stop_for_forks
from ._holds import Grant
from ._journal import Journal, Segment
from ._listeners import Listeners
from ._postings import Posting
from ._queue import EventQueue, Item
from ._store import Definition, Outcome, SQLiteStore
from ._sweep import Recovered, at_hold, read_back, recover
from ._tickets import Ticket, wake
from ._upkeep import Upkeep
from ._view import View
from ._waiting import Answer, Waiting, WaitingLine

_log = logging.getLogger("tollspan.ledger")

BATCH = 500
WAKE_AT = 100
INTERVAL_S = 0.2
SETTLE_WITHIN_S = 0.01
POLL_S = 0.02
_BACKOFF_S = (0.05, 5.0)
_END_S = 5.0
_LOOK_AGAIN_S = 0.5
_MILESTONES = frozenset(10**n for n in range(12))


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
        self.upkeep = Upkeep(store, recover=self.recover, keep_days=keep_days)
        self._reset()
        stop_for_forks(self)

    def _reset(self) -> None:
        self.store_lock = threading.RLock()
        self.counts = WriterCounts()
        self.view = View(self._store)
        self._start_lock = threading.Lock()
        self._queue = EventQueue(self.journal, self.counts, self._queue_limit)
        self._line = WaitingLine()
        self._deferred: deque[Callable[[], None]] = deque()
        self._wake = threading.Lock()  # free: to be up. No Event: an interrupt inside of one leaves it locked for ever
        self._wake.acquire()
        self._urgent = self._stop = self._ends_well = False
        self._thread: threading.Thread | None = None
        self._last: Ticket[None] = Ticket()
        self._looked = (-1, 0.0)
        self._retry_at, self._backoff = 0.0, _BACKOFF_S[0]

    @property
    def pending(self) -> int:
        """Events that are not on disk yet."""
        return self._queue.pending + len(self._deferred)

    def put(self, entry: Entry) -> None:
        """Enqueue an event; never blocks. One that a budget counts is written within 10 ms, others within 200 ms.

        When this returns the event is in the journal, if there is one: the process may be killed from then on.
        """
        waiting = self._queue.put(entry)
        if entry.is_urgent:
            self._urgent = True
            self._nudge()
        elif waiting and not waiting % WAKE_AT:
            self._nudge()
        if self._thread is None:
            self.start()

    def begin(self, end: Posting) -> Segment | None:
        """Note in the journal that a call is about to be sent, and the commit that counts it should it have no other.

        The Entry that settles the call takes what this gives.
        """
        return self.journal.begin(end)

    def define(self, definition: Definition) -> None:
        """Enqueue a budget's definition; it is written with the next events."""
        self._queue.put_definition(definition)
        self.start()

    def put_durable(
        self, entry: Entry | Definition | None, loop: asyncio.AbstractEventLoop | None = None
    ) -> Ticket[None]:
        """Enqueue and write at once; the ticket is answered when it (and all before it) is on disk."""
        ticket: Ticket[None] = Ticket(loop)
        if isinstance(entry, Definition):
            self._queue.put_definition(entry)
            entry = None
        self._queue.put_marked(entry, ticket)
        self._urgent, self._retry_at = False, 0.0  # nothing is gathered while somebody waits
        self.start()
        self._nudge()
        return ticket

    def ask(
        self,
        request: HoldRequest,
        *,
        wait_s: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        ticket: Ticket[Answer] | None = None,
    ) -> Ticket[Answer]:
        """Ask for a hold. A refusal is answered at once, or, with `wait_s`, after so many seconds of waiting in line.

        Whoever may be interrupted in here brings the ticket, to give it up then.
        The ticket raises LedgerUnavailable where the ledger cannot be written within the busy timeout.
        """
        ticket = ticket or Ticket(loop)
        until = None if wait_s is None else time.monotonic() + wait_s
        if until is not None:
            request = replace(request, queued=True)
        self._line.asking.append(Waiting(request, ticket, until))
        self.start()
        self._nudge()
        return ticket

    def defer(self, action: Callable[[], None]) -> None:
        """Run something on the writer's thread at its next turn. Takes no lock: safe inside `__del__`."""
        self._deferred.append(action)

    def settle_at_hold(self, hold_id: bytes, reason: str) -> None:
        """Settle a call whose own settlement failed: what it held becomes estimated spend, so that no room is lost."""
        self.defer(partial(self._settle_at_hold, hold_id, reason))
        self.start()
        self._nudge()

    def recover(self) -> Recovered:
        """Make good what dead processes left, and say what was found. Raises LedgerUnavailable."""
        found = recover(self._store, self.store_lock)
        if found.events or found.estimated:
            self.view.forget()
            self.counts.recovered += found.events
            self.counts.orphans += found.estimated
            self.counts.note("journal_replays", found.events)
            self.counts.note("orphan_holds", found.estimated)
            _log.warning(
                "processes that are gone left %d events, now stored, and %d calls, counted at what they may have cost",
                found.events,
                found.estimated,
            )
        return found

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
        """Write what is queued now, end the thread, close the file; gives back how many events are not written.

        Takes no longer than three times `timeout_s` seconds, even where another process stands still in a write.
        """
        self._last = Ticket()
        self._stop = True
        if self.pending:
            self.start()
        thread = self._thread
        if thread is not None:
            self._queue.put_marked(None, self._last)
            self._nudge()
            thread.join(timeout_s)
        self._stop = False
        self.listeners.close(timeout_s)  # before the file is closed: they may want to write
        if self.store_lock.acquire(timeout=timeout_s):
            self.journal.close(self._store.leave)
            self._store.close()
            self.store_lock.release()
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
        if self._wake.locked():
            try:
                self._wake.release()
            except RuntimeError:
                return  # another one was quicker

    # ---- the thread

    def _run(self) -> None:
        while True:
            self._wake.acquire(timeout=POLL_S if self._line.waiting else INTERVAL_S)
            if self._urgent and not self._line and not self._stop:
                self._wake.acquire(timeout=SETTLE_WITHIN_S)
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - the thread must outlive any bug of ours, or nothing is written any more
                _log.exception("the ledger's writer met an error of its own")
                time.sleep(_BACKOFF_S[0])
            if self._stop and self._ended():
                return

    def _ended(self) -> bool:
        """Whether all that was there is written, or cannot be, and the thread ends; later events start another one."""
        with self._start_lock:
            self._thread = None
            left = self._queue or self._line
            done = self._last.settled or self.counts.last_error
            if self._deferred or self._line.asking or (left and not done):  # what is deferred may still become an event
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
        overridden = self._follow_others()
        if self._line.waiting and self._may_move(renewed=self._line.renew(changed=overridden)):
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
        if not self._queue and not self._line.asking and not self._stop:
            self.upkeep.turn(hurry=bool(self._line.waiting))

    def _run_deferred(self) -> None:
        while self._deferred:
            try:
                self._deferred[0]()
            except Exception:  # noqa: BLE001 - one abandoned call must not keep the others from being recorded
                _log.exception("settling an abandoned call failed")
            self._deferred.popleft()  # not before: until it is done, it is pending

    def _write_batch(self) -> bool:
        batch = self._queue.take(BATCH)
        try:
            return self._commit(batch, self._line.take(BATCH))
        finally:
            self._queue.release()

    def _commit(self, batch: list[Item], asking: list[Waiting]) -> bool:
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
                self._queue.stored(batch)
                self._answer_holds(asking, outcome.answers)
        return True

    def _write(self, batch: list[Item], requests: list[HoldRequest]) -> Outcome:
        entries = [item for item in batch if isinstance(item, Entry)]
        definitions = [item for item in batch if isinstance(item, Definition)]
        if not (entries or definitions or requests):
            return Outcome()
        facts = self.counts.noted()
        with self.store_lock:
            outcome = self._store.write(entries, requests, definitions, facts)
            self._publish(outcome)  # in here, or a balance could overwrite a newer one
        self.counts.stored(facts)
        self.counts.written += len(entries) - outcome.duplicates
        self.counts.replayed += outcome.duplicates
        self.counts.last_error, self._backoff, self._retry_at = None, _BACKOFF_S[0], 0.0
        for index, conflict in outcome.conflicts.items():
            self.counts.conflicts += 1
            self.counts.note("conflicts")
            _log.error("%s; it was not stored again", conflict)
            entries[index].error = LedgerConflict(conflict)
        return outcome

    def _answer_holds(self, asking: Iterable[Waiting], answers: Iterable[Answer]) -> None:
        answered: list[Waiting] = []
        for waiting, answer in zip(asking, answers, strict=True):
            if waiting.hopes(answer) and not self._stop:
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

    def _put_back(self, batch: list[Item], asking: list[Waiting], error: LedgerUnavailable) -> None:
        if self.counts.last_error is None:
            kept = "in the journal" if self.journal.works else "in memory"
            _log.error("%s. Events wait %s until it can be written", error, kept)
        self.counts.failures += 1
        self.counts.note("write_failures")
        self.counts.last_error = str(error)
        self._queue.give_back(batch, error)
        wake([a.ticket for a in asking if a.ticket.answer(None, error)])
        if error.uncertain:
            for asked in asking:
                self.put(Entry(asked.request.withdraw(), asked.request.hold_id, if_held=True))
        self._retry_at = time.monotonic() + self._backoff
        self._backoff = min(self._backoff * 2, _BACKOFF_S[1])

    def _reject(self, batch: list[Item], asking: list[Waiting], error: Exception) -> None:
        """Leave out the one entry that cannot be stored."""
        self.counts.rejected += 1
        self.counts.note("rejected_events")
        _log.error("an event cannot be stored and was left out: %s: %s", type(error).__name__, error)
        wake([waiting.ticket for waiting in asking if waiting.ticket.answer(None, error)])
        for entry in batch:
            if not isinstance(entry, Entry):
                continue
            entry.error = error
            if entry.segment is not None:
                entry.segment.suspect = True  # the journal's file is set aside
            if entry.release is not None and not entry.substitute:
                self._settle_at_hold(entry.release, "its settlement could not be stored")  # it may have been billed
        self._queue.stored(batch)

    def _settle_at_hold(self, hold_id: bytes, reason: str) -> None:
        self.put(at_hold(self._store, hold_id, reason))

    def _may_move(self, *, renewed: bool) -> bool:
        """Whether those in line may find another answer than when they last looked: a look costs each of them."""
        changes, now = self.view.changes, time.monotonic()
        seen, again_at = self._looked
        if not (renewed or self._stop or changes != seen or now >= again_at or self._line.is_due()):
            return False
        self._looked = changes, now + _LOOK_AGAIN_S
        return True

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
        self.view.committed(outcome.balances)
        self.listeners.publish(outcome.stored, outcome.latest)

    def _follow_others(self) -> bool:
        """Take over what other processes have committed; True where overrides of budgets are among it."""
        if (self.view.is_watched or self._line.waiting) and not self.counts.last_error:
            with self.store_lock, suppress(LedgerUnavailable):  # the next write reports it
                return self.view.follow()
        return False


def _halves(batch: list[Item], asking: list[Waiting]) -> list[tuple[list[Item], list[Waiting]]]:
    if batch and asking:
        return [(batch, []), ([], asking)]
    half = max(len(batch), len(asking)) // 2
    return [(batch[:half], asking[:half]), (batch[half:], asking[half:])]
