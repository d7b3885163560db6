"""How much a call holds: its own maximum or a bound, and never a silent nothing where nobody knows."""

import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollspan.budget import UnboundedCost, UnpricedModel
from tollspan.budget._demand import CallIntent, demand, largest_output
from tollspan.ledger import BudgetDefinition, PriceBook, Unpriced, Window, load_settings

USD = 1_000_000_000
PRICES = PriceBook()
SETTINGS = load_settings(environ={"HOME": "/"})
# DeepSeek's prices of 2026 double from 01:00 to 04:00 UTC.
OFF_PEAK = datetime(2026, 11, 21, 0, 30, tzinfo=UTC).timestamp()
PEAK = OFF_PEAK + 3_600
UNKNOWN = Unpriced("no price for model 'x'; give one in the file named by TOLLSPAN_PRICES")


def card(model, provider="openai"):
    return PRICES.resolve(provider=provider, model=model, at=time.time())


GPT_4O = card("gpt-4o")
MOST = GPT_4O.max_output_tokens


def intent(**fields):
    return CallIntent(**{"price": GPT_4O, "input_tokens": 100, "max_output_tokens": None} | fields)


def limit(unit="USD", **fields):
    return BudgetDefinition(name="b", limit=USD, unit=unit, window=Window("day"), **fields)


def outputs(*bounds, **fields):
    needs = demand(intent(**fields), [limit(output_bound=bound) for bound in bounds], SETTINGS)
    return needs.wanted_output, needs.least_output


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (["clamp"], (MOST, 256)),
        (["max"], (MOST, MOST)),
        ([4096], (4096, 4096)),
        ([100], (100, 100)),
        ([MOST * 2], (MOST, MOST)),
        (["clamp", 4096], (4096, 256)),
        (["clamp", 100], (100, 100)),
        (["clamp", "max"], (MOST, MOST)),
        ([4096, 512], (512, 512)),
        (["max", 4096], (4096, 4096)),
    ],
)
def test_a_call_without_a_maximum_may_give_what_the_budgets_say(bounds, expected):
    """`clamp` wants the model's maximum and takes no less than the floor; a number or `max` is not cut to fit."""
    assert outputs(*bounds) == expected


@pytest.mark.parametrize("bound", ["clamp", "max", 50])
@pytest.mark.parametrize("asked", [1, 5_000, MOST, MOST + 1, 100_000])
def test_an_explicit_maximum_is_held_as_it_is(bound, asked):
    """Whatever a budget says: the caller's maximum is held in full, also above what a list says the model gives."""
    assert outputs(bound, max_output_tokens=asked) == (asked, asked)


def test_no_more_than_the_context_window_is_held():
    """Neither input nor output can be larger than what the model takes in at all."""
    needs = demand(intent(max_output_tokens=10**9, input_tokens=10**9), [limit()], SETTINGS)
    assert needs.wanted_output == needs.input_tokens == GPT_4O.context_window


def test_a_request_that_cannot_be_changed_any_more_holds_the_models_maximum():
    """Where a request is first seen on the wire, nothing is clamped."""
    assert outputs("clamp", 4096, clampable=False) == (MOST, MOST)


def test_an_unknown_model_is_taken_to_give_as_much_as_any():
    """No listed maximum is no reason to hold less."""
    assert largest_output(UNKNOWN) == 128_000
    assert largest_output(GPT_4O) == 16_384


@given(
    tokens_in=st.integers(0, 100_000),
    tokens_out=st.integers(0, 20_000),
    choices=st.integers(1, 4),
    share=st.floats(0, 1),
)
def test_a_hold_covers_whatever_the_call_may_come_to(tokens_in, tokens_out, choices, share):
    """No usage within the bounds costs more than the hold, whatever part of the input was read from the cache."""
    needs = demand(intent(input_tokens=tokens_in, max_output_tokens=tokens_out, choices=choices), [limit()], SETTINGS)
    held = needs.amount("USD", tokens_out)
    usage = {"tokens_in": tokens_in, "tokens_out": tokens_out * choices, "tokens_cache_read": int(tokens_in * share)}
    assert held >= GPT_4O.cost(usage)
    assert needs.amount("tokens", tokens_out) == tokens_in + tokens_out * choices


# ---- what has no price, or no bound


