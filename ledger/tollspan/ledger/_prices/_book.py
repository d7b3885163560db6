"""What a call costs: one resolver from (provider, model, moment) to a rate card, and a reason where there is none.

Order: the user's price file (TOLLSPAN_PRICES), then genai-prices (MIT), then the extras that come with tollspan. Where
the wire states a cost, that comes between the first two, when the call is settled. A model is looked up under the
provider it was called at and under no other: the same open weights have another price, or none, on every host.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tollspan.ledger._prices._file import PriceEntry, read_price_file
from tollspan.ledger._prices._lists import limits_of, listed_card
from tollspan.ledger._prices._names import names_of, provider_id_of
from tollspan.ledger._prices._rates import RateCard, Unpriced
from tollspan.ledger._single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Sequence

_BUCKET_S = 900
_CACHE_SIZE = 4096

_Key = tuple[str | None, str | None, str | None, str | None, str | None, int]

_loading = SingleFlight()


@runtime_checkable
class _Aliases(Protocol):
    """A price file that also says which model is behind a deployment or an inference profile."""

    def alias_of(self, provider_id: str | None, names: tuple[str, ...]) -> str | None:
        """The name of the model, or None where the file does not map any of these names."""
        ...


class PriceBook:
    """Rate cards by provider, model and moment; safe to share between threads.

    `overrides` is a TOML file of `[[price]]` tables: `model` (a glob), `provider` (any, if left out), prices in USD as
    strings or numbers (`input_mtok`, `output_mtok`, `cache_read_mtok`, `cache_write_mtok` per million tokens, and the
    other price keys of genai-prices) or `free = true`, `context_window` and `max_output_tokens` in tokens. The first
    match replaces all other prices of the model. The file is read here; PriceFileError says what is wrong with it.
    """

    def __init__(self, *, overrides: Path | None = None) -> None:
        self._overrides: Sequence[PriceEntry] = read_price_file(overrides) if overrides is not None else ()
        self._cache: dict[_Key, RateCard | Unpriced] = {}

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
        key = (provider, model, base_url, service_tier, region, int(at // _BUCKET_S))
        found = self._cache.get(key)
        return found if found is not None else self._resolve_once(key)

    def _resolve_once(self, key: _Key) -> RateCard | Unpriced:
        if len(self._cache) >= _CACHE_SIZE:
            self._cache.clear()
        return _loading.load(self._cache, key, lambda: self._look_up(key))

    def _look_up(self, key: _Key) -> RateCard | Unpriced:
        provider, model, base_url, service_tier, region, bucket = key
        if not model:
            return Unpriced(f"no price for a call of provider {provider!r} that names no model")
        provider_id = provider_id_of(provider)
        names = (model, *names_of(model, provider, provider_id))
        alias = self._alias_of(provider_id, names)
        if alias is not None:
            names = (*names, *names_of(alias, provider, provider_id))
        return self._override(provider_id, names) or listed_card(
            provider=provider,
            model=alias or model,
            base_url=base_url,
            when=datetime.fromtimestamp(bucket * _BUCKET_S, UTC),
            service_tier=service_tier,
            region=region,
        )

    def _alias_of(self, provider_id: str | None, names: tuple[str, ...]) -> str | None:
        """What the user calls the model behind a deployment or a profile; a price file may map such names."""
        mapped = self._overrides if isinstance(self._overrides, _Aliases) else None
        return mapped.alias_of(provider_id, names) if mapped is not None else None

    def _override(self, provider_id: str | None, names: tuple[str, ...]) -> RateCard | None:
        for entry in self._overrides:
            if entry.matches(provider_id, names):
                card = entry.card
                return replace(card, max_output_tokens=card.max_output_tokens or limits_of(provider_id, names)[1])
        return None
