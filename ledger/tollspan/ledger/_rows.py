"""Between a LedgerEvent and its row: the only place that knows the columns of the event table."""

import sqlite3
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from ._events import Charge, LedgerEvent
from ._money import to_nano, to_usd

COLUMNS = (
    "event_id", "event_type", "call_id", "timestamp", "status", "provider", "model", "operation", "usage",
    "cost_est_nusd", "cost_actual_nusd", "spend_nusd", "timing", "http_status", "category", "trace_id", "span_id",
    "profile_id", "user_id", "session_id", "run_id", "model_profile", "tags", "records", "charges", "estimated",
    "reason", "error_type", "error_message", "attempts", "schema_version", "response_id", "cost",
)  # fmt: skip
"""The columns of `recorded`. `cost` is the last one: the store keeps each distinct text of it once."""

Row = tuple[Any, ...]


def to_row(event: LedgerEvent) -> Row:
    """The values of COLUMNS for an event that is not stored yet."""
    return (
        bytes.fromhex(event.event_id),
        event.event_type,
        bytes.fromhex(event.call_id),
        event.timestamp,
        event.status,
        event.provider,
        event.model,
        event.operation,
        _json(event.usage),
        _nano(event.cost_est_usd),
        _nano(event.cost_actual_usd),
        _nano(event.spend_usd),
        _json(event.timing),
        event.http_status,
        event.category,
        _blob(event.trace_id),
        _blob(event.span_id),
        event.profile_id,
        event.user_id,
        event.session_id,
        event.run_id,
        event.model_profile,
        _json(event.tags),
        _json(event.records),
        charges_json(event.charges),
        int(event.estimated),
        event.reason,
        event.error_type,
        event.error_message,
        event.attempts,
        event.schema_version,
        event.response_id,
        _cost_json(event),
    )


def from_row(row: sqlite3.Row | Mapping[str, Any]) -> LedgerEvent:
    """The event of a row (`offset` and COLUMNS by name)."""
    cost = orjson.loads(row["cost"])
    return LedgerEvent(
        offset=row["offset"],
        event_id=row["event_id"].hex(),
        event_type=row["event_type"],
        call_id=row["call_id"].hex(),
        timestamp=row["timestamp"],
        status=row["status"],
        provider=row["provider"],
        model=row["model"],
        operation=row["operation"],
        usage=orjson.loads(row["usage"]),
        cost_est_usd=_usd(row["cost_est_nusd"]),
        cost_actual_usd=_usd(row["cost_actual_nusd"]),
        cost_source=cost["source"],
        cost_rates=cost["rates"],
        timing=orjson.loads(row["timing"]),
        http_status=row["http_status"],
        category=row["category"],
        trace_id=_hex(row["trace_id"]),
        span_id=_hex(row["span_id"]),
        profile_id=row["profile_id"],
        user_id=row["user_id"],
        session_id=row["session_id"],
        run_id=row["run_id"],
        model_profile=row["model_profile"],
        tags=orjson.loads(row["tags"]),
        records=tuple(orjson.loads(row["records"])),
        charges=charges_from(row["charges"]),
        estimated=bool(row["estimated"]),
        reason=row["reason"],
        error_type=row["error_type"],
        error_message=row["error_message"],
        attempts=row["attempts"],
        schema_version=row["schema_version"],
        response_id=row["response_id"],
    )


def charges_json(charges: Iterable[Charge]) -> str:
    """Charges as the JSON text of the `charges` columns."""
    return _json([(c.budget, c.scope, c.window_start, c.amount) for c in charges])


def charges_from(text: str) -> tuple[Charge, ...]:
    """Charges from the JSON text of the `charges` columns."""
    return tuple(
        Charge(budget=budget, scope=scope, window_start=window_start, amount=amount)
        for budget, scope, window_start, amount in orjson.loads(text)
    )


def _cost_json(event: LedgerEvent) -> str:
    return _json({"currency": "USD", "source": event.cost_source, "rates": event.cost_rates})


def _json(value: Any) -> str:
    return orjson.dumps(value, default=_plain).decode() if value else _EMPTY.get(type(value), "{}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} cannot be stored")


_EMPTY: dict[type, str] = {list: "[]", tuple: "[]", dict: "{}"}


def _nano(usd: Decimal | None) -> int | None:
    return None if usd is None else to_nano(usd)


def _usd(nano: int | None) -> Decimal | None:
    return None if nano is None else to_usd(nano)


def _blob(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text else None


def _hex(blob: bytes | None) -> str | None:
    return blob.hex() if blob else None
