"""Which price a call has: by whom, under which name, at which tier, in which region; and what is in doubt about it."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tollspan.ledger import PriceBook, RateCard, Unpriced
from tollspan.ledger._prices._names import names_of, provider_id_of, undated
from tollspan.ledger._prices._rates import rate_card
from tollspan.ledger._prices._regions import host_of, region_of

AT = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
BOOK = PriceBook()
FIREWORKS = "accounts/fireworks/models/llama-v3p1-70b-instruct"


def resolved(provider, model, book=BOOK, **more):
    return book.resolve(provider=provider, model=model, at=AT, **more)


def card_of(provider, model, **more) -> RateCard:
    found = resolved(provider, model, **more)
    assert isinstance(found, RateCard), found
    return found


def made(model="m", source="list:1", **prices) -> RateCard:
    steps = {key: ((-1, Decimal(price)),) for key, price in prices.items()}
    return rate_card(steps, provider="p", model=model, source=source)


# ---- the order of sources


def test_the_users_price_goes_before_both_lists(tmp_path):
    """An entry of the price file wins over genai-prices and over the extras alike."""
    path = tmp_path / "prices.toml"
    path.write_text('[[price]]\nmodel = "gpt-4o"\ninput_mtok = 1\n[[price]]\nmodel = "dall-e-3"\nimages_kcount = 1\n')
    book = PriceBook(overrides=path)
    for provider, model in (("openai", "gpt-4o"), ("openai", "dall-e-3")):
        card = resolved(provider, model, book)
        assert (card.source, card.by_user) == ("override", True)
        assert not card_of(provider, model).by_user


def test_genai_prices_goes_before_the_extras_and_takes_from_them_what_it_lacks():
    """Where both know a model, the prices are those of genai-prices, and the source names each list that was used."""
    both, first, second = card_of("openai", "gpt-image-1"), card_of("openai", "gpt-4o"), card_of("openai", "dall-e-3")
    assert both.source.startswith("genai-prices:")
    assert "+extras:" in both.source
    assert both.rates()["input_mtok"] == "5"
    assert both.rates()["images_kcount:1024x1024:high"] == "167"
    assert "extras" not in first.source
    assert second.source.startswith("extras:")


def test_a_model_is_never_priced_by_another_providers_list():
    """The same name costs nothing that is known at a host that no list has."""
    for provider in ("ollama", "vllm", "nobody"):
        assert isinstance(resolved(provider, "qwen3-max"), Unpriced)
        assert isinstance(resolved(provider, "gpt-4o"), Unpriced)


def test_misses_are_remembered_like_hits():
    """A model that no list has is looked up once, and the same answer is given again."""
    first = resolved("dashscope", "no-such-model-2025-01-01")
    assert isinstance(first, Unpriced)
    assert resolved("dashscope", "no-such-model-2025-01-01") is first


# ---- names


@pytest.mark.parametrize(
    ("provider", "model", "listed"),
    [
        ("fireworks", FIREWORKS, FIREWORKS),
        ("fireworks_ai", f"{FIREWORKS}#accounts/me/deployments/1", FIREWORKS),
        ("openai", "ft:gpt-4.1-2025-04-14:acme::abc", "ft:gpt-4.1-2025-04-14"),
        ("azure.ai.openai", "gpt-4o-mini-2024-07-18.ft-0123", "gpt-4o-mini-2024-07-18.ft-"),
        ("azure.ai.openai", "gpt-35-turbo", "gpt-3.5-turbo"),
        ("gcp.vertex_ai", "google/gemini-2.5-flash", "gemini-2.5-flash"),
        ("gcp.vertex_ai", "vertex_ai/gemini-2.5-flash", "gemini-2.5-flash"),
        ("aws.bedrock", "bedrock/us.amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        ("aws.bedrock", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        ("openrouter", "openrouter/anthropic/claude-sonnet-4.5", "anthropic/claude-sonnet-4.5"),
        ("openai", "gpt-4o-20241120", "gpt-4o"),
        ("dashscope", "Qwen3-Max", "qwen3-max"),
        ("huggingface", "deepseek-ai/DeepSeek-R1:together", "deepseek-ai/DeepSeek-R1"),
    ],
)  # fmt: skip
def test_a_model_is_found_under_the_names_that_apis_give_it(provider, model, listed):
    """Accounts, deployments, fine-tunes, ARNs, profiles, gateways and compact dates do not hide a listed model."""
    card = card_of(provider, model)
    assert (card.model, card.notes) == (listed, ())


@pytest.mark.parametrize(
    ("provider", "model", "listed"),
    [
        ("dashscope", "qwen-max-2025-01-25", "qwen-max"),
        ("dashscope", "qwen-max-latest", "qwen-max"),
        ("openai", "ft:gpt-4o-mini:acme::abc", "ft:gpt-4o-mini-2024-07-18"),
    ],
)
def test_a_snapshot_without_a_price_of_its_own_is_priced_as_its_neighbour_and_flagged(provider, model, listed):
    """A dated alias has the price of its undated name, or the newest dated one of an undated name, and it says so."""
    card = card_of(provider, model)
    assert any(repr(listed) in note for note in card.notes)


@pytest.mark.parametrize(
    "model",
    [
        "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc",
        "arn:aws:sagemaker:us-east-1:1:endpoint/mine",
        "accounts/me/models/mine",
        "prod-chat",
    ],
)
def test_a_name_that_only_its_owner_understands_is_unpriced(model):
    """What is behind a profile, an endpoint or a deployment is not guessed; the reason says where to give its price."""
    for provider in ("aws.bedrock", "fireworks", "azure.ai.openai"):
        found = resolved(provider, model)
        assert isinstance(found, Unpriced)
        assert "TOLLSPAN_PRICES" in found.reason


def test_a_map_of_deployments_is_asked_before_a_model_is_looked_up(tmp_path):
    """A price file that maps names is asked with the provider's id and all names, and its answer is what is priced."""
    path = tmp_path / "prices.toml"
    path.write_text('[deployments]\nazure.prod-chat = "gpt-4o"\naws.abc = "us.amazon.nova-pro-v1:0"\n')
    book = PriceBook(overrides=path)
    profile = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    assert resolved("azure.ai.openai", "prod-chat", book).model == "gpt-4o"
    assert resolved("aws.bedrock", profile, book).model == "amazon.nova-pro-v1:0"
    assert resolved("openai", "gpt-4.1", book).model == "gpt-4.1"


