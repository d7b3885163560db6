"""The journal: an event is in a file of its process before its producer goes on, and until it is in the ledger.

A process that is killed, however, leaves its file behind; whoever opens the ledger next stores what stands in it. The
page cache survives the end of a process, so nothing is synced here: the loss of power is what strict holds are for.
"""

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ._journal_format import beginning_line, event_line, header_line, set_aside
from ._owners import Owner
from ._postings import Posting

_log = logging.getLogger("tollspan.ledger")

_FULL_BYTES = 1_000_000
_TRY_AGAIN_S = 1.0


class Segment:
    """One file of a journal. It goes when all that was written into it is in the ledger."""

    __slots__ = ("begun", "calls", "descriptor", "done", "ended", "path", "size", "spilled", "started", "suspect")

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        self.descriptor = os.open(path, flags, 0o666)
        self.started: deque[None] = deque()  # grows by atomic appends of any thread: `+= 1` would lose some
        self.spilled: deque[None] = deque()  # those of them that wait here only, and not in memory
        self.begun: deque[Segment] = deque()  # where the calls of those began
        self.calls: deque[None] = deque()  # those that are beginnings of calls, not events
        self.done = self.ended = 0  # events stored, and calls whose end is: counted by the writer's thread alone
        self.size = 0
        self.suspect = False

    @property
    def complete(self) -> bool:
        """Whether the ledger has all of it, but for what has to be read back."""
        return self._open == 0

    @property
    def readable(self) -> bool:
        """Whether nothing is on its way into it or to the ledger any more: calls that began here may still run."""
        return self._open == len(self.calls) - self.ended

    @property
    def _open(self) -> int:
        return len(self.started) - self.done - self.ended - len(self.spilled)

    def remove(self) -> None:
        """Close and delete the file; one with an event that could not be stored is set aside for people."""
        self.close()
        if self.suspect:
            set_aside(self.path)
        else:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, and leave it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Journal:
    """The journal of one process. Any thread may write; the rest belongs to the writer's thread."""

    def __init__(self, ledger: Path | None, owner: Owner, *, enabled: bool) -> None:
        self._ledger, self._owner = ledger, owner
        self.enabled = enabled and ledger is not None
        self.failures = 0
        self.last_error: str | None = None
        self._reset()

    def _reset(self) -> None:
        self._opening = threading.RLock()
        self._segment: Segment | None = None
        self._old: list[Segment] = []
        self._count = 0
        self._retry_at = 0.0

    @property
    def works(self) -> bool:
        """Whether events are in a file now, and so outlive this process."""
        return self.enabled and self.last_error is None

    @property
    def spilled(self) -> int:
        """How many events wait in the files only."""
        current = [self._segment] if self._segment else []
        return sum(len(segment.spilled) for segment in (*self._old, *current))

    def append(self, posting: Posting, release: bytes | None) -> Segment | None:
        """Write an event, and the hold that it settles; None where it cannot be written now: `last_error` says why."""
        return self._write(event_line, posting, release) if self.enabled else None

    def begin(self, end: Posting) -> Segment | None:
        """Note that a call is about to be sent, and what ends it if nothing else does, which gives the segment back."""
        if not self.enabled:
            return None
        segment = self._write(beginning_line, end)
        if segment is not None:
            segment.calls.append(None)
        return segment

    def tidy(self) -> None:
        """Remove the files whose events are in the ledger; begin a new one where the present one is full."""
        segment = self._segment
        if segment is not None and segment.size > _FULL_BYTES:
            self._retire(segment)
        if self._old:
            for old in [old for old in self._old if old.complete and not old.spilled]:
                with suppress(OSError):  # the folder cannot be written now; what stays is replayed, and known by then
                    old.remove()
                self._old.remove(old)

    def to_read_back(self) -> list[Segment]:
        """The files with events that are not in memory, and which nobody writes any more."""
        segment = self._segment
        if segment is not None and segment.spilled:
            self._retire(segment)
        return [old for old in self._old if old.spilled and old.readable]

    def close(self, leave: Callable[[], None]) -> None:
        """Remove what is in the ledger, and `leave` if that is all: nobody begins a new file meanwhile."""
        with self._opening:
            if self._segment is not None:
                self._retire(self._segment)
            self.tidy()
            if not self._old:
                leave()

    def forget(self) -> None:
        """In a forked child: the files are the parent's."""
        for segment in (*self._old, *([self._segment] if self._segment else ())):
            segment.close()
        self._reset()

    def _write(self, line: Callable[..., bytes], *what: Any) -> Segment | None:
        try:
            frame = line(*what)
        except TypeError:
            return None  # nor can the ledger store it; the writer says so
        while True:
            segment = self._segment or self._open()
            if segment is None:
                return None
            segment.started.append(None)  # register first, then look again: the writer may just have retired it
            if self._segment is segment:
                break
            segment.started.pop()
        try:
            written = os.write(segment.descriptor, frame)
        except OSError as error:
            self._failed(segment, error)
            return None
        if written < len(frame):
            self._failed(segment, _full(segment))
            return None
        segment.size += written
        return segment

    def _open(self) -> Segment | None:
        with self._opening:
            if self._segment is None and time.monotonic() >= self._retry_at:
                try:
                    self._segment = self._new()
                    self.last_error = None
                except OSError as error:
                    self._note(error)
            return self._segment

    def _new(self) -> Segment:
        assert self._ledger is not None, "a ledger in memory has no journal"
        self._count += 1
        segment = Segment(self._owner.journal_path(self._count))
        try:
            header = header_line()
            if os.write(segment.descriptor, header) < len(header):
                raise _full(segment)
        except OSError:
            segment.close()
            raise
        return segment

    def _retire(self, segment: Segment) -> None:
        with self._opening:
            if self._segment is segment:
                self._segment = None
                self._old.append(segment)

    def _failed(self, segment: Segment, error: OSError) -> None:
        """A line may be torn: nothing more goes into that file. Its last event is in memory only."""
        self._retire(segment)
        segment.started.pop()
        self._note(error)

    def _note(self, error: OSError) -> None:
        self.failures += 1
        if self.last_error is None:
            _log.error("the journal cannot be written: %s. Until it can, what waits is lost with the process", error)
        self.last_error = f"the journal cannot be written: {error}"
        self._retry_at = time.monotonic() + _TRY_AGAIN_S


def _full(segment: Segment) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(segment.path))
