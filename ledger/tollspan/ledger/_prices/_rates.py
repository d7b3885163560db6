"""Rate cards: list prices compiled once into whole femto-USD, so that costs are integer arithmetic.

1 femto-USD = 1e-15 USD, 10**6 of them are one nano-USD. A price of 1 USD per million tokens is 10**9 femto-USD a token,
so nearly every published price is exact; one that is not (a third of a cent, a price per hour) is rounded up.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypedDict, Unpack

from tollspan.ledger._prices._usage import (
    DETAIL,
    INPUT_PARTS,
    OUTPUT_PARTS,
    Count,
    Leaf,
    contradictions,
    counts_of,
    details_in,
    leaves_of,
    nearest,
)

FEMTO_PER_NANO = 10**6
FEMTO_PER_USD = 10**15
UNLIMITED_TOKENS = 1 << 62
"""Output tokens that any amount buys where output costs nothing."""

OWN = "override"
"""The source of cards whose prices are those of the user's price file."""

REQUEST_FEE_KEY = "requests_kcount"
"""Price key of a fee for each request, in USD per thousand; charged once a call, whatever its usage."""

# OpenAI lists one output price for its models that give nothing but images (openai.com/api/pricing, "Image tokens").
_ONLY_IMAGES = re.compile(r"(?:.*/)?gpt-image-")

# Google lists one input price for text, images, video and audio, but for those that it names a price of their own for
# (ai.google.dev/gemini-api/docs/pricing).
_AS_TEXT = {
    "input_mtok": ("input_image_mtok", "input_video_mtok", "input_audio_mtok"),
    "cache_read_mtok": ("cache_image_read_mtok", "cache_audio_read_mtok"),
}

Steps = tuple[tuple[int, Decimal], ...]
"""A price in USD and where it begins: `(start, price)` holds for calls of more than `start` input tokens; -1 first."""


@dataclass(frozen=True, slots=True)
class Unit:
    """How a usage key is priced: the first listed price key in USD per `per` units, else the rate of its parent."""

    price_keys: tuple[str, ...]
    per: int = 1_000_000
    parent: str | None = None


# Price keys and their denominators are those of genai-prices; `images_kcount` and `video_hours` follow its pattern.
# A unit without a parent has a rate of its own or none: audio and images are never charged as if they were text.
UNITS: Mapping[str, Unit] = {
    "tokens_in": Unit(("input_mtok",)),
    "tokens_cache_read": Unit(("cache_read_mtok",), parent="tokens_in"),
    "tokens_cache_write": Unit(("cache_write_mtok",), parent="tokens_in"),
    "tokens_cache_write_5m": Unit(("cache_write_5m_mtok",), parent="tokens_cache_write"),
    "tokens_cache_write_1h": Unit(("cache_write_1h_mtok",), parent="tokens_cache_write"),
    "tokens_audio_in": Unit(("input_audio_mtok",)),
    "tokens_audio_cache_read": Unit(("cache_audio_read_mtok",), parent="tokens_audio_in"),
    "tokens_image_in": Unit(("input_image_mtok",)),
    "tokens_image_cache_read": Unit(("cache_image_read_mtok",), parent="tokens_image_in"),
    "tokens_video_in": Unit(("input_video_mtok",)),
    "tokens_out": Unit(("output_mtok",)),
    "tokens_reasoning": Unit(("output_reasoning_mtok",), parent="tokens_out"),
    "tokens_audio_out": Unit(("output_audio_mtok",)),
    "tokens_image_out": Unit(("output_image_mtok",)),
    "tokens_video_out": Unit(("output_video_mtok",)),
    "characters_in": Unit(("input_mchars",)),
    "audio_seconds": Unit(("audio_hours", "input_audio_hours"), per=3600),
    "video_seconds": Unit(("video_hours",), per=3600),
    "images": Unit(("images_kcount",), per=1000),
    "document_pages": Unit(("input_document_kpages",), per=1000),
    "annotated_document_pages": Unit(("input_annotated_document_kpages",), per=1000),
    "web_searches": Unit(("web_searches_kcount",), per=1000),
    "storage_searches": Unit(("storage_searches_kcount",), per=1000),
    "social_searches": Unit(("social_searches_kcount",), per=1000),
    "rerank_searches": Unit(("rerank_searches_kcount",), per=1000),
    "code_executions": Unit(("code_executions_kcount",), per=1000),
}
PRICE_KEYS = (*(key for unit in UNITS.values() for key in unit.price_keys), REQUEST_FEE_KEY)