def test_names_and_dates():
    """Names come most exact first; only a date or `latest` at the end is taken off."""
    assert names_of("models/gemini-x", "gcp.gemini", "google") == ("gemini-x",)
    assert names_of("ft:gpt-4o:o::i", "openai", "openai") == ("ft:gpt-4o:o::i", "ft:gpt-4o")
    assert names_of("meta-llama/x", "together", "together") == ("meta-llama/x",)
    assert provider_id_of(" Vertex_AI ") == "google"
    dated = ("a-2025-01-25", "a-20250125", "a@20250125", "a-latest", "a@default")
    assert [undated(name) for name in dated] == ["a"] * 5
    assert [undated(name) for name in ("a", "a-2507", "a-latest-b", "latest")] == [None] * 4


# ---- service tiers


@pytest.mark.parametrize(
    ("provider", "model", "tier", "factor"),
    [
        ("openai", "gpt-5.5", "batch", "0.5"),
        ("openai", "gpt-5.5", "flex", "0.5"),
        ("openai", "gpt-5.5", "priority", "2.5"),
        ("openai", "gpt-5.5", "default", "1"),
        ("anthropic", "claude-sonnet-4-5", "batch", "0.5"),
        ("anthropic", "claude-opus-5", "fast", "2"),
        ("gcp.gemini", "gemini-3.5-flash", "flex", "0.5"),
        ("gcp.vertex_ai", "claude-sonnet-4-5", "batch", "0.5"),
        ("aws.bedrock", "amazon.nova-pro-v1:0", "flex", "0.5"),
        ("azure.ai.openai", "gpt-5.4", "priority", "2"),
        ("groq", "openai/gpt-oss-120b", "on_demand", "1"),
    ],
)
def test_a_tier_has_its_own_price_in_either_list(provider, model, tier, factor):
    """Batch, flex, priority and fast are priced where a list has them, and the row says which tier it was."""
    plain, card = card_of(provider, model), card_of(provider, model, service_tier=tier)
    usage = {"tokens_in": 10**6, "tokens_out": 0}
    small = {"tokens_in": 1000}
    assert Decimal(card.cost(small)) == card_of(provider, model).cost(small) * Decimal(factor)
    assert card.notes == ()
    assert plain.rates().get("service_tier") is None
    assert card.rates().get("service_tier") == (None if tier in ("default", "on_demand") else tier)
    assert card.cost(usage) > 0


