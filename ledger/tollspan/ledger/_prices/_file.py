"""The user's own prices: the TOML file named by TOLLSPAN_PRICES, which goes before all others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tollspan.ledger._prices._names import provider_id_of
from tollspan.ledger._prices._rates import PRICE_KEYS, RateCard, rate_card


class PriceFileError(ValueError):
    """The user's price file cannot be used; the text names the file, the entry, the field and what is wrong."""


@dataclass(frozen=True, slots=True)
class PriceEntry:
    """One entry of the file: the card of the models whose names match."""

    provider: str | None
    model: str
    card: RateCard

    def matches(self, provider: str | None, names: Iterable[str]) -> bool:
        """Whether it is the price of a model, under any of its names, at a provider of genai-prices' id."""
        if self.provider is not None and self.provider != provider:
            return False
        return any(fnmatchcase(name.lower(), self.model) for name in names)


_LIMIT_KEYS = ("max_output_tokens", "context_window")
_KEYS = ("provider", "model", "free", *PRICE_KEYS, *_LIMIT_KEYS)


def read_price_file(path: Path) -> tuple[PriceEntry, ...]:
    """The entries of a price file, first ones first. Raises PriceFileError."""
    import tomllib  # noqa: PLC0415 - most programs have no price file

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as error:
        raise PriceFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # not TOML (the text tells line and column) or not UTF-8
        raise PriceFileError(f"{path}: {error}") from error
    for name in document:
        if name != "price":
            raise PriceFileError(f"{path}: unknown {name!r}; write prices as [[price]] tables")
    entries = document.get("price", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PriceFileError(f"{path}: 'price' must be written as [[price]] tables")
    return tuple(_read_entry(entry, f"{path}: [[price]] entry {n}") for n, entry in enumerate(entries, start=1))


def _read_entry(entry: Mapping[str, Any], where: str) -> PriceEntry:
    for key in entry:
        if key not in _KEYS:
            close = get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(_KEYS)}"
            raise PriceFileError(f"{where}: unknown field {key!r}; {hint}")
    model = _text(entry, "model", where)
    if model is None:
        raise PriceFileError(f"{where}: field 'model' is missing; give a model name or a glob such as \"my-model*\"")
    provider = _text(entry, "provider", where)
    free = entry.get("free", False)
    if not isinstance(free, bool):
        raise PriceFileError(f"{where}: field 'free' must be true or false, not {free!r}")
    prices = {key: ((-1, _price(entry[key], f"{where}: field {key!r}")),) for key in PRICE_KEYS if key in entry}
    if free == bool(prices):
        raise PriceFileError(f"{where}: give at least one price, or 'free = true', and not both")
    limits = {key: _tokens(entry.get(key), f"{where}: field {key!r}") for key in _LIMIT_KEYS}
    card = rate_card(
        prices,
        provider=provider or "any",
        model=model,
        source="override",
        context_window=limits["context_window"],
        max_output_tokens=limits["max_output_tokens"],
        free=free,
    )
    return PriceEntry(provider=provider_id_of(provider), model=model.lower(), card=card)


def _text(entry: Mapping[str, Any], key: str, where: str) -> str | None:
    value = entry.get(key)
    if key in entry and (not isinstance(value, str) or not value):
        raise PriceFileError(f"{where}: field {key!r} must be a text, not {value!r}")
    return value


def _price(value: object, where: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise PriceFileError(f'{where} must be a price in USD, such as 0.25 or "0.25", not {value!r}')
    try:
        price = Decimal(value)
    except InvalidOperation:
        raise PriceFileError(f'{where} must be a price in USD, such as 0.25 or "0.25", not {value!r}') from None
    if not price.is_finite() or price < 0:
        raise PriceFileError(f"{where} must be a finite price that is not negative, not {str(value)!r}")
    return price


def _tokens(value: object, where: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise PriceFileError(f"{where} must be a whole number of tokens above 0, not {value!r}")
    return value
