"""What the flavours share in reading requests: the effective body, an upper bound on its input tokens, its attributes.

The bound rests on this: a byte-level tokenizer never makes more tokens than the text has UTF-8 bytes (measured: up to 1.00
on rare scripts). So all strings are walked and their bytes added up, with a few bytes for each key and number; base64
media are stripped and bounded for each item; and constants cover what providers add around messages and tools.
"""

import binascii
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from tollspan.instrumentation._readers._sse import count, text, utf8_bytes

_LOG = logging.getLogger(__name__)

# Tokens that providers add around a request. Measured over recorded calls: at most 12 for each message, 360 for tools.
REQUEST_TOKENS = 64
ITEM_TOKENS = 16
TOOLS_TOKENS = 512

# A compressed page of text can hold more tokens than half its bytes: measured 1.2 a byte on generated PDFs, with a page's
# image in it. So a file counts a token for each decoded byte, plus this; many blank pages can still come out above it.
FILE_TOKENS = 8_192
# OpenAI bills ten audio tokens a second, and no MP3 has under 1,000 bytes a second.
AUDIO_TOKENS = 500
_AUDIO_BYTES_PER_TOKEN = 100

_PUNCTUATION = 2
_SCALAR = 5
_INT = 5
_FLOAT = 24
_FLAT = frozenset({bool, float, type(None)})
_BYTES = (bytes, bytearray, memoryview)
# A walk this long means a cycle, or a body no provider takes.
_MAX_NODES = 2_000_000
_HEAD_CHARS = 64
_JPEG_CHARS = 262_144
_ABSENT = frozenset({"NotGiven", "Omit"})
_TRANSPORT = frozenset({"betas", "extra_body", "extra_headers", "extra_query", "timeout"})
SEQUENCES = (list, tuple)
_COLLECTIONS = (*SEQUENCES, AbstractSet, deque)
_SCALARS = (date, time, Decimal, UUID)

Rest = tuple[object, ...]
MediaReader = Callable[[Mapping[str, Any], str], "tuple[int, str | None, Rest] | None"]
Converter = Callable[[Any], Any]


