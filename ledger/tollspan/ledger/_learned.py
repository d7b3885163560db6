"""How many tokens the answers of a model have had, as a bound for the next one, which may pass it: misses are counted.

The bound is half as much again as the 99th percentile of the latest answers. How often it would have been passed is
measured on the same answers, each against those that came before it.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from ._store import SQLiteStore

_LATEST = 20_000
_ANSWERS = 1_000
_FEWEST = 30
_QUANTILE = 0.99
_MARGIN = 1.5

# The newest rows only, so that it costs the same however long the log is.
_OUTPUTS = """
    SELECT usage ->> 'tokens_out' AS tokens FROM event
    WHERE offset > (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event') - :latest
        AND event_type = 'commit' AND (model IS :model OR model GLOB :dated)
        AND provider IS :provider AND operation IS :operation
        AND NOT estimated AND usage ->> 'tokens_out' IS NOT NULL
    ORDER BY offset DESC LIMIT :answers
"""
_MODELS = """
    SELECT DISTINCT provider, model, operation FROM event
    WHERE offset > (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event') - ?
        AND event_type = 'commit' AND NOT estimated AND model IS NOT NULL
    ORDER BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class LearnedBound:
    """`tokens` of output that few calls pass, learned from so many `answers`; `misses` of those `tried` passed it."""

    provider: str | None
    model: str
    operation: str | None
    tokens: int
    answers: int
    misses: int
    tried: int

    @property
    def miss_rate(self) -> float:
        """The share of answers, from 0 to 1, that had more tokens than the bound learned before them."""
        return self.misses / self.tried if self.tried else 0.0


def learned_bound(store: SQLiteStore, provider: str | None, model: str, operation: str | None) -> LearnedBound | None:
    """The bound for a model, None where it has given fewer than 30 answers lately. Raises LedgerUnavailable."""
    # Answers name the dated model, such as gpt-4o-2024-08-06.
    asked: dict[str, Any] = {
        "provider": provider,
        "model": model,
        "dated": f"{_escaped(model)}-20[0-9][0-9]*",
        "operation": operation,
    }
    asked |= {"latest": _LATEST, "answers": _ANSWERS}
    outputs = [int(row["tokens"]) for row in store.query(_OUTPUTS, asked)][::-1]
    if len(outputs) < _FEWEST:
        return None
    seen: list[int] = []
    misses = tried = 0
    for output in outputs:
        if len(seen) >= _FEWEST:
            tried += 1
            misses += output > _bound(seen)
        insort(seen, output)
    return LearnedBound(provider, model, operation, _bound(seen), len(outputs), misses, tried)


def learned_bounds(store: SQLiteStore) -> list[LearnedBound]:
    """The bounds of all models that have answered often enough lately. Raises LedgerUnavailable."""
    found = (learned_bound(store, *row) for row in store.query(_MODELS, (_LATEST,)))
    return [bound for bound in found if bound is not None]


def _escaped(model: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in model)


def _bound(ordered: Sequence[int]) -> int:
    return max(1, ceil(ordered[ceil(len(ordered) * _QUANTILE) - 1] * _MARGIN))
