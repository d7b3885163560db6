"""Prices of the user's own against what providers and spans state, and in what strict budgets hold."""

import time
from decimal import Decimal
from importlib.metadata import version

import pytest

from tollspan.budget import BudgetExceeded, UnboundedCost, budget
from tollspan.budget._demand import CallIntent, demand, largest_output
from tollspan.exporter import CallRecord, Pipeline, book_stated
from tollspan.instrumentation._billing import book
from tollspan.instrumentation._readers import RequestFacts, ResponseFacts
from tollspan.ledger import BudgetDefinition, PriceBook, RateCard, Unpriced, Window, load_settings, new_call_id

USD = 1_000_000_000
SETTINGS = load_settings(environ={"HOME": "/"})
USAGE = {"tokens_in": 1000, "tokens_out": 1000}


@pytest.fixture
def own(tmp_path):
    """Write a price file, and open a book with it."""

    def write(text):
        (tmp_path / "prices.toml").write_text(text)
        return PriceBook(overrides=tmp_path / "prices.toml")

    return write


def booked(book_, usage=USAGE, stated="0.5", model="vendor/m", **facts):
    """The record of an answer that stated its cost."""
    record = CallRecord(
        call_id=new_call_id(), started=time.time(), operation="chat", provider="openrouter", request_model="m"
    )
    answer = ResponseFacts(model=model, usage=usage, cost_usd=Decimal(stated), **facts)

    def price_of(model, tier):
        return book_.resolve(provider="openrouter", model=model, at=record.started, service_tier=tier)

    book(record, RequestFacts(measure=lambda: (0, None), model="m"), answer, price_of, cut_stream="hold")
    return record


CONTRACT = '[[price]]\nprovider = "openrouter"\nmodel = "{}"\ninput_mtok = 1\noutput_mtok = 2\n'


@pytest.mark.parametrize("name", ["vendor/m", "m"])
def test_a_price_of_ones_own_goes_before_the_cost_that_the_provider_states(own, name):
    """It is found by the model that answered, or else by the one that was asked for; the row has the rates."""
    record = booked(own(CONTRACT.format(name)))
    assert (record.cost, record.cost_source) == (3_000_000, "override")
    assert record.rate_card.rates() == {"input_mtok": "1", "output_mtok": "2"}


