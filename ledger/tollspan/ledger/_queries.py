"""Questions that people ask of a ledger: plain SQL over the event table, and what takes a calendar or a sort in Python.

Everything here reads, and takes the store as its first argument, so that roll-ups can stand in for the table later.
"""

import datetime as dt
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

from ._errors import LedgerUnavailable
from ._figures import (
    DailyModelCost,
    ErrorRate,
    KnownBudget,
    Latency,
    ModelLatency,
    OpenHolds,
    Overview,
    ReportRow,
    TimePoint,
    UnpricedCalls,
)
from ._holds import Balance
from ._money import to_usd
from ._registry import load_definition
from ._store import SQLiteStore
from ._windows import Window, did_you_mean

INTERVALS: Mapping[str, tuple[int, int]] = {
    "15M": (900, 60),
    "1H": (3_600, 60),
    "1D": (86_400, 900),
    "7D": (604_800, 3_600),
}
"""The intervals that dashboards ask for: how far they reach back, and the step of their time series, in seconds."""

DIMENSIONS: Mapping[str, str] = {
    "model": "model",
    "provider": "provider",
    "operation": "operation",
    "user": "user_id",
    "profile": "profile_id",
    "session": "session_id",
    "run": "run_id",
    "status": "status",
    "day": "window_start('day', call_id)",
    "hour": "window_start('hour', call_id)",
}
"""What a report can be grouped by, besides `tag:<name>`, and the SQL of each."""

_TAG = "tag:"
_TAG_SQL = "(SELECT value FROM json_each(tags) WHERE key = :tag{})"
_STEP_SQL = "window_start('step', call_id)"
_LAST_ID = b"\xff" * 6
_CLOCK_SLACK_S = 3_600  # an event may carry an earlier time than its call's id where a clock was set back

Starts = Mapping[str, Callable[[float], int]]
"""Functions from an instant to the start of its window, by the name that SQL calls them by."""
Span = tuple[float | None, float | None]


class QueryError(ValueError):
    """A question is written wrongly; the text says what to write."""


def overview(store: SQLiteStore, *, interval: str, user_id: str | None) -> Overview:
    """The figures of all calls of an interval. Raises QueryError."""
    name, since, until, _ = _interval(interval)
    row = _sums(store, (), (since, until), user_id=user_id)[0]
    sent = row["calls"] - row["refused"]
    return Overview(
        interval=name,
        since=since,
        until=until,
        requests=row["calls"],
        refused=row["refused"],
        errors=row["errors"],
        error_rate=_rate(row["errors"], sent),
        rate_limited=row["rate_limited"],
        rate_limited_rate=_rate(row["rate_limited"], sent),
        latency=latency(_latencies(store, (), (since, until), user_id=user_id).get((), [])),
        tokens_in=int(row["tokens_in"]),
        tokens_out=int(row["tokens_out"]),
        cost_usd=to_usd(row["actual_nusd"] + row["estimated_nusd"]),
        estimated_usd=to_usd(row["estimated_nusd"]),
        unpriced=row["unpriced"],
    )


def time_series(store: SQLiteStore, *, interval: str, user_id: str | None) -> list[TimePoint]:
    """The figures of an interval step by step, empty steps included. Raises QueryError."""
    _, since, until, step = _interval(interval)
    starts = {"step": _steps_of(step)}
    found = {r["g0"]: r for r in _sums(store, (_STEP_SQL,), (since, until), user_id=user_id, starts=starts)}
    times = _latencies(store, (_STEP_SQL,), (since, until), user_id=user_id, starts=starts)
    first = starts["step"](since)
    return [_point(start, step, found.get(start), times.get((start,), [])) for start in range(first, int(until) + 1, step)]


def provider_model_latency(store: SQLiteStore, *, interval: str, user_id: str | None) -> list[ModelLatency]:
    """How long the calls of each model at each provider took, the most called first. Raises QueryError."""
    _, since, until, _ = _interval(interval)
    times = _latencies(store, ("provider", "model"), (since, until), user_id=user_id)
    rows = [
        ModelLatency(provider=provider, model=model, requests=len(ordered), latency=latency(ordered))
        for (provider, model), ordered in times.items()
    ]
    return sorted(rows, key=lambda r: (-r.requests, r.provider or "", r.model or ""))


def daily_model_cost(
    store: SQLiteStore, *, interval: str, user_id: str | None, timezone: str
) -> list[DailyModelCost]:
    """What each model cost on each day, the earliest day and then the dearest model first. Raises QueryError."""
    _, since, until, _ = _interval(interval)
    by = ("day", "provider", "model")
    rows = _sums(store, _expressions(by), (since, until), user_id=user_id, starts=_calendar(timezone))
    costs = [
        DailyModelCost(
            day=_label("day", row["g0"], timezone) or "",
            provider=row["g1"],
            model=row["g2"],
            requests=row["calls"],
            tokens_in=int(row["tokens_in"]),
            tokens_out=int(row["tokens_out"]),
            cost_usd=to_usd(row["actual_nusd"] + row["estimated_nusd"]),
            estimated_usd=to_usd(row["estimated_nusd"]),
            unpriced=row["unpriced"],
        )
        for row in rows
    ]
    return sorted(costs, key=lambda c: (c.day, -c.cost_usd, c.provider or "", c.model or ""))


