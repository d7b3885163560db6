"""Between an event and its row: the only place that knows the columns of the event table."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ._events import Charge, LedgerEvent
from ._postings import COSTS, IDS, Posting, hex_of, usd_of

COLUMNS = (
    "event_id", "event_type", "call_id", "timestamp", "status", "provider", "model", "operation", "usage",
    "cost_est_nusd", "cost_actual_nusd", "spend_nusd", "timing", "http_status", "category", "trace_id", "span_id",
    "profile_id", "user_id", "session_id", "run_id", "model_profile", "tags", "records", "charges", "estimated",
    "reason", "error_type", "error_message", "attempts", "schema_version", "response_id", "cost",
)  # fmt: skip
"""The columns of `recorded`. `cost` is the last one: the store keeps each distinct text of it once."""

Row = tuple[Any, ...]


def to_row(posting: Posting) -> Row:
    """The values of COLUMNS for an event that is not stored yet. Raises TypeError for what no ledger can store."""
    return (
        posting.event_id,
        posting.event_type,
        posting.call_id,
        posting.timestamp,
        posting.status,
        posting.provider,
        posting.model,
        posting.operation,
        _json(posting.usage),
        posting.cost_est_nusd,
        posting.cost_actual_nusd,
        posting.spend_nusd,
        _json(posting.timing),
        posting.http_status,
        posting.category,
        posting.trace_id,
        posting.span_id,
        posting.profile_id,
        posting.user_id,
        posting.session_id,
        posting.run_id,
        posting.model_profile,
        _json(posting.tags),
        _json(posting.records),
        charges_json(posting.charges),
        int(posting.estimated),
        posting.reason,
        posting.error_type,
        posting.error_message,
        posting.attempts,
        posting.schema_version,
        posting.response_id,
        _json({"currency": "USD", "source": posting.cost_source, "rates": posting.cost_rates}),
    )


def from_row(row: sqlite3.Row | Mapping[str, Any]) -> LedgerEvent:
    """The event of a row (`offset` and COLUMNS by name)."""
    cost = orjson.loads(row["cost"])
    values: dict[str, Any] = {name: row[name] for name in _AS_THEY_ARE}
    values |= {name: hex_of(row[name]) for name in IDS}
    values |= {usd: usd_of(row[nano]) for nano, usd in COSTS.items()}
    values |= {name: orjson.loads(row[name]) for name in ("usage", "timing", "tags")}
    return LedgerEvent(
        **values,
        records=tuple(orjson.loads(row["records"])),
        charges=charges_from(row["charges"]),
        estimated=bool(row["estimated"]),
        cost_source=cost["source"],
        cost_rates=cost["rates"],
    )


_OTHERS = frozenset({*IDS, *COSTS, "usage", "timing", "tags", "records", "charges", "estimated", "cost", "spend_nusd"})
_AS_THEY_ARE = ("offset", *(name for name in COLUMNS if name not in _OTHERS))


def charges_json(charges: Iterable[Charge]) -> str:
    """Charges as the JSON text of the `charges` columns."""
    return _json([(c.budget, c.scope, c.window_start, c.amount) for c in charges])


def charges_from(text: str) -> tuple[Charge, ...]:
    """Charges from the JSON text of the `charges` columns."""
    return tuple(
        Charge(budget=budget, scope=scope, window_start=window_start, amount=amount)
        for budget, scope, window_start, amount in orjson.loads(text)
    )


def plain(value: Any) -> Any:
    """What JSON has no word for, as orjson's `default`. Raises TypeError for what no ledger can store."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} cannot be stored")


def _json(value: Any) -> str:
    return orjson.dumps(value, default=plain).decode() if value else _EMPTY.get(type(value), "{}")


_EMPTY: dict[type, str] = {list: "[]", tuple: "[]", dict: "{}"}
