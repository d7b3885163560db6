"""What the lists of prices say of a model: genai-prices, and the extras where that has nothing.

A model of genai-prices takes from the extras what it does not price there: pieces, service tiers, regions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tollspan.ledger._prices._extras import Extra, Extras, extras
from tollspan.ledger._prices._limits import max_output_tokens
from tollspan.ledger._prices._names import STANDARD_TIER, names_of, provider_id_of, tier_of
from tollspan.ledger._prices._rates import RateCard, Steps, Unpriced, rate_card
from tollspan.ledger._prices._regions import host_of, region_of

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, Provider

HOW_TO = "give one in the file named by TOLLSPAN_PRICES"

_OPENAI_HOST = "api.openai.com"
# Groq bills a transcription as 10 seconds at least (groq.com/pricing); genai-prices applies the same rule.
_LEAST_AUDIO_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
# Alibaba lists the price of output by mode, thinking or not (Model Studio, "Model pricing"): all output of an answer
# that thinks has the price of that mode.
_WHOLE_ANSWER_THINKS = frozenset({"dashscope"})
_LONGEST_CALL = timedelta(hours=1)
"""How long before a dearer time of day a call is bounded by its price: DeepSeek bills by the time that a call ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which price is asked for: of a model, under any of its names, at a moment, a service tier and in a region."""

    provider_id: str
    names: tuple[str, ...]
    when: datetime
    service_tier: str = ""
    region: str | None = None

    @property
    def in_standard_tier(self) -> bool:
        """Whether the list prices themselves are asked for."""
        return tier_of(self.service_tier) == STANDARD_TIER


def snapshot() -> "DataSnapshot":
    """The list of genai-prices, imported at the first look-up: it takes 130 ms and 27 MB, and some make no call."""
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415

    return get_snapshot()


def _provider_id_of_url(base_url: str | None) -> str | None:
    """Whose API is at a URL, by genai-prices."""
    if not base_url:
        return None
    try:
        return snapshot().find_provider(None, None, base_url).id
    except LookupError:
        return None


def listed_card(
    *,
    provider: str | None,
    model: str,
    base_url: str | None,
    when: datetime,
    service_tier: str | None,
    region: str | None,
) -> RateCard | Unpriced:
    """The card that the lists give, or why they give none; arguments as in `PriceBook.resolve`."""
    host = host_of(base_url)  # the host alone: a URL may hold a key
    provider_id = provider_id_of(provider) or _provider_id_of_url(base_url)
    what = f"model {model!r} of provider {provider or host!r}"
    if provider_id is None:
        return Unpriced(f"no price for {what}; {HOW_TO}")
    provider_id, name = _routed(provider_id, model)
    names = names_of(name, provider, provider_id)
    if provider_id == "openai" and names[-1].lower().startswith("gpt-oss") and host != _OPENAI_HOST:
        return Unpriced(
            f"no price for {what}: its weights are open, and its host ({host or 'not known'}) is not OpenAI's; "
            f"{HOW_TO}, or `free = true`"
        )
    found = _found(
        Asked(
            provider_id=provider_id,
            names=names,
            when=when,
            service_tier=(service_tier or "").lower(),
            region=region or region_of(host),
        )
    )
    if isinstance(found, str):
        return Unpriced(f"{found} lists no price for {what}; {HOW_TO}")
    return found or Unpriced(f"no price for {what}; {HOW_TO}")


def _routed(provider_id: str, model: str) -> tuple[str, str]:
    """The provider whose list has a model, and its name: Hugging Face's `owner/name:together` is served by Together.

    Its router passes on the price of whom it routes to ("Inference Providers, Pricing and Billing").
    """
    name, _, behind = model.rpartition(":")
    routed = f"{provider_id}_{behind.lower()}"
    return (routed, name) if provider_id == "huggingface" and routed in provider_ids() else (provider_id, model)


def provider_ids() -> frozenset[str]:
    """The ids of all providers that the lists have prices of."""
    return frozenset(provider.id for provider in snapshot().providers) | extras().provider_ids


def models_of(provider_id: str) -> list[str]:
    """The names of the models that a provider has in any list."""
    listed = [model.id for provider in snapshot().providers if provider.id == provider_id for model in provider.models]
    return [*listed, *extras().models_of(provider_id)]


def _found(asked: Asked) -> RateCard | str | None:
    """The card of a model; None where no list has it; the name of the list that has it, but no price of it."""
    known = extras()
    if (card := _card(asked, known)) is not None:
        return card
    for name in dict.fromkeys(known.neighbours(asked.provider_id, asked.names)):
        card = _card(replace(asked, names=(name,)), known)
        if isinstance(card, RateCard):
            return replace(card, notes=(*card.notes, f"not listed under its own name: priced as {name!r}"))
    return None


def limits_of(provider_id: str | None, names: tuple[str, ...]) -> tuple[int | None, int | None]:
    """The context window and the most output tokens of a model, by any list."""
    window, output = extras().limits(provider_id or "", names)
    return window, max_output_tokens(names[-1]) or output


def _card(asked: Asked, known: Extras) -> RateCard | str | None:
    found = _find(asked)
    extra = known.find(asked.provider_id, asked.names, asked.region)
    if found is None and extra is None:
        return None
    prices, later, tier_is_known, sources = _listed(*found, asked) if found else ({}, {}, False, [])
    name = found[1].id if found else extra.name if extra else asked.names[-1]
    notes: list[str] = []
    if extra is not None:
        more, tier_in_extras = _from_extras(extra, asked, prices, tier_is_known=tier_is_known)
        tier_is_known = tier_is_known or tier_in_extras
        if more:
            prices, later, sources = prices | more, later | more, [*sources, f"extras:{known.version}"]
            notes += [extra.note] if extra.note else []
    if not prices:
        return sources[0] if sources else f"extras:{known.version}"
    if not (asked.in_standard_tier or tier_is_known):
        notes.append(f"no price of service tier {asked.service_tier!r} is known: priced as standard")
    factor = known.uplift(asked.provider_id, asked.names, asked.region)
    window, output = limits_of(asked.provider_id, asked.names)
    return rate_card(
        prices if factor is None else _uplifted(prices, factor),
        later=later if factor is None else _uplifted(later, factor),
        provider=found[0].id if found else asked.provider_id,
        model=name,
        source="+".join(sources),
        context_window=max(window or 0, (found[1].context_window if found else None) or 0) or None,
        max_output_tokens=output,
        least_audio_seconds=_LEAST_AUDIO_SECONDS.get((asked.provider_id, name), 0),
        whole_answer_thinks=asked.provider_id in _WHOLE_ANSWER_THINKS,
        service_tier=asked.service_tier if tier_is_known and not asked.in_standard_tier else None,
        region=asked.region if factor is not None or (extra is not None and extra.of_region) else None,
        notes=tuple(notes),
    )


def _find(asked: Asked) -> "tuple[Provider, ModelInfo] | None":
    # Of an id that it does not know, genai-prices would guess the provider from a part: only exact ids get there.
    listed = snapshot()
    if all(asked.provider_id != provider.id for provider in listed.providers):
        return None
    for name in asked.names:
        try:
            return listed.find_provider_model(name, None, asked.provider_id, None)
        except LookupError:
            continue
    return None


def _listed(
    provider: "Provider", model: "ModelInfo", asked: Asked
) -> tuple[dict[str, Steps], dict[str, Steps], bool, list[str]]:
    """The prices of genai-prices, now and at the end of a long call; whether they are of the tier; and their source."""
    from genai_prices import __version__ as version  # noqa: PLC0415 - loaded by now, see `snapshot`

    # The tiers of a vendor do not apply where its models are sold by somebody else; genai-prices has it so too.
    own = any(model is listed for listed in provider.models)
    context = dict(_conditions(model, asked.service_tier)) if own else {}
    now, later = (_priced(model.get_prices(at, context or None)) for at in (asked.when, asked.when + _LONGEST_CALL))
    return now, later, bool(context), [f"genai-prices:{version}"]


def _priced(prices: "ModelPrice") -> dict[str, Steps]:
    return {key: _steps(price) for key, price in vars(prices).items() if price is not None}


def _conditions(model: "ModelInfo", tier: str) -> Iterator[tuple[str, str]]:
    """Under which names genai-prices has a tier: batches are a kind of processing, Anthropic's fast mode is a speed."""
    for variant in model.price_variants or ():
        yield from ((name, value) for name, value in variant.when.items() if value == tier)


