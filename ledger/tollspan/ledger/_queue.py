"""What waits to be written: in memory up to a bound, and beyond it in the journal alone."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ._batch import Entry
from ._counts import WriterCounts
from ._errors import LedgerUnavailable
from ._journal import Journal, Segment
from ._store import Definition
from ._tickets import Ticket, wake

_log = logging.getLogger("tollspan.ledger")
_MILESTONES = frozenset(10**n for n in range(12))


@dataclass(slots=True, eq=False)
class Mark:
    """Somebody waits until all that was queued before is on disk; `entry` is what they queued themselves."""

    ticket: Ticket[None]
    entry: Entry | None = None


Item = Entry | Definition | Mark


class EventQueue:
    """Any thread may put; the rest belongs to the writer's thread. `limit` is how many items wait in memory."""

    def __init__(self, journal: Journal, counts: WriterCounts, limit: int) -> None:
        self.journal, self._counts, self._limit = journal, counts, limit
        self._items: deque[Item] = deque()
        self._in_flight = 0
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def pending(self) -> int:
        """How many are not on disk yet."""
        return len(self._items) + self._in_flight + self.journal.spilled

    def put(self, entry: Entry) -> int:
        """Queue an event, which is in the journal then, if there is one; gives back how many waited before it."""
        journal, items = self.journal, self._items
        if journal.enabled:
            entry.segment = journal.append(entry.posting, entry.release)
        waiting = len(items)
        if waiting >= self._limit and self._wait_elsewhere(entry):
            return waiting
        if not waiting:
            self._since = time.monotonic()
        items.append(entry)
        return waiting

    def put_marked(self, entry: Entry | None, ticket: Ticket[None]) -> None:
        """Queue an event, if any, whatever waits, and answer the ticket when it and all before it is on disk."""
        if entry is not None:
            entry.segment = self.journal.append(entry.posting, entry.release)
            self._add(entry)
        self._add(Mark(ticket, entry))

    def put_definition(self, definition: Definition) -> None:
        """Queue a budget's definition."""
        self._add(definition)

    def _add(self, item: Item) -> None:
        if not self._items:
            self._since = time.monotonic()
        self._items.append(item)

    def take(self, most: int) -> list[Item]:
        """The next batch; it counts as pending until `release`."""
        self._in_flight = min(most, len(self._items))  # before they leave the queue, or a flush could miss them
        return [self._items.popleft() for _ in range(self._in_flight)]

    def release(self) -> None:
        """The batch is written, or back in the queue."""
        self._in_flight = 0

    def give_back(self, batch: Sequence[Item], error: LedgerUnavailable) -> None:
        """Put a batch that could not be written back in front; whoever waits for it, or behind it, hears the error.

        It may be long before the ledger can be written, and they need not wait for that.
        """
        marks = [item for item in (*batch, *self._items.copy()) if isinstance(item, Mark)]
        wake([mark.ticket for mark in marks if mark.ticket.answer(None, error)])
        self._items.extendleft(reversed([item for item in batch if not isinstance(item, Mark)]))

    def stored(self, batch: Sequence[Item]) -> None:
        """A batch is done with: the journal need not keep it any more, and whoever waits for it is told."""
        answered: list[Ticket[None]] = []
        for item in batch:
            if isinstance(item, Entry):
                _forget(item)
            elif isinstance(item, Mark) and item.ticket.answer(None, item.entry.error if item.entry else None):
                answered.append(item.ticket)
        wake(answered)
        now = time.monotonic()
        self._counts.lag_ms = (now - self._since) * 1000
        self._since = now

    def _wait_elsewhere(self, entry: Entry) -> bool:
        """There is no room in memory: an event waits in the journal alone, or, without one, is lost, and said to be."""
        segment: Segment | None = entry.segment
        if segment is not None:
            if entry.begun is not None:
                segment.begun.append(entry.begun)
            segment.spilled.append(None)
            self._counts.spilled += 1
            return True
        if entry.release is not None:
            return False  # one for each hold there is: they are few, and without them a budget stays short for ever
        counts = self._counts
        counts.lost += 1
        counts.note("lost_events")
        if counts.lost in _MILESTONES:
            why = counts.last_error or "they come faster than it can be written"
            _log.error("%d events are lost, for want of room in memory and of a journal: %s", counts.lost, why)
        return True


def _forget(entry: Entry) -> None:
    if entry.segment is not None:
        entry.segment.done += 1
    if entry.begun is not None:
        entry.begun.ended += 1