_INPUT_UNITS = ("tokens_in", *(part for part, _ in INPUT_PARTS))
_TEXT_UNITS = tuple(unit for unit in _INPUT_UNITS if unit == "tokens_in" or unit.startswith("tokens_cache"))
_OUTPUT_UNITS = ("tokens_out", *(part for part, _ in OUTPUT_PARTS))


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A cost that is not known, and never 0: `reason` names the model, the provider and what to do about it.

    `hold_usd`, what a call may hold all the same, and the limits in tokens are what the user's price file says.
    """

    reason: str
    hold_usd: Decimal | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class CostBound:
    """An upper bound on the cost of a call as a function of its output tokens, in femto-USD (1e-15 USD)."""

    fixed_femto: int
    per_output_token_femto: int

    def nano(self, output_tokens: int) -> int:
        """Nano-USD for at most so many output tokens of each choice, rounded up."""
        return -(-(self.fixed_femto + self.per_output_token_femto * output_tokens) // FEMTO_PER_NANO)

    def affordable_tokens(self, nano: int) -> int:
        """Tell the most output tokens whose `nano()` is within `nano`; negative when not even none are affordable.

        UNLIMITED_TOKENS where output costs nothing and the rest fits.
        """
        left = nano * FEMTO_PER_NANO - self.fixed_femto
        if self.per_output_token_femto == 0:
            return UNLIMITED_TOKENS if left >= 0 else -1
        return left // self.per_output_token_femto


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates in femto-USD per unit of a call with more than `above` input tokens.

    `dearest_...` are the dearest of each direction here, in any tier before, and by the time that a call ends.
    `detailed` are the units with prices by detail, and `unpaid` those with a rate of 0.
    """

    above: int
    rates: Mapping[str, int]
    dearest_input: int
    dearest_text: int
    dearest_output: int
    detailed: frozenset[str] = frozenset()
    unpaid: frozenset[str] = frozenset()

    @property
    def dearest(self) -> tuple[int, int, int]:
        """The dearest rates of any input, of text put in, and of any output."""
        return self.dearest_input, self.dearest_text, self.dearest_output


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """What a model costs at a moment.

    `provider` and `model` are spelled as in the price list that `source` names: `genai-prices:<version>`,
    `extras:<date>`, both with a `+`, or `override`. `context_window` and `max_output_tokens` are in tokens, None where
    they are not known. A tier applies to every token of a call whose total input is above its start: the cliff rule of
    OpenAI, Anthropic, Google and Alibaba. `service_tier` and `region` are those that the rates are of, None where they
    make no difference. `notes` say what of the question could not be answered as it was asked. `hold_usd` is what a
    call may hold whose cost has no bound, where the user's price file says it. `listed_as` is the `model` of the list's
    card that it stands in place of; None also for a name that only the user knows, as of a deployment.
    """

    provider: str
    model: str
    source: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    free: bool = False
    tiers: tuple[Tier, ...] = field(repr=False, hash=False)
    listed: Mapping[str, Any] = field(repr=False, hash=False)
    request_fee_femto: int = 0
    least_audio_seconds: int = 0
    whole_answer_thinks: bool = False
    service_tier: str | None = None
    region: str | None = None
    notes: tuple[str, ...] = ()
    hold_usd: Decimal | None = None
    listed_as: str | None = None

    @property
    def by_user(self) -> bool:
        """Whether the user's own price file gave the price: then it goes before what a provider states."""
        return self.source == OWN

    @property
    def prices_tokens(self) -> bool:
        """Whether input tokens have a price; where not (audio hours, pages, characters), `bound` says nothing."""
        return self.free or any(unit in self.tiers[0].rates for unit in _INPUT_UNITS)

    def most_input(self, tokens: int) -> int:
        """So many input tokens, or as many as the model takes: a window behind which a tier begins is out of date."""
        window = self.context_window
        return tokens if window is None or self.tiers[-1].above >= window else min(tokens, window)

    def cost(self, usage: Mapping[str, float]) -> int | Unpriced:
        """Nano-USD of a usage, rounded half-even once; Unpriced when any unit in it has no rate.

        `tokens_in` and `tokens_out` are totals and the other token keys parts of them. A part is charged at its own
        rate and taken out of its total; cache and reasoning tokens without a rate of their own are charged at their
        parent's. Without a total, the parts stand for it. A usage of nothing costs nothing. A detail (see `DETAIL`)
        that has a rate of its own is taken out of its unit. `doubts` says what of a cost is to be taken with care.
        """
        if self.free:
            return 0
        try:
            counts = counts_of(usage)
        except (OverflowError, ValueError):
            return Unpriced(f"the usage reported for {self._name()} holds a number that is not finite")
        details = details_in(counts, self.tiers[0].rates)
        inputs = leaves_of(counts, "tokens_in", INPUT_PARTS, known=usage.get("tokens_in") is not None)
        if self.whole_answer_thinks and counts.get("tokens_reasoning"):
            counts["tokens_reasoning"] = counts.get("tokens_out", counts["tokens_reasoning"])
        outputs = leaves_of(counts, "tokens_out", OUTPUT_PARTS, known=usage.get("tokens_out") is not None)
        if self.least_audio_seconds and "audio_seconds" in counts:
            counts["audio_seconds"] = max(counts["audio_seconds"], self.least_audio_seconds)
        rates = self._rates_at(inputs)
        leaves = (*inputs, *outputs, *counts.items(), *details)
        femto: Count = self.request_fee_femto if leaves else 0
        for unit, count in leaves:
            rate = rates.get(unit)
            if rate is None:
                return Unpriced(self._no_rate(unit))
            femto += rate * count
        return _half_even_nano(femto)

    def doubts(self, usage: Mapping[str, float]) -> tuple[str, ...]:
        """Say why the cost of a usage may not be what the provider charges; nothing where there is no doubt.

        That is where a service tier or a region has no known price, where a usage contradicts itself, where a detail is
        charged as any of its unit, and where a list has something cost nothing that nobody says is free.
        """
        if self.free:
            return ()
        found = [*self.notes, *contradictions(usage)]
        first = self.tiers[0]
        if first.detailed:
            found += self._unlisted_details(usage)
        if first.unpaid and not self.by_user:
            unpaid = (unit for unit, count in usage.items() if count and unit in first.unpaid)
            found += (f"{self.source} has {unit} cost nothing" for unit in unpaid)
        return tuple(found)

    def bound(self, input_tokens: int, *, choices: int = 1, text_only: bool = False) -> CostBound:
        """Bound the cost of a call with up to so many input tokens, by the output tokens of each of its choices.

        It takes the dearest tier in reach, every input token at the dearest input rate (one-hour cache writes, and
        audio, image and video unless `text_only`), and every output token at the dearest output rate. Tools that the
        provider charges by use, such as web searches, are not covered.
        """
        tokens = max(0, input_tokens)
        tier = self._tier_of(tokens)
        rate = tier.dearest_text if text_only else tier.dearest_input
        return CostBound(self.request_fee_femto + rate * tokens, tier.dearest_output * choices)

    def rates(self) -> dict[str, Any]:
        """Give the listed prices, ready for JSON: USD as strings, per million tokens or what the key says.

        With the service tier and the region that they are of, where they are not those of the list.
        """
        where = {"service_tier": self.service_tier, "region": self.region}
        return {**self.listed, **{name: value for name, value in where.items() if value is not None}}

    def times(self, factor: Decimal, *, source: str) -> "RateCard":
        """The card at a multiple of its prices, each rate rounded up; it lists the factor, and where it comes from."""
        tiers = tuple(
            replace(
                tier,
                rates={unit: _up(rate * Fraction(factor)) for unit, rate in tier.rates.items()},
                dearest_input=_up(tier.dearest_input * Fraction(factor)),
                dearest_text=_up(tier.dearest_text * Fraction(factor)),
                dearest_output=_up(tier.dearest_output * Fraction(factor)),
            )
            for tier in self.tiers
        )
        listed = {"multiplier": format(factor, "f"), "of": self.source, **_scaled(self.listed, factor)}
        fee = _up(self.request_fee_femto * Fraction(factor))
        return replace(self, source=source, tiers=tiers, listed=listed, request_fee_femto=fee)

    def plus(self, prices: Mapping[str, Steps], *, source: str) -> "RateCard":
        """The card with prices in USD beside its own, or in their place."""
        both = {**_steps_of(self.listed), **prices}
        more = rate_card(both, provider=self.provider, model=self.model, source=source)
        # The bound of the list is kept where it is the dearer one: it may be that of a later time of day.
        tiers = tuple(_no_cheaper(tier, self._tier_of(tier.above + 1)) for tier in more.tiers)
        fee = more.request_fee_femto
        return replace(self, source=source, tiers=tiers, listed=more.listed, request_fee_femto=fee)

    def _unlisted_details(self, usage: Mapping[str, float]) -> Iterator[str]:
        """Units that have prices by detail, where the usage tells no detail, or one without a price of its own."""
        rates = self.tiers[0].rates
        for unit in self.tiers[0].detailed & usage.keys():
            told = [key for key in usage if key.startswith(f"{unit}{DETAIL}")]
            if not told:
                yield f"{unit!r} has prices by detail, and the usage tells none: charged at the price for any"
            unlisted = (key for key in told if key not in rates)
            yield from (f"no price of {key!r} itself is known: charged as {nearest(key, rates)!r}" for key in unlisted)

    def _rates_at(self, inputs: list[Leaf]) -> Mapping[str, int]:
        if len(self.tiers) == 1:
            return self.tiers[0].rates
        return self._tier_of(sum(count for _, count in inputs)).rates

    def _tier_of(self, tokens: Count) -> Tier:
        """The tier of a call with so many input tokens; most calls are in the first."""
        tiers = self.tiers
        if len(tiers) == 1 or tokens <= tiers[1].above:
            return tiers[0]
        return next(tier for tier in reversed(tiers) if tokens > tier.above)

    def _no_rate(self, unit: str) -> str:
        keys = UNITS[unit].price_keys if unit in UNITS else ()
        give = f"give `{keys[0]}` and its other rates" if keys else "nothing prices this unit but `free = true`"
        return f"no rate for {unit!r} of {self._name()}; {give} in the file named by TOLLSPAN_PRICES"

    def _name(self) -> str:
        return f"model {self.model!r} of provider {self.provider!r} ({self.source})"


