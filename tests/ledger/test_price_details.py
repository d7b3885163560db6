"""Details of usage keys: `images:1024x1024:high` says which of the `images` are meant, and adds none to them."""

from decimal import Decimal

import pytest

from tollspan.ledger import Unpriced
from tollspan.ledger._prices._rates import rate_card


def card_of(prices, model="m"):
    """A card of these prices in USD."""
    steps = {key: ((-1, Decimal(price)),) for key, price in prices.items()}
    return rate_card(steps, provider="p", model=model, source="test")


@pytest.mark.parametrize(
    ("prices", "nano"),
    [
        ({"images_kcount": "40"}, 2 * 40_000_000),
        ({"images_kcount": "40", "images_kcount:1024x1024:high": "80"}, 2 * 80_000_000),
        ({"images_kcount": "40", "images_kcount:1024x1024": "60"}, 2 * 60_000_000),
        ({"images_kcount": "40", "images_kcount:1024x1024": "60", "images_kcount:1024x1024:high": "80"}, 160_000_000),
        ({"images_kcount:1024x1024:high": "80"}, 2 * 80_000_000),
        ({"images_kcount": "40", "images_kcount:512x512": "20", "images_kcount:high": "90"}, 2 * 40_000_000),
    ],
)
def test_a_detail_has_the_most_exact_price(prices, nano):
    """Its own, or that of fewer of its words, or else its unit's; and never two of them."""
    assert card_of(prices).cost({"images": 2, "images:1024x1024:high": 2}) == nano


def test_what_has_no_detail_is_charged_as_its_unit():
    """A detail of some of the images leaves the others to the price of any image."""
    prices = {"images_kcount": "40", "images_kcount:hd": "80"}
    assert card_of(prices).cost({"images": 5, "images:hd": 2}) == 3 * 40_000_000 + 2 * 80_000_000


def test_a_price_of_a_detail_is_none_of_its_unit():
    """Where only a detail has a price, other images have none."""
    cost = card_of({"images_kcount:hd": "80"}).cost({"images": 5, "images:hd": 2})
    assert isinstance(cost, Unpriced)
    assert "'images'" in cost.reason


def test_a_detail_without_its_unit_is_nothing():
    """Usage counts in units: a detail alone, or of more than there is, adds nothing."""
    assert card_of({"images_kcount": "40", "images_kcount:hd": "80"}).cost({"images:hd": 2}) == 0
    assert card_of({"images_kcount": "40", "images_kcount:hd": "80"}).cost({"images": 1, "images:hd": 2}) == 80_000_000


def test_details_of_tokens_and_seconds():
    """Any unit can have them; parts and tiers go on as without."""
    prices = {
        "input_mtok": "1",
        "output_mtok": "2",
        "input_mtok:long": "5",
        "video_hours": "360",
        "video_hours:4k": "720",
    }
    usage = {"tokens_in": 100, "tokens_in:long": 40, "tokens_out": 10, "video_seconds": 3, "video_seconds:4k": 3}
    assert card_of(prices).cost(usage) == 60 * 1_000 + 40 * 5_000 + 10 * 2_000 + 3 * 200_000_000


def test_the_price_of_a_detail_is_listed():
    """The rates in a row tell what it was charged by."""
    assert card_of({"images_kcount:hd": "80"}).rates() == {"images_kcount:hd": "80"}


@pytest.mark.parametrize("model", ["gpt-image-2", "gpt-image-1-mini", "azure/gpt-image-2"])
def test_the_output_price_of_a_model_that_only_draws_is_that_of_image_tokens(model):
    """OpenAI lists one output price for it."""
    card = card_of({"input_mtok": "5", "output_mtok": "30"}, model)
    assert card.cost({"tokens_in": 10, "tokens_out": 272, "tokens_image_out": 272}) == 10 * 5_000 + 272 * 30_000


def test_other_models_do_not_give_images_at_the_price_of_text():
    """A model that writes, too, has a price of its own for image tokens, or none."""
    usage = {"tokens_in": 10, "tokens_out": 272, "tokens_image_out": 270}
    assert isinstance(card_of({"input_mtok": "5", "output_mtok": "30"}).cost(usage), Unpriced)
    both = card_of({"input_mtok": "5", "output_mtok": "10", "output_image_mtok": "32"}, "gpt-image-1.5")
    assert both.cost(usage) == 10 * 5_000 + 270 * 32_000 + 2 * 10_000
