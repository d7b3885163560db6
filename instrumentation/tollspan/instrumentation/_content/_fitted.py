"""Content within a limit: cut in its texts, so that it stays what the conventions say it is."""

from typing import Any

import orjson

_DEEPEST = 32
_MARK = "\N{HORIZONTAL ELLIPSIS}"


def as_json(items: list[Any]) -> str:
    """The JSON of what `fitted` gave."""
    return orjson.dumps(items).decode()


def fitted(items: list[Any], limit: int, *, newest_first: bool = False) -> list[Any]:
    """As many items as fit into `limit` characters of JSON, from the first one on or from the last one back.

    The texts of one that is too long end with an ellipsis. What UTF-8 or JSON cannot say is replaced.
    """
    kept: list[Any] = []
    left = limit - len("[]")
    for item in reversed(items) if newest_first else items:
        clean = _within(item, left)
        fits = _shortened(clean, left)
        if fits is None:
            break
        kept.append(fits)
        left -= len(as_json([fits])) - len("[],")
        if fits is not clean:
            break
    return kept[::-1] if newest_first else kept


def _shortened(item: Any, limit: int) -> Any | None:
    """The item with its texts cut to one length, the largest with which it fits; None where none does."""
    size = len(as_json([item])) - len("[]")
    if size <= limit:
        return item
    shortest, longest = 0, max(limit, 0)
    best = None
    while shortest <= longest:
        middle = (shortest + longest) // 2
        tried = _within(item, middle)
        if len(as_json([tried])) - len("[]") <= limit:
            best, shortest = tried, middle + 1
        else:
            longest = middle - 1
    return best


def _within(value: Any, most: int, depth: int = _DEEPEST) -> Any:
    """A JSON value whose texts have at most `most` characters; keys and names, which are short, stay."""
    if isinstance(value, str):
        text = value if value.isascii() else value.encode("utf-8", "replace").decode()
        return text if len(text) <= most else text[: max(most - len(_MARK), 0)] + _MARK
    if isinstance(value, dict):
        if not depth:
            return {}
        return {_within(str(key), 256): _kept(key, inner, most, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_within(inner, most, depth - 1) for inner in value] if depth else []
    return value if value is None or isinstance(value, bool | float) or _is_small(value) else str(value)


def _kept(key: Any, value: Any, most: int, depth: int) -> Any:
    is_name = key in ("type", "role", "finish_reason", "modality") and isinstance(value, str)
    return _within(value, 64 if is_name else most, depth)


def _is_small(value: Any) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63
