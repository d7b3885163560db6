"""Amazon's event-stream encoding (`application/vnd.amazon.eventstream`): binary frames around JSON events.

A frame is its length, that of its headers, a CRC-32 of these two, headers, payload, a CRC-32 of all before it; numbers
are big-endian and have 4 bytes. Source: Smithy, "Amazon Event Stream Specification". Nothing here raises for any bytes.
"""

import binascii
import re
import struct
from base64 import b64encode
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

import orjson

from tollspan.instrumentation._readers import _sse as sse

_PRELUDE = struct.Struct(">III")
_PRELUDE_BYTES, _CHECKED_BYTES, _CRC_BYTES = 12, 8, 4
_TEXT = 7
# What every frame of an event stream has among its headers, and one of these as the first of them.
_MARK = b":message-type\x07"
_FIRST_HEADER = re.compile(
    rb"\x0b:event-type\x07|\x0d:message-type\x07|\x0d:content-type\x07|\x0f:exception-type\x07|\x0b:error-code\x07"
)


class Frame(NamedTuple):
    """One event: its headers as they are on the wire, and its payload."""

    headers: bytes
    payload: bytes

    def header(self, name: str) -> str | None:
        """Give a header that is text, or None."""
        key = b"%c%s%c" % (len(name), name.encode(), _TEXT)
        start = self.headers.find(key) + len(key)
        if start < len(key):
            return None
        size = int.from_bytes(self.headers[start : start + 2], "big")
        return self.headers[start + 2 : start + 2 + size].decode("utf-8", "replace")

    @property
    def kind(self) -> str | None:
        """The type of its event."""
        return self.header(":event-type")

    @property
    def error(self) -> str | None:
        """The type of the error that it tells instead of an event, or None."""
        return self.header(":exception-type") or self.header(":error-code")


def is_framed(data: bytes) -> bool:
    """Tell whether these bytes of a stream, from wherever in it, are frames."""
    return _MARK in data


def frames(data: bytes) -> list[Frame]:
    """Give the whole and undamaged frames in a stream that may begin, end or be torn anywhere."""
    found, at = [], 0
    while at + _PRELUDE_BYTES <= len(data):
        size, headers, crc = _PRELUDE.unpack_from(data, at)
        start, end = at + _PRELUDE_BYTES, at + size - _CRC_BYTES
        if (
            crc32(data[at : at + _CHECKED_BYTES]) == crc
            and start + headers <= end <= len(data) - _CRC_BYTES
            and crc32(data[at:end]) == int.from_bytes(data[end : end + _CRC_BYTES], "big")
        ):
            found.append(Frame(data[start : start + headers], data[start + headers : end]))
            at += size
        else:
            after = _FIRST_HEADER.search(data, start + 1)
            at = after.start() - _PRELUDE_BYTES if after else len(data)
    return found


def chunks(stream: list[Frame]) -> Iterator[bytes]:
    """Give the JSON that the `chunk` events of an InvokeModel stream carry in base64."""
    for frame in stream:
        encoded = sse.text(sse.at(sse.parsed(frame.payload), "bytes"))
        if encoded is not None:
            try:
                yield binascii.a2b_base64(encoded)
            except ValueError:
                continue


def failure(stream: list[Frame]) -> tuple[str | None, str | None]:
    """Give type and message of the error that a stream ends with, if it does."""
    kind = stream[-1].error if stream else None
    if kind is None:
        return None, None
    told = sse.parsed(stream[-1].payload)
    message = sse.text(sse.at(told, "message")) or stream[-1].header(":error-message") or ""
    return sse.failure({"type": kind, "message": message})


def server_sent(data: bytes) -> bytes:
    """Give the events of an InvokeModel stream as server-sent events, and anything else as it is."""
    if not is_framed(data):
        return data
    stream = frames(data)
    return as_server_sent([*chunks(stream)], failure(stream))


def as_server_sent(events: list[bytes], failed: tuple[str | None, str | None]) -> bytes:
    """Give JSON events as server-sent events, and after them an error, if there is one."""
    kind, message = failed
    if kind is not None:
        events = [*events, orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})]
    # What is no part of a text may be spread over lines, which end an event.
    return b"".join(b"data: %s\n\n" % (event.replace(b"\n", b" ") if b"\n" in event else event) for event in events)


def in_base64(text: bytes) -> tuple[bytes, ...]:
    """Give how a text looks inside base64: one of three ways, by where it begins."""
    return tuple(
        b64encode(bytes(shift) + text)[-(-shift * 8 // 6) : (shift + len(text)) * 8 // 6] for shift in range(3)
    )
