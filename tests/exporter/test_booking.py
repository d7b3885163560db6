"""What a call has cost, put into its record: whose price counts, and what of it is in doubt."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from records import a_record

from tollspan.exporter import book_stated, book_usage, settlement
from tollspan.ledger import PriceBook, Unpriced

AT = 1_795_000_000.0
USAGE = {"tokens_in": 1000, "tokens_out": 0}


@pytest.fixture
def prices_of(tmp_path):
    """What gives the price of a model of OpenAI's, with or without a price file that has `gpt-4o` cost 7 USD."""

    def make(*, own=False, tier=None):
        path = tmp_path / "prices.toml"
        path.write_text('[[price]]\nmodel = "gpt-4o"\ninput_mtok = 7\noutput_mtok = 7\n', encoding="utf-8")
        book = PriceBook(overrides=path if own else None)
        return lambda model: book.resolve(provider="openai", model=model, at=AT, service_tier=tier)

    return make


def booked(prices, *, stated=None, **fields):
    record = a_record(cost=None, cost_source=None, **{"usage": USAGE, **fields})
    if stated is None:
        book_usage(record, prices)
    else:
        book_stated(record, Decimal(stated), "provider", prices)
    return record


def test_a_stated_cost_goes_before_listed_prices(prices_of):
    """What the provider says that it charges is the cost, whatever the lists say; no rates were used for it."""
    record = booked(prices_of(), stated="0.5")
    assert (record.cost, record.cost_source, record.rate_card) == (500_000_000, "provider", None)


def test_the_users_price_goes_before_a_stated_cost(prices_of):
    """Who has a contract knows better than the answer: the price file prices the call, and the row keeps its rates."""
    record = booked(prices_of(own=True), stated="0.5")
    assert (record.cost, record.cost_source) == (7_000_000, "override")
    assert settlement(record).event.cost_rates == {"input_mtok": "7", "output_mtok": "7"}


@pytest.mark.parametrize("fields", [{"request_model": "gpt-4.1"}, {"usage": None}, {"usage": {"images": 1}}])
def test_where_the_users_file_prices_nothing_of_a_call_the_stated_cost_counts(prices_of, fields):
    """A file that has another model, no usage to price, or no price of a unit leaves the provider's word."""
    record = booked(prices_of(own=True), stated="0.5", **fields)
    assert (record.cost, record.cost_source, record.reason) == (500_000_000, "provider", None)


def test_doubts_about_a_cost_stand_in_its_row(prices_of):
    """An unknown tier and a usage that contradicts itself do not keep a cost away; the rates' `flags` tell of both."""
    usage = {"tokens_in": 10, "tokens_cache_read": 30}
    event = settlement(booked(prices_of(tier="flurb"), usage=usage)).event
    assert event.cost_actual_usd is not None
    flags = event.cost_rates["flags"]
    assert any("'flurb'" in flag for flag in flags)
    assert any("tokens_cache_read are more than tokens_in" in flag for flag in flags)
    assert "flags" not in settlement(booked(prices_of())).event.cost_rates


def test_a_row_tells_the_list_its_version_the_rates_and_the_tier(prices_of):
    """A cost can be computed again from its row: list and version, the rates, and the tier that they are of."""
    event = settlement(booked(prices_of(tier="batch"), request_model="gpt-5.5")).event
    assert event.cost_source.startswith("genai-prices:0.")
    assert event.cost_rates["service_tier"] == "batch"
    rate = Decimal(event.cost_rates["input_mtok"])
    assert event.cost_actual_usd == rate * 1000 / 10**6


def test_a_call_without_a_price_has_no_cost_and_a_reason():
    """Neither a cost nor a 0, whatever was used."""
    record = booked(lambda _: Unpriced("nobody lists it"))
    event = settlement(record).event
    assert (event.cost_actual_usd, event.cost_source, event.reason) == (None, "unpriced", "nobody lists it")


def test_the_query_in_the_documents_finds_costs_in_doubt(prices_of, ledger):
    """docs/price-lists.md tells how to find them, and that finds them."""
    page = (Path(__file__).resolve().parents[2] / "docs/price-lists.md").read_text(encoding="utf-8")
    query = page.split("```sql\n")[1].split("```")[0].strip().rstrip(";")
    for tier in (None, "flurb"):
        ledger.writer.put(settlement(booked(prices_of(tier=tier), request_model="gpt-5.5")))
    ledger.flush()
    ((model, flags),) = ledger.store.query(query)
    assert model == "gpt-5.5"
    assert "'flurb'" in json.loads(flags)[0]
