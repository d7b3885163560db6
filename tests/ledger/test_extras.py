"""The table of prices that comes with tollspan: that it can be used as it is, and what it says."""

import importlib
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tollspan.ledger import PriceBook, RateCard
from tollspan.ledger._prices import _extras

AT = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
SINGAPORE, BEIJING = "https://dashscope-intl.aliyuncs.com", "https://dashscope.aliyuncs.com"
TOOLS = Path(__file__).resolve().parents[2] / "tools"
BOOK = PriceBook()


def card_of(provider, model, **more) -> RateCard:
    found = BOOK.resolve(provider=provider, model=model, at=AT, **more)
    assert isinstance(found, RateCard), found
    return found


@pytest.fixture(scope="module")
def tool():
    """The script that makes the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        return importlib.import_module("price_lists")


@pytest.fixture(scope="module")
def document():
    return json.loads(_extras.FILE.read_text(encoding="utf-8"))


def test_every_entry_of_the_file_can_be_used_and_has_a_source(tool, document):
    """Prices are above 0 and of a unit, no model stands twice, and each group names a source with a date."""
    assert list(tool.faults(document)) == []
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", source["as_of"]) for source in document["sources"].values())
    assert all(source["url"].startswith("https://") for source in document["sources"].values())


def test_a_fault_in_the_file_is_found(tool, document):
    """The check fails for a price of 0, a key that no unit has, a source that is none, and a model that is twice."""
    entry = {"prices": {"input_mtok": "0", "teapots_kcount": "1"}}
    group = {"source": "nobody", "provider": "p", "models": {"m": entry}}
    faults = list(tool.faults(document | {"groups": [group, group]}))
    assert any("not above 0" in fault for fault in faults)
    assert any("'teapots_kcount'" in fault for fault in faults)
    assert any("'nobody'" in fault for fault in faults)
    assert any("two groups" in fault for fault in faults)


def test_dearer_context_never_comes_first(document):
    """The prices of an entry grow with the input tokens above which they hold, as those of every vendor do."""
    for group in document["groups"]:
        for model, entry in group["models"].items():
            for key, price in entry.get("prices", {}).items():
                steps = _extras.steps_of(price)
                assert [usd for _, usd in steps] == sorted(usd for _, usd in steps), (group["provider"], model, key)
                assert [start for start, _ in steps] == sorted({start for start, _ in steps})


def test_every_model_of_alibaba_in_the_table_is_priced(document):
    """Whatever the table has of DashScope resolves to a card with the table's prices, in its region."""
    hosts = {"": SINGAPORE, "cn": BEIJING}
    groups = [group for group in document["groups"] if group["provider"] == "dashscope"]
    for group in groups:
        for model, entry in group["models"].items():
            card = card_of("dashscope", model, base_url=hosts[group.get("region", "")])
            assert card.source.startswith("extras:")
            rates = card.rates()
            for key, price in entry["prices"].items():
                assert Decimal(rates[key]) == _extras.steps_of(price)[0][1], model
    assert sum(len(group["models"]) for group in groups) > 100


@pytest.mark.parametrize(
    ("tokens", "usd"), [(32_000, "1.2"), (32_001, "2.4"), (128_000, "2.4"), (128_001, "3"), (252_000, "3")]
)
def test_the_tier_that_a_prompt_reaches_holds_for_all_of_it(tokens, usd):
    """Qwen's tiers: one token over a start changes the rate of every token of the call."""
    cost = card_of("dashscope", "qwen3-max", base_url=SINGAPORE).cost({"tokens_in": tokens})
    assert cost == tokens * int(Decimal(usd) * 1000)


@pytest.mark.parametrize(("thought", "nano"), [(0, 100 * 1_200), (60, 100 * 4_000)])
def test_an_answer_that_thinks_costs_the_price_of_thinking_as_a_whole(thought, nano):
    """Alibaba has one price for answers without thinking, and one for all output of those with it."""
    card = card_of("dashscope", "qwen-plus-2025-04-28", base_url=SINGAPORE)
    assert card.cost({"tokens_out": 100, "tokens_reasoning": thought}) == nano


