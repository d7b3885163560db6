"""Streams whose events are lines of JSON: Ollama's, and both kinds of Cohere's, with one `data:` line for each event.

Nothing here raises for any bytes; lines that cannot be read are left out.
"""

from collections.abc import Iterator
from typing import Any

from tollspan.instrumentation._readers import _sse as sse


def lines(stream: bytes) -> Iterator[dict[str, Any]]:
    """Give the JSON objects of all lines, in order."""
    return (found for line in stream.split(b"\n") if (found := _event(line)) is not None)


def newest(stream: bytes, needle: bytes) -> Iterator[dict[str, Any]]:
    """Give the JSON objects of those lines that hold `needle`, last one first: no other is parsed."""
    end = len(stream)
    while (hit := stream.rfind(needle, 0, end)) >= 0:
        end, after = stream.rfind(b"\n", 0, hit) + 1, stream.find(b"\n", hit)
        if (found := _event(stream[end : None if after < 0 else after])) is not None:
            yield found


def _event(line: bytes) -> dict[str, Any] | None:
    value = sse.parsed(line.removeprefix(b"data:")) if b"{" in line[:8] else None
    return value if isinstance(value, dict) else None