@pytest.mark.parametrize("tier", ["flurb", "scale", "provisioned"])
def test_an_unknown_tier_costs_what_the_standard_tier_does_and_is_flagged(tier):
    """A tier that no list has is priced as standard; that is a doubt of the cost, never silence."""
    card = card_of("openai", "gpt-5.5", service_tier=tier)
    cost = card.cost({"tokens_in": 1000})
    assert cost == card_of("openai", "gpt-5.5").cost({"tokens_in": 1000})
    assert any(repr(tier) in doubt for doubt in card.doubts({"tokens_in": 1000}))


def test_a_tier_without_steps_keeps_the_listed_ones():
    """A list that has no price of a tier for long prompts does not make those cheaper than the list says."""
    plain, batch = (card_of("gcp.vertex_ai", "claude-sonnet-4-5", service_tier=tier) for tier in (None, "batch"))
    assert batch.cost({"tokens_in": 300_000}) == plain.cost({"tokens_in": 300_000})
    assert batch.cost({"tokens_in": 100_000}) < plain.cost({"tokens_in": 100_000})


# ---- regions


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://bedrock-runtime.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/model/x", "us-gov-west-1"),
        ("https://bedrock-mantle.us-east-1.api.aws/v1", "us-east-1"),
        ("https://us-east5-aiplatform.googleapis.com", "us-east5"),
        ("https://aiplatform.eu.rep.googleapis.com", "eu"),
        ("https://aiplatform.googleapis.com", "global"),
        ("https://eu.api.openai.com/v1", "eu"),
        ("https://api.openai.com/v1", None),
        ("https://dashscope.aliyuncs.com", "cn"),
        ("https://dashscope-intl.aliyuncs.com", "intl"),
        ("https://ws1.ap-southeast-1.maas.aliyuncs.com", "intl"),
        ("https://ws1.cn-beijing.maas.aliyuncs.com/x", "cn"),
        ("dashscope-us.aliyuncs.com", "us"),
        ("https://notbedrock-runtime.example.com", None),
        ("https://[bad", None),
        (None, None),
    ],
)
def test_the_host_tells_the_region(url, region):
    """Addresses of regional endpoints name their region; others name none."""
    assert region_of(host_of(url)) == region


@pytest.mark.parametrize(
    ("provider", "model", "url", "factor"),
    [
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "https://us-east5-aiplatform.googleapis.com", "1.1"),
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "https://aiplatform.googleapis.com", "1"),
        ("gcp.vertex_ai", "gemini-2.5-flash", "https://us-east5-aiplatform.googleapis.com", "1"),
        ("openai", "gpt-5.5", "https://eu.api.openai.com/v1", "1.1"),
        ("openai", "gpt-4o", "https://eu.api.openai.com/v1", "1"),
    ],
)
def test_a_region_that_costs_more_does(provider, model, url, factor):
    """Regional endpoints and data residency raise the prices of the models that have an uplift, and of no others."""
    usage = {"tokens_in": 1000, "tokens_out": 1000}
    there = card_of(provider, model, base_url=url)
    assert there.cost(usage) == card_of(provider, model).cost(usage) * Decimal(factor)
    assert ("region" in there.rates()) == (factor != "1")


def test_a_region_can_be_named():
    """What no host tells can be said: a named region goes before the host's."""
    named = card_of("openai", "gpt-5.5", base_url="https://api.openai.com", region="us")
    assert named.rates()["region"] == "us"
    assert named.rates()["input_mtok"] == "5.5"


