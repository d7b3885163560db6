"""What stands in a file of a journal: a line for each event, and for each call that began without a hold.

A line is a frame: length and CRC-32 of the JSON in hexadecimal, then the JSON. Without a checksum more than half of all
single damaged bits would pass as other events. The first line names the version and the fields.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ._events import Charge
from ._owners import ASIDE_SUFFIX, JOURNAL_SUFFIX
from ._postings import Posting
from ._rows import plain

FORMAT = 2
_BEGINS = "begins"
_HEADER = {"tollspan_journal": FORMAT, "fields": Posting._fields}


@dataclass(slots=True)
class Contents:
    """What a journal file holds: events with the holds they settle; beginnings; and how many damaged lines.

    A beginning is the event that ends its call, should its process never be heard of again.

    `foreign` is a file of a version that this tollspan does not know.
    """

    postings: list[tuple[bytes | None, Posting]] = field(default_factory=list)
    beginnings: list[Posting] = field(default_factory=list)
    damaged: int = 0
    foreign: bool = False


def header_line() -> bytes:
    """The first line of a file."""
    return framed(orjson.dumps(_HEADER))


def event_line(posting: Posting, release: bytes | None) -> bytes:
    """The line of an event, and of the hold that it settles. Raises TypeError for what no ledger can store."""
    return framed(_body(release, posting))


def beginning_line(end: Posting) -> bytes:
    """The line of a call that begins, with what ends it at the worst. Raises TypeError for what no ledger can store."""
    return framed(_body(_BEGINS, end))


def _body(first: object, posting: Posting) -> bytes:
    values = (first, *posting)
    try:
        return orjson.dumps(values, default=bytes.hex)  # what there is of bytes; anything else is rare
    except TypeError:
        return orjson.dumps(values, default=_told)


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
    names = Posting._fields if header is None else _names(header)
    if names is None:
        contents.foreign = True
        return contents
    contents.damaged = int(header is None)
    for body in frames:
        try:
            _take(contents, names, orjson.loads(body or b""))
        except Exception:  # noqa: BLE001 - however a line is wrong, the others are good
            contents.damaged += 1
    return contents


def _take(contents: Contents, names: Sequence[str], found: list[Any]) -> None:
    first, *values = found
    posting = _posting(dict(zip(names, values, strict=True)))
    if first == _BEGINS:
        contents.beginnings.append(posting)
    else:
        contents.postings.append((_bytes(first), posting))


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


def _told(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else plain(value)


def _names(header: bytes) -> Sequence[str] | None:
    found = orjson.loads(header)
    known = isinstance(found, dict) and found.get("tollspan_journal") == FORMAT
    return list(found["fields"]) if known else None


def _posting(found: dict[str, Any]) -> Posting:
    """The posting with these values; a field that it lacks has its default."""
    for name in ("event_id", "call_id", "trace_id", "span_id"):
        found[name] = _bytes(found[name])
    found["charges"] = tuple(Charge(**charge) for charge in found["charges"])
    found["records"] = tuple(found["records"])
    return Posting(**{name: value for name, value in found.items() if name in Posting._fields})


def _bytes(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text else None


def journals_of(owner: str, folder: Path) -> list[Path]:
    """The journal files of an owner, oldest first."""
    return sorted(folder.glob(f"{owner}.*{JOURNAL_SUFFIX}"))
