"""What a call costs: resolution, exact cost, bounds, and the user's price file."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from hypothesis import assume, given
from hypothesis import strategies as st

from tollspan.ledger._prices import CostBound, PriceBook, PriceFileError, RateCard, Unpriced, _book
from tollspan.ledger._prices._rates import UNLIMITED_TOKENS, rate_card

AT = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
OPENAI = "https://api.openai.com/v1"
BOOK = PriceBook()


def card_of(model, provider="openai", **more) -> RateCard:
    found = BOOK.resolve(**({"provider": provider, "model": model, "at": AT} | more))
    assert isinstance(found, RateCard), found
    return found


def made(**prices) -> RateCard:
    """A card from prices in USD, each a text or a list of (start, text) steps."""
    steps = {
        key: tuple((start, Decimal(usd)) for start, usd in ([(-1, price)] if isinstance(price, str) else price))
        for key, price in prices.items()
    }
    return rate_card(steps, provider="p", model="m", source="test")


FLAT = made(
    input_mtok="3",
    output_mtok="15",
    cache_read_mtok="0.3",
    cache_write_mtok="3.75",
    cache_write_1h_mtok="6",
    input_audio_mtok="40",
    cache_audio_read_mtok="2.5",
    output_audio_mtok="80",
)
TIERED = made(
    input_mtok=[(-1, "3"), (200_000, "6")],
    output_mtok=[(-1, "15"), (200_000, "22.5")],
    cache_read_mtok=[(-1, "0.3"), (200_000, "0.6")],
    cache_write_1h_mtok=[(-1, "6"), (200_000, "12")],
)
CARDS = st.sampled_from([FLAT, TIERED, made(input_mtok="1", output_mtok="1", requests_kcount="12")])

GENAI_MODELS = [
    (provider.id, model.id)
    for provider in get_snapshot().providers
    if provider.id in ("openai", "anthropic", "google", "deepseek")
    for model in provider.models
]
TO_GENAI = {
    "tokens_in": "input_tokens",
    "tokens_out": "output_tokens",
    "tokens_cache_read": "cache_read_tokens",
    "tokens_cache_write": "cache_write_tokens",
    "tokens_cache_write_1h": "cache_write_1h_tokens",
    "tokens_reasoning": "output_reasoning_tokens",
    "tokens_audio_in": "input_audio_tokens",
    "tokens_audio_out": "output_audio_tokens",
    "tokens_audio_cache_read": "cache_audio_read_tokens",
    "tokens_image_in": "input_image_tokens",
    "tokens_image_cache_read": "cache_image_read_tokens",
    "web_searches": "web_searches",
    "audio_seconds": "audio_seconds",
}


@st.composite
def consistent_usage(draw, units=tuple(TO_GENAI), most=400_000):
    """A usage of these units whose parts add up to no more than their totals."""

    def some(most):
        return draw(st.just(0) | st.integers(0, most))

    written, audio, image = some(most), some(most // 8), some(most // 8)
    cached_audio, cached_image, cached_text = some(audio), some(image), some(most // 2)
    thought, spoken = some(most // 4), some(most // 8)
    usage = {
        "tokens_in": written + audio + image + cached_text + some(most),
        "tokens_out": thought + spoken + some(most // 4),
        "tokens_cache_read": cached_text + cached_audio + cached_image,
        "tokens_cache_write": written,
        "tokens_cache_write_1h": some(written),
        "tokens_reasoning": thought,
        "tokens_audio_in": audio,
        "tokens_audio_out": spoken,
        "tokens_audio_cache_read": cached_audio,
        "tokens_image_in": image,
        "tokens_image_cache_read": cached_image,
        "web_searches": some(5),
        "audio_seconds": some(5),
    }
    return {unit: usage[unit] for unit in units}


TEXT = (
    "tokens_in",
    "tokens_out",
    "tokens_cache_read",
    "tokens_cache_write",
    "tokens_cache_write_1h",
    "tokens_reasoning",
)
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2027, 3, 1)).map(lambda at: at.replace(tzinfo=UTC).timestamp())  # noqa: DTZ001 - made UTC


def genai_nano(provider, model, usage, at, tier=None) -> Fraction:
    context = {"service_tier": tier} if tier else None
    when = datetime.fromtimestamp(at, UTC)
    known = Usage(**{TO_GENAI[key]: count for key, count in usage.items()})
    price = calc_price(known, model, provider_id=provider, genai_request_timestamp=when, price_context=context)
    return Fraction(price.total_price) * 10**9


@given(
    st.sampled_from(GENAI_MODELS), consistent_usage(), MOMENTS, st.sampled_from([None, "flex", "priority", "no-such"])
)
def test_cost_equals_that_of_genai_prices(model, usage, at, tier):
    """Over the units that a card prices, the cost is the exact one of genai-prices, at any moment and service tier."""
    found = BOOK.resolve(provider=model[0], model=model[1], base_url=OPENAI, at=at, service_tier=tier)
    assume(isinstance(found, RateCard) and "extras" not in found.source)
    assume(not any("own name" in note for note in found.notes))
    rates = found.tiers[0].rates
    priced = {unit: count for unit, count in usage.items() if unit in rates}
    assert abs(found.cost(priced) - genai_nano(*model, priced, at, tier)) <= 1


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google", "deepseek"])
def test_every_text_model_of_the_big_vendors_is_priced_alike(provider):
    """At every tier a model costs what genai-prices says, and it is unpriced only where a rate is missing."""
    models = [model for owner, model in GENAI_MODELS if owner == provider]
    cards = [(model, BOOK.resolve(provider=provider, model=model, base_url=OPENAI, at=AT)) for model in models]
    priced = [(model, card) for model, card in cards if isinstance(card, RateCard) and not card.notes]
    assert len(priced) > 0.9 * len(models)
    for model, card in priced:
        for total in (900, 150_000, 250_000, 300_000):
            usage = {"tokens_in": total, "tokens_out": 77, "tokens_cache_read": 100, "tokens_cache_write": 100}
            cost = card.cost(usage)
            if {"input_mtok", "output_mtok"} <= card.rates().keys():
                assert abs(cost - genai_nano(provider, model, usage, AT)) <= 1, model
            else:
                assert isinstance(cost, Unpriced), model


@given(CARDS, consistent_usage(TEXT), st.integers(0, 10**6))
def test_a_bound_is_never_below_the_cost(card, usage, more):
    """Every usage within the bounded input and output costs no more than the bound, cache writes and tiers included."""
    bound = card.bound(usage["tokens_in"] + more, text_only=True)
    assert bound.nano(usage["tokens_out"]) >= card.cost(usage)


@given(consistent_usage((*TEXT, "tokens_audio_in", "tokens_audio_out", "tokens_audio_cache_read")))
def test_a_bound_covers_audio_unless_told_that_there_is_none(usage):
    """By default a bound holds for audio tokens too, which cost many times as much as text."""
    assert FLAT.bound(usage["tokens_in"]).nano(usage["tokens_out"]) >= FLAT.cost(usage)


@given(
    st.dictionaries(st.sampled_from((*TEXT, "tokens_audio_in")), st.integers(-5, 10**6)).map(
        lambda u: {"tokens_in": 1} | u
    )
)
def test_inconsistent_usage_costs_no_less_than_nothing_and_no_more_than_its_totals(usage):
    """Parts above their total and negative counts never make a cost negative, nor dearer than the totals can be."""
    bound = FLAT.bound(usage["tokens_in"])
    assert 0 <= FLAT.cost(usage | {"tokens_out": 7}) <= bound.nano(7)


@given(consistent_usage(TEXT), consistent_usage(TEXT))
def test_without_tiers_cost_adds_up(one, other):
    """Two calls cost together what their summed tokens cost, but for the rounding of each."""
    both = {key: one.get(key, 0) + other.get(key, 0) for key in one | other}
    assert abs(FLAT.cost(both) - FLAT.cost(one) - FLAT.cost(other)) <= 1


@given(CARDS, consistent_usage(TEXT), st.sampled_from(["tokens_in", "tokens_out"]), st.integers(1, 10**6))
def test_more_tokens_never_cost_less(card, usage, total, more):
    """Cost does not fall when a total grows, across tier starts too."""
    assert card.cost(usage | {total: usage[total] + more}) >= card.cost(usage)


@given(st.integers(0, 10**20), st.integers(1, 10**12), st.integers(0, 10**14))
def test_affordable_tokens_is_the_exact_inverse(fixed, rate, amount):
    """So many tokens fit into an amount and one more does not; a negative count says that nothing fits."""
    bound = CostBound(fixed_femto=fixed, per_output_token_femto=rate)
    tokens = bound.affordable_tokens(amount)
    assert bound.nano(tokens) <= amount < bound.nano(tokens + 1)
    assert (tokens < 0) == (bound.nano(0) > amount)


@pytest.mark.parametrize(("amount", "tokens"), [(999, -1), (1000, UNLIMITED_TOKENS)])
def test_free_output_is_unlimited_once_the_input_fits(amount, tokens):
    """Where output costs nothing, any count fits as soon as the fixed part does."""
    assert CostBound(fixed_femto=1000 * 10**6, per_output_token_femto=0).affordable_tokens(amount) == tokens


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        ({}, 0),
        ({"tokens_in": 0, "tokens_out": 0, "images": 0}, 0),
        ({"tokens_in": 1000, "tokens_out": 100}, 4_500_000),
        ({"tokens_in": 1000, "tokens_cache_read": 400}, 1_920_000),
        ({"tokens_in": 1000, "tokens_cache_write": 400, "tokens_cache_write_1h": 100}, 3_525_000),
        ({"tokens_in": 1000, "tokens_cache_write": 400, "tokens_cache_write_5m": 400}, 3_300_000),
        ({"tokens_in": 100, "tokens_audio_in": 60, "tokens_cache_read": 70, "tokens_audio_cache_read": 50}, 591_000),
        ({"tokens_out": 100, "tokens_reasoning": 90, "tokens_audio_out": 10}, 2_150_000),
        ({"tokens_in": 10, "tokens_cache_read": 1000}, 3_000),
        ({"tokens_cache_read": 1000}, 300_000),
        ({"tokens_in": 1000.0, "tokens_out": None, "note": "x"}, 3_000_000),
    ],
)
def test_parts_are_charged_at_their_own_rate_and_taken_out_of_the_total(usage, nano):
    """Cached, written, audio and reasoning tokens are never charged twice, and never at somebody else's rate."""
    assert FLAT.cost(usage) == nano


