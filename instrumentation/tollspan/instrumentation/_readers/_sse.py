"""What the flavours share in reading answers: JSON bodies, server-sent events, token counts and errors.

Nothing here raises for any bytes. What cannot be read is None or absent, never 0.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

MESSAGE_CHARS = 200
# Where the end of a stream is looked for: only comments and `[DONE]` come after it.
TAIL_BYTES = 4_096
_TYPE_CHARS = 100
_MESSAGE_READ = 2_000
_BOM = b"\xef\xbb\xbf"
# Above this, a float can no longer tell two counts apart, and no answer has that many tokens.
_MAX_COUNT = 2**53
_SPOKEN_DEPTH = 4

_KEY_LIKE = re.compile(
    r"(?i:\bbearer\s+)\S{8,}"
    r"|\b(?:sk|pk|rk|gsk|xai|hf|ghp)[-_][\w*.+/=-]{4,}"
    r"|\b(?:AIza|eyJ)[\w.-]{10,}"
    r"|(?<![A-Za-z0-9])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20,}"
    r"|[\w+=]{40,}",
    re.ASCII,
)

Path = tuple[str, ...]
Parts = tuple[tuple[str, tuple[Path, ...]], ...]


def parsed(data: bytes) -> Any:
    """Read a JSON value, or None. Python's own parser also takes NaN, which some servers give as a log probability."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def parsed_object(body: bytes) -> dict[str, Any]:
    """Read the JSON object of a whole answer, or {}; of a list, in which Gemini wraps errors, the first one."""
    value = parsed(body)
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else {}


def is_whole(received: bytes) -> bool:
    """Tell whether a would-be stream is one JSON object: an error, or a server that does not stream."""
    return received.startswith(b"{") and bool(parsed_object(received))


def normal(received: bytes) -> bytes:
    """Give a stream's bytes without byte order mark, and with LF as the only line end.

    JSON escapes control characters, so a raw CR is always a line end. Framing as in the WHATWG HTML standard, section
    "Server-sent events".
    """
    if received.startswith(_BOM):
        received = received[3:]
    if b"\r" in received:
        received = received.replace(b"\r\n", b"\n")
        received = received.replace(b"\r", b"\n") if b"\r" in received else received
    return received


def event(block: bytes) -> dict[str, Any] | None:
    """Read the JSON object that a block of lines carries, or None: a comment, `[DONE]`, a torn event, anything else."""
    data = block[6:] if block.startswith(b"data: ") and b"\n" not in block else _payload(block)
    value = parsed(data) if b"{" in data[:8] else None
    return value if isinstance(value, dict) else None


def _payload(block: bytes) -> bytes:
    lines = (line[5:] for line in block.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line.removeprefix(b" ") for line in lines)


def events(stream: bytes) -> Iterator[dict[str, Any]]:
    """Give the JSON objects of all events of a normal stream, in order; what is torn is left out."""
    return (found for block in stream.split(b"\n\n") if (found := event(block)) is not None)


def newest(stream: bytes, needle: bytes, *, start: int = 0) -> Iterator[dict[str, Any]]:
    """Give the JSON objects of those events that hold `needle` anywhere, last one first: no other is parsed.

    A needle has no line feed: those end events. `start` is where to stop looking; a negative one counts from the end.
    """
    start = max(start + len(stream), 0) if start < 0 else start
    end = len(stream)
    while (hit := stream.rfind(needle, start, end)) >= 0:
        end, after = _around(stream, hit)
        if (found := event(stream[end:after])) is not None:
            yield found


def oldest(stream: bytes, needle: bytes) -> Iterator[dict[str, Any]]:
    """Give the JSON objects of those events that hold `needle` anywhere, first one first."""
    after = 0
    while (hit := stream.find(needle, after)) >= 0:
        before, after = _around(stream, hit)
        if (found := event(stream[before:after])) is not None:
            yield found


def _around(stream: bytes, hit: int) -> tuple[int, int]:
    before, after = stream.rfind(b"\n\n", 0, hit), stream.find(b"\n\n", hit)
    return 0 if before < 0 else before + 2, len(stream) if after < 0 else after


def is_done(stream: bytes) -> bool:
    """Tell whether one of a normal stream's last lines is `data: [DONE]`."""
    return any(line.startswith((b"data: [DONE]", b"data:[DONE]")) for line in stream[-TAIL_BYTES:].split(b"\n"))


def at(value: Any, *path: str) -> Any:
    """Give the value under a path of keys, or None where any step is missing or no object."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def count(value: object) -> int | None:
    """Give a count as the wire has it; None for what is none: a bool, a string, a negative or a fractional number."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None


def counts(usage: Mapping[str, Any], parts: Parts) -> dict[str, float]:
    """Give the parts of a usage that are above 0, each from the first of its paths that has one."""
    found: dict[str, float] = {}
    for key, paths in parts:
        for path in paths:
            # Unlike `at`, this calls nothing for the many paths that lead nowhere or to a 0: every call comes by here.
            value: Any = usage
            for step in path:
                value = value.get(step) if type(value) is dict else None
                if not value:
                    break
            if value and (number := count(value)):
                found[key] = number
                break
    return found


def text(value: object) -> str | None:
    """Give a string that is not empty, or None."""
    return value if isinstance(value, str) and value else None


def utf8_bytes(value: str) -> int:
    """Measure a string in UTF-8; lone surrogates, which JSON can carry, have three bytes each."""
    return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))


def spoken_bytes(value: object, depth: int = _SPOKEN_DEPTH) -> int:
    """Measure generated text in UTF-8: a string, or a list of parts with `text` or `thinking`."""
    if isinstance(value, str):
        return utf8_bytes(value)
    if depth and isinstance(value, list):
        return sum(spoken_bytes(part, depth - 1) for part in value)
    if depth and isinstance(value, dict):
        return spoken_bytes(value.get("text"), depth - 1) + spoken_bytes(value.get("thinking"), depth - 1)
    return 0


def error_in(answer: Mapping[str, Any]) -> object:
    """Give the error that an answer carries, in any of the shapes that compatible servers use; else None."""
    if error := answer.get("error"):
        return error
    if answer.get("object") == "error" or answer.get("type") == "error":
        return answer
    if "id" not in answer and (text(answer.get("message")) or answer.get("detail")):
        return answer
    return None


def failure(error: object) -> tuple[str | None, str | None]:
    """Give type and message of an error; `_OTHER` where it has no type, as OpenTelemetry's `error.type` wants it."""
    if not error:
        return None, None
    if not isinstance(error, dict):
        return "_OTHER", redacted(error) if isinstance(error, str) else None
    kinds = (error.get(key) for key in ("type", "code", "status", "statusCode"))
    kind = next((str(kind) for kind in kinds if isinstance(kind, str | int) and kind and kind != "error"), "_OTHER")
    message = text(error.get("message")) or text(error.get("detail"))
    return kind[:_TYPE_CHARS], redacted(message) if message else None


def redacted(message: str) -> str:
    """Cut an error's text to `MESSAGE_CHARS` characters, without anything that looks like a key."""
    return _KEY_LIKE.sub("[redacted]", message[:_MESSAGE_READ])[:MESSAGE_CHARS]
