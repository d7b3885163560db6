"""How long to wait where a provider's rate limit is met: from an answer to seconds, or to None for not at all.

Nothing here waits; the wire does. Header names are in lower case. A header that makes no sense is as none.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from tollspan.ledger import LONGEST_WAIT_S, Settings

_RATE_LIMITED = 429
_OVERLOADED = frozenset({503, 529})
LIMITS = _OVERLOADED | {_RATE_LIMITED}
"""The HTTP statuses that may be waited for."""
FIRST_WAIT = 128
"""Waits for a provider have the numbers from here to 255 in their call; those for budgets have the ones below."""

_LAST_WAIT = 255
_BACKOFF_S = 0.5
_BACKOFF_CAP_S = 8.0
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[0-9]+)?")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|ns|d|h|m|s)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_UNIT_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds: at most, each time; and in all, from a call's first attempt."""

    max_wait_timeout_s: float
    retry_budget_s: float


class RateLimits:
    """What this process does about the rate limits of providers: as `instrument` was told, else as the settings say."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: dict[str, Any] = {}

    def use(self, given: Mapping[str, Any]) -> None:
        """Do as `instrument` was told, now or before."""
        self._given |= given

    def forget(self) -> None:
        """Forget what was told."""
        self._given.clear()

    def patience(self, settings: Settings) -> Patience | None:
        """How long to wait under these settings; None for not at all."""

        def chosen(name: str) -> Any:
            return self._given.get(name, getattr(settings, name))

        if not chosen("wait_on_rate_limit"):
            return None
        return Patience(chosen("max_wait_timeout_s"), chosen("retry_budget_s"))


RATE_LIMITS = RateLimits()
"""The one of the process."""


def checked(**given: Any) -> dict[str, Any]:
    """Those arguments of `instrument` that were given. Raises ValueError for what is no number of seconds."""
    for name, value in given.items():
        if not name.endswith("_s") or value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_WAIT_S:
            raise ValueError(f"{name}: {value!r} is not a number of seconds; write it like 60")
    return {name: value for name, value in given.items() if value is not None}


class Waits:
    """The waits of one call, made at its first attempt. `clock` gives seconds, `chance` a number from 0 to 1."""

    __slots__ = ("_chance", "_clock", "_count", "_patience", "_until")

    def __init__(
        self,
        patience: Patience,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._patience, self._clock, self._chance = patience, clock, chance
        self._until = clock() + patience.retry_budget_s
        self._count = 0

    def pause(self, status: int, headers: Mapping[str, str], *, attempts: int) -> float | None:
        """Seconds to wait before the attempt after so many; None where the answer is to be handed on."""
        if not is_limited(status, headers) or FIRST_WAIT + attempts > _LAST_WAIT:
            return None
        told = asked_for(headers)
        # A provider that says "at once" is believed once: it would be asked without a pause otherwise.
        pause = self._backoff() if told is None or (told == 0 and self._count) else told
        if pause is None or not self._fits(pause):
            return None
        self._count += 1
        return pause

    def _fits(self, pause: float) -> bool:
        return pause <= self._patience.max_wait_timeout_s and self._clock() + pause <= self._until

    def _backoff(self) -> float | None:
        """Exponential, with full jitter: callers that were refused together shall not come back together."""
        most = min(_BACKOFF_S * 2**self._count, _BACKOFF_CAP_S, self._patience.max_wait_timeout_s)
        return most * self._chance() if most else None


def is_limited(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer says "later". Of an overloaded provider only where it says when: others are rather broken."""
    if headers.get("x-should-retry") == "false":
        return False
    return status == _RATE_LIMITED or (status in _OVERLOADED and _retry_after(headers) is not None)


def asked_for(headers: Mapping[str, str]) -> float | None:
    """Seconds until the provider wants to be asked again; None where its answer does not tell."""
    told = _retry_after(headers)
    return max(_resets(headers), default=None) if told is None else told


def is_hopeless(body: bytes) -> bool:
    """Whether an answer 429 is about money and not about time: OpenAI sends one where the account has no credit."""
    try:
        error = orjson.loads(body)["error"]
        kinds = {error.get("code"), error.get("type")}
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    return any(isinstance(kind, str) and kind.startswith(("insufficient_quota", "billing")) for kind in kinds)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """By `retry-after-ms`, which some send, or by `Retry-After`: RFC 9110, and fractions of a second too."""
    ms = _number(headers.get("retry-after-ms"))
    if ms is not None:
        return ms / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    return _until(_http_date(text), headers) if seconds is None else seconds


def _resets(headers: Mapping[str, str]) -> Iterator[float]:
    """The seconds until each bucket that is used up is filled again, in the headers of OpenAI or of Anthropic."""
    for name, remaining in headers.items():
        if "ratelimit" not in name or "remaining" not in name or _number(remaining) != 0:
            continue
        reset = headers.get(name.replace("remaining", "reset"), "")
        seconds = _duration(reset)
        seconds = _until(_instant(reset), headers) if seconds is None else seconds
        if seconds is not None:
            yield seconds


def _number(text: str | None) -> float | None:
    """A number of 0 or more; one that is too large for a float is infinite."""
    text = (text or "").strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _duration(text: str) -> float | None:
    """A duration as Go writes it, like `6m0s`, `20ms` or `1h2m3.5s`, in seconds."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))


def _until(instant: datetime | None, headers: Mapping[str, str]) -> float | None:
    """Seconds from the provider's clock (ours, where it does not tell its own) to an instant; 0 for the past."""
    if instant is None:
        return None
    now = _http_date(headers.get("date")) or datetime.fromtimestamp(time.time(), UTC)
    return max(0.0, (instant - now).total_seconds())


def _http_date(text: str | None) -> datetime | None:
    try:
        return _aware(parsedate_to_datetime(text or ""))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _instant(text: str | None) -> datetime | None:
    """An instant by RFC 3339."""
    try:
        return _aware(datetime.fromisoformat(text or ""))
    except ValueError:
        return None


def _aware(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
