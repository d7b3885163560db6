"""Calendar windows: pure functions of (calendar, IANA zone, instant). No reset date is kept, so none can be missed.

A day, week or month runs from the first instant at which the wall clock of the zone shows it to the first instant of
the next one: a day is 23 or 25 hours long where clocks change, and begins after the gap where midnight does not exist.
Clocks set back across midnight do not bring back a day that is over. A week starts on Monday (ISO 8601). A minute or
an hour is one of the wall clock, cut where the zone's offset changes: an hour that the clocks repeat is two windows.

A rolling window looks back from any instant over a span of fixed length. What is counted in it is kept in steps of a
sixtieth of the span, and leaves it as a whole step: up to one step late, never early.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from math import floor
from typing import Literal, get_args

WindowKind = Literal["minute", "hour", "day", "week", "month", "total"]
WINDOW_KINDS: tuple[WindowKind, ...] = get_args(WindowKind)

_CLOCK_SECONDS = {"minute": 60, "hour": 3_600}
_UTC_SECONDS = {**_CLOCK_SECONDS, "day": 86_400}
_SPANS = {**_UTC_SECONDS, "week": 7 * 86_400, "month": 30 * 86_400}
STEPS = 60
"""In how many steps a rolling window moves on."""


@dataclass(frozen=True, slots=True)
class Window:
    """A kind of window in an IANA zone, such as the days of Europe/Berlin; ValueError for an unknown kind or zone.

    With `rolling` it is a span that ends now, in which a month has 30 days.
    """

    kind: WindowKind
    timezone: str = "UTC"
    rolling: bool = False

    def __post_init__(self) -> None:
        if self.kind not in WINDOW_KINDS:
            near = did_you_mean(str(self.kind), WINDOW_KINDS)
            raise ValueError(f"{self.kind!r} is no window{near}; write one of {', '.join(WINDOW_KINDS)}")
        if self.rolling and self.kind not in _SPANS:
            raise ValueError(f"rolling {self.kind} is no window; write {self.kind} without rolling")
        if not isinstance(self.timezone, str):
            raise ValueError(f"timezone {self.timezone!r} is not a text; write an IANA name like Europe/Berlin")  # noqa: TRY004 - every wrong setting is one kind of error
        _zone(self.timezone)

    def __str__(self) -> str:
        return f"rolling {self.kind}" if self.rolling else self.kind

    @property
    def span(self) -> int:
        """How many seconds a rolling window looks back; 0 where the window is one of the calendar."""
        return _SPANS[self.kind] if self.rolling else 0

    def start(self, at: float) -> int:
        """Find the epoch seconds at which the window of the instant `at` (epoch seconds) starts; 0 for `total`.

        In a rolling window it is the step in which `at` is counted.
        """
        if self.rolling:
            step = self.span // STEPS
            return int(at // step) * step
        if self.timezone == "UTC" and (size := _UTC_SECONDS.get(self.kind)):
            return int(at // size) * size
        return 0 if self.kind == "total" else _bounds(self.kind, self.timezone, at)[0]

    def end(self, at: float) -> int | None:
        """Find the epoch seconds at which the window of `at` ends and the next one starts; None for `total`.

        In a rolling window it is where the step of `at` ends.
        """
        if self.rolling:
            return self.start(at) + self.span // STEPS
        if self.timezone == "UTC" and (size := _UTC_SECONDS.get(self.kind)):
            return int(at // size) * size + size
        return None if self.kind == "total" else _bounds(self.kind, self.timezone, at)[1]


def room_at(steps: Iterable[tuple[int, int]], missing: int, span: int) -> float | None:
    """When enough of what is counted in a rolling window has left it (epoch seconds); None: never.

    `steps` are where they start and what is counted in them, in order.
    """
    for start, amount in steps:
        missing -= amount
        if missing <= 0:
            return start + span + span / STEPS
    return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Word ` (did you mean X?)` with the known word closest to a wrong one, or nothing."""
    import difflib  # noqa: PLC0415 - wanted only to word an error

    spelled = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), spelled, n=1)
    return f" (did you mean {spelled[close[0]]}?)" if close else ""


# The last window found of each kind and zone: whoever asks for now hits it. Threads may race to replace it, unharmed.
_latest: dict[tuple[str, str], tuple[int, int]] = {}


def _bounds(kind: WindowKind, timezone: str, at: float) -> tuple[int, int]:
    latest = _latest.get((kind, timezone))
    if latest is not None and latest[0] <= at < latest[1]:
        return latest
    # Whole seconds, rounded down: datetime rounds to microseconds, possibly up and into the next window.
    second, zone = floor(at), _zone(timezone)
    size = _CLOCK_SECONDS.get(kind)
    bounds = _clock_bounds(size, zone, second) if size else _calendar_bounds(kind, zone, second)
    _latest[kind, timezone] = bounds
    return bounds


def _clock_bounds(size: int, zone: tzinfo, second: int) -> tuple[int, int]:
    offset = _offset(zone, second)
    start = (second + offset) // size * size - offset
    before, after = range(start, second), range(second, start + size)
    return (
        start + bisect_left(before, True, key=lambda instant: _offset(zone, instant) == offset),
        second + bisect_left(after, True, key=lambda instant: _offset(zone, instant) != offset),
    )


def _calendar_bounds(kind: WindowKind, zone: tzinfo, second: int) -> tuple[int, int]:
    first = _first_day(kind, datetime.fromtimestamp(second, zone).date())
    following = _next_first_day(kind, first)
    start, end = _first_instant(first, zone), _first_instant(following, zone)
    while end <= second:  # clocks were set back across midnight: the next window has begun and stays
        following = _next_first_day(kind, following)
        start, end = end, _first_instant(following, zone)
    return start, end


def _first_day(kind: WindowKind, day: date) -> date:
    if kind == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if kind == "month" else day


def _next_first_day(kind: WindowKind, first: date) -> date:
    if kind == "month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if kind == "week" else 1)


def _first_instant(day: date, zone: tzinfo) -> int:
    """Find when the wall clock first shows this date, or passes it where the zone skips the whole day."""
    midnight = datetime.combine(day, time(), zone)
    usual, other = int(midnight.timestamp()), int(midnight.replace(fold=1).timestamp())
    if usual <= other:  # midnight exists; of two midnights this is the first
        return usual
    gap = range(other, usual)
    naive = midnight.replace(tzinfo=None)
    return other + bisect_left(
        gap, naive, key=lambda instant: datetime.fromtimestamp(instant, zone).replace(tzinfo=None)
    )


def _offset(zone: tzinfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, zone).utcoffset() or timedelta()
    return offset // timedelta(seconds=1)


@lru_cache(maxsize=256)
def _zone(name: str) -> tzinfo:
    if name == "UTC":  # works on systems without zone data too
        return UTC
    import zoneinfo  # noqa: PLC0415 - most processes stay in UTC and never pay for it

    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        missing = "" if known else " (this system has no zone data: pip install tzdata)"
        near = did_you_mean(name, known)
        raise ValueError(
            f"{name!r} is no time zone{near}{missing}; write an IANA name like UTC or Europe/Berlin"
        ) from None
