"""Instants as people write them."""

import datetime as dt
import re

from tollspan.ledger import QueryError, Window, time_zone

_AGO = re.compile(r"(\d{1,6})\s*([mhdw])")
_YEAR_9999 = 253_370_764_800
_SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def instant(text: str, *, tz: str, now: float, option: str) -> float:
    """Epoch seconds of an instant; dates and times without an offset are in the zone `tz`. Raises QueryError."""
    zone = time_zone(tz)
    try:
        at = _read(text.strip().lower(), zone, tz, now)
    except (OverflowError, ValueError):
        at = -1
    if not 0 <= at < _YEAR_9999:
        raise QueryError(
            f"{option}: {text!r} is no instant; write it like 2026-11-01, 2026-11-01T12:00, 24h, 7d, today or yesterday"
        )
    return at


def _read(word: str, zone: dt.tzinfo, tz: str, now: float) -> float:
    if word == "now":
        return now
    if word in ("today", "yesterday"):
        today = Window("day", tz).start(now)
        return today if word == "today" else Window("day", tz).start(today - 1)
    if ago := _AGO.fullmatch(word):
        return now - int(ago[1]) * _SECONDS[ago[2]]
    at = dt.datetime.fromisoformat(word.upper())
    return (at if at.tzinfo else at.replace(tzinfo=zone)).timestamp()


def shown(at: float, tz: str, *, form: str = "%Y-%m-%d %H:%M") -> str:
    """An instant on the wall clock of a zone, without the zone's name."""
    return f"{dt.datetime.fromtimestamp(at, time_zone(tz)):{form}}"


def iso(at: float, tz: str) -> str:
    """An instant for programs: ISO 8601 with the offset."""
    return dt.datetime.fromtimestamp(at, time_zone(tz)).isoformat(timespec="seconds")
