"""What a question selects: which calls, in which groups, and the sums of each group by SQL over the event table."""

import datetime as dt
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ._errors import LedgerUnavailable
from ._events import call_id_prefix
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
    "day": "window_start('day', call_id)",
    "hour": "window_start('hour', call_id)",
    "status": "status",
}
"""What a report can be grouped by, besides `tag:<name>`, and the SQL of each."""

_TAG = "tag:"
_TAG_SQL = "(SELECT value FROM json_each(tags) WHERE key = :tag{})"
_STEP = "step"
_STEP_SQL = "window_start('step', call_id)"
_AFTER_ALL = b"\xff" * 16
_ID_TICK_S = 0.001  # ids tell milliseconds: a call of this very millisecond has begun
_CLOCK_SLACK_S = 3_600  # an event may carry an earlier time than its call's id where a clock was set back


class QueryError(ValueError):
    """A question is written wrongly; the text says what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The calls that began from `since` to before `until` (epoch seconds), grouped by dimensions.

    Besides those of DIMENSIONS and tags there is `step`: so many seconds, counted from the epoch. Raises QueryError for
    a zone that does not exist.
    """

    by: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    user_id: str | None = None
    timezone: str = "UTC"
    step: int = 60

    def __post_init__(self) -> None:
        _check_zone(self.timezone)

    def sums(self, store: SQLiteStore) -> list[sqlite3.Row]:
        """One row for each group: its values g0, g1, ... and the sums of `sums.sql`."""
        numbers = ", ".join(str(number) for number in range(1, len(self.by) + 1))
        groups = "".join(f"{expression} AS g{i}, " for i, expression in enumerate(self._expressions()))
        return self.rows(store, "sums", groups=groups, group_by=f"GROUP BY {numbers}" if numbers else "")

    def latencies(self, store: SQLiteStore) -> dict[tuple[Any, ...], list[float]]:
        """The milliseconds that the calls of each group took, ascending."""
        times: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        groups = "".join(f"{expression}, " for expression in self._expressions())
        for *group, total_ms in self.rows(store, "latencies", groups=groups):
            times[tuple(group)].append(total_ms)
        return times

    def rows(self, store: SQLiteStore, name: str, **parts: str) -> list[sqlite3.Row]:
        """The rows of one of the statements over `counted.sql`."""
        sql = statement("counted") + statement(name).format(**parts)
        if "window_start(" not in sql:
            return store.query(sql, self._parameters())
        with closing(store.open_reader()) as reader:
            reader.create_function("window_start", 2, self._window_start, deterministic=True)
            try:
                return reader.execute(sql, self._parameters()).fetchall()
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"{store.path or 'the ledger in memory'} cannot be read: {error}") from error

    def _expressions(self) -> tuple[str, ...]:
        return tuple(
            _STEP_SQL if name == _STEP else DIMENSIONS.get(name) or _TAG_SQL.format(i) for i, name in enumerate(self.by)
        )

    def _parameters(self) -> dict[str, Any]:
        tags = {f"tag{i}": name.removeprefix(_TAG) for i, name in enumerate(self.by) if name.startswith(_TAG)}
        return tags | {
            "scan_from": (self.since or 0) - _CLOCK_SLACK_S,
            "first": b"" if self.since is None else call_id_prefix(int(self.since * 1000)),
            "last": _AFTER_ALL if self.until is None else call_id_prefix(int(self.until * 1000)),
            "user_id": self.user_id,
        }

    def _window_start(self, kind: str, call_id: bytes) -> int | None:
        """The SQL function of this name: when the window began in which a call did."""
        began = int.from_bytes(call_id[:6], "big") / 1000
        if kind == _STEP:
            return int(began // self.step) * self.step
        try:
            return Window("hour" if kind == "hour" else "day", self.timezone).start(began)
        except (OverflowError, ValueError):  # an id from elsewhere may say the year 10000, which no calendar has
            return None


def recent(interval: str, **options: Any) -> Selection:
    """The calls of an interval up to now, in groups as `options` of Selection say. Raises QueryError."""
    known = INTERVALS.get(str(interval).upper())
    if known is None:
        near = did_you_mean(str(interval), INTERVALS)
        raise QueryError(f"{interval!r} is no interval{near}; write one of {', '.join(INTERVALS)}")
    now = time.time() + _ID_TICK_S
    return Selection(since=now - known[0], until=now, step=known[1], **options)


def dimensions(by: str | Iterable[str]) -> tuple[str, ...]:
    """The dimensions of a text such as `model,tag:feature`, or of several; each once. Raises QueryError."""
    parts = by.split(",") if isinstance(by, str) else [str(part) for part in by]
    names = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    for name in names:
        if name not in DIMENSIONS and not (name.startswith(_TAG) and name != _TAG):
            near = did_you_mean(name, [*DIMENSIONS, "tag:<name>"])
            raise QueryError(f"{name!r} is no dimension{near}; write one of {', '.join(DIMENSIONS)}, or tag:<name>")
    return names


def instant(at: float | dt.datetime | None, timezone: str) -> float | None:
    """Epoch seconds of an instant; a datetime without a zone is in this one. Raises QueryError for no zone."""
    if isinstance(at, dt.datetime):
        return (at if at.tzinfo else at.replace(tzinfo=time_zone(timezone))).timestamp()
    return at


def label(name: str, value: Any, timezone: str) -> str | None:
    """A group's value as text: a day as its date, an hour with its offset from UTC where that is not 0."""
    if value is None or name not in ("day", "hour"):
        return None if value is None else str(value)
    start = dt.datetime.fromtimestamp(value, time_zone(timezone))
    if name == "day":
        return f"{start:%Y-%m-%d}"
    return f"{start:%Y-%m-%d %H:%M}" + (f"{start:%z}" if start.utcoffset() else "")


def time_zone(timezone: str) -> dt.tzinfo:
    """The zone of an IANA name. Raises QueryError where there is none."""
    _check_zone(timezone)
    if timezone == "UTC":  # works on systems without zone data too
        return dt.UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - most processes stay in UTC and never pay for it

    return ZoneInfo(timezone)


@cache
def statement(name: str) -> str:
    """The text of a file in `sql/queries`."""
    return resources.files("tollspan.ledger").joinpath("sql", "queries", f"{name}.sql").read_text(encoding="utf-8")


def _check_zone(timezone: str) -> None:
    try:
        Window("day", timezone)
    except ValueError as error:
        raise QueryError(str(error)) from None