def effective(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the JSON body that keyword arguments become.

    `extra_body` wins key by key, as in the SDKs; their sentinels for "not given" are absent, and so is what is not body.
    """
    extra = _extra(arguments)
    merged = {**arguments, **extra} if extra else arguments
    for key, value in merged.items():
        if key in _TRANSPORT or type(value).__name__ in _ABSENT:
            break
    else:
        return merged
    return {k: v for k, v in merged.items() if k not in _TRANSPORT and type(v).__name__ not in _ABSENT}


def placed(arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments that put `changes` into force: a key that `extra_body` has is changed in a copy of that."""
    extra = _extra(arguments)
    inside = {key: value for key, value in changes.items() if key in extra}
    outside = {key: value for key, value in changes.items() if key not in extra}
    return {**outside, "extra_body": {**extra, **inside}} if inside else outside


def _extra(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = arguments.get("extra_body")
    return extra if extra is not None and isinstance(extra, Mapping) else {}


def limited(body: Mapping[str, Any], key: str, tokens: int) -> int:
    """`tokens`, or what the caller already asks under `key` where that is less."""
    asked = count(body.get(key))
    return tokens if asked is None else min(asked, tokens)


def number(value: object) -> float | None:
    """A float attribute."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def strings(value: object) -> list[str] | None:
    """A list attribute, from one string or several."""
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, SEQUENCES) else None


def several(value: object) -> int | None:
    """A choice count, where it is not the default of one."""
    chosen = count(value)
    return None if chosen == 1 else chosen


def attributes(body: Mapping[str, Any], table: Mapping[str, tuple[str, Converter]]) -> dict[str, Any]:
    """Attributes of the OpenTelemetry GenAI conventions for those request fields that have one."""
    found = {}
    for key, value in body.items():
        if value is not None and key in table:
            name, convert = table[key]
            if (converted := convert(value)) is not None:
                found[name] = converted
    if body.get("stream") is True:
        found["gen_ai.request.stream"] = True
    return found


def hosted_tool(tools: object, ours: AbstractSet[str]) -> str | None:
    """Say why a list of tools has no bound: the first whose `type` is none of `ours` is run by the provider."""
    for tool in tools if isinstance(tools, SEQUENCES) else ():
        kind = tool.get("type") if isinstance(tool, Mapping) else getattr(tool, "type", None)
        if isinstance(kind, str) and kind not in ours:
            return f"hosted tool {kind[:64]}"
    return None


def given(body: Mapping[str, Any], reasons: Mapping[str, str]) -> str | None:
    """Give the reason of the first of these fields that is there and not empty."""
    if reasons.keys().isdisjoint(body):
        return None
    return next((reason for key, reason in reasons.items() if body.get(key)), None)


def input_bound(
    body: Mapping[str, Any], items: str, media: Mapping[str, MediaReader], *, tools: bool
) -> tuple[int, str | None]:
    """An upper bound on the input tokens of one attempt, and why it does not hold, or None.

    `items` names the field with the messages. Formula: bytes of all strings + a few for each key and number + media
    + 64 + 16 for each message + 512 with tools or a schema. Media: see `FILE_TOKENS`, `AUDIO_TOKENS` and the flavour.
    """
    listed = body.get(items)
    if not isinstance(listed, SEQUENCES):
        if _is_iterator(listed):
            return REQUEST_TOKENS, f"{items} given as an iterator"
        listed = (listed,)
    total, unbounded = walk(body, media, text(body.get("model")) or "")
    return total + REQUEST_TOKENS + ITEM_TOKENS * len(listed) + TOOLS_TOKENS * tools, unbounded


def walk(root: object, media: Mapping[str, MediaReader], model: str) -> tuple[int, str | None]:
    """Bound all that stands under `root`, without constants; iterators are left untouched."""
    total, unbounded = 0, None
    stack: list[object] = [root]
    pop, push = stack.pop, stack.append
    for _ in range(_MAX_NODES):
        if not stack:
            return total, unbounded
        value = pop()
        if type(value) is dict:
            reader = media.get(kind) if type(kind := value.get("type")) is str else None
            if reader is None or (found := reader(value, model)) is None:
                for key, inner in value.items():
                    # The key and its punctuation; keys that are not ASCII are rare.
                    total += len(key) + _PUNCTUATION if type(key) is str and key.isascii() else 4 * len(str(key))
                    if type(inner) is str:
                        total += (len(inner) if inner.isascii() else utf8_bytes(inner)) + _PUNCTUATION
                    elif type(inner) in _FLAT:
                        total += _FLOAT
                    else:
                        push(inner)
                continue
        elif type(value) is list:
            stack.extend(value)
            continue
        else:
            found = _measured(value)
        total += found[0]
        unbounded = unbounded or found[1]
        stack.extend(found[2])
    return total, "a body without an end"


def _measured(value: Any) -> tuple[int, str | None, Rest]:
    """Measure what is no plain dict or list: its bytes, why it has no bound, and what is inside it."""
    if (size := _scalar_bytes(value)) is not None:
        return size, None, ()
    if isinstance(value, _COLLECTIONS):
        return _SCALAR, None, tuple(value)
    if isinstance(value, Mapping):
        return _SCALAR, None, (dict(value),)
    return _object(value)


def _scalar_bytes(value: Any) -> int | None:
    if isinstance(value, int):
        return value.bit_length() // 3 + _INT
    if value is None or isinstance(value, float) or type(value).__name__ in _ABSENT:
        return _FLOAT
    if isinstance(value, str):
        return utf8_bytes(value) + _PUNCTUATION
    if isinstance(value, _BYTES):
        return len(value) * 4 // 3 + _INT
    return len(str(value)) if isinstance(value, _SCALARS) else None


def _object(value: Any) -> tuple[int, str | None, Rest]:
    if isinstance(value, type):
        size = _schema_bytes(value)
        return (0, "a class without a JSON schema", ()) if size is None else (size, None, ())
    inside = getattr(value, "__dict__", None)
    if isinstance(inside, dict) and (
        hasattr(type(value), "model_dump") or hasattr(type(value), "__dataclass_fields__")
    ):
        return _SCALAR, None, (dict(inside), getattr(value, "__pydantic_extra__", None))
    if _is_iterator(value):
        return 0, "content given as an iterator", ()
    return 0, f"content given as {type(value).__name__[:64]}", ()


def _is_iterator(value: object) -> bool:
    return hasattr(type(value), "__next__") or hasattr(type(value), "__anext__")


@lru_cache(maxsize=256)
def _schema_bytes(model: Any) -> int | None:
    """The size of a pydantic class's JSON schema, or None."""
    try:
        return len(orjson.dumps(model.model_json_schema()))
    except Exception:  # noqa: BLE001 (a schema is built by code of the caller, which may raise anything)
        _LOG.debug("no JSON schema for %s", getattr(model, "__name__", "a class"), exc_info=True)
        return None


def without(part: Mapping[str, Any], *keys: str) -> Rest:
    """The values of a content part but for its media."""
    return tuple(value for key, value in part.items() if key not in keys)


def is_remote(value: object) -> bool:
    """Whether a string is an address to fetch from: its size is not ours to know."""
    return isinstance(value, str) and not value.startswith("data:") and "://" in value[:16]


def decoded_bytes(value: object) -> int | None:
    """The size of what a base64 string, or a `data:` URL of one, decodes to; None for files and paths."""
    if isinstance(value, bytes | bytearray):
        return len(value)
    if not isinstance(value, str):
        return None
    return (len(value) - value.find(",", 0, 128) - 1) * 3 // 4 + 3


def file_tokens(value: object) -> tuple[int, str | None]:
    """The bound on an inline file (see `FILE_TOKENS`)."""
    size = decoded_bytes(value)
    return (0, "file of unknown size") if size is None else (size + FILE_TOKENS, None)


def audio_tokens(value: object) -> tuple[int, str | None]:
    """The bound on inline audio (see `AUDIO_TOKENS`)."""
    size = decoded_bytes(value)
    return (0, "audio of unknown size") if size is None else (size // _AUDIO_BYTES_PER_TOKEN + AUDIO_TOKENS, None)


def pixels(value: object) -> tuple[int, int] | None:
    """Width and height of an inline PNG, GIF, WebP or JPEG, from its header; None where they do not stand there."""
    if not isinstance(value, str):
        return None
    start = value.find(",", 0, 128) + 1
    head = _decoded(value[start : start + _HEAD_CHARS])
    if head.startswith(b"\x89PNG"):
        return _big(head[16:20]), _big(head[20:24])
    if head.startswith(b"GIF8"):
        return _little(head[6:8]), _little(head[8:10])
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp_pixels(head)
    if head.startswith(b"\xff\xd8"):
        return _jpeg_pixels(_decoded(value[start : start + _JPEG_CHARS]))
    return None


def _webp_pixels(head: bytes) -> tuple[int, int] | None:
    """WebP container specification: the three kinds of first chunk."""
    kind = head[12:16]
    if kind == b"VP8X":
        return _little(head[24:27]) + 1, _little(head[27:30]) + 1
    if kind == b"VP8L":
        packed = _little(head[21:25])
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    return (_little(head[26:28]) & 0x3FFF, _little(head[28:30]) & 0x3FFF) if kind == b"VP8 " else None


def _jpeg_pixels(data: bytes) -> tuple[int, int] | None:
    """ITU-T T.81: the start-of-frame segment, SOF0 to SOF15 but for DHT, JPG and DAC."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            return _big(data[at + 7 : at + 9]), _big(data[at + 5 : at + 7])
        at += 2 + max(_big(data[at + 2 : at + 4]), 2)
    return None


def _decoded(base64: str) -> bytes:
    try:
        return binascii.a2b_base64(base64[: len(base64) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def patches(size: tuple[int, int], side: int) -> int:
    """How many squares of `side` pixels cover an image."""
    return math.ceil(size[0] / side) * math.ceil(size[1] / side)
