"""The journal: an event is in a file of its process before its producer goes on, and until it is in the ledger.

A process that is killed, however, leaves its file behind; whoever opens the ledger next stores what stands in it. The
page cache survives the end of a process, so nothing is synced here: the loss of power is what strict holds are for.

A line is a frame: length and CRC-32 of the JSON in hexadecimal, then the JSON. Without a checksum more than half of all
single damaged bits would pass as other events.
"""

import errno
import logging
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from ._events import Charge, LedgerEvent
from ._owners import ASIDE_SUFFIX, JOURNAL_SUFFIX, Owner
from ._rows import COLUMNS, Row, from_row

_log = logging.getLogger("tollspan.ledger")

FORMAT = 1
_FULL_BYTES = 1_000_000
_TRY_AGAIN_S = 1.0
_BEGIN = "begin"
_HEADER = {"tollspan_journal": FORMAT, "columns": COLUMNS}


class Beginning(NamedTuple):
    """A call that is about to be sent, and what to count if its process is never heard of again.

    `estimate` is in nano-USD; None is unpriced, and `reason` says why. `started` is in epoch seconds.
    """

    call_id: bytes
    started: float
    operation: str
    provider: str | None
    model: str | None
    estimate: int | None
    reason: str | None
    trace_id: str | None = None
    span_id: str | None = None
    profile_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    tags: Mapping[str, str] = MappingProxyType({})
    charges: tuple[Charge, ...] = ()


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

    def append(self, row: Row, release: bytes | None) -> Segment | None:
        """Write an event, and the hold that it settles; None where it cannot be written now: `last_error` says why."""
        return self._write((release, *row)) if self.enabled else None

    def begin(self, beginning: Beginning) -> Segment | None:
        """Note that a call is about to be sent; its settlement is to give the segment back."""
        if not self.enabled:
            return None
        segment = self._write({_BEGIN: (*beginning[:-2], dict(beginning.tags), beginning.charges)})
        if segment is not None:
            segment.calls.append(None)
        return segment

    def tidy(self) -> None:
        """Remove the files whose events are in the ledger; begin a new one where the present one is full."""
        segment = self._segment
        if segment is not None and segment.size > _FULL_BYTES:
            self._retire(segment)
        if self._old:
            gone = [old for old in self._old if old.complete and not old.spilled]
            for old in gone:
                with suppress(OSError):  # the folder cannot be written now; what stays is replayed, and known by then
                    old.remove()
            self._old = [old for old in self._old if old not in gone]

    def to_read_back(self) -> list[Segment]:
        """The files with events that are not in memory, and which nobody writes any more."""
        segment = self._segment
        if segment is not None and segment.spilled:
            self._retire(segment)
        return [old for old in self._old if old.spilled and old.readable]

    def close(self) -> bool:
        """Remove what is in the ledger; whether that is all. The next event begins a new file."""
        if self._segment is not None:
            self._retire(self._segment)
        self.tidy()
        return not self._old

    def forget(self) -> None:
        """In a forked child: the files are the parent's."""
        for segment in (*self._old, *([self._segment] if self._segment else ())):
            segment.close()
        self._reset()

    def _write(self, what: Any) -> Segment | None:
        try:
            frame = framed(orjson.dumps(what, default=bytes.hex))
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
            header = framed(orjson.dumps(_HEADER))
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


@dataclass(slots=True)
class Contents:
    """What a journal file holds: events with the holds they settle; beginnings; and how many damaged lines.

    `foreign` is a file of a version that this tollspan does not know.
    """

    events: list[tuple[bytes | None, LedgerEvent]] = field(default_factory=list)
    beginnings: list[Beginning] = field(default_factory=list)
    damaged: int = 0
    foreign: bool = False


def _full(segment: Segment) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(segment.path))


def framed(body: bytes) -> bytes:
    """A line of a journal. It begins with a line break too, or a line that was torn before it would take it along."""
    return b"\n%08x %08x %b\n" % (len(body), zlib.crc32(body), body)


def read_journal(path: Path) -> Contents:
    """What a journal file holds. Raises OSError."""
    contents = Contents()
    data = path.read_bytes()
    if not data:  # its process was killed between making and using it
        return contents
    frames = _frames(data)
    header = next(frames, None)
    columns = COLUMNS if header is None else _columns(header)
    if columns is None:
        contents.foreign = True
        return contents
    contents.damaged = int(header is None)
    for body in frames:
        try:
            _take(contents, columns, orjson.loads(body or b""))
        except Exception:  # noqa: BLE001 - however a line is wrong, the others are good
            contents.damaged += 1
    return contents


def _take(contents: Contents, columns: Sequence[str], found: Any) -> None:
    if isinstance(found, dict):
        contents.beginnings.append(_beginning(found))
    else:
        release, *values = found
        contents.events.append((_bytes(release), from_row(_named(columns, values))))


def set_aside(path: Path) -> Path:
    """Keep a file that holds what could not be stored where nobody reads it again; gives its new path."""
    aside = path.with_name(path.name + ASIDE_SUFFIX)
    path.replace(aside)
    return aside


def _frames(data: bytes) -> Iterator[bytes | None]:
    """The bodies of the lines; None for a damaged one. The JSON that we write has no line break in it."""
    for line in filter(None, data.split(b"\n")):
        body = line[18:]
        try:
            sound = int(line[:8], 16) == len(body) and int(line[9:17], 16) == zlib.crc32(body)
        except ValueError:
            sound = False
        yield body if sound else None


def _columns(header: bytes) -> Sequence[str] | None:
    found = orjson.loads(header)
    known = isinstance(found, dict) and found.get("tollspan_journal") == FORMAT
    return list(found["columns"]) if known else None


def _named(columns: Sequence[str], values: list[Any]) -> dict[str, Any]:
    row = dict.fromkeys(COLUMNS) | dict(zip(columns, values, strict=True))
    for name in ("event_id", "call_id", "trace_id", "span_id"):
        row[name] = _bytes(row[name])
    return {**row, "offset": None}


def _beginning(found: dict[str, Any]) -> Beginning:
    call_id, *rest, charges = found[_BEGIN]
    return Beginning._make((bytes.fromhex(call_id), *rest, tuple(Charge(**charge) for charge in charges)))


def _bytes(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text else None


def journals_of(owner: str, folder: Path) -> list[Path]:
    """The journal files of an owner, oldest first."""
    return sorted(folder.glob(f"{owner}.*{JOURNAL_SUFFIX}"))