def test_free_goes_before_the_cost_that_is_stated(own):
    """Who pays nothing, whatever the gateway says, is believed."""
    record = booked(own('[[price]]\nmodel = "m"\nfree = true\n'))
    assert (record.cost, record.cost_source) == (0, "override")


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        ("", USAGE),
        (CONTRACT.format("other"), USAGE),
        (CONTRACT.format("m"), {"images": 1}),
        (CONTRACT.format("m"), None),
        ('[[price]]\nmodel = "*"\nmax_output_tokens = 5\nhold_usd = 1\n', USAGE),
        ('[[price]]\nmodel = "m"\nmultiplier = 0.5\n', USAGE),
    ],
    ids=["no file", "another model", "another unit", "no usage", "limits only", "a multiplier of nothing"],
)
def test_without_a_price_of_ones_own_for_it_the_stated_cost_stands(own, text, usage):
    """It goes before every list."""
    record = booked(own(text), usage)
    assert (record.cost, record.cost_source, record.rate_card) == (USD // 2, "provider", None)


def test_a_listed_price_does_not_go_before_the_cost_that_is_stated(own):
    """The list is behind what the provider knows; times a factor of the user's, it is a price of the user's own."""
    model = "anthropic/claude-sonnet-4.5"
    for text, source in (("", "provider"), ('[[price]]\nmodel = "*sonnet*"\nmultiplier = 2\n', "override")):
        prices = own(text)
        assert isinstance(prices.resolve(provider="openrouter", model=model, at=time.time()), RateCard)
        assert booked(prices, model=model).cost_source == source


def test_what_other_models_used_behind_the_request_is_added_to_ones_own_price(own):
    """The stated cost would have had it in it."""
    prices = own(CONTRACT.format("m") + CONTRACT.format("helper"))
    record = booked(prices, others=(("helper", {"tokens_in": 1000}),))
    assert (record.cost, record.cost_source) == (4_000_000, "override")
    assert record.usage["tokens_in@helper"] == 1000


def test_a_price_of_ones_own_goes_before_the_cost_in_a_span(own):
    """What another instrumentation has computed is by its list."""
    for text, expected in ((CONTRACT.format("m"), (3_000_000, "override")), ("", (USD // 2, "span"))):
        prices = own(text)
        record = CallRecord(
            call_id=new_call_id(), started=0, operation="chat", provider="openrouter", request_model="m", usage=USAGE
        )
        book_stated(record, "0.5", "span", lambda model, p=prices: p.resolve(provider="openrouter", model=model, at=0))
        assert (record.cost, record.cost_source) == expected


@pytest.mark.parametrize("stated", ["0.5", None])
@pytest.mark.parametrize(
    ("asked", "answered", "source"),
    [
        ("prod-ptu", "gpt-4o-2024-08-06", "override"),
        ("gpt-4.1", "gpt-4o-2024-08-06", None),
        ("gpt-4.1", "gpt-4.1-2025-04-14", "override"),
        ("gpt-4.1", "gpt-4.1-of-a-gateway", "override"),
        ("gpt-4.1", "gpt-5", None),
        ("prod-ptu", "tuned", "override"),
        ("gpt-4o-mini", "tuned", "override"),
    ],
)
def test_a_price_of_a_deployment_is_for_whatever_answers_behind_it(own, asked, answered, source, stated):
    """A price for a deployment, or for a model without its date, goes before the list's of the model that answered.

    Where a listed model is asked for and another one answers, the price of the one that was asked for says nothing.
    """
    entries = ('"prod-ptu"\nfree = true', '"gpt-4.1"\nfree = true', '"tuned"\ninput_mtok = 1\noutput_mtok = 1')
    prices = own("".join(f'[[price]]\nprovider = "openai"\nmodel = {entry}\n' for entry in entries))
    record = CallRecord(
        call_id=new_call_id(), started=time.time(), operation="chat", provider="openai", request_model=asked
    )
    answer = ResponseFacts(model=answered, usage=USAGE, cost_usd=None if stated is None else Decimal(stated))

    def price_of(model, tier):
        return prices.resolve(provider="openai", model=model, at=record.started, service_tier=tier)

    book(record, RequestFacts(measure=lambda: (0, None), model=asked), answer, price_of, cut_stream="hold")
    if source is not None:
        assert (record.cost_source, record.cost < 10_000_000) == (source, True)
    else:
        assert record.cost_source == ("provider" if stated else "genai-prices:" + version("genai-prices"))


# ---- holds


def holds(price, *, unbounded=None, settings=SETTINGS):
    intent = CallIntent(price=price, input_tokens=100, max_output_tokens=10, unbounded=unbounded)
    budget = BudgetDefinition(name="b", limit=USD, unit="USD", window=Window("day"))
    return demand(intent, [budget], settings).amount("USD", 10)


@pytest.mark.parametrize("model", ["gpt-4o", "unheard-of"])
def test_a_model_may_say_what_its_unbounded_calls_hold(own, model):
    """`hold_usd` of the file goes before the setting, for a model with a price and for one without."""
    card = own('[[price]]\nmodel = "*"\nhold_usd = "0.25"\n').resolve(provider="openai", model=model, at=time.time())
    assert holds(card, unbounded="hosted tool web_search") == USD // 4
    told = load_settings(environ={"HOME": "/"}, hold_usd=Decimal(1))
    assert holds(card, unbounded="hosted tool web_search", settings=told) == USD // 4
    if isinstance(card, Unpriced):
        assert holds(card) == USD // 4
    else:
        assert 0 < holds(card) < USD // 100


def test_the_limits_of_a_model_without_a_price_are_believed(own):
    """A budget in tokens holds no more than the user says that the model gives."""
    prices = own('[[price]]\nmodel = "a"\nmax_output_tokens = 500\n[[price]]\nmodel = "b"\ncontext_window = 700\n')
    found = [largest_output(prices.resolve(provider="x", model=model, at=0)) for model in "abc"]
    assert found == [500, 700, 128_000]


def test_a_free_model_holds_nothing_however_unbounded(own):
    """What costs nothing needs no bound."""
    prices = own('[[price]]\nmodel = "local"\nfree = true\n')
    assert holds(prices.resolve(provider="x", model="local", at=0), unbounded="previous_response_id") == 0
    with pytest.raises(UnboundedCost, match="`hold_usd` in the file named by TOLLSPAN_PRICES"):
        holds(PriceBook().resolve(provider="openai", model="gpt-4o", at=0), unbounded="previous_response_id")


def test_a_strict_budget_holds_what_the_file_says(configure, tmp_path, calls):
    """A call to a model without a price is admitted at `hold_usd`, as often as there is room for it."""
    (tmp_path / "prices.toml").write_text('[[price]]\nmodel = "unheard-of"\nhold_usd = "0.60"\n')
    configure(prices=tmp_path / "prices.toml")
    with budget("1 USD", name="run") as handle:
        record, _ = calls.ask(model="unheard-of")
        assert handle.held == Decimal("0.60")
        with pytest.raises(BudgetExceeded, match=r"0.6000 for this call"):
            calls.ask(model="unheard-of")
        calls.settle(record, outcome="unbilled")
        assert handle.held == 0


def test_a_pipeline_follows_its_price_file(tmp_path):
    """The process starts with a file that is not there yet, and takes it when it comes."""
    line = Pipeline(load_settings(environ={"HOME": "/"}, prices=tmp_path / "prices.toml"))
    assert isinstance(line.prices.resolve(provider="x", model="m", at=0), Unpriced)
    (tmp_path / "prices.toml").write_text('[[price]]\nmodel = "m"\nfree = true\n')
    line.prices._live._look_at = 0
    assert line.prices.resolve(provider="x", model="m", at=0).free