class _More(TypedDict, total=False):
    least_audio_seconds: int
    whole_answer_thinks: bool
    service_tier: str | None
    region: str | None
    notes: tuple[str, ...]


def rate_card(
    prices: Mapping[str, Steps],
    *,
    provider: str,
    model: str,
    source: str,
    context_window: int | None = None,
    max_output_tokens: int | None = None,
    free: bool = False,
    later: Mapping[str, Steps] | None = None,
    **more: Unpack[_More],
) -> RateCard:
    """Compile prices in USD, by price key, into a card; keys that no unit of ours has are kept for the record only.

    `free` makes everything cost nothing: for a model that runs on hardware of one's own. `later` are the prices that
    may hold by the time that a call ends; they are in its bound, and not in its cost. `more` are fields of the card.
    """
    prices = _completed(prices, provider, model)
    fee = prices.get(REQUEST_FEE_KEY)
    return RateCard(
        provider=provider,
        model=model,
        source=source,
        context_window=context_window,
        max_output_tokens=max_output_tokens,
        tiers=_tiers(prices, {} if later in (None, prices) else _completed(later, provider, model)),
        free=free,
        listed={"free": True} if free else _listed(prices),
        request_fee_femto=_femto(max(price for _, price in fee), per=1000) if fee else 0,
        **more,
    )


