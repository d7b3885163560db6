"""The entries of the user's price file: what each says of the models that it matches, and how its fields are read."""

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any

from tollspan.ledger._prices._names import provider_id_of, tier_of
from tollspan.ledger._prices._rates import (
    OWN,
    PRICE_KEYS,
    REQUEST_FEE_KEY,
    UNITS,
    RateCard,
    Steps,
    Unpriced,
    rate_card,
)
from tollspan.ledger._prices._usage import DETAIL
from tollspan.ledger._windows import did_you_mean

_PER = {key: unit.per for unit in UNITS.values() for key in unit.price_keys} | {REQUEST_FEE_KEY: 1000}
# Which price key a unit and a direction stand for; a unit with one direction need not name it.
UNIT_KEYS: Mapping[str, Mapping[str, str]] = {
    "token": {
        "in": "input_mtok",
        "out": "output_mtok",
        "cache_read": "cache_read_mtok",
        "cache_write": "cache_write_mtok",
    },
    "image": {"out": "images_kcount"},
    "second": {"in": "audio_hours", "out": "video_hours"},
    "character": {"in": "input_mchars"},
    "page": {"in": "input_document_kpages"},
    "request": {"in": REQUEST_FEE_KEY},
    "web_search": {"out": "web_searches_kcount"},
    "rerank_search": {"out": "rerank_searches_kcount"},
    "code_execution": {"out": "code_executions_kcount"},
}
_SMALL_UNITS = ("token", "character")  # nobody lists the price of one of them
UNIT_FIELDS = ("unit", "direction", "usd", "per", "detail")
_LIMITS = ("max_output_tokens", "context_window")
_OTHERS = ("provider", "model", "service_tier", "from", "until", "free", "add", "multiplier", "hold_usd", "tiers")
FIELDS = (*_OTHERS, *_LIMITS, *UNIT_FIELDS, *PRICE_KEYS)
_MOST = 10**9  # no price is a billion; a number with that many digits would keep everybody busy
_LIKE_USD = 'such as 0.25 or "0.25"'


class FieldError(ValueError):
    """A field cannot be used; `name` is its name, the text says why and what to write."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"field {name!r} {text}")
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceEntry:
    """What the file says of the models at a provider that match a glob, from one instant to another, at a service tier.

    A provider or tier that is None is any. `prices` are in USD as `rate_card` takes them; with `add` they stand beside
    those of the built-in list, which holds without any, and not `free`, times `multiplier`. What is None leaves the
    built-in figure as it is. Instants in epoch seconds; `line` counts from 1.
    """

    provider: str | None
    model: str
    service_tier: str | None = None
    since: float = -math.inf
    until: float = math.inf
    prices: Mapping[str, Steps] = field(default_factory=dict)
    free: bool = False
    add: bool = False
    multiplier: Decimal | None = None
    hold_usd: Decimal | None = None
    max_output_tokens: int | None = None
    context_window: int | None = None
    line: int | None = None

    @property
    def key(self) -> tuple[str | None, str, str | None, float, float]:
        """What two entries have in common that speak of the same models at the same time."""
        return (self.provider, self.model, self.service_tier, self.since, self.until)

    @property
    def rank(self) -> tuple[bool, float]:
        """Which of those of one glob is asked first: one of a tier, then the latest."""
        return (self.service_tier is None, -self.since)

    def matches(self, provider: str | None, names: Iterable[str]) -> bool:
        """Whether it is about a model, under any of its names, at a provider of genai-prices' id."""
        if self.provider not in (None, provider):
            return False
        return any(fnmatchcase(name.lower(), self.model) for name in names)

    def card(
        self, listed: Callable[[], RateCard | Unpriced], *, provider: str | None, model: str
    ) -> RateCard | Unpriced:
        """The card of a model that it matches, given how to find the built-in one."""
        found = own = listed()
        if self.add and isinstance(found, RateCard):
            own = found.plus(self.prices, source=OWN)
        elif self.free or self.prices:
            own = rate_card(self.prices, provider=provider or "any", model=model, source=OWN, free=self.free)
        if isinstance(own, RateCard):
            own = own if self.multiplier is None else own.times(self.multiplier, source=OWN)
            own = replace(own, listed_as=found.model if isinstance(found, RateCard) else None)
        return replace(
            own,
            hold_usd=self.hold_usd,
            context_window=self.context_window or found.context_window,
            max_output_tokens=self.max_output_tokens or found.max_output_tokens,
        )


