"""Prices and limits of models that genai-prices does not have: `extras.json`, made by `tools/price_lists.py`.

The file names the source and the date of each group. It is read once, at the first look-up of a price.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from tollspan.ledger._prices._names import provider_id_of, undated
from tollspan.ledger._prices._rates import Steps

FILE = Path(__file__).with_name("extras.json")

Prices = dict[str, Steps]
Limits = tuple[int | None, int | None]
"""The context window and the most output tokens of one choice, in tokens; None where a list does not tell."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A model's list prices by price key, what differs from them by service tier, and what is to be known of them."""

    name: str
    prices: Prices
    service_tiers: Mapping[str, Prices]
    of_region: frozenset[str] = frozenset()
    """The price keys that are those of the region asked for; they go before any other list's."""
    note: str | None = None


class Extras:
    """What the file says. Names of models are compared in lower case."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.version: str = document["version"]
        self._models: dict[tuple[str, str], dict[str, Any]] = {}
        for group in document["groups"]:
            self._models.setdefault((group["provider"], group.get("region", "")), {}).update(group["models"])
        self._limits: dict[str, dict[str, list[int | None]]] = document["limits"]["providers"]
        self._uplifts = document["uplifts"]
        self._home: dict[str, str] = document["home_regions"]

    @property
    def provider_ids(self) -> frozenset[str]:
        """The providers that it has prices of."""
        return frozenset(provider for provider, _ in self._models)

    def models_of(self, provider_id: str) -> set[str]:
        """The names of the models that it has prices of at a provider."""
        return {name for (owner, _), models in self._models.items() if owner == provider_id for name in models}

    def find(self, provider_id: str, names: Iterable[str], region: str | None) -> Extra | None:
        """The list prices of the model: with those of its region, where that has its own, in their place."""
        names = tuple(name.lower() for name in names)
        listed = self._entry(provider_id, "", names)
        there = self._entry(provider_id, region, names) if region else None
        if there is not None:
            return _extra(there, listed or ("", {}), of_region=frozenset(there[1].get("prices", {})))
        home = self._home.get(provider_id)
        if listed is not None:
            elsewhere = region is not None and home is not None and region != home
            note = f"no price of region {region!r} is known: priced as in region {home!r}" if elsewhere else None
            return _extra(listed, ("", {}), note=note)
        if region is None and home is not None:
            for owner, other in self._models:
                if owner == provider_id and (entry := self._entry(provider_id, other, names)) is not None:
                    return _extra(entry, ("", {}), note=f"the region is not known: priced as in region {other!r}")
        return None

    def _entry(self, provider_id: str, region: str, names: tuple[str, ...]) -> tuple[str, Any] | None:
        models = self._models.get((provider_id, region), {})
        return next(((name, models[name]) for name in names if name in models), None)

    def neighbours(self, provider_id: str, names: Iterable[str]) -> Iterator[str]:
        """Other names of what may be the same: without the date of its snapshot, or the newest with one."""
        priced = (models for (owner, _), models in self._models.items() if owner == provider_id)
        listed = {name for names_of_list in (*priced, self._limits.get(provider_id, {})) for name in names_of_list}
        for name in names:
            if (plain := undated(name)) is not None:
                yield plain
            dated = [other for other in listed if undated(other) == name.lower()]
            if dated:
                yield max(dated)

    def limits(self, provider_id: str, names: Iterable[str]) -> Limits:
        """Its limits at the provider, or those of the vendor that its name begins with (`google/gemini-2.5-pro`).

        The larger ones, where they differ: they bound what a call may cost, and lists of gateways grow old.
        """
        found = []
        for name in map(str.lower, names):
            vendor, _, model = name.partition("/")
            for owner, listed in ((provider_id, name), (provider_id_of(vendor) or "", model)):
                models = self._limits.get(owner, {})
                found.append(models.get(listed) or models.get(undated(listed) or "") or (None, None))
        windows, outputs = zip(*found, strict=True)
        return max(filter(None, windows), default=None), max(filter(None, outputs), default=None)

    def uplift(self, provider_id: str, names: Iterable[str], region: str | None) -> Decimal | None:
        """The factor by which the model costs more in a region; None where it does not, or nobody knows."""
        for uplift in self._uplifts:
            if uplift["provider"] == provider_id and _applies(uplift, region):
                for name in map(str.lower, names):
                    if factor := uplift["factors"].get(name) or uplift["factors"].get(undated(name) or ""):
                        return Decimal(factor)
        return None


@cache
def extras() -> Extras:
    """The file, read once."""
    return Extras(orjson.loads(FILE.read_bytes()))


def steps_of(price: str | Mapping[str, str]) -> Steps:
    """A price as the file has it: one text, or texts by the input tokens above which they hold."""
    if isinstance(price, str):
        return ((-1, Decimal(price)),)
    return tuple(
        (int(start) or -1, Decimal(usd)) for start, usd in sorted(price.items(), key=lambda step: int(step[0]))
    )


def _applies(uplift: Mapping[str, Any], region: str | None) -> bool:
    """Whether a region costs more: one of those listed, or any but those that cost as listed."""
    if region is None:
        return False
    return region in uplift["regions"] if "regions" in uplift else region not in uplift["regions_without"]


def _extra(
    found: tuple[str, Any], base: tuple[str, Any], *, of_region: frozenset[str] = frozenset(), note: str | None = None
) -> Extra:
    name, entry = found
    tiers = {**base[1].get("service_tiers", {}), **entry.get("service_tiers", {})}
    return Extra(
        name=name,
        prices=_prices({**base[1].get("prices", {}), **entry.get("prices", {})}),
        service_tiers={tier: _prices(prices) for tier, prices in tiers.items()},
        of_region=of_region,
        note=note,
    )


def _prices(listed: Mapping[str, str | Mapping[str, str]]) -> Prices:
    return {key: steps_of(price) for key, price in listed.items()}