def _completed(prices: Mapping[str, Steps], provider: str, model: str) -> Mapping[str, Steps]:
    """With the prices that a vendor means by one of another name."""
    if "output_mtok" in prices and _ONLY_IMAGES.match(model):
        prices = {"output_image_mtok": prices["output_mtok"], **prices}
    if provider == "google":
        prices = {key: prices[text] for text, keys in _AS_TEXT.items() if text in prices for key in keys} | dict(prices)
    return prices


def _half_even_nano(femto: Count) -> int:
    nano, rest = divmod(femto, FEMTO_PER_NANO)
    half = FEMTO_PER_NANO // 2
    return nano + 1 if rest > half or (rest == half and nano % 2) else nano


def _tiers(prices: Mapping[str, Steps], later: Mapping[str, Steps]) -> tuple[Tier, ...]:
    tiers: list[Tier] = []
    for above in sorted({-1, *(start for steps in prices.values() for start, _ in steps)}):
        bounds = [*(tier.dearest for tier in tiers[-1:]), _dearest(_rates_above(above, later))]
        tiers.append(_tier(above, _rates_above(above, prices), bounds))
    return tuple(tiers)


def _rates_above(above: int, prices: Mapping[str, Steps]) -> dict[str, int]:
    at = {key: _price_at(steps, above) for key, steps in prices.items()}
    rates = {unit: rate for unit in UNITS if (rate := _rate(unit, at)) is not None}
    return rates | {unit: rate for key, price in at.items() for unit, rate in _detail_rate(key, price)}


