"""What the flavours share in reading requests: the effective body, a bound on its input tokens, its attributes.

The bound rests on this: a byte-level tokenizer makes no more tokens than the text has UTF-8 bytes (measured: up to 1.00
on rare scripts). So all strings are walked and their bytes added up, with a few for each key and number; base64 media
are stripped and bounded for each item; and constants cover what providers add around messages and tools.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from tollspan.instrumentation._readers._inline import audio_seconds
from tollspan.instrumentation._readers._sse import count, text, utf8_bytes

_LOG = logging.getLogger(__name__)

# What providers add around a request; measured over recorded calls: at most 360 tokens with tools.
REQUEST_TOKENS = 64
ITEM_TOKENS = 16
TOOLS_TOKENS = 512

# For what stands around a sound.
SOUND_TOKENS = 64

SEQUENCES = (list, tuple)
_ITERATED = (*SEQUENCES, str, type(None))
_COLLECTIONS = (*SEQUENCES, AbstractSet, deque)
_BYTES = (bytes, bytearray, memoryview)
_PRINTED = (date, time, Decimal, UUID)
_PUNCTUATION = 2
_SCALAR = 5
_FLOAT = 24
_FLAT: dict[type, int] = {bool: _SCALAR, float: _FLOAT, type(None): _SCALAR}
# More nodes than this mean a cycle, or a body that no provider takes.
_MAX_NODES = 2_000_000

_ABSENT = frozenset({"NotGiven", "Omit"})
_PLAIN = frozenset({bool, dict, float, int, list, str, type(None)})
_TRANSPORT = frozenset({"betas", "extra_body", "extra_headers", "extra_query", "timeout"})
_NAME_CHARS = 64

# What has no bound here because nobody but the provider sees how large it is: the provider's own count does.
SEEN_BY_COUNTING = frozenset(
    {
        "document by URL",
        "file by URI",
        "file by URL",
        "file held by the server",
        "image by URL",
        "image held by the server",
        "item held by the server",
        "reasoning held by the server",
    }
)

Measured = tuple[int, str | None, Sequence[object]]
"""Tokens, why they are no bound (or None), and the values inside that are still to be walked."""
MediaReader = Callable[[Mapping[str, Any], str], Measured | None]
Converter = Callable[[Any], Any]


def effective(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the JSON body that keyword arguments become.

    `extra_body` wins key by key, as in the SDKs; their sentinels for "not given" are absent, and so is what is no body.
    """
    extra = _extra(arguments)
    merged = {**arguments, **extra} if extra else arguments
    if _TRANSPORT.isdisjoint(merged) and _PLAIN.issuperset(map(type, merged.values())):
        return merged
    return {k: v for k, v in merged.items() if k not in _TRANSPORT and type(v).__name__ not in _ABSENT}


def placed(arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give the keyword arguments that put changes into force: in a copy of `extra_body` for those keys it has."""
    extra = _extra(arguments)
    inside = {key: value for key, value in changes.items() if key in extra}
    outside = {key: value for key, value in changes.items() if key not in extra}
    return {**outside, "extra_body": {**extra, **inside}} if inside else outside


def _extra(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = arguments.get("extra_body")
    return extra if extra is not None and isinstance(extra, Mapping) else {}


def limited(body: Mapping[str, Any], key: str, tokens: int) -> int:
    """Give `tokens`, or what the caller already asks under `key` where that is less."""
    asked = count(body.get(key))
    return tokens if asked is None else min(asked, tokens)


def number(value: object) -> float | None:
    """Convert to a float attribute."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def integer(value: object) -> int | None:
    """Convert to an integer attribute, which has 64 bits."""
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def several(value: object) -> int | None:
    """Convert a choice count, where it is not the default of one."""
    chosen = count(value)
    return None if chosen == 1 else chosen


def strings(value: object) -> list[str] | None:
    """Convert one string or several to a list attribute."""
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, SEQUENCES) else None


def attributes(body: Mapping[str, Any], table: Mapping[str, tuple[str, Converter]]) -> dict[str, Any]:
    """Give the OpenTelemetry GenAI attributes of those request fields that have one."""
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
    """Say why a list of tools has no bound: a tool whose `type` is none of `ours` is run by the provider."""
    for tool in tools if isinstance(tools, SEQUENCES) else ():
        kind = tool.get("type") if isinstance(tool, Mapping) else getattr(tool, "type", None)
        if isinstance(kind, str) and kind not in ours:
            return f"hosted tool {kind[:_NAME_CHARS]}"
    return None


def given(body: Mapping[str, Any], reasons: Mapping[str, str]) -> str | None:
    """Give the reason of the first of these fields that is there, and no empty list or text."""
    if reasons.keys().isdisjoint(body):
        return None
    # An empty object switches a tool on as it is by default.
    return next((why for key, why in reasons.items() if (value := body.get(key)) or isinstance(value, Mapping)), None)


