"""What stands in a file of a journal: a line for each event, and for each call that began without a hold.

A line is a frame: length and CRC-32 of the JSON in hexadecimal, then the JSON. Without a checksum more than half of all
single damaged bits would pass as other events. The first line names the version and the columns.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from ._events import Charge, LedgerEvent
from ._owners import ASIDE_SUFFIX, JOURNAL_SUFFIX
from ._rows import COLUMNS, Row, from_row

FORMAT = 1
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


@dataclass(slots=True)
class Contents:
    """What a journal file holds: events with the holds they settle; beginnings; and how many damaged lines.

    `foreign` is a file of a version that this tollspan does not know.
    """

    events: list[tuple[bytes | None, LedgerEvent]] = field(default_factory=list)
    beginnings: list[Beginning] = field(default_factory=list)
    damaged: int = 0
    foreign: bool = False


def header_line() -> bytes:
    """The first line of a file."""
    return framed(orjson.dumps(_HEADER))


def event_line(row: Row, release: bytes | None) -> bytes:
    """The line of an event, and of the hold that it settles. Raises TypeError for what no ledger can store."""
    return framed(orjson.dumps((release, *row), default=bytes.hex))


def beginning_line(call: Beginning) -> bytes:
    """The line of a call that begins. Raises TypeError for what no ledger can store."""
    values = (*call[:-2], dict(call.tags), call.charges)
    return framed(orjson.dumps({_BEGIN: values}, default=bytes.hex))


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
