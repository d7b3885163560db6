"""The provider's own usage, where a dialect carries it as text: JSON, or a dict as Python writes it."""

import ast
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from ._tables import CACHE_BESIDE_INPUT, DOCUMENT_USAGE

_MOST_CHARACTERS = 4_000_000
_MOST_LITERAL_CHARACTERS = 20_000
_USAGE_KEYS = ("usage", "usage_metadata")


def parse(text: object) -> Mapping[str, Any]:
    """The mapping that a text holds; an empty one where it holds none, or was cut."""
    if not isinstance(text, str) or not text.startswith("{") or len(text) > _MOST_CHARACTERS:
        return {}
    try:
        found = orjson.loads(text)
    except ValueError:
        found = _literal(text)
    return found if isinstance(found, dict) else {}


def id_in(document: Mapping[str, Any]) -> str | None:
    """The id of the answer that a document is."""
    found = document.get("id") or document.get("response_id")
    return found if isinstance(found, str) else None


def usage_in(document: Mapping[str, Any]) -> dict[str, float]:
    """The usage in a document, which is it or has it, also in the envelope of an event.

    The id in an envelope is left there: OpenInference ends its span of a stream by Mistral's SDK before the stream
    ends, so that the span would have an id before a call of ours has one, and pass for another call.
    """
    event = document.get("data")
    holder = event if isinstance(event, dict) else document
    inner = next((holder[key] for key in _USAGE_KEYS if isinstance(holder.get(key), dict)), holder)
    counts = dict(_flat(inner))
    usage = {
        key: value
        for key, names in DOCUMENT_USAGE.items()
        if (value := next((counts[name] for name in names if name in counts), None)) is not None
    }
    if "tokens_in" in usage and any(name in counts for name in CACHE_BESIDE_INPUT):
        usage["tokens_in"] += sum(counts.get(name, 0) for name in CACHE_BESIDE_INPUT)
    return usage


def _literal(text: str) -> Any:
    if len(text) > _MOST_LITERAL_CHARACTERS:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _flat(counts: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a mapping, by the path of their keys; two levels are all that providers have."""
    for key, value in counts.items():
        if isinstance(value, dict) and not path:
            yield from _flat(value, f"{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{path}{key}", value
