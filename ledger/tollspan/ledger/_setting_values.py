"""How values of settings are read, from a text or as TOML has them. A ValueError says what to write instead."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ._definitions import LONGEST_WAIT_S, MODES, Mode
from ._windows import did_you_mean

SQLITE = "sqlite:///"
MEMORY = "sqlite:///:memory:"

_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_TRAVELLING = ("profile", "user", "team", "session", "run", "budget")


def as_text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a text; write it in quotes")
    return value.strip()


def as_mode(value: Any) -> Mode:
    """A mode of budgets."""
    for mode in MODES:
        if mode == as_text(value).lower():
            return mode
    raise ValueError(f"{value!r} is no mode{did_you_mean(value, MODES)}; write {' or '.join(MODES)}")


def as_switch(value: Any) -> bool:
    """True or false."""
    known = _SWITCH.get(str(value).strip().lower())
    if known is None:
        raise ValueError(f"{value!r} is neither true nor false; write true (or 1, yes, on) or false (or 0, no, off)")
    return known


def as_whole(least: int) -> Callable[[Any], int]:
    """What reads a whole number of `least` or more."""

    def parse(value: Any) -> int:
        text = str(value).strip()
        if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or int(text) < least:
            raise ValueError(f"{value!r} is not a whole number of {least} or more; write it like {max(least, 256)}")
        return int(text)

    return parse


def as_seconds(value: Any) -> float:
    """A number of seconds."""
    try:
        seconds = float(str(value).strip())
    except ValueError:
        seconds = -1.0
    if isinstance(value, bool) or not 0 <= seconds <= LONGEST_WAIT_S:
        raise ValueError(f"{value!r} is not a number of seconds; write it like 60")
    return seconds


def as_dimensions(value: Any) -> tuple[str, ...]:
    """What may travel in W3C baggage: names of dimensions, and `budget`."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{value!r} is no list of dimensions; write it like user,run,tag:feature")
    found = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    for name in found:
        if name not in _TRAVELLING and not (name.startswith("tag:") and name != "tag:"):
            near = did_you_mean(name, _TRAVELLING)
            raise ValueError(f"{name!r} cannot travel{near}; write some of {', '.join(_TRAVELLING)}, tag:<name>")
    return found


def as_url(value: Any) -> str:
    """A URL of http or https; it may hold a secret, and so stands in no error."""
    text = as_text(value)
    with suppress(ValueError):  # of a port that is no number
        parts = urlsplit(text)
        is_whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        if is_whole and text.isascii() and text.isprintable() and " " not in text:
            return text
    raise ValueError("the webhook is no URL; write it like https://example.com/hook")  # it may hold a secret


def as_usd(value: Any) -> Decimal:
    """An amount in USD."""
    try:
        amount = Decimal(str(value).strip().removeprefix("$"))
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{value!r} is not an amount in USD; write it like 0.25")
    return amount


def as_path(value: Any) -> Path:
    """The path of a file."""
    return value if isinstance(value, Path) else Path(at_home(as_text(value)))


def as_ledger(value: Any) -> str:
    """The URL of a ledger; a path becomes one."""
    text = str(value) if isinstance(value, Path) else as_text(value)
    path = text.removeprefix(SQLITE)
    # The value is not repeated in the error: the URL of a database server holds a password.
    if not path or "://" in path or (path == text and not text.endswith(".db")):
        raise ValueError(f"this version writes SQLite only; use sqlite:///path, a path that ends in .db, or {MEMORY}")
    return text if text == MEMORY else SQLITE + at_home(path)


def at_home(path: str) -> str:
    """A path with `~` resolved, where a home is known."""
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises where no home is known


def as_pairs(value: Any) -> dict[str, str]:
    """Texts by name."""
    if isinstance(value, Mapping):
        pairs = [(str(key), text) for key, text in value.items()]
    else:
        split = [part.partition("=") for part in as_text(value).split(",") if part.strip()]
        pairs = [(key.strip(), text.strip()) for key, _, text in split]
    for key, text in pairs:
        if not key or not isinstance(text, str) or not text:
            raise ValueError(f"{key!r} has no text as its value; write it like feature=search,team=core")
    return dict(pairs)


def as_providers(value: Any) -> dict[str, str]:
    """Names of providers by host."""
    pairs = as_pairs(value)
    if wrong := next((host for host in pairs if "/" in host), None):
        raise ValueError(f"{wrong!r} is not a host; write it without scheme and path, like gateway.corp:8443=openai")
    return {host.lower(): provider for host, provider in pairs.items()}


def as_budget(value: Any) -> Any:
    """Budgets as they are written; they are parsed when their mode and time zone are known."""
    if isinstance(value, str | list | tuple):
        return value
    raise ValueError(f"{value!r} is no list of budgets; write [[budget]] tables, or a text like '5 USD / day'")