def _from_extras(
    extra: Extra, asked: Asked, listed: Mapping[str, Steps], *, tier_is_known: bool
) -> tuple[dict[str, Steps], bool]:
    """What the extras add to a list, or change in it, and whether the tier is theirs."""
    regional = extra.of_region
    more = {key: steps for key, steps in extra.prices.items() if key not in listed or key in regional}
    if tier_is_known or asked.service_tier not in extra.service_tiers:
        return more, False
    base = {**listed, **more}
    tier = {
        key: _with_steps(steps, base.get(key, ())) for key, steps in extra.service_tiers[asked.service_tier].items()
    }
    return more | tier, True


def _with_steps(tier: Steps, listed: Steps) -> Steps:
    """A tier's price, and the listed ones for larger calls than those it has a price for: they are no lower."""
    last = tier[-1][0]
    return (*tier, *((start, usd) for start, usd in listed if start > last))


def _uplifted(prices: Mapping[str, Steps], factor: Decimal) -> dict[str, Steps]:
    """Prices of tokens in a region that costs more; what is billed by the piece costs the same everywhere."""
    return {
        key: tuple((start, usd * factor) for start, usd in steps) if key.partition(":")[0].endswith("_mtok") else steps
        for key, steps in prices.items()
    }


def _steps(price: Any) -> Steps:
    if isinstance(price, Decimal):
        return ((-1, price),)
    return ((-1, price.base), *((tier.start, tier.price) for tier in price.tiers))
