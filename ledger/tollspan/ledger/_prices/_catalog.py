"""What there are prices for: who sells a model, and which names are near to one that nobody knows."""

from collections.abc import Iterable

from tollspan.ledger._prices._book import PriceBook
from tollspan.ledger._prices._lists import models_of, provider_ids, snapshot
from tollspan.ledger._prices._names import provider_id_of
from tollspan.ledger._prices._rates import UNITS, RateCard
from tollspan.ledger._prices._usage import DETAIL

_NEAR = 5
_LIKENESS = 0.6


class PriceCatalog:
    """The names in the built-in prices and in the user's price file. Its first use loads genai-prices (130 ms)."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book

    def has_provider(self, provider: str) -> bool:
        """Whether the built-in prices know a provider, as OpenTelemetry or genai-prices spells it."""
        return provider_id_of(provider) in provider_ids()

    def providers_of(self, model: str, at: float) -> list[str]:
        """The ids of the providers at which a model has a price at an instant (epoch seconds), its maker first."""
        listed = snapshot().providers
        makers = [p.id for p in listed if p.model_match is not None and p.model_match.is_match(model.lower())]
        ids = dict.fromkeys([*makers, *sorted(provider_ids())])
        return [one for one in ids if isinstance(self._book.resolve(provider=one, model=model, at=at), RateCard)]

    def near_models(self, model: str, provider: str | None) -> list[str]:
        """The names closest to that of a model without a price: its provider's (None: all), and those of the file."""
        own, wanted = self._book.own, provider_id_of(provider)
        known = [entry.model for entry in own.entries] + [alias.name for alias in own.aliases]
        for listed in provider_ids() if wanted is None else (wanted,):
            known += models_of(listed)
        return _closest(model, known)

    @staticmethod
    def price_keys(units: Iterable[str]) -> list[str]:
        """The price keys that usage keys need: one for each unit that no other unit's price stands in for."""
        used = {unit.partition(DETAIL)[0] for unit in units}
        return [unit.price_keys[0] for name, unit in UNITS.items() if name in used and unit.parent is None]

    def near_providers(self, provider: str) -> list[str]:
        """The ids closest to that of a provider without prices."""
        return _closest(provider, provider_ids())


def _closest(word: str, known: Iterable[str]) -> list[str]:
    from difflib import get_close_matches  # noqa: PLC0415 - for who asks for names only

    spelled = {name.lower(): name for name in known}
    return [spelled[name] for name in get_close_matches(word.lower(), spelled, n=_NEAR, cutoff=_LIKENESS)]
