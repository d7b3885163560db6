"""What an answer has cost: the tier that it was given at, what it states, and what else was behind it."""

from decimal import Decimal
from functools import partial

import pytest

from tollspan.exporter import CallRecord, settlement
from tollspan.instrumentation._billing import book
from tollspan.instrumentation._readers import RequestFacts, ResponseFacts
from tollspan.ledger import PriceBook, new_call_id

AT = 1_795_000_000.0


@pytest.fixture
def booked(tmp_path):
    """Book an answer by a book of prices, with entries of the user's own or without, and give its event."""

    def make(answer, *, asked_tier=None, own=None):
        path = tmp_path / "prices.toml"
        path.write_text(own or "", encoding="utf-8")
        prices = PriceBook(overrides=path)
        record = CallRecord(
            call_id=new_call_id(), started=AT, operation="chat", provider="openai", request_model="gpt-5.5"
        )
        request = RequestFacts(measure=lambda: (1, None), model="gpt-5.5", service_tier=asked_tier)
        resolve = partial(prices.resolve, provider="openai", at=AT)
        book(
            record,
            request,
            answer,
            lambda model, tier: resolve(model=model, service_tier=tier),
            cut_stream="hold",
        )
        return settlement(record).event

    return make


@pytest.mark.parametrize(
    ("asked", "answered", "usd"),
    [
        (None, None, "0.005"),
        ("flex", None, "0.0025"),
        ("flex", "default", "0.005"),
        (None, "priority", "0.0125"),
        ("auto", "default", "0.005"),
    ],
)
def test_the_tier_of_the_answer_sets_the_price_or_else_that_of_the_request(booked, asked, answered, usd):
    """A provider may serve a call at another tier than was asked for, and bills that one."""
    answer = ResponseFacts(model="gpt-5.5", usage={"tokens_in": 1000, "tokens_out": 0}, service_tier=answered)
    event = booked(answer, asked_tier=asked)
    assert event.cost_actual_usd == Decimal(usd)
    assert "flags" not in event.cost_rates


def test_a_tier_that_nobody_knows_is_flagged_in_the_row(booked):
    """A new tier is charged as standard, and the row says so."""
    answer = ResponseFacts(model="gpt-5.5", usage={"tokens_in": 1000, "tokens_out": 0}, service_tier="warp")
    event = booked(answer)
    assert event.cost_actual_usd == Decimal("0.005")
    assert "'warp'" in event.cost_rates["flags"][0]


def test_the_users_prices_go_before_what_the_wire_states(booked):
    """Price file, then stated cost, then lists."""
    answer = ResponseFacts(model="gpt-5.5", usage={"tokens_in": 1000, "tokens_out": 0}, cost_usd=Decimal("0.9"))
    assert (booked(answer).cost_actual_usd, booked(answer).cost_source) == (Decimal("0.9"), "provider")
    own = '[[price]]\nmodel = "gpt-5.5"\ninput_mtok = 2\noutput_mtok = 2\n'
    event = booked(answer, own=own)
    assert (event.cost_actual_usd, event.cost_source) == (Decimal("0.002"), "override")


def test_doubts_about_other_models_behind_a_request_are_flagged_too(booked):
    """What a second model has used is in the cost, and so are the doubts about it in the row."""
    answer = ResponseFacts(
        model="gpt-5.5",
        usage={"tokens_in": 1000, "tokens_out": 0},
        others=(("gpt-4o", {"tokens_in": 5, "tokens_cache_read": 9}),),
    )
    event = booked(answer)
    assert event.cost_actual_usd > Decimal("0.005")
    assert any("tokens_cache_read are more" in flag for flag in event.cost_rates["flags"])
