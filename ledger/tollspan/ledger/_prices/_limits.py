"""The most output tokens that a model of OpenAI or Anthropic gives in one choice, by the family that it is of.

Figures: `max_output_tokens` in litellm's `model_prices_and_context_window` (MIT). Another host of the same model may
stop earlier. Models of other vendors have theirs in `extras.json`, each under its own name. A model that is not listed
has no known maximum: None, not a guess.
"""

import re

_128K = 128_000

# A name begins with its entry, and the entry ends where a word of the name ends; the longest such entry wins.
# So `gpt-4o-2024-08-06` is `gpt-4o`, `gpt-5.1-codex` is `gpt-5`, and `gpt-4o` is not `gpt-4`.
_MAX_OUTPUT_TOKENS = {
    "babbage-002": 4096,
    "davinci-002": 4096,
    "gpt-3.5-turbo": 4096,
    "gpt-35-turbo": 4096,  # as Azure spells it
    "gpt-4": 4096,
    "gpt-4.1": 32_768,
    "gpt-4.5": 16_384,
    "gpt-4o": 16_384,
    "gpt-4o-2024-05-13": 4096,
    "gpt-4o-realtime": 4096,
    "gpt-4o-mini-realtime": 4096,
    "gpt-4o-transcribe": 2000,
    "gpt-4o-mini-transcribe": 2000,
    "gpt-5": _128K,
    "gpt-5-chat": 16_384,
    "gpt-5.1-chat": 16_384,
    "gpt-5.2-chat": 16_384,
    "gpt-5.3-chat": 16_384,
    "gpt-5-pro": 272_000,
    "gpt-6": _128K,
    "chat-latest": _128K,
    "daybreak": _128K,
    "gpt-daybreak": _128K,
    "gpt-audio": 16_384,
    "gpt-realtime": 4096,
    "gpt-realtime-2": 32_000,
    "gpt-realtime-translate": 2000,
    "computer-use-preview": 1024,
    "o1": 100_000,
    "o1-mini": 65_536,
    "o1-preview": 32_768,
    "o3": 100_000,
    "o4-mini": 100_000,
    "claude-3-haiku": 4096,
    "claude-3-opus": 4096,
    "claude-3-sonnet": 4096,
    "claude-3-5": 8192,
    "claude-3-7-sonnet": 64_000,  # 128,000 with the beta header output-128k-2025-02-19
    "claude-haiku-4-5": 64_000,
    "claude-haiku-5": _128K,
    "claude-sonnet-4": 64_000,
    "claude-sonnet-4-6": _128K,
    "claude-sonnet-5": _128K,
    "claude-opus-4": 32_000,
    "claude-opus-4-5": 64_000,
    "claude-opus-4-6": _128K,
    "claude-opus-4-7": _128K,
    "claude-opus-4-8": _128K,
    "claude-opus-5": _128K,
    "claude-fable-5": _128K,
    "claude-mythos": _128K,
}
_LONGEST_FIRST = tuple(sorted(_MAX_OUTPUT_TOKENS.items(), key=lambda entry: -len(entry[0])))
_BEDROCK_VENDOR = re.compile(r"^(?:[a-z]+(?:-[a-z]+)?\.)?(?:anthropic|openai)\.")


def max_output_tokens(model: str) -> int | None:
    """Look up the maximum output tokens of one choice by the name of the model; None where it is not known.

    Names are taken as APIs and gateways write them: fine-tuned (`ft:`), with a path before them, in the spelling of
    Bedrock or Vertex, and with a dot in the version (`anthropic/claude-opus-4.5`).
    """
    name = _plain(model)
    for entry, tokens in _LONGEST_FIRST:
        if name.startswith(entry) and not name[len(entry) : len(entry) + 1].isalnum():
            return tokens
    return None


def _plain(model: str) -> str:
    name = model.strip().lower().rpartition("/")[2].removeprefix("ft:")
    name = _BEDROCK_VENDOR.sub("", name)
    return name.replace(".", "-") if name.startswith("claude-") else name
