"""The maximum output of a model, by its name in any spelling."""

import pytest

from tollspan.ledger._prices._limits import _MAX_OUTPUT_TOKENS, max_output_tokens


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-4o", 16_384),
        ("gpt-4o-2024-08-06", 16_384),
        ("gpt-4o-2024-05-13", 4096),
        ("gpt-4", 4096),
        ("gpt-4-turbo-2024-04-09", 4096),
        ("gpt-4.1-nano", 32_768),
        ("gpt-5.1-codex-max", 128_000),
        ("gpt-5-2025-08-07", 128_000),
        ("gpt-5.2-chat-latest", 16_384),
        ("gpt-5-pro-2025-10-06", 272_000),
        ("gpt-6.1-sol", 128_000),
        ("gpt-realtime-2025-08-28", 4096),
        ("gpt-realtime-2.1-mini", 32_000),
        ("o1-mini-2024-09-12", 65_536),
        ("o3-deep-research", 100_000),
        ("gpt-3.5-turbo-0125", 4096),
        ("claude-3-haiku-20240307", 4096),
        ("claude-3-5-sonnet-latest", 8192),
        ("claude-3-7-sonnet-20250219", 64_000),
        ("claude-sonnet-4-20250514", 64_000),
        ("claude-opus-4-1-20250805", 32_000),
        ("claude-opus-4-5-20251101", 64_000),
        ("claude-opus-4-8", 128_000),
        ("claude-sonnet-5-5", 128_000),
    ],
)
def test_the_longest_entry_that_ends_where_a_word_ends_wins(model, tokens):
    """A dated or named variant has the maximum of its family unless it has an entry of its own."""
    assert max_output_tokens(model) == tokens


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("ft:gpt-4o-mini-2024-07-18:org::id", 16_384),
        ("openai/gpt-4o", 16_384),
        ("OpenRouter/Anthropic/Claude-Opus-4.5", 64_000),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 64_000),
        ("us-gov.anthropic.claude-3-haiku-20240307-v1:0", 4096),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-6-v1", 128_000),
        ("claude-sonnet-4-5@20250929", 64_000),
    ],
)
def test_names_are_read_as_gateways_and_clouds_spell_them(model, tokens):
    """Paths, vendors, fine-tuning marks, versions with a dot and upper case do not hide a known model."""
    assert max_output_tokens(model) == tokens


@pytest.mark.parametrize(
    "model", ["", "gpt-oss-120b", "gpt-44", "o1x", "llama-3.3-70b", "gemini-2.5-flash", "claude-2.1"]
)
def test_an_unlisted_model_has_no_known_maximum(model):
    """A name that only looks like an entry, or that no entry knows, gives None and no guess."""
    assert max_output_tokens(model) is None


@pytest.mark.parametrize("entry", _MAX_OUTPUT_TOKENS)
def test_every_entry_is_reachable_under_its_own_name(entry):
    """No entry is hidden by another one or by the spelling rules."""
    assert max_output_tokens(entry) == _MAX_OUTPUT_TOKENS[entry]
