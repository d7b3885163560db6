"""What a call costs: one resolver from (provider, model, moment) to a rate card, and a reason where there is none.

Order: the user's price file (TOLLSPAN_PRICES), then genai-prices (MIT), then the extras that come with tollspan. Where
the wire states a cost, that comes between the first two, when the call is settled. A model is looked up under the
provider it was called at and under no other: the same open weights have another price, or none, on every host.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tollspan.ledger._prices._entries import PriceEntry
from tollspan.ledger._prices._file import PriceFile
from tollspan.ledger._prices._lists import limits_of, listed_card, provider_ids
from tollspan.ledger._prices._live_file import LivePriceFile
from tollspan.ledger._prices._names import names_of, provider_id_of, split_target
from tollspan.ledger._prices._rates import RateCard, Unpriced
from tollspan.ledger._single_flight import SingleFlight

_BUCKET_S = 900
_CACHE_SIZE = 4096


class _Asked(NamedTuple):
    """What a card is wanted for; also the key under which it is kept, so each version of the file has its own."""

    provider: str | None
    model: str
    base_url: str | None
    service_tier: str | None
    region: str | None
    at: float
    own: PriceFile

    @property
    def provider_id(self) -> str | None:
        """The id of the provider in price lists."""
        return provider_id_of(self.provider)

    @property
    def names(self) -> tuple[str, ...]:
        """The name as it came, and as price lists may have it, the barest last."""
        return (self.model, *names_of(self.model, self.provider, self.provider_id))

    def listed(self) -> RateCard | Unpriced:
        """The built-in card, or why there is none."""
        return listed_card(
            provider=self.provider,
            model=self.model,
            base_url=self.base_url,
            when=datetime.fromtimestamp(self.at, UTC),
            service_tier=self.service_tier,
            region=self.region,
        )


_Key = tuple[str | None, str, str | None, str | None, str | None, float, PriceFile]

_loading = SingleFlight()


class PriceBook:
    """Rate cards by provider, model and moment; safe to share between threads.

    `overrides` is the user's price file, whose format docs/prices.md tells; what it says of a model goes before all
    else. A change of it is in force within about a second. PriceFileError says what is wrong with it when the book is
    made; without `strict`, and ever after, that is logged, and the file's last good version stays in force.
    """

    def __init__(self, *, overrides: Path | None = None, strict: bool = True) -> None:
        self._cache: dict[_Key, RateCard | Unpriced] = {}
        self._live = LivePriceFile(overrides, self._cache.clear, strict=strict)

    @property
    def own(self) -> PriceFile:
        """What the user's price file says now."""
        return self._live.current()

    def resolve(
        self,
        *,
        provider: str | None,
        model: str | None,
        base_url: str | None = None,
        at: float,
        service_tier: str | None = None,
        region: str | None = None,
    ) -> RateCard | Unpriced:
        """Find the rate card of a model at `at` (epoch seconds, to the quarter of an hour), or say why there is none.

        `provider` is spelled as in OpenTelemetry or in genai-prices; where it is None, `base_url` tells it. `region` is
        spelled as the provider does; where it is None, the host of `base_url` tells it, or nobody does. The card holds
        the rates of calls of any size. A `service_tier` that no list has a price of costs what the standard tier costs,
        and `RateCard.doubts` says so.
        """
        own = self._live.current()
        key = (provider, model or "", base_url, service_tier, region, own.moment(at, _BUCKET_S), own)
        found = self._cache.get(key)
        return found if found is not None else self._resolve_once(key)

    def own_lines(
        self, *, provider: str | None, model: str, at: float, service_tier: str | None = None
    ) -> tuple[int, ...]:
        """The lines of the user's price file that apply to a model at `at` (epoch seconds): its alias, its entry."""
        asked = _Asked(provider, model, None, service_tier, None, at, self.own)
        found, entry = _by_own(asked)
        alias = None if found is asked else asked.own.find_alias(asked.provider_id, asked.names)
        return tuple(one.line for one in (alias, entry) if one is not None and one.line is not None)

    def _resolve_once(self, key: _Key) -> RateCard | Unpriced:
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        return _loading.load(self._cache, key, lambda: self._look_up(_Asked(*key)))

    def _look_up(self, asked: _Asked) -> RateCard | Unpriced:
        if not asked.model:
            return Unpriced(f"no price for a call of provider {asked.provider!r} that names no model")
        asked, entry = _by_own(asked)
        if entry is None:
            return asked.listed()
        found = entry.card(asked.listed, provider=asked.provider_id, model=asked.names[-1])
        if isinstance(found, RateCard) and found.max_output_tokens is None:
            return replace(found, max_output_tokens=limits_of(asked.provider_id, asked.names)[1])
        return found


def _by_own(asked: _Asked) -> tuple[_Asked, PriceEntry | None]:
    """What is to be looked up, under the name that the user's file gives it, and what that says of it."""
    own, names = asked.own, asked.names
    entry = own.find(asked.provider_id, names, asked.at, asked.service_tier)
    if entry is None and (target := own.alias_of(asked.provider_id, names)):
        provider, model = split_target(target, asked.provider, provider_ids())
        asked = asked._replace(provider=provider, model=model)
        entry = own.find(asked.provider_id, asked.names, asked.at, asked.service_tier)
    return asked, entry