def read_entry(raw: Mapping[str, Any], line: int | None) -> PriceEntry:
    """An entry as TOML has it. Raises FieldError."""
    for name in raw:
        _check_name(name, FIELDS)
    model, provider = _text(raw, "model"), _text(raw, "provider")
    if model is None:
        raise FieldError("model", 'is missing; give a model name or a glob such as "my-model*"')
    since, until = _instant(raw, "from", -math.inf), _instant(raw, "until", math.inf)
    if until <= since:
        raise FieldError("until", "must be later than 'from'")
    entry = PriceEntry(
        provider=provider_id_of(provider),
        model=model.lower(),
        service_tier=tier_of(_text(raw, "service_tier")) if "service_tier" in raw else None,
        since=since,
        until=until,
        prices=_prices(raw),
        free=_switch(raw, "free"),
        add=_switch(raw, "add"),
        multiplier=_multiplier(raw),
        hold_usd=_usd(raw["hold_usd"], "hold_usd") if "hold_usd" in raw else None,
        max_output_tokens=_tokens(raw, "max_output_tokens"),
        context_window=_tokens(raw, "context_window"),
        line=line,
    )
    _check_whole(entry)
    return entry


def merged(first: PriceEntry, other: PriceEntry) -> PriceEntry:
    """What two entries of one key say together. Raises FieldError where both say the same thing."""
    at = f"is given at line {first.line} already, for the same model, provider, tier and dates"
    if twice := first.prices.keys() & other.prices.keys():
        key = min(twice)
        raise FieldError(key, at)
    both = replace(other, prices={**first.prices, **other.prices}, line=first.line)
    both = replace(both, free=first.free or other.free, add=first.add or other.add)
    for name in ("multiplier", "hold_usd", *_LIMITS):
        before = getattr(first, name)
        if before is not None and getattr(other, name) is not None:
            raise FieldError(name, at)
        if before is not None:
            both = replace(both, **{name: before})
    if first.free and other.free:
        raise FieldError("free", at)
    _check_whole(both)
    return both


def _check_whole(entry: PriceEntry) -> None:
    if entry.add and not entry.prices:
        raise FieldError("add", "adds prices to the built-in ones, and there are none: give at least one")
    if entry.free and (entry.prices or entry.multiplier is not None):
        raise FieldError("free", "says that it costs nothing, and there is a price too: give one of them, and not both")
    says = (entry.multiplier, entry.hold_usd, entry.max_output_tokens, entry.context_window)
    if not entry.free and not entry.prices and all(said is None for said in says):
        raise FieldError(
            "model",
            "is all it has: give at least one price (such as input_mtok), 'free = true', a multiplier, hold_usd, "
            "max_output_tokens or context_window",
        )


def _check_name(name: str, known: Iterable[str]) -> None:
    if name in known or name.partition(DETAIL)[0] in PRICE_KEYS:
        return
    near = did_you_mean(name, known)
    raise FieldError(name, f"is not known{near}" if near else f"is not known; known are {', '.join(known)}")


def _prices(raw: Mapping[str, Any]) -> dict[str, Steps]:
    base = {name: _usd(value, name) for name, value in raw.items() if name.partition(DETAIL)[0] in PRICE_KEYS}
    base |= _unit_price(raw, base)
    steps: dict[str, Steps] = {key: ((-1, usd),) for key, usd in base.items()}
    for above, prices in _tiers(raw):
        for key, usd in prices.items():
            if key not in steps:
                raise FieldError("tiers", f"gives {key!r} above {above}; give its price below that too, beside 'tiers'")
            steps[key] = (*steps[key], (above, usd))
    return steps


def _unit_price(raw: Mapping[str, Any], base: Mapping[str, Decimal]) -> dict[str, Decimal]:
    if "unit" not in raw and "usd" not in raw:
        if alone := next((name for name in UNIT_FIELDS if name in raw), None):
            raise FieldError(alone, "belongs to 'unit' and 'usd', which are missing")
        return {}
    unit = _one_of(raw, "unit", UNIT_KEYS)
    directions = UNIT_KEYS[unit]
    direction = next(iter(directions))
    if len(directions) > 1 or "direction" in raw:
        direction = _one_of(raw, "direction", directions)
    if "usd" not in raw:
        raise FieldError("usd", f"is missing: the price in USD, {_LIKE_USD}")
    detail = _text(raw, "detail")
    key = directions[direction]
    name = key if detail is None else f"{key}{DETAIL}{detail}"
    if name in base:
        raise FieldError("unit", f"gives the same price as {name!r}: give one of them")
    return {name: _usd(raw["usd"], "usd") * _PER[key] / _per(raw, unit)}