def input_bound(
    body: Mapping[str, Any], items: str, media: Mapping[str, MediaReader], *, tools: bool
) -> tuple[int, str | None]:
    """Bound the input tokens of one attempt; the second value says why that is no bound, or is None.

    `items` names the field with the messages. Formula: bytes of all strings + a few for each key and number + media
    + 64 + 16 for each message + 512 with tools or a schema. Media: see `_documents`, `_inline` and the flavour.
    """
    listed = body.get(items)
    if _is_iterator(listed):
        return REQUEST_TOKENS, f"{items} given as an iterator"
    total, unbounded = walk(body, media, text(body.get("model")) or "")
    messages = len(listed) if isinstance(listed, _COLLECTIONS) else 1
    return total + REQUEST_TOKENS + ITEM_TOKENS * messages + TOOLS_TOKENS * tools, unbounded


def walk(root: object, media: Mapping[str, MediaReader], model: str) -> tuple[int, str | None]:
    """Bound all that stands under `root`, without constants; iterators are left untouched."""
    total, unbounded = 0, None
    stack: list[object] = [root]
    for _ in range(_MAX_NODES):
        if not stack:
            return total, unbounded
        value = stack.pop()
        if type(value) is dict:
            reader = media.get(kind) if type(kind := value.get("type")) is str else None
            if reader is None or (found := reader(value, model)) is None:
                total += _dict_bytes(value, stack)
                continue
        else:
            found = (_SCALAR, None, value) if type(value) is list else _measured(value)
        total += found[0]
        if unbounded is None or unbounded in SEEN_BY_COUNTING:  # the graver reason stays
            unbounded = found[1] or unbounded
        stack.extend(found[2])
        if len(stack) > _MAX_NODES:
            break
    return total, "a body without an end"


def _dict_bytes(value: dict[Any, Any], stack: list[object]) -> int:
    """Add up a plain object's keys and scalars; what else is in it goes on the stack."""
    total = _SCALAR
    for key, inner in value.items():
        total += _PUNCTUATION + (len(key) if type(key) is str and key.isascii() else _key_bytes(key))
        kind = type(inner)
        if kind is str:
            total += _PUNCTUATION + (len(inner) if inner.isascii() else utf8_bytes(inner))
        elif kind in _FLAT:
            total += _FLAT[kind]
        elif kind is int:
            total += inner.bit_length() // 3 + _SCALAR
        else:
            stack.append(inner)
    return total


def _key_bytes(key: object) -> int:
    return utf8_bytes(key) if isinstance(key, str) else _FLOAT


def _measured(value: Any) -> Measured:
    """Measure anything but a plain object."""
    if isinstance(value, _COLLECTIONS):
        return _SCALAR, None, tuple(value)
    if (size := _scalar_bytes(value)) is not None:
        return size, None, ()
    if isinstance(value, Mapping):
        return _SCALAR, None, (dict(value),)
    return _object(value)


def _scalar_bytes(value: Any) -> int | None:
    if isinstance(value, str):
        return utf8_bytes(value) + _PUNCTUATION
    if isinstance(value, int):
        return value.bit_length() // 3 + _SCALAR
    if value is None or isinstance(value, float) or type(value).__name__ in _ABSENT:
        return _FLOAT
    if isinstance(value, _BYTES):
        return len(value) * 4 // 3 + _SCALAR
    return len(str(value)) if isinstance(value, _PRINTED) else None


def _object(value: Any) -> Measured:
    """Measure a class, whose schema is sent, or a model or data class, whose fields are."""
    if isinstance(value, type):
        size = _schema_bytes(value)
        return (0, "a class without a JSON schema", ()) if size is None else (size, None, ())
    fields = getattr(value, "__dict__", None)
    is_model = hasattr(type(value), "model_dump") or hasattr(type(value), "__dataclass_fields__")
    if is_model and isinstance(fields, dict):
        return _SCALAR, None, (dict(fields), getattr(value, "__pydantic_extra__", None))
    what = "an iterator" if _is_iterator(value) else type(value).__name__[:_NAME_CHARS]
    return 0, f"content given as {what}", ()


def _is_iterator(value: object) -> bool:
    return not isinstance(value, _ITERATED) and hasattr(type(value), "__next__")


@lru_cache(maxsize=256)
def _schema_bytes(model: Any) -> int | None:
    """Give the size of a pydantic class's JSON schema, or None."""
    try:
        return len(orjson.dumps(model.model_json_schema()))
    except Exception:  # noqa: BLE001 (code of the caller builds the schema, and may raise anything)
        _LOG.debug("no JSON schema for %s", getattr(model, "__name__", "a class"), exc_info=True)
        return None


def without(part: Mapping[str, Any], *keys: str) -> tuple[object, ...]:
    """Give the values of a content part but for its media."""
    return tuple(value for key, value in part.items() if key not in keys)


def sound_tokens(value: object, per_second: float) -> tuple[int, str | None]:
    """Bound a sound that stands in the request, of which a second is so many tokens."""
    seconds = audio_seconds(value)
    return (0, "audio of unknown size") if seconds is None else (math.ceil(seconds * per_second) + SOUND_TOKENS, None)
