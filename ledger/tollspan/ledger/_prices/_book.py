"""What a call costs: one resolver from (provider, model, moment) to a rate card, and a reason where there is none.

Order: the user's price file (TOLLSPAN_PRICES), then genai-prices (MIT). A model is looked up under the provider it was
called at and under no other: the same open weights have another price, or none, on every host.
"""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from tollspan.ledger._prices._entries import PriceEntry
from tollspan.ledger._prices._file import PriceFile
from tollspan.ledger._prices._limits import max_output_tokens
from tollspan.ledger._prices._live_file import LivePriceFile
from tollspan.ledger._prices._names import names_of, provider_id_of, split_target
from tollspan.ledger._prices._rates import RateCard, Steps, Unpriced, rate_card
from tollspan.ledger._single_flight import SingleFlight

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, Provider

_STANDARD_TIERS = frozenset({"", "auto", "standard"})
_OPENAI_HOST = "api.openai.com"
# Groq bills a transcription as 10 seconds at least (groq.com/pricing); genai-prices applies the same rule.
_LEAST_AUDIO_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
_BUCKET_S = 900
_CACHE_SIZE = 4096
_HOW_TO = "give one in the file named by TOLLSPAN_PRICES"


class _Asked(NamedTuple):
    """What a card is wanted for; also the key under which it is kept, so each version of the file has its own."""

    provider: str | None
    model: str
    base_url: str | None
    service_tier: str | None
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


_Key = tuple[str | None, str, str | None, str | None, float, PriceFile]

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
    ) -> RateCard | Unpriced:
        """Find the rate card of a model at `at` (epoch seconds, to the quarter of an hour), or say why there is none.

        `provider` is spelled as in OpenTelemetry or in genai-prices; where it is None, `base_url` tells it. A
        `service_tier` without prices of its own costs what the standard tier costs.
        """
        own = self._live.current()
        key = (provider, model or "", base_url, service_tier, own.moment(at, _BUCKET_S), own)
        found = self._cache.get(key)
        return found if found is not None else self._resolve_once(key)

    def own_lines(
        self, *, provider: str | None, model: str, at: float, service_tier: str | None = None
    ) -> tuple[int, ...]:
        """The lines of the user's price file that apply to a model at `at` (epoch seconds): its alias, its entry."""
        asked = _Asked(provider, model, None, service_tier, at, self.own)
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
            return _listed(asked)
        found = entry.card(lambda: _listed(asked), provider=asked.provider_id, model=asked.names[-1])
        if isinstance(found, RateCard) and found.max_output_tokens is None:
            return replace(found, max_output_tokens=max_output_tokens(asked.names[-1]))
        return found


def _by_own(asked: _Asked) -> tuple[_Asked, PriceEntry | None]:
    """What is to be looked up, under the name that the user's file gives it, and what that says of it."""
    own, names = asked.own, asked.names
    entry = own.find(asked.provider_id, names, asked.at, asked.service_tier)
    if entry is None and (target := own.alias_of(asked.provider_id, names)):
        provider, model = split_target(target, asked.provider, {known.id for known in _snapshot().providers})
        asked = asked._replace(provider=provider, model=model)
        entry = own.find(asked.provider_id, asked.names, asked.at, asked.service_tier)
    return asked, entry


def _listed(asked: _Asked) -> RateCard | Unpriced:
    """The built-in card, or why there is none."""
    provider, model, base_url, service_tier, at, _ = asked
    snapshot, host = _snapshot(), _host(base_url)  # the host alone: a URL may hold a key
    provider_id = asked.provider_id or _provider_id_of_url(snapshot, base_url)
    missing = Unpriced(f"no price for model {model!r} of provider {provider or host!r}; {_HOW_TO}")
    # Of an id that it does not know, genai-prices would guess the provider from a part: only exact ids get there.
    if provider_id is None or all(provider_id != known.id for known in snapshot.providers):
        return missing
    names = names_of(model, provider, provider_id)
    if provider_id == "openai" and names[-1].lower().startswith("gpt-oss") and host != _OPENAI_HOST:
        return Unpriced(
            f"no price for model {model!r} of provider {provider or host!r}: its weights are open, and its host "
            f"({host or 'not known'}) is not OpenAI's; {_HOW_TO}, or `free = true`"
        )
    found = _find(snapshot, provider_id, names)
    if found is None:
        return missing
    return _listed_card(*found, asked_for=model, when=datetime.fromtimestamp(at, UTC), service_tier=service_tier)


def _provider_id_of_url(snapshot: "DataSnapshot", base_url: str | None) -> str | None:
    if not base_url:
        return None
    try:
        return snapshot.find_provider(None, None, base_url).id
    except LookupError:
        return None


def _host(base_url: str | None) -> str | None:
    if not base_url:
        return None
    try:
        return urlsplit(base_url if "://" in base_url else f"//{base_url}").hostname
    except ValueError:
        return None


def _snapshot() -> "DataSnapshot":
    # Imported at the first lookup: it takes 130 ms and 27 MB, which a program that makes no call should not pay.
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415

    return get_snapshot()


def _find(snapshot: "DataSnapshot", provider_id: str, names: tuple[str, ...]) -> "tuple[Provider, ModelInfo] | None":
    for name in names:
        try:
            return snapshot.find_provider_model(name, None, provider_id, None)
        except LookupError:
            continue
    return None


def _listed_card(
    provider: "Provider", model: "ModelInfo", *, asked_for: str, when: datetime, service_tier: str | None
) -> RateCard | Unpriced:
    from genai_prices import __version__ as version  # noqa: PLC0415 - loaded by now, see _snapshot

    tier = (service_tier or "").lower()
    # The tiers of a vendor do not apply where its models are sold by somebody else; genai-prices has it so too.
    own = any(model is listed for listed in provider.models)
    # genai-prices keeps batches apart from the tiers that a request asks for.
    kind = "processing" if tier == "batch" else "service_tier"
    context = {kind: tier} if own and tier not in _STANDARD_TIERS else None
    prices = {key: _steps(price) for key, price in vars(model.get_prices(when, context)).items() if price is not None}
    if not prices:
        return Unpriced(
            f"genai-prices {version} lists no price for model {asked_for!r} of provider {provider.id!r}; {_HOW_TO}"
        )
    return rate_card(
        prices,
        provider=provider.id,
        model=model.id,
        source=f"genai-prices:{version}",
        context_window=model.context_window,
        max_output_tokens=max_output_tokens(asked_for),
        least_audio_seconds=_LEAST_AUDIO_SECONDS.get((provider.id, model.id), 0),
    )


def _steps(price: Any) -> Steps:
    if isinstance(price, Decimal):
        return ((-1, price),)
    return ((-1, price.base), *((tier.start, tier.price) for tier in price.tiers))