def test_a_price_list_of_a_region_goes_before_the_common_one():
    """Bedrock's and Alibaba's lists by region hold at the hosts of the region."""
    tokyo = card_of("aws.bedrock", "deepseek.v3.2", base_url="https://bedrock-runtime.ap-northeast-1.amazonaws.com")
    virginia = card_of("aws.bedrock", "deepseek.v3.2", base_url="https://bedrock-runtime.us-east-1.amazonaws.com")
    assert tokyo.rates()["region"] == "ap-northeast-1"
    assert tokyo.cost({"tokens_in": 1000}) > virginia.cost({"tokens_in": 1000})
    beijing = card_of("dashscope", "qwen-max", base_url="https://dashscope.aliyuncs.com")
    singapore = card_of("dashscope", "qwen-max", base_url="https://dashscope-intl.aliyuncs.com")
    assert beijing.cost({"tokens_in": 1000}) < singapore.cost({"tokens_in": 1000})
    assert (beijing.notes, singapore.notes) == ((), ())


def test_the_list_of_another_region_is_flagged():
    """Where only the prices of Singapore are known, a call in Beijing is priced by them, and that is a doubt."""
    card = card_of("dashscope", "qwen3-max", base_url="https://dashscope.aliyuncs.com")
    assert any("'cn'" in note and "'intl'" in note for note in card.notes)
    assert any("not known" in note for note in card_of("dashscope", "deepseek-v3").notes)


# ---- doubts


@pytest.mark.parametrize(
    ("usage", "word"),
    [
        ({"tokens_in": 10, "tokens_cache_read": 30}, "tokens_cache_read are more than tokens_in"),
        (
            {"tokens_in": 10, "tokens_cache_read": 6, "tokens_cache_write": 6},
            "tokens_cache_read, tokens_cache_write are more",
        ),
        ({"tokens_in": 10, "tokens_out": 5, "tokens_reasoning": 6}, "more than tokens_out"),
        ({"tokens_in": 10, "tokens_cache_write": 4, "tokens_cache_write_1h": 11}, "tokens_cache_write_1h are"),
        ({"tokens_in": 10, "tokens_out": -3}, "tokens_out is below 0"),
    ],
)
def test_a_usage_that_contradicts_itself_is_flagged(usage, word):
    """More in the parts than in the whole, or less than nothing: the cost is cut to what can be, and says so."""
    card = made(input_mtok="1", output_mtok="1", cache_write_1h_mtok="2")
    assert any(word in doubt for doubt in card.doubts(usage))


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"tokens_in": 10, "tokens_out": 5, "tokens_cache_read": 10},
        {"tokens_in": 10, "tokens_cache_write": 9, "tokens_cache_write_1h": 9},
        {"tokens_in": 10, "tokens_audio_in": 7, "tokens_cache_read": 5, "tokens_audio_cache_read": 5},
        {"tokens_cache_read": 10},
        {"tokens_out": 9, "tokens_reasoning": 9},
    ],
)
def test_a_usage_that_is_sound_is_not(usage):
    """Parts may make up all of a total, be parts of one another, or stand for a total that is not told."""
    card = made(input_mtok="1", output_mtok="1", input_audio_mtok="3")
    assert card.doubts(usage) == ()


def test_a_list_that_has_a_model_cost_nothing_is_doubted():
    """A zero of a list is flagged; not so one that the user gave, one of what was not used, and a cost too small."""
    zero, free = made(input_mtok="0"), rate_card({}, provider="p", model="m", source="override", free=True)
    assert any("list:1" in doubt for doubt in zero.doubts({"tokens_in": 5}))
    assert zero.doubts({"tokens_in": 0}) == ()
    assert free.doubts({"tokens_in": 5}) == ()
    assert made(input_mtok="0", source="override").doubts({"tokens_in": 5}) == ()
    assert made(input_mtok="0.0001").cost({"tokens_in": 1}) == 0
    assert made(input_mtok="0.0001").doubts({"tokens_in": 1}) == ()


def test_a_detail_that_is_charged_as_any_other_is_doubted():
    """Where a unit has prices by detail, one without its own, or none told, may not be what the provider charges."""
    card = made(images_kcount="40", **{"images_kcount:hd": "80"})
    assert card.doubts({"images": 1, "images:hd": 1}) == ()
    assert any("'images:4k:hd'" in doubt for doubt in card.doubts({"images": 1, "images:4k:hd": 1}))
    assert any("tells none" in doubt for doubt in card.doubts({"images": 1}))
    assert made(images_kcount="40").doubts({"images": 1, "images:hd": 1}) == ()
