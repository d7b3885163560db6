"""A line of an export, read as what it must be: what others wrote or damaged is never stored half-understood."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, get_args

import orjson

from ._errors import LedgerError
from ._events import SCHEMA_VERSION, Charge, EventType, LedgerEvent, Status

FORMAT = 1
MARK = "tollspan_export"
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_USD = re.compile(r"-?[0-9]{1,10}(?:\.[0-9]{1,9})?")
_INT64 = range(-(1 << 63), 1 << 63)
_NEEDED = ("event_type", "event_id", "call_id", "timestamp", "schema_version")


class NewerEvent(ValueError):  # noqa: N818 - named for the state
    """An event of a schema that this tollspan does not know."""


def read_line(line: bytes) -> LedgerEvent | None:
    """The event of a line, without an offset; None for an empty line and for a header.

    Raises ValueError, NewerEvent, and LedgerError for the header of a newer export.
    """
    if not line.strip():
        return None
    found = _object(line)
    if MARK in found:
        _check_header(found[MARK])
        return None
    _check_fields(found)
    return LedgerEvent(**{**_values(found), "offset": None})


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except ValueError as error:
        raise ValueError("this is no JSON, or a part of it is missing") from error
    if not isinstance(found, dict):
        raise ValueError("this is no JSON object")  # noqa: TRY004 - as all that is malformed
    return found


def _check_header(version: object) -> None:
    if not isinstance(version, int):
        raise ValueError(f"`{MARK}` is no number")  # noqa: TRY004 - as all that is malformed
    if version > FORMAT:
        raise LedgerError(f"this export has format {version}, this tollspan knows {FORMAT}: upgrade tollspan first")


def _check_fields(found: dict[str, Any]) -> None:
    version = found.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerEvent(
            f"the event has schema version {version}, this tollspan knows {SCHEMA_VERSION}: "
            "upgrade tollspan, and import again"
        )
    missing = [name for name in _NEEDED if found.get(name) is None]
    if missing:
        raise ValueError(f"this is no event: {', '.join(missing)} missing")
    unknown = found.keys() - _READERS.keys()
    if unknown:
        raise ValueError(f"{len(unknown)} of its fields are none of an event")


def _values(found: dict[str, Any]) -> dict[str, Any]:
    name, values = "", {}
    try:
        for name, value in found.items():
            values[name] = _READERS[name](value)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"`{name}` is not what it is in an event") from error
    return values


def _is(*types: type) -> Callable[[Any], Any]:
    """A reader of values of exactly these types: a bool is no number here."""

    def read(value: Any) -> Any:
        if type(value) not in types or (type(value) is int and value not in _INT64):
            raise ValueError
        return value

    return read


def _one_of(names: tuple[str, ...]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in names:
            raise ValueError
        return value

    return read


def _hex(value: str) -> str:
    if _HEX.fullmatch(value) is None:
        raise ValueError
    return value.lower()


def _hex_or_none(value: str | None) -> str | None:
    return None if value is None else _hex(value)


def _usd(value: str | None) -> Decimal | None:
    if value is not None and _USD.fullmatch(value) is None:
        raise ValueError
    return None if value is None else Decimal(value)


def _instant(value: float) -> float:
    if type(value) not in (int, float) or not value:  # 0 would become now
        raise ValueError
    return float(value)


def _records(value: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple(map(_is(dict), _is(list)(value)))


def _charges(value: Any) -> tuple[Charge, ...]:
    return tuple(_charge(**one) for one in _is(list)(value))


def _charge(*, budget: Any, scope: Any, window_start: Any, amount: Any) -> Charge:
    text, whole = _is(str), _is(int)
    return Charge(budget=text(budget), scope=text(scope), window_start=whole(window_start), amount=whole(amount))


_TEXTS = (
    "provider", "model", "operation", "cost_source", "category", "profile_id", "user_id", "session_id", "run_id",
    "model_profile", "reason", "error_type", "error_message", "response_id",
)  # fmt: skip
_NONE = type(None)

_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_TEXTS, _is(str, _NONE)),
    "event_type": _one_of(get_args(EventType)),
    "status": _one_of(get_args(Status)),
    **dict.fromkeys(("event_id", "call_id"), _hex),
    **dict.fromkeys(("trace_id", "span_id"), _hex_or_none),
    **dict.fromkeys(("cost_est_usd", "cost_actual_usd"), _usd),
    **dict.fromkeys(("usage", "timing", "tags"), _is(dict)),
    **dict.fromkeys(("http_status", "offset"), _is(int, _NONE)),
    **dict.fromkeys(("attempts", "schema_version"), _is(int)),
    "cost_rates": _is(dict, _NONE),
    "records": _records,
    "charges": _charges,
    "estimated": _is(bool),
    "timestamp": _instant,
}
"""How each field of LedgerEvent is read; a field that is not here is unknown."""