def error_rate(store: SQLiteStore, *, interval: str, user_id: str | None) -> list[ErrorRate]:
    """How often the calls of each model at each provider failed, the most failing first. Raises QueryError."""
    _, since, until, _ = _interval(interval)
    rates = [
        ErrorRate(
            provider=row["g0"],
            model=row["g1"],
            requests=row["calls"] - row["refused"],
            errors=row["errors"],
            error_rate=_rate(row["errors"], row["calls"] - row["refused"]),
            rate_limited=row["rate_limited"],
            rate_limited_rate=_rate(row["rate_limited"], row["calls"] - row["refused"]),
        )
        for row in _sums(store, ("provider", "model"), (since, until), user_id=user_id)
        if row["calls"] > row["refused"]
    ]
    return sorted(rates, key=lambda r: (-r.error_rate, -r.requests, r.provider or "", r.model or ""))


def report(
    store: SQLiteStore,
    *,
    by: str | Sequence[str],
    since: float | dt.datetime | None,
    until: float | dt.datetime | None,
    timezone: str,
) -> list[ReportRow]:
    """The figures of each group; in order of time where that is a dimension, else the dearest first. Raises QueryError."""
    names = dimensions(by)
    span = (_instant(since, timezone), _instant(until, timezone))
    rows = [
        ReportRow(
            group={name: _label(name, row[f"g{i}"], timezone) for i, name in enumerate(names)},
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
        for row in _sums(store, _expressions(names), span, tags=_tags(names), starts=_calendar(timezone))
    ]
    return sorted(rows, key=_order)


def dimensions(by: str | Iterable[str]) -> tuple[str, ...]:
    """The dimensions of a text such as `model,tag:feature`, or of several; each once. Raises QueryError."""
    parts = by.split(",") if isinstance(by, str) else [str(part) for part in by]
    names = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    for name in names:
        if name not in DIMENSIONS and not (name.startswith(_TAG) and name != _TAG):
            near = did_you_mean(name, [*DIMENSIONS, "tag:<name>"])
            raise QueryError(f"{name!r} is no dimension{near}; write one of {', '.join(DIMENSIONS)}, or tag:<name>")
    return names


def unpriced(store: SQLiteStore, *, since: float | None) -> list[UnpricedCalls]:
    """The models whose calls have no price, the most called first."""
    rows = _rows(store, _statement("unpriced"), _bounds((since, None), None), {})
    return [UnpricedCalls(provider=r["provider"], model=r["model"], calls=r["calls"], reason=r["reason"]) for r in rows]


def open_holds(store: SQLiteStore) -> OpenHolds:
    """What is held by calls in flight."""
    row = store.query(_file("open_holds"))[0]
    return OpenHolds(calls=row["calls"], usd=None if row["nano"] is None else to_usd(row["nano"]))


def known_budgets(store: SQLiteStore) -> list[KnownBudget]:
    """The budgets with a window that processes used with this ledger, by name. Raises BudgetSyntaxError."""
    rows = store.query("SELECT definition, seen FROM budget ORDER BY name")
    return [KnownBudget(definition=load_definition(row["definition"]), seen=row["seen"]) for row in rows]


def balances(store: SQLiteStore, *, budget: str, window_start: int) -> dict[str, Balance]:
    """The balances of a budget in one window, by scope."""
    sql = "SELECT scope, spent, held, estimated FROM balance WHERE budget = ? AND window_start = ? ORDER BY scope"
    return {row[0]: Balance(*row[1:]) for row in map(tuple, store.query(sql, (budget, window_start)))}


def latency(ordered: Sequence[float]) -> Latency:
    """The average and the percentiles of times in ascending order."""
    if not ordered:
        return Latency()
    return Latency(
        average_ms=sum(ordered) / len(ordered),
        p50_ms=percentile(ordered, 0.50),
        p95_ms=percentile(ordered, 0.95),
        p99_ms=percentile(ordered, 0.99),
    )


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The value below which a fraction (0 to 1) of the ascending numbers lies: Hyndman and Fan's type 7."""
    whole, rest = divmod((len(ordered) - 1) * fraction, 1)
    low = ordered[int(whole)]
    return low if rest == 0 else low + (ordered[int(whole) + 1] - low) * rest


def _point(start: int, step: int, row: sqlite3.Row | None, ordered: Sequence[float]) -> TimePoint:
    if row is None:
        return TimePoint(
            start=start, seconds=step, requests=0, errors=0, error_rate=0.0, latency=Latency(), tokens_in=0,
            tokens_out=0, cost_usd=to_usd(0),
        )  # fmt: skip
    return TimePoint(
        start=start,
        seconds=step,
        requests=row["calls"],
        errors=row["errors"],
        error_rate=_rate(row["errors"], row["calls"] - row["refused"]),
        latency=latency(ordered),
        tokens_in=int(row["tokens_in"]),
        tokens_out=int(row["tokens_out"]),
        cost_usd=to_usd(row["actual_nusd"] + row["estimated_nusd"]),
    )


def _order(row: ReportRow) -> tuple[Any, ...]:
    times = [label or "" for name, label in row.group.items() if name in ("day", "hour")]
    return (*times, -row.cost_usd, -row.calls, [label or "" for label in row.group.values()])


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


# ---- what is asked, in terms of SQL


def _interval(text: str) -> tuple[str, float, float, int]:
    known = INTERVALS.get(str(text).upper())
    if known is None:
        raise QueryError(f"{text!r} is no interval{did_you_mean(str(text), INTERVALS)}; write {', '.join(INTERVALS)}")
    now = time.time()
    return str(text).upper(), now - known[0], now, known[1]


def _instant(at: float | dt.datetime | None, timezone: str) -> float | None:
    if isinstance(at, dt.datetime):
        return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(timezone))).timestamp()
    return at


