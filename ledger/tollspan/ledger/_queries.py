"""Questions that people ask of a ledger.

Everything here only reads, and takes the store as its first argument: roll-ups can stand in for the event table.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from decimal import Decimal
from sqlite3 import Row
from typing import Any

from ._events import EVENT_ID_BYTES, LedgerEvent
from ._figures import (
    DailyModelCost,
    ErrorRate,
    KnownBudget,
    ModelLatency,
    OpenHolds,
    Overview,
    ReportRow,
    TimePoint,
    UncoveredCalls,
    UnderheldCalls,
    UnpricedCalls,
)
from ._holds import Balance
from ._money import to_usd
from ._registry import load_definition
from ._rows import from_row
from ._selection import Selection, dimensions, instant, label, recent, statement
from ._store import SQLiteStore

_MODEL = ("provider", "model")
_PERCENTILES = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}


def overview(store: SQLiteStore, *, interval: str, user_id: str | None) -> Overview:
    """The figures of all calls of an interval. Raises QueryError."""
    selection = recent(interval, user_id=user_id)
    row = selection.sums(store)[0]
    return Overview(
        interval=interval.upper(),
        since=selection.since or 0,
        until=selection.until or 0,
        requests=row["calls"],
        refused=row["refused"],
        rate_limited=row["rate_limited"],
        rate_limited_rate=_rate(row, "rate_limited"),
        estimated_usd=to_usd(row["estimated_nusd"]),
        unpriced=row["unpriced"],
        **_common(row),
        **latency(selection.latencies(store).get((), [])),
    )


def time_series(store: SQLiteStore, *, interval: str, user_id: str | None) -> list[TimePoint]:
    """The figures of an interval step by step, empty steps included. Raises QueryError."""
    selection = recent(interval, user_id=user_id, by=("step",))
    times, step = selection.latencies(store), selection.step
    points = {
        row["g0"]: TimePoint(
            start=row["g0"],
            seconds=step,
            requests=row["calls"],
            **_common(row),
            **latency(times.get((row["g0"],), [])),
        )
        for row in selection.sums(store)
    }
    first, last = int((selection.since or 0) // step) * step, int(selection.until or 0)
    return [points.get(start) or TimePoint(start=start, seconds=step) for start in range(first, last + 1, step)]


def provider_model_latency(store: SQLiteStore, *, interval: str, user_id: str | None) -> list[ModelLatency]:
    """How long the calls of each model at each provider took, the most called first. Raises QueryError."""
    rows = [
        ModelLatency(provider=provider, model=model, requests=len(ordered), **latency(ordered))
        for (provider, model), ordered in recent(interval, user_id=user_id, by=_MODEL).latencies(store).items()
    ]
    return sorted(rows, key=lambda row: (-row.requests, row.provider or "", row.model or ""))


def daily_model_cost(store: SQLiteStore, *, interval: str, user_id: str | None, timezone: str) -> list[DailyModelCost]:
    """What each model cost on each day, the earliest day and then the dearest model first. Raises QueryError."""
    rows = [
        DailyModelCost(
            day=label("day", row["g0"], timezone) or "",
            provider=row["g1"],
            model=row["g2"],
            requests=row["calls"],
            tokens_in=int(row["tokens_in"]),
            tokens_out=int(row["tokens_out"]),
            cost_usd=_cost(row),
            estimated_usd=to_usd(row["estimated_nusd"]),
            unpriced=row["unpriced"],
        )
        for row in recent(interval, user_id=user_id, by=("day", *_MODEL), timezone=timezone).sums(store)
    ]
    return sorted(rows, key=lambda row: (row.day, -row.cost_usd, row.provider or "", row.model or ""))


def error_rate(store: SQLiteStore, *, interval: str, user_id: str | None) -> list[ErrorRate]:
    """How often the calls of each model at each provider failed, the most failing first. Raises QueryError."""
    rows = [
        ErrorRate(
            provider=row["g0"],
            model=row["g1"],
            requests=_sent(row),
            errors=row["errors"],
            error_rate=_rate(row, "errors"),
            rate_limited=row["rate_limited"],
            rate_limited_rate=_rate(row, "rate_limited"),
        )
        for row in recent(interval, user_id=user_id, by=_MODEL).sums(store)
        if _sent(row)
    ]
    return sorted(rows, key=lambda row: (-row.error_rate, -row.requests, row.provider or "", row.model or ""))


def report(
    store: SQLiteStore,
    *,
    by: str | Iterable[str],
    since: float | dt.datetime | None,
    until: float | dt.datetime | None,
    timezone: str,
) -> list[ReportRow]:
    """The figures of each group: in order of time where that is a dimension, else the dearest first.

    Raises QueryError.
    """
    names = dimensions(by)
    since, until = (instant(at, timezone) for at in (since, until))
    rows = Selection(by=names, since=since, until=until, timezone=timezone).sums(store)
    times = [f"g{i}" for i, name in enumerate(names) if name in ("day", "hour")]
    # By the instant and not by its label: an hour that the clock repeats comes after the first one.
    pairs = [([row[time] or 0 for time in times], _report_row(row, names, timezone)) for row in rows]
    return [row for _, row in sorted(pairs, key=lambda pair: (pair[0], _dearest_first(pair[1])))]


def unpriced(store: SQLiteStore, *, since: float | None) -> list[UnpricedCalls]:
    """The models whose calls have no price, the most called first."""
    selection = Selection(since=since)
    rows = selection.rows(store, "unpriced")
    units: dict[tuple[str | None, str | None], list[str]] = {}
    for provider, model, unit in selection.rows(store, "unpriced_units") if rows else ():
        units.setdefault((provider, model), []).append(unit)
    return [
        UnpricedCalls(
            provider=row["provider"],
            model=row["model"],
            calls=row["calls"],
            reason=row["reason"],
            units=tuple(units.get((row["provider"], row["model"]), ())),
        )
        for row in rows
    ]


def uncovered(store: SQLiteStore, *, since: float | None) -> list[UncoveredCalls]:
    """The calls that were seen on the wire only, the most frequent first."""
    return [
        UncoveredCalls(provider=row["provider"], operation=row["operation"], calls=row["calls"])
        for row in Selection(since=since).rows(store, "uncovered")
    ]


def underholds(store: SQLiteStore, *, since: float | None) -> list[UnderheldCalls]:
    """The calls that cost more than was held for them, by model; first where it was most."""
    return [
        UnderheldCalls(
            provider=row["provider"], model=row["model"], calls=row["calls"], excess_usd=to_usd(row["excess_nusd"])
        )
        for row in Selection(since=since).rows(store, "underholds")
    ]


def open_holds(store: SQLiteStore) -> OpenHolds:
    """What is held by calls in flight."""
    row = store.query(statement("open_holds"))[0]
    return OpenHolds(calls=row["calls"], usd=None if row["nano"] is None else to_usd(row["nano"]))


def call_ids(store: SQLiteStore, *, prefix: str, limit: int) -> list[str]:
    """The first calls whose id begins with these hexadecimal digits."""
    sql = "SELECT DISTINCT call_id FROM event WHERE event_id BETWEEN ? AND ? ORDER BY call_id LIMIT ?"
    first, last = (bytes.fromhex(prefix.ljust(2 * EVENT_ID_BYTES, digit)) for digit in "0f")
    return [row["call_id"].hex() for row in store.query(sql, (first, last, limit))]


def events_for_call(store: SQLiteStore, *, call_id: bytes) -> list[LedgerEvent]:
    """The events of a call, in order of offset."""
    sql = "SELECT * FROM recorded WHERE event_id BETWEEN ? AND ? ORDER BY offset"
    return [from_row(row) for row in store.query(sql, (call_id + b"\x00\x00", call_id + b"\xff\xff"))]


def known_budgets(store: SQLiteStore) -> list[KnownBudget]:
    """The budgets with a window that processes used, each as it was last seen, by name. Raises BudgetSyntaxError."""
    rows = store.query("SELECT definition, max(seen) AS seen FROM budget GROUP BY name ORDER BY name")
    return [KnownBudget(definition=load_definition(row["definition"]), seen=row["seen"]) for row in rows]


def rival_budgets(store: SQLiteStore, *, since: float) -> list[KnownBudget]:
    """The budgets that had more than one definition since an instant, by name and by when each was last seen."""
    sql = """
        SELECT definition, seen FROM budget WHERE seen >= :since AND name IN (
            SELECT name FROM budget WHERE seen >= :since GROUP BY name HAVING count(*) > 1
        ) ORDER BY name, seen
    """
    rows = store.query(sql, {"since": since})
    return [KnownBudget(definition=load_definition(row["definition"]), seen=row["seen"]) for row in rows]


def balances(store: SQLiteStore, *, account: str, window_start: int, span: int) -> dict[str, Balance]:
    """The balances of an account in one window, by scope."""
    sql = """
        SELECT scope, sum(spent), sum(held), sum(estimated) FROM balance
        WHERE budget = ? AND window_start BETWEEN ? AND ? GROUP BY scope ORDER BY scope
    """
    rows = store.query(sql, (account, window_start - span, window_start))
    return {row["scope"]: Balance(*tuple(row)[1:]) for row in rows}


def latency(ordered: Sequence[float]) -> dict[str, Any]:
    """The fields of Latency for times in ascending order."""
    if not ordered:
        return {}
    percentiles = {name: percentile(ordered, fraction) for name, fraction in _PERCENTILES.items()}
    return {"average_ms": sum(ordered) / len(ordered), **percentiles}


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The value below which a fraction (0 to 1) of the ascending numbers lies: Hyndman and Fan's type 7."""
    whole, rest = divmod((len(ordered) - 1) * fraction, 1)
    low = ordered[int(whole)]
    return low if rest == 0 else low + (ordered[int(whole) + 1] - low) * rest