def _dearest(rates: Mapping[str, int]) -> tuple[int, int, int]:
    """The dearest rates of any input, of text put in, and of any output."""
    sides = (_INPUT_UNITS, _TEXT_UNITS, _OUTPUT_UNITS)
    inputs, text, outputs = (max((rates[unit] for unit in units if unit in rates), default=0) for units in sides)
    return inputs, text, outputs


def _price_at(steps: Steps, above: int) -> Decimal:
    return next(price for start, price in reversed(steps) if start <= above)


def _tier(above: int, rates: Mapping[str, int], bounds: list[tuple[int, int, int]]) -> Tier:
    inputs, text, outputs = (max(sides) for sides in zip(_dearest(rates), *bounds, strict=True))
    return Tier(
        above=above,
        rates=rates,
        dearest_input=inputs,
        dearest_text=text,
        dearest_output=outputs,
        detailed=frozenset(unit.partition(DETAIL)[0] for unit in rates if DETAIL in unit),
        unpaid=frozenset(unit for unit, rate in rates.items() if rate == 0),
    )


def _rate(name: str, prices: Mapping[str, Decimal]) -> int | None:
    unit = UNITS[name]
    for key in unit.price_keys:
        if key in prices:
            return _femto(prices[key], per=unit.per)
    return None if unit.parent is None else _rate(unit.parent, prices)


def _detail_rate(key: str, price: Decimal) -> Iterator[tuple[str, int]]:
    """Give the usage key that the price of a detail is for, and its rate."""
    base, mark, words = key.partition(DETAIL)
    for name, unit in UNITS.items() if mark else ():
        if base in unit.price_keys:
            yield f"{name}{mark}{words}", _femto(price, per=unit.per)


def _femto(usd: Decimal, *, per: int) -> int:
    return _up(Fraction(usd) * FEMTO_PER_USD / per)


def _up(femto: Fraction) -> int:
    return math.ceil(femto)


def _scaled(listed: Mapping[str, Any], factor: Decimal) -> dict[str, Any]:
    """Listed prices times a factor; they are the texts in it, and in its tiers."""
    scaled: dict[str, Any] = {}
    for key, value in listed.items():
        if key == "tiers":
            scaled[key] = [_scaled(tier, factor) for tier in value]
        else:
            scaled[key] = format(Decimal(value) * factor, "f") if isinstance(value, str) else value
    return scaled


def _no_cheaper(tier: Tier, other: Tier) -> Tier:
    inputs, text, outputs = map(max, tier.dearest, other.dearest)
    return replace(tier, dearest_input=inputs, dearest_text=text, dearest_output=outputs)


def _listed(prices: Mapping[str, Steps]) -> dict[str, Any]:
    base = {key: format(steps[0][1], "f") for key, steps in prices.items()}
    starts = sorted({start for steps in prices.values() for start, _ in steps[1:]})
    if not starts:
        return base
    return base | {"tiers": [{"above": start} | _listed_at(prices, start) for start in starts]}


def _steps_of(listed: Mapping[str, Any]) -> dict[str, Steps]:
    """The prices that `_listed` has made texts of."""
    tiers = listed.get("tiers", ())
    return {
        key: ((-1, Decimal(usd)), *((tier["above"], Decimal(tier[key])) for tier in tiers if key in tier))
        for key, usd in listed.items()
        if isinstance(usd, str)
    }


def _listed_at(prices: Mapping[str, Steps], start: int) -> dict[str, str]:
    return {key: format(price, "f") for key, steps in prices.items() for begin, price in steps[1:] if begin == start}