def _expressions(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(DIMENSIONS.get(name) or _TAG_SQL.format(i) for i, name in enumerate(names))


def _tags(names: Sequence[str]) -> dict[str, str]:
    return {f"tag{i}": name.removeprefix(_TAG) for i, name in enumerate(names) if name not in DIMENSIONS}


def _calendar(timezone: str) -> Starts:
    try:
        return {"day": Window("day", timezone).start, "hour": Window("hour", timezone).start}
    except ValueError as error:
        raise QueryError(str(error)) from None


def _steps_of(step: int) -> Callable[[float], int]:
    return lambda at: int(at // step) * step


def _label(name: str, value: Any, timezone: str) -> str | None:
    """A group's value as text: a day as its date, an hour with its offset from UTC where that is not 0."""
    if value is None or name not in ("day", "hour"):
        return None if value is None else str(value)
    start = dt.datetime.fromtimestamp(value, ZoneInfo(timezone))
    if name == "day":
        return f"{start:%Y-%m-%d}"
    return f"{start:%Y-%m-%d %H:%M}" + ("" if not start.utcoffset() else f"{start:%z}")


def _bounds(span: Span, user_id: str | None) -> dict[str, Any]:
    since, until = span
    return {
        "scan_from": (since or 0) - _CLOCK_SLACK_S,
        "first": b"" if since is None else _id_prefix(since),
        "last": _LAST_ID + b"\xff" if until is None else _id_prefix(until),
        "user_id": user_id,
    }


def _id_prefix(at: float) -> bytes:
    """The first bytes of the ids of calls that begin at an instant."""
    return min(max(int(at * 1000), 0), 2**48 - 1).to_bytes(6, "big")


def _sums(
    store: SQLiteStore,
    expressions: Sequence[str],
    span: Span,
    *,
    user_id: str | None = None,
    tags: Mapping[str, str] | None = None,
    starts: Starts | None = None,
) -> list[sqlite3.Row]:
    """One row of sums for each group; the groups' values are named g0, g1, ..."""
    numbers = ", ".join(str(number) for number in range(1, len(expressions) + 1))
    sql = _statement("sums").format(
        groups="".join(f"{expression} AS g{i}, " for i, expression in enumerate(expressions)),
        group_by=f"GROUP BY {numbers}" if numbers else "",
    )
    return _rows(store, sql, _bounds(span, user_id) | (tags or {}), starts or {})


def _latencies(
    store: SQLiteStore,
    expressions: Sequence[str],
    span: Span,
    *,
    user_id: str | None = None,
    starts: Starts | None = None,
) -> dict[tuple[Any, ...], list[float]]:
    """The times that calls took, ascending, by group."""
    sql = _statement("latencies").format(groups="".join(f"{expression}, " for expression in expressions))
    times: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in _rows(store, sql, _bounds(span, user_id), starts or {}):
        *group, total_ms = row
        times[tuple(group)].append(total_ms)
    return times


def _rows(store: SQLiteStore, sql: str, parameters: Mapping[str, Any], starts: Starts) -> list[sqlite3.Row]:
    """Rows of a statement. One that groups by windows runs on a connection of its own, which is taught the calendar."""
    if "window_start(" not in sql:
        return store.query(sql, parameters)

    def window_start(kind: str, call_id: bytes) -> int | None:
        try:
            return starts[kind](int.from_bytes(call_id[:6], "big") / 1000)
        except (OverflowError, ValueError):  # an id from elsewhere may say the year 10000, which no calendar has
            return None

    with closing(store.open_reader()) as reader:
        reader.create_function("window_start", 2, window_start, deterministic=True)
        try:
            return reader.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"{store.path or 'the ledger in memory'} cannot be read: {error}") from error


def _statement(name: str) -> str:
    return _file("counted") + _file(name)


@cache
def _file(name: str) -> str:
    return resources.files("tollspan.ledger").joinpath("sql", "queries", f"{name}.sql").read_text(encoding="utf-8")