@pytest.mark.parametrize(
    ("provider", "model", "usage", "usd"),
    [
        ("openai", "dall-e-3", {"images": 1, "images:1024x1024": 1}, "0.04"),
        ("openai", "dall-e-3", {"images": 2, "images:1792x1024:hd": 2}, "0.24"),
        ("openai", "dall-e-3", {"images": 1, "images:hd": 1}, "0.08"),
        ("openai", "dall-e-2", {"images": 3, "images:512x512": 3}, "0.054"),
        ("openai", "gpt-image-1", {"images": 1, "images:1024x1024:high": 1}, "0.167"),
        ("openai", "sora-2", {"video_seconds": 4, "video_seconds:720x1280": 4}, "0.4"),
        ("openai", "sora-2-pro", {"video_seconds": 8, "video_seconds:1792x1024": 8}, "4"),
        ("openai", "tts-1", {"characters_in": 1000}, "0.015"),
        ("openai", "whisper-1", {"audio_seconds": 60}, "0.006"),
        ("gcp.gemini", "models/imagen-4.0-ultra-generate-001", {"images": 2}, "0.12"),
        ("gcp.gemini", "veo-3.1-generate-preview", {"video_seconds": 8, "video_seconds:4k": 8}, "4.8"),
        ("gcp.gemini", "veo-3.1-generate-preview", {"video_seconds": 8, "video_seconds:720p": 8}, "3.2"),
        ("gcp.vertex_ai", "veo-3.1-fast-generate-001", {"video_seconds": 8, "video_seconds:1080p": 8}, "0.96"),
        ("dashscope", "wan2.7-t2v", {"video_seconds": 5, "video_seconds:720p": 5}, "0.5"),
        ("dashscope", "qwen-image-2.0", {"images": 1}, "0.035"),
        ("dashscope", "qwen3-tts-flash", {"characters_in": 100_000}, "1"),
        ("dashscope", "text-embedding-v4", {"tokens_in": 10**6, "tokens_out": 0}, "0.07"),
        ("mistral_ai", "mistral-ocr-latest", {"document_pages": 10}, "0.04"),
        ("cohere", "rerank-v3.5", {"rerank_searches": 3}, "0.006"),
        ("aws.bedrock", "amazon.nova-canvas-v1:0", {"images": 1}, "0.06"),
        ("x_ai", "grok-imagine-image", {"images": 1}, "0.02"),
        ("replicate", "black-forest-labs/flux-schnell", {"images": 1000}, "3"),
    ],
)
def test_what_is_billed_by_the_piece_has_a_price(provider, model, usage, usd):
    """Images by size and quality, seconds, characters, pages and searches have a price as the readers count them."""
    card = card_of(provider, model, base_url=SINGAPORE if provider == "dashscope" else None)
    assert (card.cost(usage), card.doubts(usage)) == (int(Decimal(usd) * 10**9), ())


@pytest.mark.parametrize(
    ("provider", "model", "window", "output"),
    [
        ("gcp.gemini", "models/gemini-2.5-flash", 1_048_576, 65_536),
        ("mistral_ai", "mistral-large-latest", 262_144, 262_144),
        ("dashscope", "qwen3-max", 262_144, 65_536),
        ("deepseek", "deepseek-chat", 1_000_000, 384_000),
        ("x_ai", "grok-4", 256_000, 256_000),
        ("aws.bedrock", "us.amazon.nova-pro-v1:0", 300_000, 10_000),
        ("groq", "llama-3.3-70b-versatile", 131_072, 32_768),
        ("openrouter", "google/gemini-2.5-pro", 1_048_576, 65_536),
    ],
)
def test_limits_of_models_are_known(provider, model, window, output):
    """Context window and largest output come from the lists for other vendors than OpenAI and Anthropic, too."""
    card = card_of(provider, model)
    assert (card.context_window, card.max_output_tokens) == (window, output)


def test_the_tool_reads_a_list(tool, tmp_path):
    """Prices become exact decimals; tiers, steps, regions and sizes find their places, and zeros do not."""
    entries = {
        "dashscope/q": {
            "litellm_provider": "dashscope",
            "mode": "chat",
            "max_output_tokens": 9,
            "tiered_pricing": [
                {"range": [0, 32000.0], "input_cost_per_token": 1.2e-06},
                {"range": [32000.0, 64000.0], "input_cost_per_token": 2.4e-06},
            ],
            "output_cost_per_token": 0.0,
        },
        "zero": {"litellm_provider": "cohere", "mode": "chat", "input_cost_per_token": 0.0},
        "newone": {
            "litellm_provider": "bedrock",
            "mode": "chat",
            "input_cost_per_token": 2e-06,
            "input_cost_per_token_above_200k_tokens": 4e-06,
            "input_cost_per_token_batches": 1e-06,
        },
        "bedrock/eu-north-1/newone": {"litellm_provider": "bedrock", "mode": "chat", "input_cost_per_token": 3e-06},
        "hd/1024-x-1792/dall-e-9": {"litellm_provider": "openai", "input_cost_per_pixel": 6.539e-08},
        "azure/tts": {"litellm_provider": "azure", "mode": "audio_speech", "input_cost_per_character": 1.5e-05},
    }
    (tmp_path / "list.json").write_text(json.dumps(entries), encoding="utf-8")
    table = tool.Table()
    tool.add_litellm(table, "here", tool.Litellm(tmp_path / "list.json"), {})
    assert dict(table.groups) == {
        ("here", "dashscope", ""): {"q": {"prices": {"input_mtok": {"0": "1.2", "32000": "2.4"}}}},
        ("here", "aws", ""): {
            "newone": {
                "prices": {"input_mtok": {"0": "2", "200000": "4"}},
                "service_tiers": {"batch": {"input_mtok": "1"}},
            }
        },
        ("here", "aws", "eu-north-1"): {"newone": {"prices": {"input_mtok": "3"}}},
        ("here", "openai", ""): {"dall-e-9": {"prices": {"images_kcount:1024x1792:hd": "120"}}},
        ("here", "azure", ""): {"tts": {"prices": {"input_mchars": "15"}}},
    }
    assert table.limits["dashscope"] == {"q": [None, 9]}


def test_the_larger_limit_of_two_lists_counts(tool):
    """A limit bounds what is held for a call, and so the list with the smaller one must not win."""
    table = tool.Table()
    table.add_limits("p", "m", 1000, None)
    table.add_limits("p", "m", 900, 80)
    table.add_limits("p", "m", 0, 70)
    assert table.limits["p"]["m"] == [1000, 80]


def test_the_file_has_a_line_for_each_model(tool, document):
    """What the tool writes is what is there, so that a difference shows which models have changed."""
    assert tool.written(document) == _extras.FILE.read_text(encoding="utf-8")