@pytest.mark.parametrize("unit", ["USD", "tokens", "requests"])
def test_a_model_without_a_price_is_refused_only_where_money_is_limited(unit):
    """Strict, in USD, without a price: refused with what to do; in tokens or requests nobody needs a price."""
    if unit != "USD":
        assert demand(intent(price=UNKNOWN), [limit(unit)], SETTINGS).cost is None
        return
    with pytest.raises(UnpricedModel) as refused:
        demand(intent(price=UNKNOWN), [limit("requests"), limit(unit)], SETTINGS)
    for words in ("strict budget in USD", "no price for model 'x'", "TOLLSPAN_PRICES", "TOLLSPAN_HOLD_USD"):
        assert words in str(refused.value)


def test_a_price_that_lacks_what_the_call_uses_is_no_price(tmp_path):
    """A card with a price for the input alone would hold nothing for the output: it is refused, but for embeddings."""
    (tmp_path / "prices.toml").write_text('[[price]]\nmodel = "half"\ninput_mtok = 1\n', encoding="utf-8")
    half = PriceBook(overrides=tmp_path / "prices.toml").resolve(provider="openai", model="half", at=time.time())
    with pytest.raises(UnpricedModel, match=r"no rate for 'tokens_out' of model 'half'.*output_mtok"):
        demand(intent(price=half), [limit()], SETTINGS)
    assert demand(intent(price=half, max_output_tokens=0), [limit()], SETTINGS).amount("USD", 0) == 100_000


def test_a_free_model_holds_nothing(tmp_path):
    """Free is a price."""
    (tmp_path / "prices.toml").write_text('[[price]]\nmodel = "own"\nfree = true\n', encoding="utf-8")
    own = PriceBook(overrides=tmp_path / "prices.toml").resolve(provider="openai", model="own", at=time.time())
    assert demand(intent(price=own), [limit()], SETTINGS).amount("USD", 10_000) == 0


@pytest.mark.parametrize(
    ("units", "refused"), [(["USD"], True), (["tokens"], True), (["requests"], False), (["requests", "USD"], True)]
)
def test_a_call_without_a_bound_is_refused_unless_only_requests_count(units, refused):
    """Nobody can say what such a call costs or how many tokens it takes; that it is one request is known."""
    endless = intent(unbounded="hosted tool web_search")
    definitions = [limit(unit) for unit in units]
    if not refused:
        assert demand(endless, definitions, SETTINGS).cost is None
        return
    with pytest.raises(UnboundedCost) as told:
        demand(endless, definitions, SETTINGS)
    for words in ("hosted tool web_search", "TOLLSPAN_HOLD_USD", "best_effort"):
        assert words in str(told.value)


@pytest.mark.parametrize("fields", [{"price": UNKNOWN}, {"unbounded": "image by URL"}])
@pytest.mark.parametrize("asked", [None, 10, 1_000_000])
def test_told_what_to_hold_strict_holds_that(fields, asked):
    """TOLLSPAN_HOLD_USD is held, rounded up to the nano, whatever the output; with that room the call is affordable."""
    told = load_settings(environ={"HOME": "/"}, hold_usd=Decimal("0.2500000001"))
    needs = demand(intent(max_output_tokens=asked, **fields), [limit()], told)
    assert needs.amount("USD", needs.wanted_output) == 250_000_001
    assert needs.affordable("USD", 250_000_001) >= needs.wanted_output
    assert needs.affordable("USD", 250_000_000) < 0


def test_a_price_that_rises_during_the_call_is_held():
    """A call that begins before the dear time of day is held at the price of that, for input and output."""
    early, late = (PRICES.resolve(provider="deepseek", model="deepseek-v4-pro", at=at) for at in (OFF_PEAK, PEAK))
    usage = {"tokens_in": 100, "tokens_out": 1_000}
    needs = demand(intent(price=early, max_output_tokens=1_000), [limit()], SETTINGS)
    assert needs.cost.nano(1_000) == late.bound(100).nano(1_000) >= late.cost(usage) > early.cost(usage)


def test_text_is_held_at_the_rates_of_text():
    """A model that reads sound at a higher price is held at the price of text where it gets nothing else."""
    price = card("gemini-2.5-flash", "google")
    held = [demand(intent(price=price, text_only=only), [limit()], SETTINGS).cost.nano(0) for only in (True, False)]
    assert held == [price.bound(100, text_only=True).nano(0), price.bound(100).nano(0)]
    assert held[0] < held[1]