def _common(row: Row) -> dict[str, Any]:
    return {
        "errors": row["errors"],
        "error_rate": _rate(row, "errors"),
        "tokens_in": int(row["tokens_in"]),
        "tokens_out": int(row["tokens_out"]),
        "cost_usd": _cost(row),
    }


def _cost(row: Row) -> Decimal:
    return to_usd(row["actual_nusd"] + row["estimated_nusd"])


def _sent(row: Row) -> int:
    return int(row["calls"] - row["refused"])


def _rate(row: Row, name: str) -> float:
    return row[name] / _sent(row) if _sent(row) else 0.0


def _report_row(row: Row, names: Sequence[str], timezone: str) -> ReportRow:
    return ReportRow(
        group={name: label(name, row[f"g{i}"], timezone) for i, name in enumerate(names)},
        calls=row["calls"],
        errors=row["errors"],
        refused=row["refused"],
        tokens_in=int(row["tokens_in"]),
        tokens_out=int(row["tokens_out"]),
        tokens_cache_read=int(row["tokens_cache_read"]),
        cost_actual_usd=to_usd(row["actual_nusd"]),
        cost_estimated_usd=to_usd(row["estimated_nusd"]),
        unpriced=row["unpriced"],
    )


def _dearest_first(row: ReportRow) -> tuple[Any, ...]:
    return (-row.cost_usd, -row.calls, [text or "" for text in row.group.values()])
