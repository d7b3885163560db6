"""From the numbers on a span to the ledger's usage: totals that count every token, and parts of them."""

import math
from collections.abc import Mapping
from typing import Any

from ._documents import usage_in
from ._tables import Dialect

_TOTALS = ("tokens_in", "tokens_out")
_INPUT_PARTS = ("tokens_cache_read", "tokens_cache_write")


def number(value: object) -> float | None:
    """A count that is finite and not negative, also where it is written as text; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, int):
        try:
            value = float(value)
        except ValueError:
            return None
        value = int(value) if math.isfinite(value) and value == int(value) else value
    return value if math.isfinite(value) and value >= 0 else None


def usage_of(
    dialect: Dialect, attributes: Mapping[str, Any], documents: list[Mapping[str, Any]], provider: str
) -> dict[str, float] | None:
    """The usage on a span, None where it tells none: a call that used nothing at all is one that nobody counted."""
    found: dict[str, float] = {}
    for document in reversed(documents):
        found |= usage_in(document)
    for key, names in dialect.usage.items():
        value = next((n for name in names if (n := number(attributes.get(name))) is not None), None)
        if value is not None:
            found[key] = value
    usage = {key: value for key, value in found.items() if value > 0 or key in _TOTALS}
    if not any(usage.values()):
        return None
    _complete_input(usage, beside=provider in dialect.input_without_cache)
    _complete_output(usage, beside=provider in dialect.output_without_reasoning)
    total = next((n for name in dialect.total if (n := number(attributes.get(name))) is not None), None)
    if total is not None:
        _complete_by_total(usage, total)
    return usage


def _complete_input(usage: dict[str, float], *, beside: bool) -> None:
    parts = sum(usage.get(part, 0) for part in _INPUT_PARTS)
    if parts and (beside or parts > usage.get("tokens_in", 0)):  # parts that exceed their whole stand beside it
        usage["tokens_in"] = usage.get("tokens_in", 0) + parts


def _complete_output(usage: dict[str, float], *, beside: bool) -> None:
    reasoning = usage.get("tokens_reasoning", 0)
    if reasoning and (beside or reasoning > usage.get("tokens_out", 0)):
        usage["tokens_out"] = usage.get("tokens_out", 0) + reasoning


def _complete_by_total(usage: dict[str, float], total: float) -> None:
    """What the total has more than both directions is output that was thought and not shown, or input from a cache."""
    missing = total - usage.get("tokens_in", 0) - usage.get("tokens_out", 0)
    if missing <= 0 or "tokens_in" not in usage:
        return
    cached = sum(usage.get(part, 0) for part in _INPUT_PARTS)
    direction = "tokens_in" if missing == cached else "tokens_out"
    usage[direction] = usage.get(direction, 0) + missing