@pytest.mark.parametrize(("tokens", "nano"), [(200_000, 600_000_000), (200_001, 1_200_006_000)])
def test_a_tier_applies_to_all_tokens_of_a_call_above_its_start(tokens, nano):
    """One token over the start of a tier changes the rate of every token."""
    assert TIERED.cost({"tokens_in": tokens}) == nano


@pytest.mark.parametrize(("tokens", "rates"), [(200_000, (6, 15)), (200_001, (12, 22.5))])
def test_a_bound_takes_the_dearest_tier_and_cache_write_in_reach(tokens, rates):
    """Input is bounded at the one-hour cache-write rate, output times the choices, in the tier that is in reach."""
    bound = TIERED.bound(tokens, choices=3)
    assert bound == CostBound(tokens * rates[0] * 10**9, int(rates[1] * 3 * 10**9))


@pytest.mark.parametrize(("tokens", "nano"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_a_cost_is_rounded_half_even_and_only_once(tokens, nano):
    """At half a nano-USD per token, odd counts end on a tie and go to the even neighbour."""
    assert made(input_mtok="0.0005").cost({"tokens_in": tokens}) == nano


def test_a_rate_finer_than_a_femto_usd_is_rounded_up():
    """A price that is no whole number of femto-USD for each token never makes a cost too low."""
    assert made(input_mtok="0.0000000001").cost({"tokens_in": 10**6}) == 1


def test_a_fee_for_each_request_is_charged_once_a_call():
    """A fee per thousand requests is part of every cost and of every bound, and of nothing when nothing was used."""
    card = made(input_mtok="1", output_mtok="1", requests_kcount="12")
    assert card.cost({"tokens_in": 1}) == 12_001_000
    assert card.bound(1).nano(0) == 12_001_000
    assert card.cost({}) == 0


@pytest.mark.parametrize(
    ("unit", "value"),
    [("tokens_image_in", 5), ("images", 1), ("audio_seconds", 0.5), ("web_searches", 1), ("teapots", Decimal(1))],
)
def test_a_unit_without_a_rate_makes_the_call_unpriced(unit, value):
    """A single unit that the card does not price makes the cost unknown, and the reason names it and what to do."""
    cost = FLAT.cost({"tokens_in": 10, unit: value})
    assert isinstance(cost, Unpriced)
    assert unit in cost.reason
    assert "TOLLSPAN_PRICES" in cost.reason


@pytest.mark.parametrize(
    ("model", "usage", "unit"),
    [("whisper-1", {"tokens_in": 5}, "tokens_in"), ("text-embedding-3-small", {"tokens_out": 5}, "tokens_out")],
)
def test_totals_without_a_rate_are_unpriced_too(model, usage, unit):
    """Tokens of a model that is sold by the hour, and output of one that gives none, are not free."""
    cost = card_of(model).cost(usage)
    assert isinstance(cost, Unpriced)
    assert unit in cost.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_usage_that_is_not_finite_is_unpriced(value):
    """A count that is no finite number makes the cost unknown instead of raising."""
    assert isinstance(FLAT.cost({"tokens_in": value}), Unpriced)


@pytest.mark.parametrize(
    ("provider", "model", "seconds", "nano"),
    [
        ("openai", "whisper-1", 12.5, 1_250_000),
        ("groq", "whisper-large-v3", 3, 308_333),
        ("groq", "whisper-large-v3", 36, 1_110_000),
    ],
)
def test_audio_is_charged_by_the_second(provider, model, seconds, nano):
    """Transcriptions are charged by seconds and fractions of one, at Groq for ten of them at least."""
    assert card_of(model, provider).cost({"audio_seconds": seconds}) == nano


@pytest.mark.parametrize(("model", "expected"), [("gpt-4o", True), ("whisper-1", False)])
def test_a_card_tells_whether_its_bound_means_anything(model, expected):
    """Only a card with a price for input tokens bounds a call by its tokens."""
    assert card_of(model).prices_tokens is expected


@pytest.mark.parametrize(
    ("provider", "model", "listed"),
    [
        ("openai", "gpt-4o-2024-08-06", ("openai", "gpt-4o")),
        ("OpenAI", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org::id", ("openai", "ft:gpt-4o-mini")),
        ("azure.ai.openai", "gpt-4o", ("azure", "gpt-4o")),
        ("gcp.gemini", "models/gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        (
            "gcp.vertex_ai",
            "projects/p/locations/l/publishers/google/models/gemini-2.5-flash",
            ("google", "gemini-2.5-flash"),
        ),
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", ("google", "claude-sonnet-4-5")),
        (
            "aws.bedrock",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            ("aws", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ),
        ("x_ai", "grok-4", ("x-ai", "grok-4-0709")),
        ("mistral_ai", "mistral-large-latest", ("mistral", "mistral-large")),
        ("moonshot_ai", "kimi-k2-0905-preview", ("moonshotai", "kimi-k2-0905-preview")),
        ("openrouter", "openrouter/anthropic/claude-sonnet-4.5", ("openrouter", "anthropic/claude-sonnet-4.5")),
        ("groq", "openai/gpt-oss-120b", ("groq", "openai/gpt-oss-120b")),
        ("anthropic", "claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
    ],
)
def test_models_are_found_by_the_names_that_apis_use(provider, model, listed):
    """OpenTelemetry's provider names and the spellings of clouds and gateways lead to the right entry of the list."""
    card = card_of(model, provider)
    assert (card.provider, card.model) == listed


@pytest.mark.parametrize(
    ("provider", "model", "base_url"),
    [
        ("openai", "no-such-model", None),
        ("no-such-provider", "gpt-4o", OPENAI),
        ("my-openai-proxy", "gpt-4o", None),
        ("litellm", "openai/gpt-4o", None),
        (None, "gpt-4o", None),
        (None, "gpt-4o", "http://me:secret@localhost:8000/v1?key=secret"),
        ("anthropic", "gpt-4o", None),
        ("openai", "claude-sonnet-4-5", None),
        ("groq", "gpt-4o", None),
        ("aws.bedrock", "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc123", None),
    ],
)
def test_a_model_is_never_priced_by_its_name_alone(provider, model, base_url):
    """No other provider's price is borrowed, however known the name is; the reason names both, and no key of a URL."""
    found = BOOK.resolve(provider=provider, model=model, base_url=base_url, at=AT)
    assert isinstance(found, Unpriced)
    assert model in found.reason
    assert str(provider or (base_url and "localhost")) in found.reason
    assert "secret" not in found.reason
    assert "TOLLSPAN_PRICES" in found.reason


@pytest.mark.parametrize("model", [None, ""])
def test_a_call_without_a_model_is_unpriced(model):
    """Where no model is named there is nothing to look up."""
    assert isinstance(BOOK.resolve(provider="openai", model=model, at=AT), Unpriced)


def test_without_a_provider_the_url_tells_it():
    """A known API address stands in for the name of the provider."""
    assert card_of("gpt-4o", None, base_url=OPENAI).provider == "openai"


@pytest.mark.parametrize("model", ["gpt-oss-20b", "openai/gpt-oss-20b"])
@pytest.mark.parametrize(
    ("base_url", "known"),
    [
        (OPENAI, True),
        ("api.openai.com/v1", True),
        ("https://API.openai.com:443/v1", True),
        (None, False),
        ("http://localhost:8000/v1", False),
        ("http://[", False),
    ],
)
def test_open_weights_on_another_host_are_not_the_vendors(model, base_url, known):
    """A server of one's own that speaks OpenAI's API is not charged at OpenAI's price for the same weights."""
    found = BOOK.resolve(provider="openai", model=model, base_url=base_url, at=AT)
    assert isinstance(found, RateCard) is known


def test_a_model_listed_without_a_price_is_unpriced():
    """An entry of the list that holds no price is no free model."""
    bare = next(
        model.id
        for provider in get_snapshot().providers
        if provider.id == "openrouter"
        for model in provider.models
        if model.prices == type(model.prices)()
    )
    found = BOOK.resolve(provider="openrouter", model=bare, at=AT)
    assert isinstance(found, Unpriced)
    assert "lists no price" in found.reason


@pytest.mark.parametrize(
    ("tier", "factor"),
    [
        (None, 1),
        ("", 1),
        ("auto", 1),
        ("standard", 1),
        ("default", 1),
        ("no-such-tier", 1),
        ("flex", Fraction(1, 2)),
        ("PRIORITY", 2),
    ],
)
def test_service_tiers_have_prices_of_their_own(tier, factor):
    """Flex and priority change the price; the names of the standard tier, and unknown ones, do not."""
    usage = {"tokens_in": 1000, "tokens_out": 100}
    assert card_of("gpt-5.4", service_tier=tier).cost(usage) == card_of("gpt-5.4").cost(usage) * factor


def test_a_cloud_does_not_inherit_the_service_tiers_of_a_vendor():
    """Where Azure sells a model at OpenAI's listed price, OpenAI's batches are not among what it sells."""
    plain, batch = (card_of("gpt-5.4", "azure.ai.openai", service_tier=tier) for tier in (None, "batch"))
    assert plain.rates() == batch.rates()
    assert "'batch'" in batch.notes[0]


def test_the_moment_of_a_call_decides_its_price():
    """A price by the time of day changes on the quarter of an hour."""
    noon, peak = (datetime(2026, 11, 20, hour, tzinfo=UTC).timestamp() for hour in (12, 7))
    prices = [
        card_of("deepseek-v4-pro", "deepseek", at=at).rates()["input_mtok"] for at in (noon, peak, peak + 3 * 3600 - 1)
    ]
    assert Decimal(prices[0]) < Decimal(prices[1]) == Decimal(prices[2])


def test_a_bound_covers_the_time_of_day_at_which_a_call_may_end():
    """In the hour before the dear hours begin a call is bounded by their price, and costs that of its start."""
    before, early = (datetime(2026, 11, 20, 0, minute, tzinfo=UTC).timestamp() for minute in (30, 0))
    peak = card_of("deepseek-v4-pro", "deepseek", at=before + 3600)
    card = card_of("deepseek-v4-pro", "deepseek", at=before)
    usage = {"tokens_in": 1000, "tokens_out": 1000}
    assert card.cost(usage) < peak.cost(usage) <= card.bound(1000).nano(1000)
    night = card_of("deepseek-v4-pro", "deepseek", at=early - 3 * 3600)
    assert night.bound(1000).nano(1000) < card.bound(1000).nano(1000)


def test_a_card_says_what_it_is_made_of():
    """Source, limits and the rates in USD per million tokens are ready for the audit column."""
    card = card_of("gpt-5.5")
    assert card.source.startswith("genai-prices:")
    assert (card.context_window, card.max_output_tokens) == (1_050_000, 128_000)
    rates = json.loads(json.dumps(card.rates()))
    assert (rates["input_mtok"], rates["tiers"][0]["above"], rates["tiers"][0]["output_mtok"]) == ("5", 272_000, "45")


def test_answers_are_remembered_and_the_memory_is_bounded(monkeypatch):
    """The same question gets the same object, unpriced ones too, and the cache never outgrows its size."""
    monkeypatch.setattr(_book, "_CACHE_SIZE", 3)
    book = PriceBook()
    for model in ("gpt-4o", "no-such-model"):
        assert book.resolve(provider="openai", model=model, at=AT) is book.resolve(
            provider="openai", model=model, at=AT + 1
        )
    for day in range(5):
        book.resolve(provider="openai", model="gpt-4o", at=AT + day * 86_400)
        assert len(book._cache) <= 3


def test_threads_that_ask_at_once_share_one_answer():
    """A look-up is made once, however many threads ask for it at the same time."""
    book, start = PriceBook(), threading.Barrier(8)

    def ask(_):
        start.wait()
        return book.resolve(provider="openai", model="gpt-5.5", at=AT)

    with ThreadPoolExecutor(8) as pool:
        assert len({id(card) for card in pool.map(ask, range(8))}) == 1


def test_the_price_list_is_not_loaded_before_the_first_look_up():
    """A program that makes no call does not pay for the import of genai-prices."""
    program = """
        import sys
        from tollspan.ledger._prices import PriceBook
        book = PriceBook()
        assert "genai_prices" not in sys.modules
        book.resolve(provider="openai", model="gpt-4o", at=1.79e9)
        assert "genai_prices" in sys.modules
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, env=environment)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_does_not_wait_for_a_look_up_of_its_parent():
    """A fork in the middle of a look-up leaves the child able to make its own."""
    with _book._loading._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            found = PriceBook().resolve(provider="openai", model="gpt-4o", at=AT)
            os._exit(0 if isinstance(found, RateCard) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def price_file(tmp_path):
    """Write a price file and open a book with it."""

    def write(text: str) -> PriceBook:
        path = tmp_path / "prices.toml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return PriceBook(overrides=path)

    return write


@pytest.fixture
def contract(price_file) -> PriceBook:
    return price_file("""
        [[price]]
        provider = "azure.ai.openai"
        model = "prod-*"
        input_mtok = "2.125"
        output_mtok = 8.5
        cache_read_mtok = 1
        max_output_tokens = 4096
        context_window = 128000

        [[price]]
        model = "gpt-4o*"
        input_mtok = 1e-3
        output_mtok = 0

        [[price]]
        model = "gpt-oss*"
        free = true
    """)


@pytest.mark.parametrize(
    ("provider", "model", "nano"),
    [
        ("azure", "Prod-Chat", 2_975_000),
        ("openai", "gpt-4o-2024-08-06", 1_000),
        ("groq", "gpt-4o", 1_000),
        ("openai", "gpt-oss-120b", 0),
        (None, "gpt-oss:20b", 0),
        ("openai", "gpt-4.1", 2_200_000),
    ],
)
def test_the_first_matching_entry_comes_before_the_list(contract, provider, model, nano):
    """Contract prices, free models and globs win over the list, in the order of the file; the rest is as listed."""
    usage = {"tokens_in": 1000 + 300 * (provider == "azure"), "tokens_out": 25}
    found = contract.resolve(provider=provider, model=model, at=AT)
    assert found.cost(usage) == nano


def test_an_entry_is_a_card_like_any_other(contract):
    """Limits come from the entry, else from the model's name, and the source says that the user gave the price."""
    card = contract.resolve(provider="azure", model="prod-chat", at=AT)
    assert (card.source, card.max_output_tokens, card.context_window) == ("override", 4096, 128_000)
    assert card.rates()["input_mtok"] == "2.125"
    assert contract.resolve(provider="openai", model="gpt-4o", at=AT).max_output_tokens == 16_384


def test_a_provider_in_an_entry_limits_it_to_that_provider(contract):
    """An entry for Azure says nothing about the same name elsewhere."""
    assert isinstance(contract.resolve(provider="openai", model="prod-chat", at=AT), Unpriced)


def test_a_free_model_costs_nothing_for_any_unit(contract):
    """Free covers every unit, the bound is zero and any output is affordable."""
    card = contract.resolve(provider="openai", model="gpt-oss-20b", at=AT)
    assert card.cost({"tokens_in": 5, "images": 3, "teapots": 1}) == 0
    assert card.bound(10**6, choices=4).nano(10**6) == 0
    assert card.bound(1).affordable_tokens(0) == UNLIMITED_TOKENS
    assert card.rates() == {"free": True}


ENTRY = '[[price]]\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[[price]\n", ["line 1"]),
        ('[[prices]]\nmodel = "m"\n', ["prices", "[[price]]"]),
        ("price = 3\n", ["[[price]]"]),
        ("[[price]]\ninput_mtok = 1\n", ["entry 1", "'model'", "missing"]),
        ("[[price]]\nmodel = 3\nfree = true\n", ["entry 1", "'model'", "text"]),
        (
            ENTRY + "free = true\n" + ENTRY + "inputs_mtok = 1\n",
            ["entry 2", "'inputs_mtok'", "did you mean input_mtok"],
        ),
        (ENTRY + "zzz = 1\n", ["'zzz'", "known are"]),
        (ENTRY + "output_mtok = -0.5\n", ["entry 1", "'output_mtok'", "-0.5", "negative"]),
        (ENTRY + 'output_mtok = "cheap"\n', ["'output_mtok'", "cheap"]),
        (ENTRY + "output_mtok = true\n", ["'output_mtok'", "True"]),
        (ENTRY + "output_mtok = [1]\n", ["'output_mtok'", "[1]"]),
        (ENTRY + "output_mtok = nan\n", ["'output_mtok'", "finite"]),
        (ENTRY + 'free = "yes"\n', ["'free'", "yes"]),
        (ENTRY + 'provider = "azure"\n', ["at least one price"]),
        (ENTRY + "free = true\ninput_mtok = 1\n", ["not both"]),
        (ENTRY + "free = true\ncontext_window = 0.5\n", ["'context_window'", "0.5"]),
        (ENTRY + "free = true\nmax_output_tokens = 0\n", ["'max_output_tokens'", "above 0"]),
    ],
)
def test_a_price_file_that_cannot_be_used_says_where_and_why(price_file, text, parts):
    """The error names the file, the entry and the field, and comes before any call is made."""
    with pytest.raises(PriceFileError) as error:
        price_file(text)
    assert all(part in str(error.value) for part in ["prices.toml", *parts]), error.value


def test_a_price_file_that_is_missing_or_not_text_is_an_error(tmp_path):
    """A named file that is not there, or that is not UTF-8, is never passed over."""
    with pytest.raises(PriceFileError, match="cannot be read"):
        PriceBook(overrides=tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(PriceFileError, match=r"latin\.toml"):
        PriceBook(overrides=tmp_path / "latin.toml")


def test_dearer_steps_are_listed_in_order():
    """The tiers of a compiled card start at growing counts, so that the last one reached is the one that applies."""
    starts = [tier.above for tier in card_of("gpt-5.5").tiers]
    assert starts[0] == -1
    assert all(low < high for low, high in pairwise(starts))