def _per(raw: Mapping[str, Any], unit: str) -> int:
    if "per" not in raw and unit in _SMALL_UNITS:
        raise FieldError("per", f"is missing: how many {unit}s 'usd' is for, such as per = 1_000_000")
    return _whole(raw.get("per", 1), "per", f"a whole number of {unit}s above 0, such as 1_000_000")


def _tiers(raw: Mapping[str, Any]) -> list[tuple[int, dict[str, Decimal]]]:
    if "tiers" not in raw:
        return []
    tiers = raw["tiers"]
    if not isinstance(tiers, list) or not tiers or not all(isinstance(tier, dict) for tier in tiers):
        raise FieldError("tiers", "must be a list such as [{above = 200_000, input_mtok = 6, output_mtok = 22.5}]")
    found: dict[int, dict[str, Decimal]] = {}
    for tier in tiers:
        above = _whole(tier.get("above", 0), "tiers", "a list of tables that each have 'above', in input tokens")
        prices = {name: value for name, value in tier.items() if name != "above"}
        if wrong := next((name for name in prices if name.partition(DETAIL)[0] not in PRICE_KEYS), None):
            near = did_you_mean(wrong, PRICE_KEYS) or "; such are input_mtok, output_mtok"
            raise FieldError("tiers", f"has {wrong!r}, which is no price{near}")
        if above in found:
            raise FieldError("tiers", f"has two tiers above {above}")
        if not prices:
            raise FieldError("tiers", f"has no price above {above}")
        found[above] = {name: _usd(value, name) for name, value in prices.items()}
    return sorted(found.items())


def _multiplier(raw: Mapping[str, Any]) -> Decimal | None:
    if "multiplier" not in raw:
        return None
    factor = _usd(raw["multiplier"], "multiplier", what="a factor, such as 0.85 for 15 % off")
    if factor == 0:
        raise FieldError("multiplier", "must be above 0; write 'free = true' for what costs nothing")
    return factor


def _instant(raw: Mapping[str, Any], name: str, default: float) -> float:
    """Epoch seconds; days and times without an offset are in UTC."""
    value = raw.get(name)
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).timestamp()
    if name in raw:
        like = "a date or an instant, such as 2026-12-01 or 2026-12-01T12:00:00Z"
        raise FieldError(name, f"must be {like}, not {str(raw[name])!r}")
    return default


def _switch(raw: Mapping[str, Any], name: str) -> bool:
    value = raw.get(name, False)
    if not isinstance(value, bool):
        raise FieldError(name, f"must be true or false, not {value!r}")
    return value


def _text(raw: Mapping[str, Any], name: str) -> str | None:
    value = raw.get(name)
    if name in raw and (not isinstance(value, str) or not value.strip()):
        raise FieldError(name, f"must be a text, not {value!r}")
    return value.strip() if isinstance(value, str) else None


def _one_of(raw: Mapping[str, Any], name: str, known: Mapping[str, Any]) -> str:
    value = _text(raw, name)
    if value is None:
        raise FieldError(name, f"is missing; write one of {', '.join(known)}")
    if value not in known:
        raise FieldError(name, f"is {value!r}{did_you_mean(value, known)}; write one of {', '.join(known)}")
    return value


def _usd(value: object, name: str, *, what: str = f"a price in USD, {_LIKE_USD}") -> Decimal:
    number = None
    if isinstance(value, int | str | Decimal) and not isinstance(value, bool):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = None
    if number is None:
        raise FieldError(name, f"must be {what}, not {value!r}")
    if not number.is_finite() or not 0 <= number <= _MOST:
        raise FieldError(name, f"must be {what}: finite, not negative and at most {_MOST}, not {str(value)!r}")
    return number


def _tokens(raw: Mapping[str, Any], name: str) -> int | None:
    return _whole(raw[name], name, "a whole number of tokens above 0") if name in raw else None


def _whole(value: object, name: str, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise FieldError(name, f"must be {what}, not {value!r}")
    return value
